//! What every replica has to know of the move: the control record, and the fence beside it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Bucket, BusStage, NotifierStage, PortStage, Stage, Thresholds};
use crate::ports::{Expect, Guard, Key, Kind};

/// Where the move keeps what is its own, on the old side.
pub(super) const KIND: Kind = Kind::new("migration");

/// How the record is written today.
const FORMAT: u32 = 1;

/// The state of the move, one record on the old side.
///
/// It changes only by compare-and-set and with the next epoch, and its absence is never taken for `off`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    format: u32,
    /// Rises with every change.
    pub epoch: u64,
    /// Rises when the right to write moves, or may have been lost; a part of every revision.
    pub term: u32,
    /// The backfill that counts; rises when the new side has to be filled anew.
    pub generation: u32,
    /// Makes the buckets of this move its own.
    pub salt: String,
    /// How far the records have moved.
    pub state: Thresholds,
    /// How far the events have moved.
    pub bus: Thresholds<BusStage>,
    /// How far the notifications have moved.
    pub notifier: Thresholds<NotifierStage>,
    /// Where the buckets in `handoff` came from, and go back to if the step fails.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub waiting_from: Option<WaitingFrom>,
    /// The new side has lost what it held: while buckets are in `handoff`, nobody reads there.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub new_is_lost: bool,
}

/// The stage that buckets in `handoff` have left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WaitingFrom {
    /// They are to accept writes on the new side.
    Live,
    /// They are to accept writes on the old side again.
    RampDown,
}

/// A control record that this version cannot read.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// It is not what we write.
    #[error("the control record of the migration cannot be read")]
    Unreadable(#[from] serde_json::Error),
    /// A newer version has written it.
    #[error("the control record has format {found}, and this version knows {FORMAT}")]
    Format {
        /// The number that was found.
        found: u32,
    },
}

impl Control {
    /// The record of a move that has not begun.
    #[must_use]
    pub fn begin(salt: impl Into<String>) -> Self {
        Self {
            format: FORMAT,
            epoch: 1,
            term: 1,
            generation: 1,
            salt: salt.into(),
            state: Thresholds::default(),
            bus: Thresholds::default(),
            notifier: Thresholds::default(),
            waiting_from: None,
            new_is_lost: false,
        }
    }

    /// Where it is stored.
    #[must_use]
    pub fn key() -> Key {
        Key::new(KIND, "control")
    }

    /// Reads a record.
    ///
    /// # Errors
    /// What it is not.
    pub fn decode(bytes: &[u8]) -> Result<Self, ControlError> {
        let control: Self = serde_json::from_slice(bytes)?;
        match control.format {
            FORMAT => Ok(control),
            found => Err(ControlError::Format { found }),
        }
    }

    /// The record as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let json = serde_json::to_vec(self);
        json.expect("text and numbers are JSON").into()
    }

    /// The stage of a record.
    #[must_use]
    pub fn stage_of(&self, key: &Key) -> Stage {
        self.state.stage_of(Bucket::of(&self.salt, &key.id))
    }

    /// The stage of the events of a key, which is the task's id.
    #[must_use]
    pub fn bus_stage_of(&self, key: &str) -> BusStage {
        self.bus.stage_of(Bucket::of(&self.salt, key))
    }

    /// The stage of a notification, by its idempotency key.
    #[must_use]
    pub fn notifier_stage_of(&self, key: &str) -> NotifierStage {
        self.notifier.stage_of(Bucket::of(&self.salt, key))
    }

    /// How many buckets have reached a stage, or gone past it.
    #[must_use]
    pub fn reached(&self, stage: PortStage) -> u16 {
        match stage {
            PortStage::State(stage) => self.state.reached(stage),
            PortStage::Bus(stage) => self.bus.reached(stage),
            PortStage::Notifier(stage) => self.notifier.reached(stage),
        }
    }

    /// How many buckets are in a stage now.
    #[must_use]
    pub fn within(&self, stage: PortStage) -> u16 {
        match stage {
            PortStage::State(stage) => self.state.within(stage),
            PortStage::Bus(stage) => self.bus.within(stage),
            PortStage::Notifier(stage) => self.notifier.within(stage),
        }
    }

    /// How many buckets have gone past a stage.
    #[must_use]
    pub fn beyond(&self, stage: PortStage) -> u16 {
        match stage {
            PortStage::State(stage) => self.state.beyond(stage),
            PortStage::Bus(stage) => self.bus.beyond(stage),
            PortStage::Notifier(stage) => self.notifier.beyond(stage),
        }
    }

    /// The same as the next epoch.
    #[must_use]
    pub fn next(&self) -> Self {
        Self {
            epoch: self.epoch + 1,
            ..self.clone()
        }
    }

    /// The thresholds with nobody in `handoff`: those that wait are where they came from.
    #[must_use]
    pub fn taken_back(&self) -> Thresholds {
        let (stage, buckets) = match self.waiting_from {
            None => return self.state,
            Some(WaitingFrom::Live) => (Stage::Handoff, self.state.reached(Stage::RampDown)),
            Some(WaitingFrom::RampDown) => (Stage::RampDown, self.state.reached(Stage::Handoff)),
        };
        // Neither passes a neighbour.
        self.state.with(stage, buckets).unwrap_or(self.state)
    }

    /// What a write to the old side depends on: nobody has forbidden the writer's epoch.
    #[must_use]
    pub fn guard(&self) -> Guard {
        Guard {
            key: fence_key(),
            expect: Expect::AtMost(fence_of(self.epoch)),
        }
    }
}

/// What a write to the old side depends on where nobody counts on marks: no move has left `off`.
///
/// A service that runs on the old side alone writes with this, so that it cannot write past a move.
#[must_use]
pub(super) fn unmoved() -> Guard {
    Guard {
        key: running_key(),
        expect: Expect::Absent,
    }
}

/// Where it is stored that a move has left `off`.
#[must_use]
pub(super) fn running_key() -> Key {
    Key::new(KIND, "running")
}

/// Where the least epoch is stored that may still write to the old side.
#[must_use]
pub(super) fn fence_key() -> Key {
    Key::new(KIND, "fence")
}

/// An epoch as the fence holds it, so that bytes compare as numbers do.
#[must_use]
pub(super) fn fence_of(epoch: u64) -> Bytes {
    format!("{epoch:020}").into()
}

/// The next epoch, with these stages of the state store.
pub(super) fn with_state(
    from: &Control,
    state: Thresholds,
    waiting_from: Option<WaitingFrom>,
) -> Control {
    let mut next = from.next();
    next.state = state;
    next.waiting_from = waiting_from;
    next.new_is_lost = false;
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let mut control = Control::begin("salt").next();
        control.state = control.state.with(Stage::DualWrite, 17).expect("a step");
        let bytes = control.encode();
        assert_eq!(Control::decode(&bytes).expect("readable"), control);
        assert_eq!(
            bytes,
            r#"{"format":1,"epoch":2,"term":1,"generation":1,"salt":"salt","state":[17,0,0,0,0,0],"bus":[0,0,0],"notifier":[0]}"#
        );
    }

    #[test]
    fn a_record_of_a_later_version_is_refused_by_its_number() {
        let text = String::from_utf8(Control::begin("").encode().to_vec()).expect("text");
        let error = Control::decode(text.replace("\"format\":1", "\"format\":2").as_bytes());
        let expected = "the control record has format 2, and this version knows 1";
        assert_eq!(error.expect_err("newer").to_string(), expected);
    }

    #[test]
    fn fences_compare_like_epochs() {
        assert!(fence_of(9) < fence_of(10));
        assert!(fence_of(u64::MAX) > fence_of(u64::MAX - 1));
    }
}
