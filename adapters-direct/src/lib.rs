//! Adapters that talk to a backend without a sidecar, one Cargo feature each.

#[cfg(feature = "http")]
pub mod http;
