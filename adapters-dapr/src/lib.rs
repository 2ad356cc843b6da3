//! Adapters that talk to a Dapr sidecar.
//!
//! Today the crate holds the sidecar's [configuration](SidecarConfig) and nothing else: no port has
//! an adapter here yet.

mod config;

pub use config::{
    Components, ConfigError, DEFAULT_GRPC_PORT, DEFAULT_HTTP_PORT, Problem, SidecarConfig, Token,
};
