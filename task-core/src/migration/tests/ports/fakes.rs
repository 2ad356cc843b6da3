//! Sides that fail when they are told to.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::background::Background;
use crate::memory::{MemoryEventBus, MemoryNotifier, MemoryStateStore, lock};
use crate::ports::{
    BusCapability, CapabilitySet, Commit, DeleteOptions, ETag, ErrorKind, Event, EventBus,
    EventHandler, Key, Kind, Notification, Notifier, Page, PendingEvent, PendingId, PortError,
    PutOptions, StateCapability, StateStore, Stored, Subscription,
};

/// How a side behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Mood {
    #[default]
    Works,
    /// Works, and takes its time.
    Slow(Duration),
    /// Works, and takes any time up to this one.
    Uneven(Duration),
    /// Refuses, and does nothing.
    Refuses,
    /// Does it, and nobody hears of it.
    Forgets,
    /// Never answers.
    Hangs,
}

#[derive(Debug, Default)]
pub(super) struct Moody {
    mood: Mutex<Mood>,
    calls: AtomicU64,
}

impl Moody {
    pub(super) fn set(&self, mood: Mood) {
        *lock(&self.mood) = mood;
    }

    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, PortError>> + Send,
    ) -> Result<T, PortError> {
        let mood = *lock(&self.mood);
        match mood {
            Mood::Works => call.await,
            Mood::Slow(time) => {
                tokio::time::sleep(time).await;
                call.await
            }
            Mood::Uneven(most) => {
                let call_number = self.calls.fetch_add(1, Ordering::Relaxed);
                let random = xxhash_rust::xxh3::xxh3_64(&call_number.to_le_bytes());
                let micros = random % u64::try_from(most.as_micros()).expect("short");
                tokio::time::sleep(Duration::from_micros(micros)).await;
                call.await
            }
            Mood::Refuses => {
                Err(PortError::new(ErrorKind::Unavailable, "moody", "call")
                    .context("told to refuse"))
            }
            Mood::Forgets => {
                let _ = call.await;
                let error = PortError::new(ErrorKind::Timeout, "moody", "call");
                Err(error.unknown_outcome())
            }
            Mood::Hangs => std::future::pending().await,
        }
    }
}

#[derive(Debug)]
pub(super) struct SomeStore {
    pub(super) inner: MemoryStateStore,
    pub(super) reads: Moody,
    pub(super) writes: Moody,
}

impl SomeStore {
    pub(super) fn new(inner: MemoryStateStore) -> Self {
        Self {
            inner,
            reads: Moody::default(),
            writes: Moody::default(),
        }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl StateStore for SomeStore {
    fn capabilities(&self) -> CapabilitySet<StateCapability> {
        self.inner.capabilities()
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, PortError> {
        self.reads.call(self.inner.get(key)).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, PortError> {
        self.reads.call(self.inner.get_many(keys)).await
    }

    async fn put(
        &self,
        key: &Key,
        value: Bytes,
        options: PutOptions,
    ) -> Result<Option<ETag>, PortError> {
        self.writes.call(self.inner.put(key, value, options)).await
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<(), PortError> {
        self.writes.call(self.inner.delete(key, options)).await
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<Option<ETag>>, PortError> {
        self.writes.call(self.inner.commit(commit)).await
    }

    async fn pending(
        &self,
        after: Option<PendingId>,
        limit: usize,
    ) -> Result<Vec<PendingEvent>, PortError> {
        self.inner.pending(after, limit).await
    }

    async fn settle(&self, events: &[PendingId]) -> Result<(), PortError> {
        self.inner.settle(events).await
    }

    async fn scan(
        &self,
        kind: Kind,
        from: Option<String>,
        limit: usize,
    ) -> Result<Page, PortError> {
        self.reads.call(self.inner.scan(kind, from, limit)).await
    }

    async fn check(&self) -> Result<(), PortError> {
        self.inner.check().await
    }

    async fn identity(&self) -> Result<Option<Box<str>>, PortError> {
        self.inner.identity().await
    }
}

/// A bus, and everything that it has accepted.
#[derive(Debug, Default)]
pub(super) struct SomeBus {
    pub(super) inner: MemoryEventBus,
    pub(super) publishing: Moody,
    pub(super) subscribing: Moody,
    subscriptions: AtomicU64,
    accepted: Mutex<Vec<Event>>,
}

impl SomeBus {
    /// How often a subscription was tried.
    pub(super) fn subscriptions(&self) -> u64 {
        self.subscriptions.load(Ordering::Relaxed)
    }

    /// What was accepted, whether it was answered or not.
    pub(super) fn accepted(&self) -> Vec<Event> {
        lock(&self.accepted).clone()
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl EventBus for SomeBus {
    fn capabilities(&self) -> CapabilitySet<BusCapability> {
        self.inner.capabilities()
    }

    async fn publish(&self, event: &Event) -> Result<(), PortError> {
        let publishing = async {
            self.inner.publish(event).await?;
            lock(&self.accepted).push(event.clone());
            Ok(())
        };
        self.publishing.call(publishing).await
    }

    async fn subscribe(
        &self,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        self.subscriptions.fetch_add(1, Ordering::Relaxed);
        let subscribing = self.inner.subscribe(subscription, handler);
        self.subscribing.call(subscribing).await
    }

    async fn check(&self) -> Result<(), PortError> {
        self.publishing.call(self.inner.check()).await
    }
}

/// A notifier, and how often it was tried.
#[derive(Debug, Default)]
pub(super) struct SomeNotifier {
    pub(super) inner: MemoryNotifier,
    pub(super) sending: Moody,
    tried: Mutex<Vec<Box<str>>>,
}

impl SomeNotifier {
    /// The keys of all attempts, in order.
    pub(super) fn tried(&self) -> Vec<Box<str>> {
        lock(&self.tried).clone()
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Notifier for SomeNotifier {
    async fn notify(&self, notification: &Notification) -> Result<(), PortError> {
        lock(&self.tried).push(notification.idempotency_key.clone());
        self.sending.call(self.inner.notify(notification)).await
    }

    async fn check(&self) -> Result<(), PortError> {
        self.sending.call(self.inner.check()).await
    }
}
