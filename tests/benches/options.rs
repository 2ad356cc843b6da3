//! What the command line asks for.

use std::time::Duration;

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// A few seconds each: shows that everything runs, and roughly how fast.
    Short,
    /// Enough for numbers to be written down.
    Full,
}

/// What to run and how.
#[derive(Debug)]
pub(crate) struct Options {
    /// How much is measured.
    pub(crate) length: Length,
    /// Runtime workers of the server and of the bare server.
    pub(crate) workers: usize,
    selected: Vec<String>,
}

impl Options {
    /// Reads the arguments; those that cargo adds are ignored.
    pub(crate) fn parse(arguments: &[String]) -> Self {
        let short = arguments.iter().any(|argument| argument == "--short");
        let workers = arguments
            .iter()
            .find_map(|argument| argument.strip_prefix("--workers=")?.parse().ok());
        let selected = arguments
            .iter()
            .filter(|argument| !argument.starts_with('-'))
            .map(|argument| argument.to_uppercase());
        Self {
            length: if short { Length::Short } else { Length::Full },
            workers: workers.unwrap_or_else(default_workers).max(1),
            selected: selected.collect(),
        }
    }

    /// Says whether a bench was asked for; without names, all are.
    pub(crate) fn selects(&self, number: &str) -> bool {
        self.selected.is_empty() || self.selected.iter().any(|selected| selected == number)
    }

    /// What was asked for and is not known.
    pub(crate) fn unknown<'a>(&'a self, known: &'a [&str]) -> impl Iterator<Item = &'a str> {
        let selected = self.selected.iter().map(String::as_str);
        selected.filter(|number| !known.contains(number))
    }

    /// One value for a short run, another for a full one.
    pub(crate) fn either<T>(&self, short: T, full: T) -> T {
        match self.length {
            Length::Short => short,
            Length::Full => full,
        }
    }

    /// Rounds of subject and probe, after one that does not count.
    pub(crate) fn rounds(&self) -> usize {
        self.either(3, 7)
    }

    /// How long one load of a round lasts.
    pub(crate) fn load_time(&self) -> Duration {
        self.either(Duration::from_millis(700), Duration::from_secs(3))
    }

    /// How long one turn of the sync probe lasts.
    pub(crate) fn probe_time(&self) -> Duration {
        self.either(Duration::from_millis(200), Duration::from_millis(750))
    }
}

/// One core is left to the load: a worker that competes with it measures the scheduler.
fn default_workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.saturating_sub(1)
}
