//! The Task API as one program: configuration, HTTP, start and stop.
//!
//! This crate drives the core and decides nothing about tasks. [`app`] shows the wiring on a page;
//! tests and other programs use it too, without the command line.

pub mod admin;
pub mod app;
pub mod backend;
pub mod cli;
pub mod clock;
pub mod config;
mod events;
pub mod http;
mod metrics;
pub mod notification_service;
pub mod secrets;
pub mod shutdown;
pub mod telemetry;
pub mod trace;
