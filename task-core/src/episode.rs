//! One line when something begins to fail, one every now and then, one when it is over.

use std::time::Duration;

use tokio::time::Instant;

/// Between two lines of one kind: also of episodes that follow each other closely.
const QUIET: Duration = Duration::from_secs(30);

/// A time during which something fails.
#[derive(Debug, Default)]
pub struct Episode {
    began: Option<Instant>,
    last_line: Option<Instant>,
    was_told: bool,
}

impl Episode {
    /// It fails, for the first time or still; answers whether that is worth a line.
    #[must_use]
    pub fn fails(&mut self, now: Instant) -> bool {
        self.began.get_or_insert(now);
        let is_quiet = self.last_line.is_some_and(|line| now < line + QUIET);
        if is_quiet {
            return false;
        }
        self.last_line = Some(now);
        self.was_told = true;
        true
    }

    /// Says whether it failed the last time.
    #[must_use]
    pub fn lasts(&self) -> bool {
        self.began.is_some()
    }

    /// It works; answers how long it did not, if anybody was told.
    pub fn works(&mut self, now: Instant) -> Option<Duration> {
        let began = self.began.take()?;
        let was_told = std::mem::take(&mut self.was_told);
        was_told.then(|| now - began)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_line_at_the_beginning_one_every_30_s_and_one_at_the_end() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut episode = Episode::default();
        assert_eq!(episode.works(at(0)), None);
        let told: Vec<u64> = (0..65).filter(|n| episode.fails(at(*n))).collect();
        assert_eq!(told, [0, 30, 60]);
        assert_eq!(episode.works(at(65)), Some(Duration::from_secs(65)));
        assert_eq!(episode.works(at(66)), None);
    }

    #[test]
    fn episodes_that_follow_each_other_closely_are_told_of_once() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut episode = Episode::default();
        assert!(episode.fails(at(0)));
        assert!(episode.works(at(1)).is_some());
        assert!(!episode.fails(at(2)));
        assert_eq!(episode.works(at(3)), None);
        assert!(episode.fails(at(31)));
    }
}
