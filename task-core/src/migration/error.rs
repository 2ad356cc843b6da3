//! Why the migration did not do what it was asked.

use serde::{Deserialize, Serialize};

use super::{Condition, MoveError};
use crate::ports::PortError;

/// A guard that said no. Nothing has changed, or everything was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("refused by `{guard}`: {detail}")]
pub struct Refusal {
    /// The guard's name, for example `backfill_complete`.
    pub guard: String,
    /// What it found.
    pub detail: String,
    /// Everything that was looked at, when several guards were asked.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

impl Refusal {
    pub(super) fn new(guard: &str, detail: impl Into<String>) -> Self {
        Self {
            guard: guard.to_owned(),
            detail: detail.into(),
            conditions: Vec::new(),
        }
    }
}

/// Why the migration did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// A guard said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It was asked for something that there is not.
    #[error("{0}")]
    Usage(String),
    /// A side cannot be used.
    #[error(transparent)]
    Port(#[from] PortError),
}

impl MigrationError {
    /// The exit code of a command that ends with this: 2 refused, 3 unreachable, 64 usage.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) => 2,
            Self::Port(_) => 3,
            Self::Usage(_) => 64,
        }
    }
}

impl From<MoveError> for MigrationError {
    fn from(error: MoveError) -> Self {
        let guard = match error {
            MoveError::Port(error) => return Self::Port(error),
            MoveError::NotBegun => "begun",
            MoveError::Begun => "not_begun",
            MoveError::Jump(_) => "no_jump",
            MoveError::Passing(_) => "no_stay_in_handoff",
            MoveError::Final(_) => "no_way_back",
            MoveError::NotAdopted { .. } => "replicas_adopted",
            MoveError::Behind { .. } => "nothing_behind",
            MoveError::NotHeard { .. } => "subscribers_hear",
            MoveError::Busy { .. } | MoveError::Overtaken => "one_coordinator",
            MoveError::Control(_) => "control_record",
        };
        Self::Refused(Refusal::new(guard, error.to_string()))
    }
}
