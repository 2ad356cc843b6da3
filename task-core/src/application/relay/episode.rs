//! One line when something begins to fail, one every now and then, one when it is over.

use std::time::Duration;

use tokio::time::Instant;

/// Between two lines of one kind: also of episodes that follow each other closely.
const QUIET: Duration = Duration::from_secs(30);

/// A time during which something fails.
#[derive(Debug, Default)]
pub(super) struct Episode {
    began: Option<Instant>,
    last_line: Option<Instant>,
    was_told: bool,
}

impl Episode {
    /// It fails, for the first time or still; answers whether that is worth a line.
    pub(super) fn fails(&mut self, now: Instant) -> bool {
        self.began.get_or_insert(now);
        let is_quiet = self.last_line.is_some_and(|line| now < line + QUIET);
        if is_quiet {
            return false;
        }
        self.last_line = Some(now);
        self.was_told = true;
        true
    }

    /// It works; answers how long it did not, if anybody was told.
    pub(super) fn works(&mut self, now: Instant) -> Option<Duration> {
        let began = self.began.take()?;
        let was_told = std::mem::take(&mut self.was_told);
        was_told.then(|| now - began)
    }
}
