//! A process with a directory of its own.

use std::ffi::OsString;
use std::path::Path;

use crate::process::TestDirectory;
use crate::process::supervised::Supervised;

/// A running process; killed when dropped or when the test process ends.
#[derive(Debug)]
pub(super) struct Program {
    // Dropped first: it writes to the directory.
    server: Supervised,
    directory: TestDirectory,
    name: String,
}

impl Program {
    pub(super) fn start(name: &str, words: Vec<OsString>) -> Self {
        Self::start_in(name, |_| words)
    }

    /// Starts what a function makes of the directory.
    pub(super) fn start_in(name: &str, words: impl FnOnce(&Path) -> Vec<OsString>) -> Self {
        let directory = TestDirectory::new(name);
        let words = words(directory.path());
        Self {
            server: Supervised::start(&words, directory.path()),
            directory,
            name: name.to_owned(),
        }
    }

    pub(super) fn id(&self) -> u32 {
        self.server.id()
    }

    pub(super) fn folder(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn log(&self) -> String {
        self.server.log()
    }

    /// Panics with its log if it has ended.
    pub(super) fn must_run(&mut self) {
        let running = self.server.is_running();
        assert!(running, "{} has ended:\n{}", self.name, self.server.log());
    }
}
