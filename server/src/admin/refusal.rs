//! Refusals of the admin routes as `application/problem+json`, with the guard that refused.

use std::borrow::Cow;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use task_core::migration::{Condition, MigrationError};
use task_core::ports::{ErrorKind, PortError};

use crate::telemetry;

/// A refusal on its way to who asked.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    guard: Option<String>,
    detail: Cow<'static, str>,
    conditions: Vec<Condition>,
}

/// A refusal as it is sent (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AdminProblem {
    /// Always `about:blank`.
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    /// The status in words.
    #[serde(default)]
    pub(crate) title: String,
    /// The status as a number.
    #[serde(default)]
    pub(crate) status: u16,
    /// What is wrong, as a sentence.
    #[serde(default)]
    pub(crate) detail: String,
    /// What refused, where something guards the move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) guard: Option<String>,
    /// Everything that was looked at, where that is more than one thing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) conditions: Vec<Condition>,
}

impl Refusal {
    fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            guard: None,
            detail: detail.into(),
            conditions: Vec::new(),
        }
    }

    /// No token, or another one.
    pub(super) fn unauthorized(detail: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    /// Somebody who may not ask.
    pub(super) fn forbidden(detail: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// A request that is not understood.
    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail.into())
    }
}

impl From<MigrationError> for Refusal {
    fn from(error: MigrationError) -> Self {
        match error {
            MigrationError::Refused(refusal) => Self {
                guard: Some(refusal.guard),
                conditions: refusal.conditions,
                ..Self::new(StatusCode::CONFLICT, refusal.detail)
            },
            MigrationError::Usage(detail) => Self::malformed(detail),
            MigrationError::Port(error) => Self::of_port(&error),
        }
    }
}

impl Refusal {
    /// A side that cannot be used. Who asks runs the service, so it is told what is told in the log.
    fn of_port(error: &PortError) -> Self {
        let passes = matches!(
            error.kind(),
            ErrorKind::Unavailable | ErrorKind::Throttled | ErrorKind::Timeout
        );
        match passes {
            true => Self::new(StatusCode::SERVICE_UNAVAILABLE, telemetry::chain(error)),
            false => {
                telemetry::log_failure("admin request failed", error);
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, telemetry::chain(error))
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = AdminProblem {
            kind: "about:blank".to_owned(),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.into_owned(),
            guard: self.guard,
            conditions: self.conditions,
        };
        let bytes = serde_json::to_vec(&body).expect("a problem has only strings and numbers");
        let mut response = (self.status, bytes).into_response();
        let media_type = HeaderValue::from_static("application/problem+json");
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, media_type);
        response
    }
}
