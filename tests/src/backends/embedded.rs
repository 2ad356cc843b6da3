//! The embedded backend under test: each case gets a directory of its own.

use std::sync::Arc;
use std::time::Duration;

use adapters_direct::embedded::{Embedded, EmbeddedConfig, EmbeddedNotifier};
use async_trait::async_trait;
use task_core::memory::ManualClock;
use task_core::ports::{
    Clock, EventBus, Notification, Notifier, StateCapability, StateStore, SystemClock,
};
use tokio::sync::Mutex;

use crate::conformance::Failure;
use crate::conformance::event_bus::EventBusBackend;
use crate::conformance::notifier::{NotifierBackend, Refusal};
use crate::conformance::state_store::{StateStoreBackend, Time};
use crate::process::TestDirectory;

/// What the store declares that has an outbox.
pub(super) const DECLARED_STATE: &[StateCapability] = &[
    StateCapability::ConditionalWrites,
    StateCapability::UniqueVersions,
    StateCapability::Ttl,
    StateCapability::Tombstones,
    StateCapability::Transactions,
    StateCapability::Outbox,
    StateCapability::Guards,
    StateCapability::Scan,
    StateCapability::Durable,
];

/// What the store declares that publishes by itself.
pub(super) const DECLARED_PUBLISHING: &[StateCapability] = &[
    StateCapability::ConditionalWrites,
    StateCapability::UniqueVersions,
    StateCapability::Ttl,
    StateCapability::Tombstones,
    StateCapability::Transactions,
    StateCapability::Publishes,
    StateCapability::Guards,
    StateCapability::Scan,
    StateCapability::Durable,
];

/// A SQLite file whose time is moved by hand, or is the machine's.
#[derive(Debug)]
pub struct EmbeddedBackends {
    moved: Option<Arc<ManualClock>>,
    directory: TestDirectory,
    notifier: Mutex<Option<EmbeddedNotifier>>,
}

impl EmbeddedBackends {
    /// A backend in a fresh directory.
    #[must_use]
    pub fn fresh() -> Arc<Self> {
        Self::by(Some(Arc::default()))
    }

    /// A backend in a fresh directory, beside one whose time cannot be moved.
    #[must_use]
    pub fn in_real_time() -> Arc<Self> {
        Self::by(None)
    }

    fn by(moved: Option<Arc<ManualClock>>) -> Arc<Self> {
        Arc::new(Self {
            moved,
            directory: TestDirectory::new("conformance"),
            notifier: Mutex::default(),
        })
    }

    /// Opens the file; one that was closed a moment ago may still be closing.
    async fn embedded(&self) -> Result<Embedded, Failure> {
        let config = EmbeddedConfig::new(self.directory.path());
        let clock: Arc<dyn Clock> = match &self.moved {
            Some(clock) => Arc::<ManualClock>::clone(clock),
            None => Arc::new(SystemClock),
        };
        let open = || Embedded::open(&config, Arc::clone(&clock));
        for _ in 0..1_000 {
            if let Ok(embedded) = open() {
                return Ok(embedded);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        open().map_err(|error| Failure::new(error.to_string()))
    }
}

#[async_trait]
impl StateStoreBackend for EmbeddedBackends {
    async fn open(&self) -> Result<Arc<dyn StateStore>, Failure> {
        Ok(Arc::new(self.embedded().await?.state_store()))
    }

    async fn reopen(&self, store: Arc<dyn StateStore>) -> Result<Arc<dyn StateStore>, Failure> {
        drop(store);
        Ok(Arc::new(self.embedded().await?.state_store()))
    }

    async fn elapse(&self, time: Duration) {
        match &self.moved {
            Some(clock) => clock.advance(time),
            None => super::wait(time).await,
        }
    }

    fn time(&self) -> Time {
        match self.moved {
            Some(_) => Time::Moved,
            None => Time::Waited,
        }
    }

    async fn close(&self) {}
}

/// The same file, whose store publishes on its bus by itself.
#[derive(Debug)]
pub struct PublishingBackends {
    file: Arc<EmbeddedBackends>,
    open: Mutex<Option<Embedded>>,
}

impl PublishingBackends {
    /// A backend in a fresh directory.
    #[must_use]
    pub fn fresh() -> Arc<Self> {
        Arc::new(Self {
            file: EmbeddedBackends::fresh(),
            open: Mutex::default(),
        })
    }
}

#[async_trait]
impl StateStoreBackend for PublishingBackends {
    async fn open(&self) -> Result<Arc<dyn StateStore>, Failure> {
        let embedded = self.file.embedded().await?;
        let store = embedded.publishing_state_store().await?;
        *self.open.lock().await = Some(embedded);
        Ok(Arc::new(store))
    }

    async fn reopen(&self, store: Arc<dyn StateStore>) -> Result<Arc<dyn StateStore>, Failure> {
        drop((store, self.open.lock().await.take()));
        self.open().await
    }

    async fn bus(&self) -> Result<Arc<dyn EventBus>, Failure> {
        let open = self.open.lock().await;
        let embedded = open.as_ref();
        let embedded = embedded.ok_or_else(|| Failure::new("the file is not open"))?;
        Ok(Arc::new(embedded.event_bus()))
    }

    async fn elapse(&self, time: Duration) {
        self.file.elapse(time).await;
    }

    fn time(&self) -> Time {
        self.file.time()
    }

    async fn close(&self) {
        drop(self.open.lock().await.take());
    }
}

#[async_trait]
impl EventBusBackend for EmbeddedBackends {
    async fn open(&self) -> Result<Arc<dyn EventBus>, Failure> {
        Ok(Arc::new(self.embedded().await?.event_bus()))
    }

    async fn reopen(&self, bus: Arc<dyn EventBus>) -> Result<Arc<dyn EventBus>, Failure> {
        drop(bus);
        Ok(Arc::new(self.embedded().await?.event_bus()))
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }

    async fn close(&self) {}
}

#[async_trait]
impl NotifierBackend for EmbeddedBackends {
    async fn open(&self) -> Result<Arc<dyn Notifier>, Failure> {
        let notifier = self.embedded().await?.notifier();
        *self.notifier.lock().await = Some(notifier.clone());
        Ok(Arc::new(notifier))
    }

    async fn received(&self) -> Vec<Notification> {
        let notifier = self.notifier.lock().await;
        let Some(notifier) = notifier.as_ref() else {
            return Vec::new();
        };
        let received = notifier.received(1_000).await;
        let (_, received) = received.expect("the file can be read");
        let oldest_first = received.into_iter().rev();
        oldest_first.map(|received| received.notification).collect()
    }

    async fn refuse(&self, _: Option<Refusal>) {
        unreachable!("the table says that this receiver accepts everything");
    }

    async fn close(&self) {}
}
