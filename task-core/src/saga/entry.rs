//! What a saga's log says.

use serde::{Deserialize, Serialize};

use super::workflow::Workflow;
use crate::agent::as_text;
use crate::domain::Timestamp;

/// One entry of a saga's log.
///
/// There is none that says that a step begins: steps are safe to repeat, so every step of the stage that a log has reached is
/// taken for one that may have begun. Fields and kinds that this version does not know are refused: a saga that is
/// half understood must not be driven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Entry {
    /// The saga is accepted. Always the first entry.
    Begun {
        /// The version of the plan.
        version: u32,
        /// What is to be done.
        workflow: Workflow,
    },
    /// A step is done.
    Done {
        /// Its name.
        step: String,
    },
    /// An attempt of a step failed, or nobody knows what came of it.
    Failed {
        /// Its name.
        step: String,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// Why.
        reason: String,
        /// No other attempt follows: the saga turns round.
        is_final: bool,
    },
    /// A step was not even attempted, and will be.
    Postponed {
        /// Its name.
        step: String,
        /// When it is tried again.
        #[serde(with = "as_text")]
        until: Timestamp,
        /// Why.
        reason: String,
    },
    /// A step is taken back.
    Undone {
        /// Its name.
        step: String,
    },
    /// A compensation failed, and will be tried again.
    UndoFailed {
        /// The step's name.
        step: String,
        /// The number of the attempt, from 1.
        attempt: u32,
        /// Why.
        reason: String,
    },
    /// Somebody wants the saga to turn round.
    Cancelled {
        /// Who.
        by: String,
    },
    /// Somebody wants the saga to stop where it is; nothing is taken back.
    Terminated {
        /// Who.
        by: String,
    },
}
