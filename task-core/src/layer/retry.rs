//! Whether a failed attempt is followed by another, and after which pause.

use std::time::Duration;

use super::CallKind;
use crate::ports::{Entropy, Outcome, PortError, Retry};

/// How often a call is attempted, and how far apart.
///
/// The pause doubles from attempt to attempt, and a random part of up to a half is taken off it, so
/// that callers who failed together do not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Most attempts of one call, the first included; 0 counts as 1.
    pub attempts: u32,
    /// Pause after the first attempt, before jitter.
    pub first_pause: Duration,
    /// Longest pause, also one that the backend asks for.
    pub longest_pause: Duration,
}

impl RetryPolicy {
    /// One attempt, for adapters whose caller decides.
    pub const NEVER: Self = Self {
        attempts: 1,
        first_pause: Duration::ZERO,
        longest_pause: Duration::ZERO,
    };

    /// The pause before the next attempt; `None` if this was the last one.
    ///
    /// `made` is the number of attempts so far, at least 1.
    pub(super) fn pause_after(
        &self,
        made: u32,
        kind: CallKind,
        error: &PortError,
        entropy: &dyn Entropy,
    ) -> Option<Duration> {
        if made >= self.attempts || !may_repeat(kind, error) {
            return None;
        }
        match error.retryable() {
            Retry::Never => None,
            Retry::Maybe => Some(entropy.jitter(self.back_off(made))),
            Retry::After(asked) => (asked <= self.longest_pause).then_some(asked),
        }
    }

    fn back_off(&self, made: u32) -> Duration {
        let doublings = made.saturating_sub(1).min(31);
        self.first_pause
            .saturating_mul(1 << doublings)
            .min(self.longest_pause)
    }
}

impl Default for RetryPolicy {
    /// 3 attempts, up to 50 ms and 100 ms apart; a backend may ask for 1 s.
    fn default() -> Self {
        Self {
            attempts: 3,
            first_pause: Duration::from_millis(50),
            longest_pause: Duration::from_secs(1),
        }
    }
}

/// Guards conditional writes: `a_write_with_an_unknown_outcome_is_not_repeated`.
fn may_repeat(kind: CallKind, error: &PortError) -> bool {
    match kind {
        CallKind::Read | CallKind::Probe | CallKind::IdempotentWrite => true,
        CallKind::Write => error.outcome() != Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::SeededEntropy;
    use crate::ports::ErrorKind;

    const POLICY: RetryPolicy = RetryPolicy {
        attempts: 10,
        first_pause: Duration::from_millis(100),
        longest_pause: Duration::from_secs(1),
    };

    fn unavailable() -> PortError {
        PortError::new(ErrorKind::Unavailable, "test", "get")
    }

    fn pause(made: u32, kind: CallKind, error: &PortError) -> Option<Duration> {
        POLICY.pause_after(made, kind, error, &SeededEntropy::new(7))
    }

    /// Answers every request for randomness with the same byte.
    #[derive(Debug)]
    struct Constant(u8);

    impl Entropy for Constant {
        fn fill(&self, buffer: &mut [u8]) {
            buffer.fill(self.0);
        }
    }

    #[test]
    fn the_pause_doubles_up_to_the_longest_and_jitter_takes_up_to_half() {
        let at = |made, byte| {
            POLICY
                .pause_after(made, CallKind::Read, &unavailable(), &Constant(byte))
                .expect("another attempt")
                .as_millis()
        };
        assert_eq!(
            [at(1, 0xff), at(2, 0xff), at(4, 0xff), at(9, 0xff)],
            [100, 200, 800, 1000]
        );
        assert_eq!([at(1, 0), at(2, 0), at(9, 0)], [50, 100, 500]);
    }

    #[test]
    fn a_pause_that_the_backend_asks_for_is_kept_exactly_or_ends_the_call() {
        let asking = |asked| unavailable().retry(Retry::After(asked));
        let second = Duration::from_secs(1);
        assert_eq!(pause(1, CallKind::Read, &asking(second)), Some(second));
        let longer = asking(second + Duration::from_millis(1));
        assert_eq!(pause(1, CallKind::Read, &longer), None);
    }

    #[test]
    fn the_last_attempt_and_a_permanent_error_are_final() {
        assert!(pause(9, CallKind::Read, &unavailable()).is_some());
        assert_eq!(pause(10, CallKind::Read, &unavailable()), None);
        let denied = PortError::new(ErrorKind::Denied, "test", "get");
        assert_eq!(pause(1, CallKind::Read, &denied), None);
    }

    #[test]
    fn only_an_idempotent_write_is_repeated_after_an_unknown_outcome() {
        let unknown = unavailable().unknown_outcome();
        assert!(pause(1, CallKind::IdempotentWrite, &unknown).is_some());
        assert_eq!(pause(1, CallKind::Write, &unknown), None);
        assert!(pause(1, CallKind::Write, &unavailable()).is_some());
    }
}
