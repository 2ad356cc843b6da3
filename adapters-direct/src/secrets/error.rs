//! What a failed reading means: the one mapping of these adapters.

use std::io;

use task_core::ports::{ErrorKind, PortError, SecretName};

use super::config::MAX_FILE_BYTES;

/// Everything that can fail here. No text holds anything of what was read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("missing or empty")]
    Missing,
    #[error("several values, name one of them after a slash")]
    HasKeys,
    #[error("not UTF-8")]
    NotText,
    #[error("not a string")]
    NotAString,
    #[error("there more than once")]
    Ambiguous,
    #[error("not a JSON object at line {line}, column {column}")]
    NotJson { line: usize, column: usize },
    #[error("larger than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    #[error("others may read or write it, its mode is {mode:04o}; run chmod o-rw on it")]
    Exposed { mode: u32 },
    #[error("cannot be read")]
    Unreadable(#[from] io::Error),
}

impl From<serde_json::Error> for Failure {
    /// Keeps the place alone: the message may repeat a value.
    fn from(error: serde_json::Error) -> Self {
        Self::NotJson {
            line: error.line(),
            column: error.column(),
        }
    }
}

/// Maps a failure by its meaning; `place` is where the secret was looked for.
pub(super) fn port_error(
    backend: &'static str,
    name: &SecretName,
    place: &str,
    failure: Failure,
) -> PortError {
    let kind = match &failure {
        Failure::Missing | Failure::HasKeys => ErrorKind::NotFound,
        Failure::NotText
        | Failure::NotAString
        | Failure::Ambiguous
        | Failure::NotJson { .. }
        | Failure::TooLarge => ErrorKind::Corrupt,
        Failure::Exposed { .. } => ErrorKind::Denied,
        Failure::Unreadable(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            ErrorKind::Denied
        }
        Failure::Unreadable(_) => ErrorKind::Unavailable,
    };
    let context = format!("secret {name} ({place}): {failure}");
    let error = PortError::new(kind, backend, "get").context(context);
    match failure {
        Failure::Unreadable(source) => error.caused_by(source),
        Failure::Missing
        | Failure::HasKeys
        | Failure::NotText
        | Failure::NotAString
        | Failure::Ambiguous
        | Failure::NotJson { .. }
        | Failure::TooLarge
        | Failure::Exposed { .. } => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreadable(kind: io::ErrorKind) -> Failure {
        Failure::Unreadable(kind.into())
    }

    #[test]
    fn each_failure_has_its_meaning() {
        let name = SecretName::parse("redis/password").expect("a valid name");
        for (failure, kind) in [
            (Failure::Missing, ErrorKind::NotFound),
            (Failure::HasKeys, ErrorKind::NotFound),
            (Failure::NotText, ErrorKind::Corrupt),
            (Failure::NotAString, ErrorKind::Corrupt),
            (Failure::Ambiguous, ErrorKind::Corrupt),
            (Failure::NotJson { line: 1, column: 2 }, ErrorKind::Corrupt),
            (Failure::TooLarge, ErrorKind::Corrupt),
            (Failure::Exposed { mode: 0o604 }, ErrorKind::Denied),
            (
                unreadable(io::ErrorKind::PermissionDenied),
                ErrorKind::Denied,
            ),
            // A file that is not there may come; a secret that is not in it is `Missing`.
            (unreadable(io::ErrorKind::NotFound), ErrorKind::Unavailable),
            (unreadable(io::ErrorKind::Other), ErrorKind::Unavailable),
        ] {
            let text = failure.to_string();
            let error = port_error("secrets file", &name, "file s.json", failure);
            assert_eq!(error.kind(), kind, "{text}");
            assert_eq!(
                error.to_string(),
                format!("secrets file get: {kind}: secret redis/password (file s.json): {text}")
            );
        }
    }
}
