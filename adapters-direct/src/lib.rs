//! Adapters that talk to a backend without a sidecar, one Cargo feature each but for secrets.
//!
//! | feature | ports | needs |
//! | --- | --- | --- |
//! | `embedded` (default) | state store, event bus, notifier | nothing: one SQLite file |
//! | `http` | notifier | a receiver's address |
//! | `kafka` | event bus | brokers, shared with the replaced service or with Dapr |
//! | `redis` | state store, event bus | a Redis, shared with the replaced service or with Dapr |
//! | (always) | secret store | variables, a file or a directory |

#[cfg(any(feature = "kafka", feature = "redis"))]
mod config;
#[cfg(any(feature = "kafka", feature = "redis"))]
mod dead_letter;
#[cfg(feature = "embedded")]
pub mod embedded;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "redis")]
pub mod redis;
pub mod secrets;
#[cfg(any(feature = "kafka", feature = "redis"))]
mod trouble;

#[cfg(any(feature = "kafka", feature = "redis"))]
pub use config::{ClientCertificate, ConfigProblem, ConfigProblems};
