//! What a failed call means: the one mapping of this adapter.

use std::error::Error;
use std::io;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::InvalidHeaderValue;
use task_core::ports::{ErrorKind, PortError, Retry};

const BACKEND: &str = "http";

/// Longest pause that a receiver may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

/// Everything that can fail here.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the roots of TLS certificates cannot be loaded")]
    Roots(#[source] rustls::Error),
    #[error("the client cannot be built")]
    Client(#[source] reqwest::Error),
    #[error("the idempotency key cannot stand in a header")]
    Key(#[source] InvalidHeaderValue),
    #[error("no connection")]
    Connect(#[source] io::Error),
    #[error("no connection within {} ms", .0.as_millis())]
    ConnectTimeout(Duration),
    #[error("no answer within {} ms", deadline.as_millis())]
    Exchange {
        source: reqwest::Error,
        deadline: Duration,
    },
    #[error("answered {}", .0.status.as_u16())]
    Refused(Refusal),
}

/// An answer other than success.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// The `Retry-After` header, in whole seconds; a date is not understood.
    pub(super) retry_after: Option<u64>,
    /// The host that a redirect names.
    pub(super) redirect_host: Option<String>,
}

/// Maps a failure by its meaning.
pub(super) fn port_error(operation: &'static str, failure: Failure) -> PortError {
    let context = failure.to_string();
    let new = |kind| PortError::new(kind, BACKEND, operation).context(context.as_str());
    match failure {
        Failure::Roots(source) => new(ErrorKind::Unexpected).caused_by(source),
        Failure::Client(source) => new(ErrorKind::Unexpected).caused_by(source),
        Failure::Key(source) => new(ErrorKind::Invalid).caused_by(source),
        Failure::Connect(source) => new(ErrorKind::Unavailable).caused_by(source),
        Failure::ConnectTimeout(_) => new(ErrorKind::Unavailable),
        // The address may hold a secret path: it is taken out of the source.
        Failure::Exchange { source, .. } => {
            let error = if source.is_connect() {
                new(ErrorKind::Unavailable).context(connect_failure(&source))
            } else if source.is_timeout() {
                new(ErrorKind::Timeout).unknown_outcome()
            } else {
                new(ErrorKind::Unavailable)
                    .context("the connection broke before a whole answer")
                    .unknown_outcome()
            };
            error.caused_by(source.without_url())
        }
        Failure::Refused(refusal) => refused(operation, &refusal),
    }
}

fn refused(operation: &'static str, refusal: &Refusal) -> PortError {
    let status = refusal.status.as_u16();
    let new = |kind| {
        PortError::new(kind, BACKEND, operation)
            .context(format!("the receiver answered {}", refusal.status))
    };
    match status {
        401 | 403 => new(ErrorKind::Denied),
        408 => new(ErrorKind::Timeout),
        425 => new(ErrorKind::Unavailable),
        429 => new(ErrorKind::Throttled).retry(refusal.retry()),
        503 => new(ErrorKind::Unavailable).retry(refusal.retry()),
        504 => new(ErrorKind::Timeout).unknown_outcome(),
        500..=599 => new(ErrorKind::Unavailable).unknown_outcome(),
        300..=399 => new(ErrorKind::Invalid).context(format!(
            "the receiver answered {status} with a redirect to {}, which is not followed",
            refusal.redirect_host.as_deref().unwrap_or("nowhere")
        )),
        _ => new(ErrorKind::Invalid),
    }
}

impl Refusal {
    fn retry(&self) -> Retry {
        self.retry_after.map_or(Retry::Maybe, |seconds| {
            Retry::After(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
        })
    }
}

/// Why there is no connection, for people.
fn connect_failure(error: &reqwest::Error) -> &'static str {
    if error.is_dns() {
        "the host name cannot be resolved"
    } else if has_source::<rustls::Error>(error) {
        "the TLS handshake failed"
    } else if error.is_timeout() {
        "no connection within the connect timeout"
    } else {
        "no connection"
    }
}

/// Looks for an error among the sources, also inside an [`io::Error`], which hides what it holds.
fn has_source<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<E>() {
            return true;
        }
        next = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(held) => Some(held),
            None => error.source(),
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use task_core::ports::Outcome::{self, NotApplied, Unknown};
    use task_core::ports::Retry::{After, Maybe, Never};

    use super::*;

    fn refusal(status: u16, retry_after: Option<u64>) -> PortError {
        let refusal = Refusal {
            status: StatusCode::from_u16(status).expect("a status"),
            retry_after,
            redirect_host: Some("elsewhere".to_owned()),
        };
        port_error("notify", Failure::Refused(refusal))
    }

    /// Status, `Retry-After` and what they mean. Transport failures are provoked for real in
    /// `http/tests.rs`.
    const ROWS: &[(u16, Option<u64>, ErrorKind, Retry, Outcome)] = &[
        (101, None, ErrorKind::Invalid, Never, NotApplied),
        (301, Some(1), ErrorKind::Invalid, Never, NotApplied),
        (308, None, ErrorKind::Invalid, Never, NotApplied),
        (400, None, ErrorKind::Invalid, Never, NotApplied),
        (401, None, ErrorKind::Denied, Never, NotApplied),
        (403, Some(1), ErrorKind::Denied, Never, NotApplied),
        (404, Some(1), ErrorKind::Invalid, Never, NotApplied),
        (408, None, ErrorKind::Timeout, Maybe, NotApplied),
        (422, None, ErrorKind::Invalid, Never, NotApplied),
        (425, None, ErrorKind::Unavailable, Maybe, NotApplied),
        (429, None, ErrorKind::Throttled, Maybe, NotApplied),
        (
            429,
            Some(7),
            ErrorKind::Throttled,
            After(Duration::from_secs(7)),
            NotApplied,
        ),
        (
            429,
            Some(u64::MAX),
            ErrorKind::Throttled,
            After(MAX_RETRY_AFTER),
            NotApplied,
        ),
        (500, Some(7), ErrorKind::Unavailable, Maybe, Unknown),
        (502, None, ErrorKind::Unavailable, Maybe, Unknown),
        (503, None, ErrorKind::Unavailable, Maybe, NotApplied),
        (
            503,
            Some(0),
            ErrorKind::Unavailable,
            After(Duration::ZERO),
            NotApplied,
        ),
        (504, None, ErrorKind::Timeout, Maybe, Unknown),
        (599, None, ErrorKind::Unavailable, Maybe, Unknown),
        (600, None, ErrorKind::Invalid, Never, NotApplied),
    ];

    #[test]
    fn every_status_has_its_meaning() {
        for &(status, retry_after, kind, retry, outcome) in ROWS {
            let error = refusal(status, retry_after);
            let meaning = (error.kind(), error.retryable(), error.outcome());
            assert_eq!(meaning, (kind, retry, outcome), "{status} {retry_after:?}");
            assert!(error.to_string().contains(&status.to_string()), "{error}");
        }
    }

    #[test]
    fn a_redirect_names_the_host_that_it_is_not_followed_to() {
        let error = refusal(302, None);
        assert_eq!(
            error.to_string(),
            "http notify: invalid: the receiver answered 302 with a redirect to elsewhere, which is not followed"
        );
    }

    #[test]
    fn a_failure_before_the_first_byte_changed_nothing() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        for (failure, kind, retry) in [
            (Failure::Connect(refused), ErrorKind::Unavailable, Maybe),
            (
                Failure::ConnectTimeout(Duration::from_secs(1)),
                ErrorKind::Unavailable,
                Maybe,
            ),
            (
                Failure::Roots(rustls::Error::General("none".into())),
                ErrorKind::Unexpected,
                Never,
            ),
        ] {
            let error = port_error("check", failure);
            let meaning = (error.kind(), error.retryable(), error.outcome());
            assert_eq!(meaning, (kind, retry, NotApplied), "{error}");
        }
    }

    #[test]
    fn a_source_is_found_inside_an_io_error() {
        let tls = rustls::Error::HandshakeNotComplete;
        let nested = io::Error::other(io::Error::other(tls));
        assert!(has_source::<rustls::Error>(&nested));
        assert!(!has_source::<rustls::Error>(&io::Error::other("plain")));
    }
}
