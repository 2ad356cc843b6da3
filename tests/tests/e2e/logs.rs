//! What this process logs, line by line.

use std::io;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// Lines of the whole process from the first [`Logs::collect`] on, at level INFO and above.
///
/// Cases run side by side: each looks for a name that is its own.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    lines: Mutex<Vec<String>>,
}

impl Logs {
    /// Collects from now on.
    ///
    /// # Panics
    /// If somebody else collects in this process.
    pub(crate) fn collect() -> &'static Self {
        static LOGS: OnceLock<Logs> = OnceLock::new();
        static ONCE: OnceLock<()> = OnceLock::new();
        let logs = LOGS.get_or_init(Self::default);
        ONCE.get_or_init(|| {
            tracing_subscriber::fmt()
                .with_ansi(false)
                .with_writer(Lines(logs))
                .init();
        });
        logs
    }

    /// All lines so far that hold these texts.
    pub(crate) fn with(&self, texts: &[&str]) -> Vec<String> {
        let lines = self.lock();
        let holds = |line: &&String| texts.iter().all(|text| line.contains(text));
        lines.iter().filter(holds).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes whole lines.
#[derive(Debug, Clone, Copy)]
struct Lines(&'static Logs);

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line).into_owned();
        self.0.lock().push(text);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}
