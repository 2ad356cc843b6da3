//! What can go wrong with Redis, and what it means to a caller of a port.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use redis::{RedisError, ServerError};
use task_core::ports::{ErrorKind, Guard, PortError, Retry};

use super::tls;
use crate::config::ConfigProblems;

pub(super) const BACKEND: &str = "redis";

/// Why a Redis cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigProblems),
    /// A file for TLS cannot be used.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The machine trusts nobody, so that no certificate can be checked.
    #[error("the roots of TLS certificates cannot be loaded")]
    Roots(#[source] rustls::Error),
    /// The server is there and is not one that this backend can use.
    #[error("the Redis at {address} cannot be used: {reason}")]
    Unfit {
        /// Where it is.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server cannot be reached, or refuses us.
    #[error("cannot open the Redis at {address}")]
    Failed {
        /// Where it is.
        address: String,
        /// What it says.
        source: PortError,
    },
}

/// Whether a command may change something, which a lost answer then leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Read,
    Write,
}

/// Everything that can fail here.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("no connection to {address}")]
    Connect { address: String, source: io::Error },
    /// One of the two does not trust the other, or does not speak TLS.
    #[error("the TLS handshake with {address} failed")]
    Untrusted { address: String, source: io::Error },
    #[error("no connection to {address} within {} ms", limit.as_millis())]
    ConnectTimeout { address: String, limit: Duration },
    /// The server hung up on a new connection, or spoke something else.
    #[error("no greeting from {address}")]
    Greeting { address: String, source: RedisError },
    #[error("{address} cannot be used: {reason}")]
    Unfit { address: String, reason: String },
    #[error("the password of redis cannot be read")]
    Password { source: PortError },
    /// Whoever changed the server has to change what we say to it, or is about to.
    #[error("{address} has let us in before and refuses us now")]
    ShutOut { address: String, source: Box<Self> },
    #[error("{address} does not let this user run {commands}")]
    Forbidden { address: String, commands: String },
    /// The last attempt to connect failed a moment ago.
    #[error("{cause}; the next attempt is in {} ms", next.as_millis())]
    Pausing { cause: String, next: Duration },
    #[error("{limit} commands wait for an answer already, which is the limit")]
    Busy { limit: usize },
    #[error("no answer within {} ms", limit.as_millis())]
    NoAnswer { limit: Duration, effect: Effect },
    #[error("the connection broke before an answer")]
    Lost { source: RedisError, effect: Effect },
    #[error("redis answered {}: {}", .error.code(), .error.details().unwrap_or("no details"))]
    Refused { error: ServerError, effect: Effect },
    #[error("an answer that no version of redis should give: {answer}")]
    Answer { answer: String, effect: Effect },
    #[error("{0}")]
    Conflict(String),
    #[error("a guard does not hold")]
    Guard(Guard),
    #[error("{0}")]
    Corrupt(String),
    /// A key holds what its layout does not have.
    #[error("{name} is a {found}, not a {wanted}")]
    OtherType {
        name: String,
        found: String,
        wanted: &'static str,
    },
    #[error("{what} was changed by others during each of {attempts} attempts")]
    Contended { what: String, attempts: usize },
    #[error("{0}")]
    Invalid(String),
}

impl Failure {
    /// Whether a command was refused because the key holds another type.
    pub(super) fn is_of_type(&self) -> bool {
        matches!(self, Self::Refused { error, .. } if error.code() == "WRONGTYPE")
    }

    /// Whether the server does not let us in, or we do not trust it.
    pub(super) fn is_denied(&self) -> bool {
        matches!(self, Self::Untrusted { .. } | Self::Forbidden { .. })
            || matches!(self, Self::Greeting { source, .. } if is_login_refused(source))
            || matches!(self, Self::Refused { error, .. } if meaning(error) == Some(ErrorKind::Denied))
    }

    /// The one mapping from this backend's errors to the port's.
    pub(super) fn into_port(self, operation: &'static str) -> PortError {
        let context = self.to_string();
        let new = |kind| PortError::new(kind, BACKEND, operation).context(context.as_str());
        match self {
            Self::Connect { source, .. } => new(ErrorKind::Unavailable).caused_by(source),
            Self::Untrusted { source, .. } => new(ErrorKind::Denied).caused_by(source),
            Self::ConnectTimeout { .. } | Self::Unfit { .. } => new(ErrorKind::Unavailable),
            Self::Password { source } => new(ErrorKind::Unavailable).caused_by(source),
            Self::ShutOut { source, .. } => new(ErrorKind::Unavailable).caused_by(*source),
            Self::Forbidden { .. } => new(ErrorKind::Denied),
            Self::Greeting { source, .. } => {
                let kind = match is_login_refused(&source) {
                    true => ErrorKind::Denied,
                    false => ErrorKind::Unavailable,
                };
                new(kind).caused_by(source)
            }
            Self::Pausing { next, .. } => new(ErrorKind::Unavailable).retry(Retry::After(next)),
            Self::Busy { .. } => new(ErrorKind::Throttled),
            Self::NoAnswer { effect, .. } => left_open(new(ErrorKind::Timeout), effect),
            Self::Lost { source, effect } => {
                left_open(new(ErrorKind::Unavailable), effect).caused_by(source)
            }
            Self::Refused { error, effect } => match meaning(&error) {
                // What a script wrote before it was denied stays: permissions may have changed since we asked.
                Some(ErrorKind::Denied) if is_within_script(&error) => {
                    left_open(new(ErrorKind::Denied), effect)
                }
                Some(kind) => new(kind),
                // A script that ended in its middle may have written.
                None => left_open(new(ErrorKind::Unexpected), effect),
            },
            Self::Answer { effect, .. } => left_open(new(ErrorKind::Unexpected), effect),
            Self::Conflict(_) => new(ErrorKind::Conflict),
            Self::Guard(guard) => guard.refusal(BACKEND),
            Self::Corrupt(_) | Self::OtherType { .. } => new(ErrorKind::Corrupt),
            Self::Contended { .. } => new(ErrorKind::Throttled).retry(Retry::Maybe),
            Self::Invalid(_) => new(ErrorKind::Invalid),
        }
    }
}

/// Whether the server does not let us in, by our password or by our certificate.
pub(super) fn is_login_refused(error: &RedisError) -> bool {
    // By TLS 1.3 a client has shaken hands before it hears that its certificate is not taken.
    let held = error.source().and_then(|held| held.downcast_ref());
    let held = held.and_then(|held: &Arc<dyn Error + Send + Sync>| held.downcast_ref());
    error.kind() == redis::ErrorKind::AuthenticationFailed || held.is_some_and(tls::is_refusal)
}

fn left_open(error: PortError, effect: Effect) -> PortError {
    match effect {
        Effect::Read => error,
        Effect::Write => error.unknown_outcome(),
    }
}

/// Whether a command was refused that a script had called.
fn is_within_script(error: &ServerError) -> bool {
    error.details().is_some_and(|text| text.contains(" script"))
}

/// What Redis means by refusing a command before it has done anything; `None` for anything else.
fn meaning(error: &ServerError) -> Option<ErrorKind> {
    let details = error.details().unwrap_or_default();
    match error.code() {
        "NOAUTH" | "WRONGPASS" | "NOPERM" => Some(ErrorKind::Denied),
        "LOADING" | "BUSY" | "TRYAGAIN" | "MASTERDOWN" | "CLUSTERDOWN" | "READONLY" | "MISCONF"
        | "NOREPLICAS" | "UNBLOCKED" => Some(ErrorKind::Unavailable),
        // What redis before 7.2 says within a script.
        "ERR" if details.starts_with("The user executing the script can't") => {
            Some(ErrorKind::Denied)
        }
        "OOM" => Some(ErrorKind::Throttled),
        "ERR" if details.starts_with("max number of clients") => Some(ErrorKind::Throttled),
        "WRONGTYPE" => Some(ErrorKind::Corrupt),
        "MOVED" | "ASK" | "CROSSSLOT" => Some(ErrorKind::Unsupported),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use redis::{Value, parse_redis_value};
    use task_core::ports::Outcome::{self, NotApplied, Unknown};
    use task_core::ports::Retry::{After, Maybe, Never};
    use task_core::ports::{Expect, Key, Kind};

    use super::*;

    fn refused(line: &str, effect: Effect) -> Failure {
        let text = format!("-{line}\r\n");
        let value = parse_redis_value(text.as_bytes()).expect("an error in RESP");
        let Value::ServerError(error) = value else {
            panic!("{line} is no error");
        };
        Failure::Refused { error, effect }
    }

    /// What redis 7 says, word for word, and what that means.
    const REFUSALS: &[(&str, ErrorKind, Retry, Outcome)] = &[
        (
            "NOAUTH Authentication required.",
            ErrorKind::Denied,
            Never,
            NotApplied,
        ),
        (
            "WRONGPASS invalid username-password pair or user is disabled.",
            ErrorKind::Denied,
            Never,
            NotApplied,
        ),
        (
            "NOPERM this user has no permissions to run the 'evalsha' command",
            ErrorKind::Denied,
            Never,
            NotApplied,
        ),
        (
            "NOPERM ACL failure in script: User service has no permissions to run the 'hset' command \
             script: 0e18b4b7, on @user_script:80.",
            ErrorKind::Denied,
            Never,
            Unknown,
        ),
        (
            "ERR The user executing the script can't run this command or subcommand script: 0e18b4b7, \
             on @user_script:80.",
            ErrorKind::Denied,
            Never,
            Unknown,
        ),
        (
            "LOADING Redis is loading the dataset in memory",
            ErrorKind::Unavailable,
            Maybe,
            NotApplied,
        ),
        (
            "BUSY Redis is busy running a script.",
            ErrorKind::Unavailable,
            Maybe,
            NotApplied,
        ),
        (
            "TRYAGAIN Multiple keys request during rehashing of slot",
            ErrorKind::Unavailable,
            Maybe,
            NotApplied,
        ),
        (
            "MASTERDOWN Link with MASTER is down",
            ErrorKind::Unavailable,
            Maybe,
            NotApplied,
        ),
        (
            "CLUSTERDOWN The cluster is down",
            ErrorKind::Unavailable,
            Maybe,
            NotApplied,
        ),
        (
            "READONLY You can't write against a read only replica.",
            ErrorKind::Unavailable,
            Maybe,
            NotApplied,
        ),
        (
            "MISCONF Errors writing to the AOF file",
            ErrorKind::Unavailable,
            Maybe,
            NotApplied,
        ),
        (
            "NOREPLICAS Not enough good replicas to write.",
            ErrorKind::Unavailable,
            Maybe,
            NotApplied,
        ),
        (
            "OOM command not allowed when used memory > 'maxmemory'.",
            ErrorKind::Throttled,
            Maybe,
            NotApplied,
        ),
        (
            "ERR max number of clients reached",
            ErrorKind::Throttled,
            Maybe,
            NotApplied,
        ),
        (
            "WRONGTYPE Operation against a key",
            ErrorKind::Corrupt,
            Never,
            NotApplied,
        ),
        (
            "MOVED 3999 127.0.0.1:6381",
            ErrorKind::Unsupported,
            Never,
            NotApplied,
        ),
        (
            "CROSSSLOT Keys in request don't hash",
            ErrorKind::Unsupported,
            Never,
            NotApplied,
        ),
        (
            "ERR user_script:3: attempt to index a nil value",
            ErrorKind::Unexpected,
            Never,
            Unknown,
        ),
        (
            "EXECABORT Transaction discarded",
            ErrorKind::Unexpected,
            Never,
            Unknown,
        ),
        (
            "NEWCODE nobody knows",
            ErrorKind::Unexpected,
            Never,
            Unknown,
        ),
    ];

    #[test]
    fn every_refusal_has_its_meaning() {
        for &(line, kind, retry, outcome) in REFUSALS {
            let error = refused(line, Effect::Write).into_port("put");
            let meaning = (error.kind(), error.retryable(), error.outcome());
            assert_eq!(meaning, (kind, retry, outcome), "{line}");
            let code = line.split(' ').next().expect("a code");
            assert!(error.to_string().contains(code), "{error}");
            let error = refused(line, Effect::Read).into_port("get");
            assert_eq!(error.outcome(), NotApplied, "a read has no outcome: {line}");
        }
    }

    #[track_caller]
    fn means(failure: Failure, kind: ErrorKind, retry: Retry, outcome: Outcome) {
        let shown = failure.to_string();
        let error = failure.into_port("put");
        let meaning = (error.kind(), error.retryable(), error.outcome());
        assert_eq!(meaning, (kind, retry, outcome), "{shown}");
    }

    fn broken() -> RedisError {
        RedisError::from(io::Error::from(io::ErrorKind::BrokenPipe))
    }

    #[test]
    fn what_was_never_sent_is_not_applied() {
        let limit = Duration::from_millis(7);
        let address = || "a:1".to_owned();
        let greeting = |source| Failure::Greeting {
            address: address(),
            source,
        };
        let connect = Failure::Connect {
            address: address(),
            source: io::ErrorKind::ConnectionRefused.into(),
        };
        let untrusted = Failure::Untrusted {
            address: address(),
            source: io::ErrorKind::InvalidData.into(),
        };
        let timeout = Failure::ConnectTimeout {
            address: address(),
            limit,
        };
        let forbidden = Failure::Forbidden {
            address: address(),
            commands: String::new(),
        };
        let unfit = Failure::Unfit {
            address: address(),
            reason: String::new(),
        };
        let pausing = Failure::Pausing {
            cause: String::new(),
            next: limit,
        };
        let login = || (redis::ErrorKind::AuthenticationFailed, "no").into();
        let shut_out = Failure::ShutOut {
            address: address(),
            source: Box::new(greeting(login())),
        };
        let unreadable = Failure::Password {
            source: PortError::new(ErrorKind::NotFound, "secrets", "get"),
        };
        for (failure, kind, retry) in [
            (connect, ErrorKind::Unavailable, Maybe),
            (untrusted, ErrorKind::Denied, Never),
            (timeout, ErrorKind::Unavailable, Maybe),
            (greeting(broken()), ErrorKind::Unavailable, Maybe),
            (greeting(login()), ErrorKind::Denied, Never),
            (shut_out, ErrorKind::Unavailable, Maybe),
            (unreadable, ErrorKind::Unavailable, Maybe),
            (forbidden, ErrorKind::Denied, Never),
            (unfit, ErrorKind::Unavailable, Maybe),
            (pausing, ErrorKind::Unavailable, After(limit)),
            (Failure::Busy { limit: 1 }, ErrorKind::Throttled, Maybe),
        ] {
            means(failure, kind, retry, NotApplied);
        }
    }

    #[test]
    fn a_write_without_a_clear_answer_is_unknown_and_a_read_changes_nothing() {
        let limit = Duration::from_millis(7);
        for (effect, outcome) in [(Effect::Read, NotApplied), (Effect::Write, Unknown)] {
            let silent = Failure::NoAnswer { limit, effect };
            means(silent, ErrorKind::Timeout, Maybe, outcome);
            let source = broken();
            let lost = Failure::Lost { source, effect };
            means(lost, ErrorKind::Unavailable, Maybe, outcome);
            let answer = String::new();
            let strange = Failure::Answer { answer, effect };
            means(strange, ErrorKind::Unexpected, Never, outcome);
        }
    }

    #[test]
    fn what_a_script_refused_is_final() {
        let guard = Guard {
            key: Key::new(Kind::TASK, "1"),
            expect: Expect::Absent,
        };
        for (failure, kind) in [
            (Failure::Conflict(String::new()), ErrorKind::Conflict),
            (Failure::Guard(guard), ErrorKind::Fenced),
            (Failure::Corrupt(String::new()), ErrorKind::Corrupt),
            (Failure::Invalid(String::new()), ErrorKind::Invalid),
        ] {
            means(failure, kind, Never, NotApplied);
        }
    }
}
