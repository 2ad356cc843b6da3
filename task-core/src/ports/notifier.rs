//! The notifier port: one message to one receiver, safe to repeat.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;

use super::PortError;

/// One notification. Its body is JSON, built by the core, so that every adapter sends the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// The same for every attempt; a receiver that honours it sees the notification once.
    pub idempotency_key: Box<str>,
    /// A JSON object.
    pub body: Bytes,
}

/// Sends notifications.
///
/// # Contract
/// - **N1** A notification that was accepted MUST have reached the receiver with key and body
///   unchanged. (`an_accepted_notification_arrives_unchanged`)
/// - **N2** The same key sent again MUST succeed, and MUST NOT show twice at a receiver that honours
///   the key. (`a_repeated_key_arrives_once`)
/// - **N3** A notification that was not accepted MUST be an error. (`a_refusal_is_an_error`)
/// - **N4** A receiver that says "never" MUST be told apart from one that says "not now": the first
///   answers [`Retry::Never`](super::Retry::Never), the second does not.
///   (`never_and_not_now_are_told_apart`)
///
/// # Errors
/// `Invalid` when the receiver refuses this message for good; `Denied` when it does not let us in, which
/// no later attempt heals by itself; `Unavailable`, `Timeout` and `Throttled` when a later attempt may succeed.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Notifier: Debug + Send + Sync + 'static {
    /// Sends one notification and returns once the receiver has accepted it.
    async fn notify(&self, notification: &Notification) -> Result<(), PortError>;

    /// Says whether the receiver can be reached, without sending anything.
    async fn check(&self) -> Result<(), PortError>;
}
