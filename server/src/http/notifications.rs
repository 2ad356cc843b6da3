//! What has been notified, as a list: of the local inbox, and of the notification service.

use std::fmt::{self, Debug};
use std::sync::Arc;

use async_trait::async_trait;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use task_core::domain::Timestamp;
use task_core::ports::PortError;
use utoipa::ToSchema;

use super::error::Problem;
use crate::telemetry;

/// Most notifications that a list shows: the latest ones.
pub(crate) const MAX_LISTED: usize = 1_000;

/// Something that has received notifications.
#[async_trait]
pub trait Inbox: Debug + Send + Sync + 'static {
    /// The latest notifications, at most `limit`, oldest first, and how many there were in all.
    ///
    /// # Errors
    /// As the store behind it fails.
    async fn latest(&self, limit: usize) -> Result<Received, PortError>;
}

/// The latest notifications of an inbox.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Notifications)]
pub struct Received {
    /// How many were received in all, each idempotency key once.
    pub count: u64,
    /// The latest ones, oldest first.
    pub notifications: Vec<ReceivedNotification>,
}

/// A notification that was received.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ReceivedNotification {
    /// The key that it came with.
    #[schema(required = true)]
    pub idempotency_key: Option<Box<str>>,
    /// When it came, in UTC with microseconds.
    #[serde(serialize_with = "as_text")]
    #[schema(value_type = String, format = DateTime)]
    pub received_at: Timestamp,
    /// Its JSON object, as it was sent.
    #[serde(serialize_with = "as_sent")]
    #[schema(value_type = Object)]
    pub notification: Arc<RawValue>,
}

fn as_text<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn as_sent<S: Serializer>(value: &Arc<RawValue>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_ref().serialize(serializer)
}

/// Answers with the latest notifications of an inbox.
pub(crate) async fn list(inbox: &dyn Inbox) -> Result<Response, Problem> {
    // No layer stands around an inbox and tells of its outages.
    let received = inbox.latest(MAX_LISTED).await.map_err(|error| {
        telemetry::log_failure("notifications cannot be read", &error);
        Problem::of_logged(&error)
    })?;
    let bytes = serde_json::to_vec(&received).expect("notifications are JSON already");
    let mut response = bytes.into_response();
    let media_type = HeaderValue::from_static("application/json");
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, media_type);
    Ok(response)
}
