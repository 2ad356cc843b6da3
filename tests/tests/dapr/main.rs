//! The real Dapr as a fixture, and the adapters on it, until the Dapr backend needs it in every run.
//!
//! Cargo runs it when it is named: `cargo test -p task-tests --all-features --test dapr`. It builds Dapr on
//! first use, which takes ten minutes.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends at the first surprise, and its name says what it shows"
)]

mod adapters;
mod app;
mod plan_z;
mod resiliency;
mod service;
mod service_faults;
mod service_guide;
mod service_move;
mod service_once;
mod service_python;
mod service_secrets;
mod service_swap;
mod service_tokens;
mod service_trace;
mod stack;
mod state_store;
