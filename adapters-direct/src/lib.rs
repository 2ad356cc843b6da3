//! Adapters that talk to a backend without a sidecar, one Cargo feature each.
//!
//! | feature | ports | needs |
//! | --- | --- | --- |
//! | `embedded` (default) | state store, event bus, notifier | nothing: one SQLite file |
//! | `http` | notifier | a receiver's address |

#[cfg(feature = "embedded")]
pub mod embedded;
#[cfg(feature = "http")]
pub mod http;
