//! What can go wrong in the file, and what it means to a caller of a port.

use std::path::PathBuf;

use rusqlite::ErrorCode;
use task_core::ports::{ErrorKind, Guard, PortError};

pub(super) const BACKEND: &str = "embedded";

/// Why a data directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process owns the directory.
    #[error("data directory {} is in use by another process", directory.display())]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// The directory or a file in it cannot be made, read or written.
    #[error("cannot use {}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The file is not a task database.
    #[error("{} is not a task database", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a later version of this program.
    #[error("{} has schema version {found}; this program knows up to {known}", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The latest version known here.
        known: i64,
    },
    /// The file is damaged, or the disk does not work.
    #[error("cannot open {}: {}", path.display(), reason(&**source))]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn reason(source: &(dyn std::error::Error + Send + Sync + 'static)) -> &'static str {
    let sqlite = source.downcast_ref::<rusqlite::Error>();
    sqlite.map_or("the database does not work", |error| meaning(error).1)
}

/// An error inside the backend.
#[derive(Debug)]
pub(super) enum Error {
    /// The condition of a write does not hold; nothing was changed.
    Conflict(String),
    /// A guard of a commit does not hold; nothing was changed.
    Denied(Guard),
    /// SQLite refused.
    Sqlite(rusqlite::Error),
    /// The transaction did not begin.
    Begin(String, ErrorCode),
    /// SQLite failed while committing other requests together with this one.
    Batch(String),
    /// The commit itself failed: it may be on disk.
    Commit(String, ErrorCode),
    /// The writer or a reader has ended.
    Closed,
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Error {
    /// The one mapping from this backend's errors to the port's.
    pub(super) fn into_port(self, operation: &'static str) -> PortError {
        let new = |kind| PortError::new(kind, BACKEND, operation);
        match self {
            Self::Conflict(context) => new(ErrorKind::Conflict).context(context),
            Self::Denied(guard) => guard.refusal(BACKEND),
            Self::Sqlite(error) => {
                let (kind, context) = meaning(&error);
                new(kind).context(context).caused_by(error)
            }
            Self::Begin(cause, code) => {
                let (kind, context) = meaning_of(code);
                new(kind).context(format!("{context}: {cause}"))
            }
            Self::Batch(cause) => new(ErrorKind::Unavailable)
                .context(format!("rolled back with a failed neighbour: {cause}")),
            Self::Commit(cause, ErrorCode::DiskFull) => {
                new(ErrorKind::Unavailable).context(format!("the disk is full: {cause}"))
            }
            Self::Commit(cause, _) => new(ErrorKind::Unavailable)
                .context(format!("commit failed: {cause}"))
                .unknown_outcome(),
            Self::Closed => new(ErrorKind::Unavailable).context("the file is closed"),
        }
    }
}

/// What an error of SQLite means.
fn meaning(error: &rusqlite::Error) -> (ErrorKind, &'static str) {
    match error.sqlite_error_code() {
        Some(code) => meaning_of(code),
        None => (ErrorKind::Corrupt, "a stored value has another type"),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the codes not named here all mean a bug of ours"
)]
fn meaning_of(code: ErrorCode) -> (ErrorKind, &'static str) {
    match code {
        ErrorCode::DiskFull => (ErrorKind::Unavailable, "the disk is full"),
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
            (ErrorKind::Corrupt, "the database file is damaged")
        }
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen => {
            (ErrorKind::Denied, "the database file cannot be written")
        }
        ErrorCode::SystemIoFailure => (ErrorKind::Unavailable, "the disk failed"),
        ErrorCode::OutOfMemory => (ErrorKind::Unavailable, "out of memory"),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            (ErrorKind::Unavailable, "the database file is locked")
        }
        ErrorCode::TooBig => (ErrorKind::Invalid, "the value is too large"),
        _ => (ErrorKind::Unexpected, "the database refused the statement"),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;
    use task_core::ports::Outcome;

    use super::*;

    fn sqlite(code: std::ffi::c_int) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn every_code_has_its_meaning() {
        let rows = [
            (ffi::SQLITE_FULL, ErrorKind::Unavailable),
            (ffi::SQLITE_CORRUPT, ErrorKind::Corrupt),
            (ffi::SQLITE_NOTADB, ErrorKind::Corrupt),
            (ffi::SQLITE_READONLY, ErrorKind::Denied),
            (ffi::SQLITE_PERM, ErrorKind::Denied),
            (ffi::SQLITE_CANTOPEN, ErrorKind::Denied),
            (ffi::SQLITE_IOERR, ErrorKind::Unavailable),
            (ffi::SQLITE_NOMEM, ErrorKind::Unavailable),
            (ffi::SQLITE_BUSY, ErrorKind::Unavailable),
            (ffi::SQLITE_TOOBIG, ErrorKind::Invalid),
            (ffi::SQLITE_MISUSE, ErrorKind::Unexpected),
        ];
        for (code, kind) in rows {
            let error = Error::Sqlite(sqlite(code)).into_port("get");
            assert_eq!(error.kind(), kind, "code {code}");
            assert_eq!(error.outcome(), Outcome::NotApplied, "code {code}");
        }
    }

    #[test]
    fn a_failed_commit_is_unknown_unless_the_disk_was_full() {
        let failed = |code| Error::Commit("x".to_owned(), code).into_port("put");
        assert_eq!(
            failed(ErrorCode::SystemIoFailure).outcome(),
            Outcome::Unknown
        );
        assert_eq!(failed(ErrorCode::DiskFull).outcome(), Outcome::NotApplied);
    }

    #[test]
    fn a_conflict_is_a_conflict() {
        assert!(
            Error::Conflict("x".to_owned())
                .into_port("put")
                .is_conflict()
        );
    }
}
