//! The wrapper that makes state stores.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use task_core::ports::{
    CapabilitySet, Commit, DeleteOptions, ETag, Key, Kind, Page, PendingEvent, PendingId,
    PortError, PutOptions, StateCapability, StateStore, Stored,
};

use super::store_events::SettlesEverything;
use crate::backends::MemoryStateStores;
use crate::conformance::Failure;
use crate::conformance::state_store::{StateStoreBackend, Time};

/// One thing that a store does wrong; what it does not override is right.
#[async_trait]
pub(super) trait StoreFault: Debug + Send + Sync + 'static {
    fn capabilities(&self) -> CapabilitySet<StateCapability> {
        // A memory that is only put aside for the restart is durable enough to be judged by it.
        CapabilitySet::of(&[
            StateCapability::ConditionalWrites,
            StateCapability::UniqueVersions,
            StateCapability::Ttl,
            StateCapability::Tombstones,
            StateCapability::Transactions,
            StateCapability::Outbox,
            StateCapability::Guards,
            StateCapability::Scan,
            StateCapability::Durable,
        ])
    }

    async fn get(&self, inner: &dyn StateStore, key: &Key) -> Result<Option<Stored>, PortError> {
        inner.get(key).await
    }

    async fn get_many(
        &self,
        inner: &dyn StateStore,
        keys: &[Key],
    ) -> Result<Vec<Option<Stored>>, PortError> {
        inner.get_many(keys).await
    }

    async fn put(
        &self,
        inner: &dyn StateStore,
        key: &Key,
        value: Bytes,
        options: PutOptions,
    ) -> Result<Option<ETag>, PortError> {
        inner.put(key, value, options).await
    }

    async fn delete(
        &self,
        inner: &dyn StateStore,
        key: &Key,
        options: DeleteOptions,
    ) -> Result<(), PortError> {
        inner.delete(key, options).await
    }

    async fn commit(
        &self,
        inner: &dyn StateStore,
        commit: Commit,
    ) -> Result<Vec<Option<ETag>>, PortError> {
        inner.commit(commit).await
    }

    async fn pending(
        &self,
        inner: &dyn StateStore,
        after: Option<PendingId>,
        limit: usize,
    ) -> Result<Vec<PendingEvent>, PortError> {
        inner.pending(after, limit).await
    }

    async fn settle(&self, inner: &dyn StateStore, events: &[PendingId]) -> Result<(), PortError> {
        inner.settle(events).await
    }

    async fn scan(
        &self,
        inner: &dyn StateStore,
        kind: Kind,
        from: Option<String>,
        limit: usize,
    ) -> Result<Page, PortError> {
        inner.scan(kind, from, limit).await
    }

    async fn identity(&self, inner: &dyn StateStore) -> Result<Option<Box<str>>, PortError> {
        inner.identity().await
    }
}

#[derive(Debug)]
struct FaultyStore<F> {
    inner: Arc<dyn StateStore>,
    fault: Arc<F>,
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<F: StoreFault> StateStore for FaultyStore<F> {
    fn capabilities(&self) -> CapabilitySet<StateCapability> {
        self.fault.capabilities()
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, PortError> {
        self.fault.get(&*self.inner, key).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, PortError> {
        self.fault.get_many(&*self.inner, keys).await
    }

    async fn put(
        &self,
        key: &Key,
        value: Bytes,
        options: PutOptions,
    ) -> Result<Option<ETag>, PortError> {
        self.fault.put(&*self.inner, key, value, options).await
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<(), PortError> {
        self.fault.delete(&*self.inner, key, options).await
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<Option<ETag>>, PortError> {
        self.fault.commit(&*self.inner, commit).await
    }

    async fn pending(
        &self,
        after: Option<PendingId>,
        limit: usize,
    ) -> Result<Vec<PendingEvent>, PortError> {
        self.fault.pending(&*self.inner, after, limit).await
    }

    async fn settle(&self, events: &[PendingId]) -> Result<(), PortError> {
        self.fault.settle(&*self.inner, events).await
    }

    async fn scan(
        &self,
        kind: Kind,
        from: Option<String>,
        limit: usize,
    ) -> Result<Page, PortError> {
        self.fault.scan(&*self.inner, kind, from, limit).await
    }

    async fn check(&self) -> Result<(), PortError> {
        self.inner.check().await
    }

    async fn identity(&self) -> Result<Option<Box<str>>, PortError> {
        self.fault.identity(&*self.inner).await
    }
}

#[derive(Debug)]
struct FaultyStores<F> {
    memory: Arc<MemoryStateStores>,
    fault: Arc<F>,
}

pub(super) fn faulty<F: StoreFault>(fault: F) -> Arc<dyn StateStoreBackend> {
    Arc::new(FaultyStores {
        memory: MemoryStateStores::full(),
        fault: Arc::new(fault),
    })
}

#[async_trait]
impl<F: StoreFault> StateStoreBackend for FaultyStores<F> {
    async fn open(&self) -> Result<Arc<dyn StateStore>, Failure> {
        Ok(Arc::new(FaultyStore {
            inner: self.memory.open().await?,
            fault: Arc::clone(&self.fault),
        }))
    }

    async fn reopen(&self, store: Arc<dyn StateStore>) -> Result<Arc<dyn StateStore>, Failure> {
        Ok(store)
    }

    async fn elapse(&self, time: Duration) {
        self.memory.elapse(time).await;
    }

    fn time(&self) -> Time {
        self.memory.time()
    }

    async fn close(&self) {
        self.memory.close().await;
    }
}

/// What goes wrong when a store that calls itself durable is opened again.
#[derive(Debug, Clone, Copy)]
pub(super) enum Restart {
    ForgetsEverything,
    ForgetsEvents,
    CountsAnew,
}

/// Does everything right.
#[derive(Debug)]
struct NoFault;

impl StoreFault for NoFault {}

#[derive(Debug)]
struct RestartingStores {
    stores: FaultyStores<NoFault>,
    restart: Restart,
}

pub(super) fn restarting(restart: Restart) -> Arc<dyn StateStoreBackend> {
    let stores = FaultyStores {
        memory: MemoryStateStores::full(),
        fault: Arc::new(NoFault),
    };
    Arc::new(RestartingStores { stores, restart })
}

#[async_trait]
impl StateStoreBackend for RestartingStores {
    async fn open(&self) -> Result<Arc<dyn StateStore>, Failure> {
        self.stores.open().await
    }

    async fn reopen(&self, store: Arc<dyn StateStore>) -> Result<Arc<dyn StateStore>, Failure> {
        match self.restart {
            Restart::ForgetsEverything => self.stores.open().await,
            Restart::ForgetsEvents => {
                SettlesEverything.settle(&*store, &[]).await?;
                Ok(store)
            }
            Restart::CountsAnew => {
                let fresh = self.stores.open().await?;
                let page = store.scan(Kind::TASK, None, 1000).await?;
                for (key, stored) in page.entries {
                    fresh.put(&key, stored.value, PutOptions::default()).await?;
                }
                Ok(fresh)
            }
        }
    }

    async fn elapse(&self, time: Duration) {
        self.stores.elapse(time).await;
    }

    fn time(&self) -> Time {
        self.stores.time()
    }

    async fn close(&self) {
        self.stores.close().await;
    }
}
