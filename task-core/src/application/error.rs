//! What a caller of a use case can act on.

use crate::domain::EntityTag;
use crate::ports::PortError;

/// Why a use case did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// There is no such task.
    #[error("task not found")]
    NotFound,
    /// The task is not in the state that the caller requires.
    #[error("the task's current version is {current}")]
    PreconditionFailed {
        /// Its current tag.
        current: EntityTag,
    },
    /// The idempotency key was used before, with another body.
    #[error("the idempotency key was used for a different request")]
    KeyReused,
    /// The idempotency key was used before, and the task that it made is deleted.
    #[error("the task of this idempotency key was deleted, which is final")]
    Deleted,
    /// Other writers were faster each time.
    #[error("{attempts} attempts met a concurrent change each time")]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
    /// The state store failed.
    #[error("the state store failed")]
    Store(#[source] PortError),
}

impl From<PortError> for TaskError {
    fn from(error: PortError) -> Self {
        Self::Store(error)
    }
}
