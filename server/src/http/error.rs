//! Refusals as `application/problem+json`.
//!
//! The replaced service answered `{"detail": "..."}`; `detail` therefore always carries the human
//! sentence. Causes are logged, once, and never shown. *Source:* RFC 9457.

use std::borrow::Cow;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use task_core::application::TaskError;
use task_core::domain::{EntityTag, FieldError, TaskId};
use task_core::ports::{ErrorKind, Outcome, PortError};
use utoipa::ToSchema;

use super::conditional;
use crate::telemetry;

/// Seconds after which a client that was refused for now may come again.
const RETRY_AFTER_SECONDS: u16 = 1;

/// What the core calls itself in errors of a move.
const MOVE: &str = "migration";

/// A refusal on its way to the client.
#[derive(Debug)]
pub struct Problem(Box<Refusal>);

#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    retry_after: Option<u16>,
    current: Option<EntityTag>,
}

/// Why a request was refused (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody<'a> {
    /// Always `about:blank`: the status says it all.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: &'static str,
    /// The status in words.
    #[schema(example = "Unprocessable Entity")]
    title: &'a str,
    /// The status as a number.
    #[schema(example = 422)]
    status: u16,
    /// What is wrong, as a sentence for people.
    #[schema(example = "the request has 1 invalid field")]
    detail: &'a str,
    /// What is wrong, field by field; only with status 422.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldProblem<'a>>,
}

/// One field that breaks a rule.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FieldProblem<'a> {
    /// The field, as a JSON pointer.
    #[schema(example = "/title")]
    pointer: String,
    /// The limit and the value.
    #[schema(example = "a title has 1 to 200 characters, this one has 0")]
    detail: &'a str,
}

impl Problem {
    /// A refusal with a status and a sentence.
    pub fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Refusal {
            status,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
            current: None,
        }))
    }

    /// A 400 with a sentence.
    pub fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// The 404 of a task, character for character as the replaced service wrote it.
    #[must_use]
    pub fn task_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Task not found")
    }

    /// A 503 that asks the client to come again in a second.
    pub fn busy(detail: impl Into<Cow<'static, str>>) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, detail);
        problem.0.retry_after = Some(RETRY_AFTER_SECONDS);
        problem
    }

    /// A 422 with all the fields that are wrong, at least one.
    #[must_use]
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let mut problem = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            match errors.len() {
                1 => "the request has 1 invalid field".to_owned(),
                count => format!("the request has {count} invalid fields"),
            },
        );
        problem.0.errors = errors;
        problem
    }

    /// A refusal of a use case on one task.
    #[must_use]
    pub fn of_task(id: &TaskId, error: TaskError) -> Self {
        let TaskError::Store(cause) = &error else {
            return error.into();
        };
        if cause.kind() != ErrorKind::Corrupt {
            return error.into();
        }
        telemetry::log_failure("stored task cannot be read", cause);
        let detail = format!(
            "what is stored for the task {id} cannot be read; \
             restore it, or remove it with DELETE without If-Match"
        );
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// A failed call of the store: 503 where another attempt may succeed, otherwise 500. Logs the cause,
    /// unless the layer around the store has told of it.
    #[must_use]
    pub fn of_port(error: &PortError) -> Self {
        log(error);
        Self::of_logged(error)
    }

    /// As [`of_port`](Self::of_port), of a failure that is in the log already.
    #[must_use]
    pub fn of_logged(error: &PortError) -> Self {
        let passing = matches!(
            error.kind(),
            ErrorKind::Unavailable | ErrorKind::Throttled | ErrorKind::Timeout | ErrorKind::Fenced
        );
        if error.kind() == ErrorKind::Invalid {
            let detail = "the task with all that is stored with it exceeds a limit of the store";
            return Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
        }
        // What a move refuses before anything was tried has words of ours, which say what to do.
        if passing && error.outcome() == Outcome::NotMade && error.backend() == MOVE {
            let detail = error.detail();
            return Self::busy(format!("nothing was changed: {detail}"));
        }
        match (passing, error.outcome()) {
            (true, Outcome::NotMade | Outcome::NotApplied) => {
                Self::busy("the task store cannot be used at the moment; nothing was changed")
            }
            (true, Outcome::Unknown) => Self::busy(
                "the task store did not answer; it is unknown whether the change took effect",
            ),
            (false, Outcome::NotMade | Outcome::NotApplied) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "an internal error")
            }
            (false, Outcome::Unknown) => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "an internal error; it is unknown whether the change took effect",
            ),
        }
    }
}

/// Tells of a failed call of the store, once: here, or in the layer that told of an outage for all requests.
fn log(error: &PortError) {
    let is_outage = matches!(
        error.kind(),
        ErrorKind::Unavailable
            | ErrorKind::Throttled
            | ErrorKind::Timeout
            | ErrorKind::Denied
            | ErrorKind::Unexpected
    );
    let (backend, operation) = (error.backend(), error.operation());
    if error.outcome() == Outcome::Unknown {
        // Whoever repairs needs to know of each.
        let error = telemetry::chain(error);
        tracing::warn!(backend, operation, error, "outcome of a write is unknown");
    } else if error.kind() == ErrorKind::Fenced {
        let error = telemetry::chain(error);
        tracing::warn!(backend, operation, error, "write is fenced off");
    } else if is_outage {
        tracing::debug!(backend, operation, %error, "request failed");
    } else {
        telemetry::log_failure("request failed", error);
    }
}

impl From<TaskError> for Problem {
    fn from(error: TaskError) -> Self {
        match error {
            TaskError::NotFound => Self::task_not_found(),
            TaskError::PreconditionFailed { current } => {
                let mut problem = Self::new(
                    StatusCode::PRECONDITION_FAILED,
                    format!("If-Match does not hold: the task's current tag is \"{current}\""),
                );
                problem.0.current = Some(current);
                problem
            }
            TaskError::KeyReused => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "this Idempotency-Key was used before with another body",
            ),
            TaskError::Deleted => Self::new(
                StatusCode::CONFLICT,
                "the task of this Idempotency-Key was deleted, and a deletion is final",
            ),
            TaskError::Contended { attempts } => Self::busy(format!(
                "other writers were faster {attempts} times; nothing was changed"
            )),
            TaskError::Store(error) => Self::of_port(&error),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let refusal = *self.0;
        let body = ProblemBody {
            kind: "about:blank",
            title: refusal.status.canonical_reason().unwrap_or("Error"),
            status: refusal.status.as_u16(),
            detail: &refusal.detail,
            errors: refusal.errors.iter().map(FieldProblem::of).collect(),
        };
        let bytes = serde_json::to_vec(&body).expect("a problem has only strings and numbers");
        let mut response = (refusal.status, bytes).into_response();
        let headers = response.headers_mut();
        let media_type = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, media_type);
        if let Some(seconds) = refusal.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(tag) = refusal.current.as_ref().and_then(conditional::header_value) {
            headers.insert(header::ETAG, tag);
        }
        response
    }
}

impl<'a> FieldProblem<'a> {
    fn of(error: &'a FieldError) -> Self {
        let pointer = match error.field {
            "" => String::new(),
            field => format!("/{field}"),
        };
        Self {
            pointer,
            detail: &error.detail,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    /// What is logged above `debug` while a failure is answered.
    fn lines_of(error: &PortError) -> Vec<String> {
        #[derive(Debug, Clone, Default)]
        struct Lines(Arc<Mutex<Vec<u8>>>);

        impl io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                lines.extend(bytes);
                Ok(bytes.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || drop(Problem::of_port(error)));
        let bytes = lines.0.lock().expect("no writer panics");
        let text = String::from_utf8_lossy(&bytes);
        text.lines().map(str::to_owned).collect()
    }

    fn failure(kind: ErrorKind) -> PortError {
        PortError::new(kind, "redis", "commit").caused_by("connection reset")
    }

    #[test]
    fn a_write_of_unknown_outcome_is_one_warning_with_operation_backend_and_cause() {
        for kind in [
            ErrorKind::Timeout,
            ErrorKind::Unavailable,
            ErrorKind::Unexpected,
        ] {
            let lines = lines_of(&failure(kind).unknown_outcome());
            assert_eq!(lines.len(), 1, "{lines:#?}");
            for part in [
                "WARN",
                "outcome of a write is unknown",
                "redis",
                "commit",
                "connection reset",
            ] {
                assert!(lines[0].contains(part), "{part}: {lines:#?}");
            }
        }
    }

    #[test]
    fn an_outage_is_left_to_the_layer_and_everything_else_is_told_here_once() {
        for (kind, level) in [
            (ErrorKind::Unavailable, None),
            (ErrorKind::Timeout, None),
            (ErrorKind::Throttled, None),
            (ErrorKind::Denied, None),
            (ErrorKind::Unexpected, None),
            (ErrorKind::Fenced, Some("WARN")),
            (ErrorKind::Corrupt, Some("ERROR")),
            (ErrorKind::Unsupported, Some("ERROR")),
        ] {
            let lines = lines_of(&failure(kind));
            assert_eq!(lines.len(), usize::from(level.is_some()), "{lines:#?}");
            let level = level.unwrap_or_default();
            assert!(lines.iter().all(|line| line.contains(level)), "{lines:#?}");
        }
    }
}
