//! Adapters that talk to a Dapr sidecar, and to nothing else.
//!
//! Which store, which bus and where they are is the business of Dapr's components: this crate knows the
//! sidecar's address, and has no client of Redis or Kafka in its tree.

mod config;
mod error;
mod sidecar;

pub use config::{
    Components, ConfigError, DEFAULT_GRPC_PORT, DEFAULT_HTTP_PORT, Problem, SidecarConfig, Token,
};
pub use sidecar::{
    API_TOKEN, Component, CurrentTrace, Metadata, Sidecar, SidecarOptions, Subscribed, TRACEPARENT,
    TraceParent,
};
