#![doc = include_str!("guide.md")]

pub mod backends;
pub mod broken;
pub mod config;
pub mod conformance;
pub mod criteria;
pub mod history;
pub mod judge;
pub mod model;
pub mod process;
pub mod trials;
pub mod wait;
