//! What a backend can do, declared by its adapter and proven by the conformance suite.

use std::fmt;

use super::{ErrorKind, PortError};

/// A set of capabilities of one port.
pub struct CapabilitySet<C: 'static>(&'static [C]);

impl<C> Clone for CapabilitySet<C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for CapabilitySet<C> {}

impl<C: fmt::Debug> fmt::Debug for CapabilitySet<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0).finish()
    }
}

impl<C: Copy + PartialEq + fmt::Display> CapabilitySet<C> {
    /// The set of these capabilities.
    #[must_use]
    pub const fn of(capabilities: &'static [C]) -> Self {
        Self(capabilities)
    }

    /// Says whether the set holds a capability.
    #[must_use]
    pub fn has(self, capability: C) -> bool {
        self.0.contains(&capability)
    }

    /// The capabilities, in the order of their declaration.
    pub fn iter(self) -> impl Iterator<Item = C> {
        self.0.iter().copied()
    }

    /// Refuses an operation that needs a capability which the backend has not declared.
    ///
    /// # Errors
    /// `Unsupported`, naming the capability.
    pub fn require(
        self,
        capability: C,
        backend: &'static str,
        operation: &'static str,
    ) -> Result<(), PortError> {
        if self.has(capability) {
            return Ok(());
        }
        Err(
            PortError::new(ErrorKind::Unsupported, backend, operation).context(format!(
                "this backend has no capability {:?}",
                capability.to_string()
            )),
        )
    }
}

macro_rules! capabilities {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every capability of the port.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text,)+ })
            }
        }
    };
}

capabilities! {
    /// What a [`StateStore`](super::StateStore) may be able to do beyond get, put and delete.
    StateCapability {
        /// Writes and deletions that depend on an [`ETag`](super::ETag).
        ConditionalWrites = "conditional writes",
        /// Versions that never come back, not even with the value that they stood for.
        UniqueVersions = "unique versions",
        /// Values that expire.
        Ttl = "ttl",
        /// Deletions that refuse a re-creation for a while.
        Tombstones = "tombstones",
        /// Several writes in one atomic step.
        Transactions = "transactions",
        /// Pending events written in one atomic step with a record.
        Outbox = "outbox",
        /// Events published in one atomic step with a record, on the bus that belongs to the store.
        Publishes = "publishes",
        /// Commits that depend on other keys, and writes that depend on the order of values.
        Guards = "guards",
        /// Enumeration of all keys of a kind.
        Scan = "scan",
        /// An acknowledged write outlives the process.
        Durable = "durable",
    }
}

capabilities! {
    /// What an [`EventBus`](super::EventBus) may be able to do beyond publish and subscribe.
    BusCapability {
        /// Events of one key arrive in the order in which they were published.
        OrderedPerKey = "ordered per key",
        /// An event that fails too often goes to a dead-letter topic.
        DeadLetter = "dead letter",
        /// An acknowledged event and a group's position outlive the process.
        Durable = "durable",
        /// Several subscribers of one group share its events.
        CompetingConsumers = "competing consumers",
    }
}
