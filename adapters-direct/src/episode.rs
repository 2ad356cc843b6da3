//! One line for what goes wrong for a while, instead of one each time.
//!
//! A backend that is away fails a hundred times a second, in a dozen places. Whoever logs that asks an
//! [`Episode`] first: it lets the first failure through, one in [`SAY_AGAIN`] after that, and tells
//! once that it is over.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Time between two lines of one episode.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// Something that fails, and then works again.
#[derive(Debug, Default)]
pub(crate) struct Episode {
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    since: Instant,
    last: Instant,
    said: Instant,
    /// Failures since the last line.
    unsaid: u64,
}

impl Episode {
    /// Notes a failure. If a line is due, answers how many were not told since the last one.
    pub(crate) fn failed(&self, now: Instant) -> Option<u64> {
        let mut open = self.lock();
        let Some(open) = &mut *open else {
            *open = Some(Open {
                since: now,
                last: now,
                said: now,
                unsaid: 0,
            });
            return Some(0);
        };
        open.last = now;
        if now.duration_since(open.said) < SAY_AGAIN {
            open.unsaid += 1;
            return None;
        }
        open.said = now;
        Some(std::mem::take(&mut open.unsaid))
    }

    /// Ends the episode if nothing has failed for so long; answers how long it was, once.
    pub(crate) fn over(&self, now: Instant, quiet: Duration) -> Option<Duration> {
        let mut open = self.lock();
        let ended = open.take_if(|open| now.duration_since(open.last) >= quiet)?;
        Some(ended.last.duration_since(ended.since))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_told_then_one_in_thirty_seconds_and_the_end_once() {
        const QUIET: Duration = Duration::from_secs(2);
        let episode = Episode::default();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(episode.over(at(0), QUIET), None, "nothing has failed");
        let told: Vec<_> = (0..=61)
            .filter_map(|second| Some((second, episode.failed(at(second))?)))
            .collect();
        assert_eq!(told, [(0, 0), (30, 29), (60, 29)]);
        assert_eq!(episode.over(at(62), QUIET), None, "it failed just now");
        assert_eq!(episode.over(at(63), QUIET), Some(Duration::from_secs(61)));
        assert_eq!(episode.over(at(63), QUIET), None, "that was told");
        assert_eq!(episode.failed(at(64)), Some(0), "another episode");
    }
}
