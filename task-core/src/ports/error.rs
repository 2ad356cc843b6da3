//! The one error of every port.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// What went wrong, by meaning and not by backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The thing that the operation needs does not exist.
    NotFound,
    /// The condition of the write does not hold; nothing was changed.
    Conflict,
    /// The input breaks a limit or a rule of the port.
    Invalid,
    /// The backend cannot do this; see its capabilities.
    Unsupported,
    /// The backend refuses us: credentials or permissions.
    Denied,
    /// A guard of the commit does not hold: the right to write has moved on.
    Fenced,
    /// The backend, or a limit of ours, asks for less.
    Throttled,
    /// The backend cannot be reached or cannot work.
    Unavailable,
    /// The answer did not come in time.
    Timeout,
    /// What is stored cannot be read.
    Corrupt,
    /// Anything else; a bug here or there.
    Unexpected,
}

impl ErrorKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not found",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::Unsupported => "unsupported",
            Self::Denied => "denied",
            Self::Fenced => "fenced",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Corrupt => "corrupt",
            Self::Unexpected => "unexpected",
        }
    }

    fn default_retry(self) -> Retry {
        match self {
            Self::Throttled | Self::Unavailable | Self::Timeout => Retry::Maybe,
            Self::NotFound
            | Self::Conflict
            | Self::Invalid
            | Self::Unsupported
            | Self::Denied
            | Self::Fenced
            | Self::Corrupt
            | Self::Unexpected => Retry::Never,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether the same call may succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same call will fail again.
    Never,
    /// The same call may succeed.
    Maybe,
    /// The same call may succeed after this pause.
    After(Duration),
}

/// What is known about the effect of a call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The call was not even made: a guard of ours refused it, and the backend knows nothing of it.
    NotMade,
    /// The call changed nothing.
    NotApplied,
    /// The call may have taken effect; only a read can tell.
    Unknown,
}

/// A failed call of a port.
///
/// `Display` names the backend, the operation, the kind and the context, never the source: walk
/// [`Error::source`] for that.
///
/// ```
/// use task_core::ports::{ErrorKind, Outcome, PortError};
/// let error = PortError::new(ErrorKind::Timeout, "redis", "put")
///     .context("no answer within 2000 ms")
///     .unknown_outcome();
/// assert_eq!(error.to_string(), "redis put: timeout: no answer within 2000 ms (outcome unknown)");
/// assert_eq!(error.outcome(), Outcome::Unknown);
/// ```
#[derive(Debug)]
pub struct PortError(Box<Failure>);

#[derive(Debug)]
struct Failure {
    kind: ErrorKind,
    retry: Retry,
    outcome: Outcome,
    backend: &'static str,
    operation: &'static str,
    context: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl PortError {
    /// An error of a kind, with that kind's usual answer to "does a retry make sense?".
    #[must_use]
    pub fn new(kind: ErrorKind, backend: &'static str, operation: &'static str) -> Self {
        Self(Box::new(Failure {
            kind,
            retry: kind.default_retry(),
            outcome: Outcome::NotApplied,
            backend,
            operation,
            context: String::new(),
            source: None,
        }))
    }

    /// Says what was attempted, with the limit and the value where there is one.
    #[must_use]
    pub fn context(mut self, context: impl Into<String>) -> Self {
        self.0.context = context.into();
        self
    }

    /// Keeps the error that caused this one.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Overrides whether a retry makes sense.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// Says that the backend was not asked.
    #[must_use]
    pub fn not_made(mut self) -> Self {
        self.0.outcome = Outcome::NotMade;
        self
    }

    /// Says that a write may have taken effect all the same.
    #[must_use]
    pub fn unknown_outcome(mut self) -> Self {
        self.0.outcome = Outcome::Unknown;
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn retryable(&self) -> Retry {
        self.0.retry
    }

    /// What is known about the effect of the call.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// The backend that failed.
    #[must_use]
    pub fn backend(&self) -> &'static str {
        self.0.backend
    }

    /// The operation that failed.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// What was attempted, in words; empty if nobody said it.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.context
    }

    /// The condition of a write did not hold.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.0.kind == ErrorKind::Conflict
    }
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failure = &*self.0;
        write!(
            f,
            "{} {}: {}",
            failure.backend, failure.operation, failure.kind
        )?;
        if !failure.context.is_empty() {
            write!(f, ": {}", failure.context)?;
        }
        if failure.outcome == Outcome::Unknown {
            f.write_str(" (outcome unknown)")?;
        }
        Ok(())
    }
}

impl Error for PortError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0.source {
            Some(source) => Some(&**source),
            None => None,
        }
    }
}
