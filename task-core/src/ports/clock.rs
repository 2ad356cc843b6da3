//! Time, as a port, so that tests can hold it, move it and let it lie.

use std::fmt::Debug;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::domain::Timestamp;

/// The only source of wall-clock time in the core, and of time that counts a suspended machine.
///
/// Waits and deadlines use `tokio::time`, which tests can pause, and which stands while the machine is
/// suspended.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The current time. It may step backwards.
    fn now(&self) -> Timestamp;

    /// The time since a moment that stays the same while the process runs. It never falls.
    ///
    /// It runs on while the machine is suspended: what others may do after a time, they do then, too.
    fn uptime(&self) -> Duration;
}

/// The machine's clock, as far as the standard library shows it.
///
/// Its [`uptime`](Clock::uptime) stands while a Linux machine is suspended. Whoever holds a
/// [`Lease`](crate::application::Lease) on a machine that may be suspended needs a clock of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the clock"
    )]
    fn now(&self) -> Timestamp {
        let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |m| -m),
        };
        Timestamp::from_unix_micros(micros)
    }

    fn uptime(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }
}
