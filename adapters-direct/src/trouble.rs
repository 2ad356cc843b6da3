//! What fails for a while in a dozen places, told as one [`Episode`].

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use task_core::episode::Episode;
use tokio::time::Instant;

/// Something that fails, whoever notices it, and then works again.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    noted: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    episode: Episode,
    last: Option<Instant>,
    /// Failures since the last line.
    unsaid: u64,
}

impl Trouble {
    /// Notes a failure. If a line is due, answers how many were not told since the last one.
    pub(crate) fn failed(&self, now: Instant) -> Option<u64> {
        let mut noted = self.lock();
        noted.last = Some(now);
        if noted.episode.fails(now) {
            return Some(std::mem::take(&mut noted.unsaid));
        }
        noted.unsaid += 1;
        None
    }

    /// How long ago it failed last; `None` if it works.
    #[cfg(feature = "kafka")]
    pub(crate) fn since(&self, now: Instant) -> Option<Duration> {
        let last = self.lock().last;
        last.map(|last| now.saturating_duration_since(last))
    }

    /// Ends the episode if nothing has failed for so long; answers how long it was, once that is worth a line.
    pub(crate) fn over(&self, now: Instant, quiet: Duration) -> Option<Duration> {
        let mut noted = self.lock();
        let last = noted.last?;
        if now < last + quiet {
            return None;
        }
        let lasted = noted.episode.works(now);
        if !noted.episode.lasts() {
            noted.last = None;
        }
        lasted
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_how_many_were_passed_over_and_the_end_waits_until_it_is_quiet() {
        const QUIET: Duration = Duration::from_secs(2);
        let trouble = Trouble::default();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(trouble.over(at(0), QUIET), None, "nothing has failed");
        let told: Vec<_> = (0..=61)
            .filter_map(|second| Some((second, trouble.failed(at(second))?)))
            .collect();
        assert_eq!(told, [(0, 0), (30, 29), (60, 29)]);
        assert_eq!(trouble.over(at(62), QUIET), None, "it failed just now");
        assert_eq!(trouble.over(at(63), QUIET), Some(Duration::from_secs(63)));
        assert_eq!(trouble.over(at(63), QUIET), None, "that was told");
    }
}
