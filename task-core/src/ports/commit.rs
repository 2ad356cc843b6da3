//! What a state store is asked to write: modes, conditions, and commits of several writes.

use std::time::Duration;

use bytes::Bytes;

use super::{CapabilitySet, ETag, ErrorKind, Event, Key, PortError, StateCapability};

/// When a put takes effect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum WriteMode {
    /// Always.
    #[default]
    Overwrite,
    /// Only if the key has no value and no tombstone.
    Create,
    /// Only if the value still has this version.
    Match(ETag),
    /// Only if the key has no value or a lesser one, byte by byte; otherwise it succeeds and changes
    /// nothing.
    Raise,
}

/// How a value is put.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PutOptions {
    /// When the put takes effect.
    pub mode: WriteMode,
    /// How long the value lives; `None` is for ever, also if the replaced value had a limit.
    pub ttl: Option<Duration>,
}

impl PutOptions {
    /// Refuses what the backend has not declared.
    ///
    /// # Errors
    /// `Unsupported`, with the capability.
    pub fn check(
        &self,
        capabilities: CapabilitySet<StateCapability>,
        backend: &'static str,
        operation: &'static str,
    ) -> Result<(), PortError> {
        let needed = match self.mode {
            WriteMode::Overwrite => None,
            WriteMode::Create | WriteMode::Match(_) => Some(StateCapability::ConditionalWrites),
            WriteMode::Raise => Some(StateCapability::Guards),
        };
        let ttl = self.ttl.map(|_| StateCapability::Ttl);
        needed
            .into_iter()
            .chain(ttl)
            .try_for_each(|needed| capabilities.require(needed, backend, operation))
    }
}

/// When a deletion takes effect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DeleteMode {
    /// Always; deleting a missing key succeeds.
    #[default]
    Any,
    /// Only if the value still has this version.
    Match(ETag),
    /// Only if the value is not greater than this one, byte by byte; otherwise it succeeds and
    /// changes nothing.
    AtMost(Bytes),
}

/// How a value is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteOptions {
    /// When the deletion takes effect.
    pub mode: DeleteMode,
    /// How long the key refuses to be created again; `None` is not at all, and leaves a tombstone that
    /// is there. A new one replaces it.
    pub tombstone: Option<Duration>,
}

impl DeleteOptions {
    /// Refuses what the backend has not declared.
    ///
    /// # Errors
    /// `Unsupported`, with the capability.
    pub fn check(
        &self,
        capabilities: CapabilitySet<StateCapability>,
        backend: &'static str,
        operation: &'static str,
    ) -> Result<(), PortError> {
        let needed = match self.mode {
            DeleteMode::Any => None,
            DeleteMode::Match(_) => Some(StateCapability::ConditionalWrites),
            DeleteMode::AtMost(_) => Some(StateCapability::Guards),
        };
        let tombstone = self.tombstone.map(|_| StateCapability::Tombstones);
        needed
            .into_iter()
            .chain(tombstone)
            .try_for_each(|needed| capabilities.require(needed, backend, operation))
    }
}

/// One write of a [`Commit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Puts a value.
    Put {
        /// Where.
        key: Key,
        /// What.
        value: Bytes,
        /// How.
        options: PutOptions,
    },
    /// Deletes a value.
    Delete {
        /// Where.
        key: Key,
        /// How.
        options: DeleteOptions,
    },
}

impl Write {
    /// The key that is written.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } => key,
        }
    }

    fn check(
        &self,
        capabilities: CapabilitySet<StateCapability>,
        backend: &'static str,
        operation: &'static str,
    ) -> Result<(), PortError> {
        match self {
            Self::Put {
                key,
                value,
                options,
            } => {
                key.check_with(value, backend, operation)?;
                options.check(capabilities, backend, operation)
            }
            Self::Delete { key, options } => {
                key.check(backend, operation)?;
                options.check(capabilities, backend, operation)
            }
        }
    }
}

/// What a commit depends on besides the keys that it writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// The key that is looked at.
    pub key: Key,
    /// What has to be there.
    pub expect: Expect,
}

impl Guard {
    /// The error of a commit whose guard does not hold.
    #[must_use]
    pub fn refusal(&self, backend: &'static str) -> PortError {
        let context = match self.expect {
            Expect::Absent => format!("{} holds a value and must not", self.key),
            Expect::AtMost(_) => format!("{} is missing or greater than allowed", self.key),
        };
        PortError::new(ErrorKind::Fenced, backend, "commit").context(context)
    }
}

/// What a [`Guard`] demands of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// There is no value.
    Absent,
    /// There is a value, and it is not greater than this one, byte by byte.
    AtMost(Bytes),
}

impl Expect {
    /// Says whether a value, or the lack of one, is as demanded.
    #[must_use]
    pub fn accepts(&self, value: Option<&[u8]>) -> bool {
        match (self, value) {
            (Self::Absent, found) => found.is_none(),
            (Self::AtMost(most), Some(found)) => found <= most.as_ref(),
            (Self::AtMost(_), None) => false,
        }
    }
}

/// Writes and pending events that take effect together or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Commit {
    /// What must hold before the first write; at most 64.
    pub guards: Vec<Guard>,
    /// The writes, applied in this order; at most 64.
    pub writes: Vec<Write>,
    /// The events to be published because of them, in this order; at most 64.
    pub events: Vec<Event>,
}

impl Commit {
    /// Most guards, most writes, and most events, of one commit.
    pub const MAX_ITEMS: usize = 64;

    /// A commit of one write.
    #[must_use]
    pub fn of(write: Write) -> Self {
        Self {
            writes: vec![write],
            ..Self::default()
        }
    }

    /// Adds a condition.
    #[must_use]
    pub fn guard(mut self, guard: Guard) -> Self {
        self.guards.push(guard);
        self
    }

    /// Adds a write after those that are there.
    #[must_use]
    pub fn write(mut self, write: Write) -> Self {
        self.writes.push(write);
        self
    }

    /// Adds an event that the writes cause.
    #[must_use]
    pub fn event(mut self, event: Event) -> Self {
        self.events.push(event);
        self
    }

    /// Refuses what is beyond the port's limits or the backend's capabilities.
    ///
    /// # Errors
    /// `Invalid` with the limit and the size; `Unsupported` with the capability.
    pub fn check(
        &self,
        capabilities: CapabilitySet<StateCapability>,
        backend: &'static str,
    ) -> Result<(), PortError> {
        const OPERATION: &str = "commit";
        let items = self.guards.len().max(self.writes.len());
        let items = items.max(self.events.len());
        if items > Self::MAX_ITEMS {
            return Err(
                PortError::new(ErrorKind::Invalid, backend, OPERATION).context(format!(
                    "a commit has at most {} guards, writes and events each, this one has {items}",
                    Self::MAX_ITEMS
                )),
            );
        }
        if !self.guards.is_empty() {
            capabilities.require(StateCapability::Guards, backend, OPERATION)?;
        }
        if self.writes.len() > 1 {
            capabilities.require(StateCapability::Transactions, backend, OPERATION)?;
        }
        if !self.events.is_empty() && !capabilities.has(StateCapability::Publishes) {
            capabilities.require(StateCapability::Outbox, backend, OPERATION)?;
        }
        for guard in &self.guards {
            guard.key.check(backend, OPERATION)?;
        }
        for write in &self.writes {
            write.check(capabilities, backend, OPERATION)?;
        }
        self.events
            .iter()
            .try_for_each(|event| event.check_limits(backend, OPERATION))
    }
}
