//! What came of a step's attempt, as the driver reports it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::agent::Refusal;
use crate::ports::{DropReason, ErrorKind, Outcome, PortError, Retry};

/// Pause of a step that was not attempted, unless a longer one is asked for.
const POSTPONED_PAUSE: Duration = Duration::from_secs(1);

/// What came of one attempt; serializable, because it may travel from where the step was done.
///
/// ```
/// use task_core::ports::{ErrorKind, PortError};
/// use task_core::saga::StepResult;
///
/// let down = PortError::new(ErrorKind::Unavailable, "http", "notify");
/// assert!(matches!(StepResult::from(&down), StepResult::Failed { is_final: false, .. }));
/// // The circuit is open: nobody was asked, and no attempt is used up.
/// assert!(matches!(StepResult::from(&down.not_made()), StepResult::Postponed { .. }));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum StepResult {
    /// It took effect, now or before.
    Done,
    /// It failed, or nobody knows.
    Failed {
        /// Why, in one line.
        reason: String,
        /// Another attempt cannot help.
        is_final: bool,
    },
    /// It was not attempted.
    Postponed {
        /// Why, in one line.
        reason: String,
        /// When to ask again, in milliseconds from now.
        pause_ms: u64,
    },
}

impl StepResult {
    /// A failure that another attempt may heal: a time limit, an activity that died.
    #[must_use]
    pub fn failed(reason: impl fmt::Display) -> Self {
        Self::Failed {
            reason: one_line(reason),
            is_final: false,
        }
    }
}

/// Reasons stand in logs and outputs, which they must neither end nor fill.
fn one_line(reason: impl fmt::Display) -> String {
    DropReason::new(reason).as_str().to_owned()
}

impl<T> From<&Result<T, Refusal>> for StepResult {
    /// What an actor refuses once, it refuses always.
    fn from(reply: &Result<T, Refusal>) -> Self {
        match reply {
            Ok(_) => Self::Done,
            Err(refusal) => Self::Failed {
                reason: one_line(refusal),
                is_final: true,
            },
        }
    }
}

impl From<&PortError> for StepResult {
    fn from(error: &PortError) -> Self {
        let reason = one_line(error);
        let asked = match error.retryable() {
            Retry::After(pause) => pause,
            Retry::Maybe | Retry::Never => Duration::ZERO,
        };
        if error.outcome() == Outcome::NotMade {
            let pause = asked.max(POSTPONED_PAUSE).as_millis();
            let pause_ms = u64::try_from(pause).unwrap_or(u64::MAX);
            return Self::Postponed { reason, pause_ms };
        }
        // Whoever lets nobody in says nothing of this message, and somebody may heal that.
        let is_denied = error.kind() == ErrorKind::Denied;
        let is_final = error.retryable() == Retry::Never && !is_denied;
        Self::Failed { reason, is_final }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(kind: ErrorKind) -> StepResult {
        StepResult::from(&PortError::new(kind, "http", "notify"))
    }

    #[test]
    fn only_a_receivers_never_about_this_very_step_is_final() {
        for (kind, expected) in [
            (ErrorKind::Invalid, true),
            (ErrorKind::Denied, false),
            (ErrorKind::Timeout, false),
            (ErrorKind::Unavailable, false),
        ] {
            let StepResult::Failed { is_final, .. } = result(kind) else {
                panic!("{kind} is no failure");
            };
            assert_eq!(is_final, expected, "{kind}");
        }
    }

    #[test]
    fn an_open_circuit_postpones_for_as_long_as_it_says() {
        let open = PortError::new(ErrorKind::Unavailable, "http", "notify").not_made();
        let asked = |open: PortError| match StepResult::from(&open) {
            StepResult::Postponed { pause_ms, .. } => pause_ms,
            StepResult::Done | StepResult::Failed { .. } => panic!("not postponed"),
        };
        let four = Retry::After(Duration::from_secs(4));
        assert_eq!(asked(open), 1000);
        let open = PortError::new(ErrorKind::Unavailable, "http", "notify").not_made();
        assert_eq!(asked(open.retry(four)), 4000);
    }
}
