//! Changes that carry their events, and the signal that there is something to publish.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::ports::{Commit, ETag, PortError, StateCapability, StateStore};

/// Commits a change with its events and wakes the relay.
///
/// It needs a store where both are one atomic step: with the capability `outbox`, whose events a
/// [`Relay`](super::Relay) publishes, or with `publishes`, which does so itself.
///
/// It has no limit of its own: while the bus is away, changes are accepted as long as the store takes
/// them, for a limit would make an outage of the bus one of the service. The store's limit is the outbox's,
/// and refuses a change together with its event: the disk of an embedded store, `maxmemory` of a Redis,
/// the notes of a Dapr journal (131,072 a replica). While events wait, the relay says every 30 s how many.
#[derive(Debug)]
pub struct Outbox {
    store: Arc<dyn StateStore>,
    committed: Notify,
}

impl Outbox {
    /// An outbox in a store.
    ///
    /// # Errors
    /// `Unsupported` when the store can neither keep nor publish events.
    pub fn new(store: Arc<dyn StateStore>) -> Result<Self, PortError> {
        let capabilities = store.capabilities();
        if !capabilities.has(StateCapability::Publishes) {
            capabilities.require(StateCapability::Outbox, "outbox", "open")?;
        }
        Ok(Self {
            store,
            committed: Notify::new(),
        })
    }

    /// The store that records and events are in.
    #[must_use]
    pub fn store(&self) -> &dyn StateStore {
        &*self.store
    }

    /// Applies writes and records their events in one atomic step.
    ///
    /// # Errors
    /// As [`StateStore::commit`].
    pub async fn commit(&self, commit: Commit) -> Result<Vec<Option<ETag>>, PortError> {
        let has_events = !commit.events.is_empty();
        let result = self.store.commit(commit).await;
        // A failed commit may have taken effect: then its event is pending, too.
        if has_events {
            self.committed.notify_one();
        }
        result
    }

    /// Wakes the relay of events that were committed past this outbox.
    pub(crate) fn announce(&self) {
        self.committed.notify_one();
    }

    /// Says whether a relay has to publish what is committed here.
    #[must_use]
    pub fn needs_relay(&self) -> bool {
        let capabilities = self.store.capabilities();
        capabilities.has(StateCapability::Outbox)
    }

    /// Waits until something was committed since the last call returned.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn committed(&self) {
        self.committed.notified().await;
    }
}
