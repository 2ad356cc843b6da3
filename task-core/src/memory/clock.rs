//! A clock that stands until it is moved.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::Timestamp;
use crate::ports::Clock;

/// A clock that shows what it is told, also backwards.
///
/// Its uptime runs with the time of `tokio`, which tests pause and move, and counts the times for which
/// the machine was [suspended](Self::suspend).
#[derive(Debug)]
pub struct ManualClock {
    micros: AtomicI64,
    started: Instant,
    suspended_micros: AtomicU64,
}

impl ManualClock {
    /// A clock that stands at a time.
    #[must_use]
    pub fn at(time: Timestamp) -> Self {
        Self {
            micros: AtomicI64::new(time.unix_micros()),
            started: Instant::now(),
            suspended_micros: AtomicU64::new(0),
        }
    }

    /// Moves the clock forwards.
    pub fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.micros.fetch_add(micros, Ordering::SeqCst);
    }

    /// Sets the clock, forwards or backwards.
    pub fn set(&self, time: Timestamp) {
        self.micros.store(time.unix_micros(), Ordering::SeqCst);
    }

    /// Suspends the machine for a time: it passes, and nobody who waits notices.
    pub fn suspend(&self, time: Duration) {
        self.advance(time);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.suspended_micros.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Default for ManualClock {
    /// A clock that stands at 2026-01-01 00:00:00 UTC.
    fn default() -> Self {
        Self::at(Timestamp::from_unix_micros(1_767_225_600_000_000))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_micros(self.micros.load(Ordering::SeqCst))
    }

    fn uptime(&self) -> Duration {
        let suspended = self.suspended_micros.load(Ordering::SeqCst);
        self.started.elapsed() + Duration::from_micros(suspended)
    }
}
