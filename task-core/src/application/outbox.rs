//! Changes that carry their events, and the signal that there is something to publish.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::ports::{Commit, PortError, StateCapability, StateStore};

/// Commits a change with its events and wakes the relay.
///
/// It needs a store with the capability `outbox`, where both are one atomic step.
#[derive(Debug)]
pub struct Outbox {
    store: Arc<dyn StateStore>,
    committed: Notify,
}

impl Outbox {
    /// An outbox in a store.
    ///
    /// # Errors
    /// `Unsupported` when the store cannot keep pending events.
    pub fn new(store: Arc<dyn StateStore>) -> Result<Self, PortError> {
        store
            .capabilities()
            .require(StateCapability::Outbox, "outbox", "open")?;
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
    pub async fn commit(&self, commit: Commit) -> Result<(), PortError> {
        let has_events = !commit.events.is_empty();
        let result = self.store.commit(commit).await;
        // A failed commit may have taken effect: then its event is pending, too.
        if has_events {
            self.committed.notify_one();
        }
        result
    }

    /// Waits until something was committed since the last call returned.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn committed(&self) {
        self.committed.notified().await;
    }
}
