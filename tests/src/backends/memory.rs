//! The volatile adapters of the core as backends under test.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use task_core::memory::{ManualClock, MemoryEventBus, MemoryNotifier, MemoryStateStore};
use task_core::ports::{
    CapabilitySet, Clock, ErrorKind, EventBus, Notification, Notifier, StateCapability, StateStore,
};

use crate::conformance::Failure;
use crate::conformance::event_bus::EventBusBackend;
use crate::conformance::notifier::{NotifierBackend, Refusal};
use crate::conformance::state_store::{StateStoreBackend, Time};

/// What the store in memory declares.
pub(super) const DECLARED_STATE: &[StateCapability] = &[
    StateCapability::ConditionalWrites,
    StateCapability::UniqueVersions,
    StateCapability::Ttl,
    StateCapability::Tombstones,
    StateCapability::Transactions,
    StateCapability::Outbox,
    StateCapability::Guards,
    StateCapability::Scan,
];

/// Stores in memory whose time is moved by hand.
#[derive(Debug)]
pub struct MemoryStateStores {
    clock: Arc<ManualClock>,
    capabilities: CapabilitySet<StateCapability>,
}

impl MemoryStateStores {
    /// A backend with everything that the store in memory can do.
    #[must_use]
    pub fn full() -> Arc<Self> {
        Self::with(CapabilitySet::of(DECLARED_STATE))
    }

    /// A backend with get, put and delete only.
    #[must_use]
    pub fn bare() -> Arc<Self> {
        Self::with(CapabilitySet::of(&[]))
    }

    /// A backend with everything, by a clock that others have as well.
    pub(super) fn of_clock(clock: &Arc<ManualClock>) -> Arc<Self> {
        Arc::new(Self {
            clock: Arc::clone(clock),
            capabilities: CapabilitySet::of(DECLARED_STATE),
        })
    }

    fn with(capabilities: CapabilitySet<StateCapability>) -> Arc<Self> {
        Arc::new(Self {
            clock: Arc::default(),
            capabilities,
        })
    }
}

#[async_trait]
impl StateStoreBackend for MemoryStateStores {
    async fn open(&self) -> Result<Arc<dyn StateStore>, Failure> {
        let clock = Arc::<ManualClock>::clone(&self.clock);
        let clock: Arc<dyn Clock> = clock;
        let store = MemoryStateStore::with_capabilities(clock, self.capabilities);
        Ok(Arc::new(store))
    }

    async fn reopen(&self, _: Arc<dyn StateStore>) -> Result<Arc<dyn StateStore>, Failure> {
        Err(Failure::new("memory does not outlive its process"))
    }

    async fn elapse(&self, time: Duration) {
        self.clock.advance(time);
    }

    fn time(&self) -> Time {
        Time::Moved
    }

    async fn close(&self) {}
}

/// Buses in memory.
#[derive(Debug)]
pub struct MemoryEventBuses;

#[async_trait]
impl EventBusBackend for MemoryEventBuses {
    async fn open(&self) -> Result<Arc<dyn EventBus>, Failure> {
        Ok(Arc::new(MemoryEventBus::new()))
    }

    async fn reopen(&self, _: Arc<dyn EventBus>) -> Result<Arc<dyn EventBus>, Failure> {
        Err(Failure::new("memory does not outlive its process"))
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }

    async fn close(&self) {}
}

/// The notifier in memory, which is its own receiver.
#[derive(Debug, Default)]
pub struct MemoryNotifiers {
    notifier: Arc<MemoryNotifier>,
}

#[async_trait]
impl NotifierBackend for MemoryNotifiers {
    async fn open(&self) -> Result<Arc<dyn Notifier>, Failure> {
        let notifier = Arc::<MemoryNotifier>::clone(&self.notifier);
        Ok(notifier)
    }

    async fn received(&self) -> Vec<Notification> {
        self.notifier.received()
    }

    async fn refuse(&self, refusal: Option<Refusal>) {
        self.notifier.refuse(refusal.map(|refusal| match refusal {
            Refusal::Never => ErrorKind::Invalid,
            Refusal::NotNow => ErrorKind::Unavailable,
        }));
    }

    async fn close(&self) {}
}
