//! One line when something begins to fail, one every now and then, one when it is over.
//!
//! The last line is never that it works while it fails. Where failures and successes follow each other
//! closely, it is the end that waits: there is one in 30 s, and at most two lines of failures.

use std::time::Duration;

use tokio::time::Instant;

/// Between two lines of failures of one episode, and between the ends of two.
const QUIET: Duration = Duration::from_secs(30);

/// A time during which something fails, at least now and then.
///
/// It has no time of its own: an end that waits is told by the first call of [`works`](Self::works) or
/// [`overdue`](Self::overdue) after its time. Its owner calls one of them now and then while it
/// [`lasts`](Self::lasts), or the last line stays that it fails.
#[derive(Debug, Default)]
pub struct Episode {
    /// Its first failure, until its end is told.
    began: Option<Instant>,
    /// Its first success after its last failure.
    worked: Option<Instant>,
    last_line: Option<Instant>,
    last_end: Option<Instant>,
}

impl Episode {
    /// It fails, for the first time or still; answers whether that is worth a line.
    #[must_use]
    pub fn fails(&mut self, now: Instant) -> bool {
        self.worked = None;
        let is_told = self.began.is_some();
        self.began.get_or_insert(now);
        if is_told && self.last_line.is_some_and(|line| now < line + QUIET) {
            return false;
        }
        self.last_line = Some(now);
        true
    }

    /// Says whether the last line is that it fails; [`works`](Self::works) is then to be called further.
    #[must_use]
    pub fn lasts(&self) -> bool {
        self.began.is_some()
    }

    /// It works; answers how long it did not, once that is worth a line.
    pub fn works(&mut self, now: Instant) -> Option<Duration> {
        let began = self.began?;
        let worked = *self.worked.get_or_insert(now);
        if self.last_end.is_some_and(|end| now < end + QUIET) {
            return None;
        }
        self.last_end = Some(now);
        self.began = None;
        Some(worked - began)
    }

    /// Tells an end that has waited for its time, and that nothing has happened since.
    pub fn overdue(&mut self, now: Instant) -> Option<Duration> {
        self.worked?;
        self.works(now)
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
    fn a_failure_after_a_told_end_is_told_at_once_and_the_next_end_waits() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut episode = Episode::default();
        assert!(episode.fails(at(0)));
        assert_eq!(episode.works(at(1)), Some(Duration::from_secs(1)));
        assert!(episode.fails(at(2)));
        assert_eq!(episode.works(at(5)), None);
        assert!(episode.lasts(), "its end is still to be told");
        assert_eq!(episode.works(at(30)), None);
        assert_eq!(episode.works(at(31)), Some(Duration::from_secs(3)));
        assert!(!episode.lasts());
    }

    #[test]
    fn an_end_that_waits_is_told_without_another_success_and_not_while_it_fails() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut episode = Episode::default();
        assert!(episode.fails(at(0)));
        assert_eq!(episode.overdue(at(1)), None, "it still fails");
        assert!(episode.works(at(1)).is_some());
        assert!(episode.fails(at(2)));
        assert_eq!(episode.works(at(5)), None);
        assert_eq!(episode.overdue(at(30)), None);
        assert_eq!(episode.overdue(at(31)), Some(Duration::from_secs(3)));
        assert_eq!(episode.overdue(at(32)), None, "that was told");
    }

    #[test]
    fn what_flaps_is_told_now_and_then_and_never_as_working_while_it_fails() {
        let began = Instant::now();
        let mut episode = Episode::default();
        let mut lines = 0;
        let mut last_says_it_fails = false;
        for second in 0..300 {
            let now = began + Duration::from_secs(second);
            let fails = second % 2 == 0;
            let is_told = match fails {
                true => episode.fails(now),
                false => episode.works(now).is_some(),
            };
            if is_told {
                lines += 1;
                last_says_it_fails = fails;
            }
            assert!(last_says_it_fails || !fails, "second {second}");
        }
        assert!(lines <= 31, "{lines} lines in 300 s");
        let quiet = began + Duration::from_secs(330);
        assert!(episode.works(quiet).is_some() || !episode.lasts());
    }
}
