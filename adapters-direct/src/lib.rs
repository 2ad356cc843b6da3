//! Adapters that talk to a backend without a sidecar, one Cargo feature each but for secrets.
//!
//! | feature | ports | needs |
//! | --- | --- | --- |
//! | `embedded` (default) | state store, event bus, notifier | nothing: one SQLite file |
//! | `http` | notifier | a receiver's address |
//! | (always) | secret store | variables, a file or a directory |

#[cfg(feature = "embedded")]
pub mod embedded;
#[cfg(feature = "http")]
pub mod http;
pub mod secrets;
