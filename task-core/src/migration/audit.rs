//! Every change of the control record: who made it, why, from what, and to what.
//!
//! An entry is written in the same atomic step as the change, under the change's epoch. So there is none
//! without its entry and no entry without its change, and the list is read by counting down from the present
//! epoch. The salt of the move is a part of its place, so that a later move does not overwrite it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::control::KIND;
use super::{Cause, Control, MoveError};
use crate::domain::Timestamp;
use crate::ports::{Key, PutOptions, StateStore, Write};

/// Entries that are read in one call.
const PAGE: u64 = 128;

/// One change of the control record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// The epoch that it began.
    pub epoch: u64,
    /// When, by the clock of the replica that made it, RFC 3339.
    pub at: String,
    /// Who and why.
    #[serde(flatten)]
    pub cause: Cause,
    /// The record before; `None` for the first one.
    pub from: Option<Control>,
    /// The record after.
    pub to: Control,
}

impl AuditEntry {
    /// What changed, for people: `state: shadow 100.00 % → live 25.00 %, shadow 75.00 %`.
    #[must_use]
    pub fn change(&self) -> String {
        let Some(from) = &self.from else {
            return format!("begun: {}", self.to.state);
        };
        let mut changes = Vec::new();
        if from.state != self.to.state {
            changes.push(format!("state: {} → {}", from.state, self.to.state));
        }
        if from.bus != self.to.bus {
            changes.push(format!("bus: {} → {}", from.bus, self.to.bus));
        }
        if from.notifier != self.to.notifier {
            let (from, to) = (from.notifier, self.to.notifier);
            changes.push(format!("notifier: {from} → {to}"));
        }
        for (name, from, to) in [
            ("term", from.term, self.to.term),
            ("generation", from.generation, self.to.generation),
        ] {
            if from != to {
                changes.push(format!("{name} {from} → {to}"));
            }
        }
        changes.join("; ")
    }

    fn key(salt: &str, epoch: u64) -> Key {
        Key::new(KIND, format!("audit/{salt}/{epoch:020}"))
    }

    /// The write that belongs into the step that changes the record.
    pub(super) fn write(
        from: Option<&Control>,
        to: &Control,
        cause: &Cause,
        now: Timestamp,
    ) -> Write {
        let entry = Self {
            epoch: to.epoch,
            at: now.to_string(),
            cause: cause.clone(),
            from: from.cloned(),
            to: to.clone(),
        };
        let json = serde_json::to_vec(&entry);
        Write::Put {
            key: Self::key(&to.salt, to.epoch),
            value: Bytes::from(json.expect("text and numbers are JSON")),
            options: PutOptions::default(),
        }
    }
}

/// The changes up to a control record, newest first, at most so many.
pub(super) async fn entries(
    old: &dyn StateStore,
    control: &Control,
    most: usize,
) -> Result<Vec<AuditEntry>, MoveError> {
    let mut entries = Vec::new();
    let mut next = control.epoch;
    while next > 0 && entries.len() < most {
        let least = next.saturating_sub(PAGE);
        let epochs = (least + 1..=next).rev();
        let keys: Vec<Key> = epochs
            .map(|epoch| AuditEntry::key(&control.salt, epoch))
            .collect();
        for stored in old.get_many(&keys).await?.into_iter().flatten() {
            let entry = serde_json::from_slice(&stored.value);
            entries.push(entry.map_err(super::ControlError::from)?);
        }
        next = least;
    }
    entries.truncate(most);
    Ok(entries)
}
