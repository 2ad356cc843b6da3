//! The contract of the state store as the simplest code that keeps it.
//!
//! It shares nothing with the store in memory: it counts seconds in halves, versions in steps, and
//! applies a commit to a copy.

use std::collections::BTreeMap;

use task_core::ports::StateCapability::{
    ConditionalWrites, Outbox, Publishes, Tombstones, Transactions, Ttl, UniqueVersions,
};
use task_core::ports::{CapabilitySet, ErrorKind, StateCapability};

use super::operation::Change;

/// Life of a value, in half seconds; odd, so that no whole second is its end.
pub(super) const TTL_HALVES: u64 = 21;

/// Life of a tombstone, in half seconds.
pub(super) const TOMBSTONE_HALVES: u64 = 41;

/// A condition whose version is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Requires {
    Nothing,
    Absent,
    Version(u64),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) key: usize,
    pub(super) requires: Requires,
    pub(super) change: Change,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Value { value: u8, version: u64, until: u64 },
    Tombstone { until: u64 },
}

/// The state that a store should have.
#[derive(Debug, Clone)]
pub(super) struct Reference {
    declared: CapabilitySet<StateCapability>,
    slots: BTreeMap<usize, Slot>,
    pub(super) pending: Vec<u64>,
    now: u64,
    steps: u64,
}

impl Reference {
    pub(super) fn new(declared: CapabilitySet<StateCapability>) -> Self {
        Self {
            declared,
            slots: BTreeMap::new(),
            pending: Vec::new(),
            now: 0,
            steps: 0,
        }
    }

    /// Value and version of a key.
    pub(super) fn read(&self, key: usize) -> Option<(u8, u64)> {
        match self.slots.get(&key)? {
            Slot::Value {
                value,
                version,
                until,
            } if *until > self.now => Some((*value, *version)),
            Slot::Value { .. } | Slot::Tombstone { .. } => None,
        }
    }

    pub(super) fn elapse(&mut self, seconds: u8) {
        self.now += 2 * u64::from(seconds);
    }

    /// Applies a commit; `events` are the names of its events.
    pub(super) fn commit(&mut self, steps: &[Step], events: &[u64]) -> Result<(), ErrorKind> {
        let too_able = steps.len() > 1 && !self.declared.has(Transactions)
            || !events.is_empty() && !self.takes_events()
            || steps.iter().any(|step| !self.is_supported(step));
        if too_able {
            return Err(ErrorKind::Unsupported);
        }
        let mut copy = self.clone();
        for step in steps {
            copy.apply(step)?;
        }
        copy.pending.extend(events);
        *self = copy;
        Ok(())
    }

    /// The version of a value written now: the step, or the value itself where versions are digests.
    fn version_of(&self, value: u8) -> u64 {
        let digests = self.declared.has(ConditionalWrites) && !self.declared.has(UniqueVersions);
        if digests {
            u64::from(value)
        } else {
            self.steps
        }
    }

    fn takes_events(&self) -> bool {
        self.declared.has(Outbox) || self.declared.has(Publishes)
    }

    fn is_supported(&self, step: &Step) -> bool {
        let conditional = step.requires != Requires::Nothing;
        let (expires, tombstone) = match step.change {
            Change::Put { expires, .. } => (expires, false),
            Change::Delete { tombstone } => (false, tombstone),
        };
        (!conditional || self.declared.has(ConditionalWrites))
            && (!expires || self.declared.has(Ttl))
            && (!tombstone || self.declared.has(Tombstones))
    }

    fn apply(&mut self, step: &Step) -> Result<(), ErrorKind> {
        let version = self.read(step.key).map(|(_, version)| version);
        let buried = matches!(
            self.slots.get(&step.key),
            Some(Slot::Tombstone { until }) if *until > self.now
        );
        let holds = match step.requires {
            Requires::Nothing => true,
            Requires::Absent => version.is_none() && !buried,
            Requires::Version(wanted) => version == Some(wanted),
        };
        if !holds {
            return Err(ErrorKind::Conflict);
        }
        self.steps += 1;
        match step.change {
            Change::Put { value, expires } => {
                let life = if expires { TTL_HALVES } else { u64::MAX };
                let slot = Slot::Value {
                    value,
                    version: self.version_of(value),
                    until: self.now.saturating_add(life),
                };
                self.slots.insert(step.key, slot);
            }
            Change::Delete { tombstone: true } => {
                let until = self.now + TOMBSTONE_HALVES;
                self.slots.insert(step.key, Slot::Tombstone { until });
            }
            // A tombstone outlives a deletion without one.
            Change::Delete { tombstone: false } if !buried => {
                self.slots.remove(&step.key);
            }
            Change::Delete { tombstone: false } => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(requires: Requires, change: Change) -> Step {
        Step {
            key: 0,
            requires,
            change,
        }
    }

    #[test]
    fn a_tombstone_refuses_a_creation_until_its_end() {
        let mut model = Reference::new(CapabilitySet::of(StateCapability::ALL));
        let create = step(
            Requires::Absent,
            Change::Put {
                value: 1,
                expires: false,
            },
        );
        let bury = step(Requires::Nothing, Change::Delete { tombstone: true });
        model.commit(&[bury], &[]).unwrap();
        assert_eq!(model.commit(&[create], &[]), Err(ErrorKind::Conflict));
        model.elapse(21);
        assert_eq!(model.commit(&[create], &[]), Ok(()));
        assert_eq!(model.read(0), Some((1, 2)));
    }

    #[test]
    fn a_version_comes_back_with_its_value_unless_versions_are_unique() {
        const DIGESTS: &[StateCapability] = &[ConditionalWrites];
        const UNIQUE: &[StateCapability] = &[ConditionalWrites, UniqueVersions];
        for (declared, expected) in [(DIGESTS, Ok(())), (UNIQUE, Err(ErrorKind::Conflict))] {
            let put = |value, requires| {
                let expires = false;
                step(requires, Change::Put { value, expires })
            };
            let mut model = Reference::new(CapabilitySet::of(declared));
            model.commit(&[put(7, Requires::Nothing)], &[]).unwrap();
            let (_, first) = model.read(0).unwrap();
            model.commit(&[put(8, Requires::Nothing)], &[]).unwrap();
            model.commit(&[put(7, Requires::Nothing)], &[]).unwrap();
            let stale = put(9, Requires::Version(first));
            assert_eq!(model.commit(&[stale], &[]), expected);
        }
    }
}
