#![doc = include_str!("guide.md")]

pub mod domain;
pub mod episode;
pub mod ports;

pub mod application;

pub mod agent;
pub mod saga;

pub mod layer;

pub mod migration;

pub mod background;
pub mod carried;
pub mod dispatch;
pub mod memory;
