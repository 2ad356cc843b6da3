//! What a failed call of the sidecar means: the one mapping of this crate.
//!
//! The sidecar's codes say little: `INTERNAL` is a component that is down as much as one that refuses, and
//! `ABORTED` is a conflict or a lost answer. So a code that may hide a lost answer leaves the outcome of
//! a write unknown, and the state store reads again before it speaks of a conflict.
//!
//! *Source:* daprd 1.16, `pkg/api/errors`, `pkg/messages`; seen on the real one.

use std::error::Error;
use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use task_core::ports::{ErrorKind, PortError};
use tonic::{Code, ConnectError, Status};

pub(crate) const BACKEND: &str = "dapr";

/// Most characters of what the sidecar says that stand in an error.
const MAX_MESSAGE_CHARS: usize = 300;

/// Whether a call may change something, which a lost answer then leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Read,
    Write,
}

/// Everything that can fail here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the address of the sidecar cannot be used")]
    Address(#[source] tonic::transport::Error),
    #[error("the roots of TLS certificates cannot be loaded")]
    Roots(#[source] rustls::Error),
    #[error("the client cannot be built")]
    Client(#[source] reqwest::Error),
    #[error("{0} cannot stand in a header")]
    Header(&'static str),
    #[error("it is starting, or a component of it is not ready")]
    Starting,
    #[error("no answer within {} ms", limit.as_millis())]
    NoAnswer { limit: Duration, effect: Effect },
    /// An answer over gRPC, or what stands in its place where there is none.
    #[error("{}", said(status))]
    Status { status: Box<Status>, effect: Effect },
    #[error("no answer over HTTP")]
    Exchange {
        source: reqwest::Error,
        limit: Duration,
        effect: Effect,
    },
    /// An answer over HTTP other than success, of the sidecar itself or of the app behind it.
    #[error("{0}")]
    Refused(Refusal),
    #[error("{0}")]
    Missing(String),
    #[error("{0}")]
    Unsupported(String),
    #[error("{0}")]
    Conflict(String),
    /// One key of a bulk read could not be read.
    #[error("{}", shortened(.0))]
    Item(String),
    #[error("{0}")]
    Corrupt(String),
}

/// An answer over HTTP other than success.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// What the sidecar says, if it is the sidecar that speaks.
    pub(crate) sidecar: Option<SidecarError>,
    pub(crate) effect: Effect,
}

/// The body of an error of the sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct SidecarError {
    #[serde(rename = "errorCode")]
    pub(crate) code: String,
    #[serde(default)]
    pub(crate) message: String,
}

impl SidecarError {
    /// Reads a body; `None` if it is an app's.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        let error: Self = serde_json::from_slice(body).ok()?;
        error.code.starts_with("ERR_").then_some(error)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.sidecar {
            None => write!(f, "the app answered {}", self.status.as_u16()),
            Some(error) => write!(
                f,
                "the sidecar answered {} {}: {}",
                self.status.as_u16(),
                error.code,
                shortened(&error.message)
            ),
        }
    }
}

impl Failure {
    pub(crate) fn status(status: Status, effect: Effect) -> Self {
        let status = Box::new(status);
        Self::Status { status, effect }
    }

    pub(crate) fn header(what: &'static str) -> Self {
        Self::Header(what)
    }

    pub(crate) fn exchange(source: reqwest::Error, limit: Duration, effect: Effect) -> Self {
        // Its address is ours.
        let source = source.without_url();
        Self::Exchange {
            source,
            limit,
            effect,
        }
    }

    /// The one mapping from the sidecar's errors to the port's.
    pub(crate) fn into_port(self, operation: &'static str) -> PortError {
        let context = self.to_string();
        let new = |kind| PortError::new(kind, BACKEND, operation).context(context.as_str());
        match self {
            Self::Address(source) => new(ErrorKind::Invalid).caused_by(source),
            Self::Roots(source) => new(ErrorKind::Unexpected).caused_by(source),
            Self::Client(source) => new(ErrorKind::Unexpected).caused_by(source),
            Self::Starting => new(ErrorKind::Unavailable),
            Self::NoAnswer { effect, .. } => left_open(new(ErrorKind::Timeout), effect),
            Self::Status { status, effect } => {
                let (kind, opening) = meaning(&status);
                let error = opening.apply(new(kind), effect);
                match std::error::Error::source(&*status).is_some() {
                    true => error.caused_by(*status),
                    false => error,
                }
            }
            Self::Exchange {
                source,
                limit,
                effect,
            } => exchange(new(ErrorKind::Unavailable), source, limit, effect),
            Self::Refused(refusal) => {
                let (kind, opening) = refused(&refusal);
                opening.apply(new(kind), refusal.effect)
            }
            Self::Missing(_) => new(ErrorKind::NotFound),
            Self::Unsupported(_) => new(ErrorKind::Unsupported),
            Self::Conflict(_) => new(ErrorKind::Conflict),
            Self::Item(_) => new(ErrorKind::Unavailable),
            Self::Corrupt(_) => new(ErrorKind::Corrupt),
            Self::Header(_) => new(ErrorKind::Invalid),
        }
    }
}

/// What an answer says of the effect of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// It changed nothing.
    Nothing,
    /// It may have changed something, if it could.
    Open,
}

impl Opening {
    fn apply(self, error: PortError, effect: Effect) -> PortError {
        match self {
            Self::Nothing => error,
            Self::Open => left_open(error, effect),
        }
    }
}

fn left_open(error: PortError, effect: Effect) -> PortError {
    match effect {
        Effect::Read => error,
        Effect::Write => error.unknown_outcome(),
    }
}

/// What a gRPC status means.
fn meaning(status: &Status) -> (ErrorKind, Opening) {
    use Opening::{Nothing, Open};
    let message = status.message();
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => (ErrorKind::Denied, Nothing),
        Code::NotFound => (ErrorKind::NotFound, Nothing),
        Code::AlreadyExists => (ErrorKind::Conflict, Nothing),
        // A component that is not there, or none of its kind; an operator may still add it.
        Code::InvalidArgument if names_no_component(message) => (ErrorKind::Unavailable, Nothing),
        Code::FailedPrecondition => (ErrorKind::Unavailable, Nothing),
        Code::InvalidArgument => (ErrorKind::Invalid, Nothing),
        Code::Unimplemented => (ErrorKind::Unsupported, Nothing),
        // A call that this sidecar does not know is taken for one that an app is meant to answer.
        Code::Unknown if message.contains("dapr-callee-app-id or dapr-app-id not found") => {
            (ErrorKind::Unsupported, Nothing)
        }
        Code::ResourceExhausted if message.contains("larger than max") => {
            (ErrorKind::Invalid, Nothing)
        }
        Code::ResourceExhausted => (ErrorKind::Throttled, Nothing),
        // An answer beyond our own limit.
        Code::OutOfRange => (ErrorKind::Invalid, Open),
        Code::DataLoss => (ErrorKind::Corrupt, Open),
        Code::DeadlineExceeded => (ErrorKind::Timeout, Open),
        Code::Unavailable if has_source::<ConnectError>(status) => {
            (ErrorKind::Unavailable, Nothing)
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable => (ErrorKind::Unavailable, Open),
    }
}

/// Says whether the sidecar means that a component is missing.
fn names_no_component(message: &str) -> bool {
    message.contains("is not found") || message.contains("failed finding secret store")
}

/// What an answer over HTTP means.
fn refused(refusal: &Refusal) -> (ErrorKind, Opening) {
    use Opening::{Nothing, Open};
    let says = |text: &str| {
        let error = refusal.sidecar.as_ref();
        error.is_some_and(|error| error.message.contains(text))
    };
    match refusal.status.as_u16() {
        401 | 403 => (ErrorKind::Denied, Nothing),
        // The sidecar speaks of a component or an app id, an app of its own route.
        404 if refusal.sidecar.is_some() => (ErrorKind::NotFound, Nothing),
        408 => (ErrorKind::Timeout, Nothing),
        425 => (ErrorKind::Unavailable, Nothing),
        429 => (ErrorKind::Throttled, Nothing),
        503 => (ErrorKind::Unavailable, Nothing),
        504 => (ErrorKind::Timeout, Open),
        500 if says("circuit breaker is open") => (ErrorKind::Unavailable, Nothing),
        500 if says("no host found") || says("couldn't find service") => {
            (ErrorKind::Unavailable, Nothing)
        }
        500 if says("deadline exceeded") => (ErrorKind::Timeout, Open),
        500..=599 => (ErrorKind::Unavailable, Open),
        _ => (ErrorKind::Invalid, Nothing),
    }
}

fn exchange(
    error: PortError,
    source: reqwest::Error,
    limit: Duration,
    effect: Effect,
) -> PortError {
    let error = if source.is_connect() {
        error.context("no connection to the sidecar")
    } else if source.is_timeout() {
        let timeout = PortError::new(ErrorKind::Timeout, BACKEND, error.operation());
        let context = format!("no answer within {} ms", limit.as_millis());
        left_open(timeout.context(context), effect)
    } else {
        let context = "the connection to the sidecar broke before a whole answer";
        left_open(error.context(context), effect)
    };
    error.caused_by(source)
}

fn said(status: &Status) -> String {
    if has_source::<ConnectError>(status) {
        return "no connection to the sidecar".to_owned();
    }
    let message = shortened(status.message());
    format!("the sidecar answered {:?}: {message}", status.code())
}

/// A message without the end of a very long one.
fn shortened(message: &str) -> &str {
    let end = message.char_indices().nth(MAX_MESSAGE_CHARS);
    end.map_or(message, |(end, _)| &message[..end])
}

/// Looks for an error among the sources.
fn has_source<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    let mut next = error.source();
    while let Some(error) = next {
        if error.is::<E>() {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
#[path = "error/tests.rs"]
mod tests;
