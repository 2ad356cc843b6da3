//! Why a move does not go on.

use std::time::Duration;

use super::{ControlError, PortStage, Stage, ThresholdError};
use crate::ports::{Group, PortError, Topic};

/// Why buckets do not move.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// There is no migration.
    #[error("there is no control record; begin with `init`")]
    NotBegun,
    /// There is one already.
    #[error("the migration has begun already")]
    Begun,
    /// It would jump.
    #[error(transparent)]
    Jump(#[from] ThresholdError),
    /// Nobody stays in this stage.
    #[error("{0} is passed on the way and cannot be asked for")]
    Passing(Stage),
    /// The way back ends before it.
    #[error("{0} cannot be left again")]
    Final(PortStage),
    /// A consumer would miss events: it has no place on the new bus yet.
    #[error("group {group} does not hear {topic} on the new bus yet")]
    NotHeard {
        /// What it hears on the old bus.
        topic: Topic,
        /// The group.
        group: Group,
    },
    /// A replica has not followed in time.
    #[error("replica {replica} has not followed to epoch {epoch} within {} ms", .waited.as_millis())]
    NotAdopted {
        /// The replica.
        replica: Box<str>,
        /// What it should have adopted.
        epoch: u64,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Records stayed behind while nobody could write; everything is as before.
    #[error("{found} records were still behind after {} ms without writes; the step was taken back", .waited.as_millis())]
    Behind {
        /// How many.
        found: u64,
        /// How long nobody wrote.
        waited: Duration,
    },
    /// Somebody else moves buckets, and is not ready.
    #[error("another coordinator has been at work for {} ms", .waited.as_millis())]
    Busy {
        /// How long it was waited for.
        waited: Duration,
    },
    /// Somebody else has moved buckets.
    #[error("another coordinator has changed the control record")]
    Overtaken,
    /// The control record is not ours.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A side cannot be used.
    #[error(transparent)]
    Port(#[from] PortError),
}
