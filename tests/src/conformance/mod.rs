//! The conformance suite: what every adapter of a port has to show, one named case a promise.
//!
//! The cases come from the contracts in `task_core::ports`; nothing here knows an adapter. A case
//! answers a [`Verdict`] instead of panicking, so that a broken adapter is rejected by name.

#![expect(
    clippy::missing_errors_doc,
    reason = "a case fails where its one sentence does not hold"
)]

pub mod event_bus;
pub mod notifier;
pub mod secret_store;
pub mod state_store;

use std::fmt;
use std::panic::Location;
use std::pin::Pin;

use task_core::migration::MoveError;
use task_core::ports::{ErrorKind, PortError};

/// What a case finds.
pub type Verdict = Result<(), Failure>;

/// A promise that was not kept, and where the suite noticed it.
pub struct Failure {
    at: &'static Location<'static>,
    what: String,
}

impl Failure {
    /// Says what was expected and what came instead.
    #[must_use]
    #[track_caller]
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            at: Location::caller(),
            what: what.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Failure {}

impl From<PortError> for Failure {
    #[track_caller]
    fn from(error: PortError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<MoveError> for Failure {
    #[track_caller]
    fn from(error: MoveError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    #[track_caller]
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<tokio::task::JoinError> for Failure {
    #[track_caller]
    fn from(error: tokio::task::JoinError) -> Self {
        if error.is_cancelled() {
            return Self::new("a task was cancelled");
        }
        let panic = error.into_panic();
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned());
        Self::new(format!("panicked: {}", text.as_deref().unwrap_or("?")))
    }
}

/// The body of a case, for a subject `S`.
pub type Body<S> = fn(S) -> Pin<Box<dyn Future<Output = Verdict> + Send>>;

/// One requirement of a port, as code.
pub struct Case<S: 'static, C: 'static> {
    /// The name by which the port's documentation cites it.
    pub name: &'static str,
    /// The number of the promise, for example `S7`.
    pub promise: &'static str,
    /// The capabilities without which the promise does not bind.
    pub requires: &'static [C],
    body: Body<S>,
}

impl<S, C: fmt::Debug> fmt::Debug for Case<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case")
            .field("name", &self.name)
            .field("promise", &self.promise)
            .field("requires", &self.requires)
            .finish_non_exhaustive()
    }
}

/// Lists cases: promise, function, and the capabilities that it needs.
macro_rules! cases {
    ($($promise:literal $module:ident::$name:ident [$($capability:expr),*],)+) => {
        &[$($crate::conformance::Case {
            name: stringify!($name),
            promise: $promise,
            requires: &[$($capability),*],
            body: |subject| Box::pin($module::$name(subject)),
        },)+]
    };
}

/// Fails the case unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err($crate::conformance::Failure::new(format!($($what)+)));
        }
    };
}

/// Fails the case unless two values are equal.
macro_rules! ensure_eq {
    ($found:expr, $expected:expr, $($what:tt)+) => {
        let (found, expected) = (&$found, &$expected);
        if found != expected {
            return Err($crate::conformance::Failure::new(format!(
                "{}: expected {expected:?}, found {found:?}",
                format_args!($($what)+),
            )));
        }
    };
}

pub(crate) use {cases, ensure, ensure_eq};

/// Fails unless a call was refused with an error of this kind.
#[track_caller]
fn refused<T: fmt::Debug>(
    result: Result<T, PortError>,
    kind: ErrorKind,
    what: &str,
) -> Result<PortError, Failure> {
    match result {
        Err(error) if error.kind() == kind => Ok(error),
        Err(error) => Err(Failure::new(format!(
            "{what}: expected a refusal as {kind}, found {error}"
        ))),
        Ok(answer) => Err(Failure::new(format!(
            "{what}: expected a refusal as {kind}, found {answer:?}"
        ))),
    }
}
