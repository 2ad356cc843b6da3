//! Notifications by HTTP POST, to one receiver.
//!
//! `POST {base}/notify` with the notification's JSON as the body and its key as `Idempotency-Key`.
//! The receiver has accepted the notification once it answers 2xx; what else it may answer is the
//! table of `error.rs`. A redirect is a refusal: a notification goes where the configuration says,
//! and nowhere else, also not through a proxy that an environment variable names.
//!
//! One call is one attempt. Wrap the notifier in a
//! [`GuardedNotifier`](task_core::layer::GuardedNotifier) for retries and a circuit breaker, whose
//! timeout is longer than [`HttpConfig::deadline`], so that the error names what was slow.
//!
//! TLS is rustls with the `ring` provider, given to this client alone: the process-wide default
//! provider is neither needed nor touched. Certificates are checked against the machine's roots.
//!
//! *Source:* RFC 9110; `draft-ietf-httpapi-idempotency-key-header-07`.

mod config;
mod error;
mod notifier;
#[cfg(test)]
mod tests;

pub use config::{AddressError, HttpConfig};
pub use notifier::HttpNotifier;
