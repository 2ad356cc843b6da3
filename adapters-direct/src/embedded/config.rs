//! Where the embedded backend keeps its file.

use std::path::PathBuf;

/// Configuration of the embedded backend.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmbeddedConfig {
    /// The data directory; it belongs to one process at a time.
    pub directory: PathBuf,
}

impl EmbeddedConfig {
    /// Keeps everything in this directory.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// The database file.
    #[must_use]
    pub fn database_file(&self) -> PathBuf {
        self.directory.join("tasks.db")
    }

    /// The file whose lock says who owns the directory.
    pub(super) fn lock_file(&self) -> PathBuf {
        self.directory.join("tasks.lock")
    }
}
