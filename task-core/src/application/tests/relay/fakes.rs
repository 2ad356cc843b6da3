//! A store and a bus that misbehave when they are told to, and count.

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, span};

use crate::background::Background;
use crate::memory::{MemoryStateStore, SeededEntropy};
use crate::ports::{
    BusCapability, CapabilitySet, Commit, DeleteOptions, ETag, Entropy, ErrorKind, Event, EventBus,
    EventHandler, Key, Kind, Page, PendingEvent, PendingId, PortError, PutOptions, StateCapability,
    StateStore, Stored, Subscription,
};

/// A memory store that counts, fails and lists stale pages.
#[derive(Debug)]
pub(super) struct Watched {
    inner: Arc<MemoryStateStore>,
    pub(super) reads: AtomicUsize,
    pub(super) lease_reads: AtomicUsize,
    pub(super) settles: AtomicUsize,
    pub(super) settle_fails: AtomicBool,
    pub(super) lease_fails: AtomicBool,
    pub(super) read_fails: AtomicBool,
    /// Each page but the first of a listing names once more what is still pending of the one before.
    pub(super) repeats: AtomicBool,
    before: Mutex<Vec<PendingEvent>>,
    /// How long a listing is under way after it was made.
    pub(super) read_takes: Mutex<Duration>,
    /// Payloads that were listed and not dropped, and the most of them that there were.
    live: Arc<(AtomicUsize, AtomicUsize)>,
}

/// A payload that is counted while it lives.
struct Counted(Bytes, Arc<(AtomicUsize, AtomicUsize)>);

impl Counted {
    fn new(payload: Bytes, live: &Arc<(AtomicUsize, AtomicUsize)>) -> Self {
        let now = live.0.fetch_add(1, Ordering::SeqCst) + 1;
        live.1.fetch_max(now, Ordering::SeqCst);
        Self(payload, Arc::clone(live))
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Watched {
    pub(super) fn new(inner: Arc<MemoryStateStore>) -> Self {
        Self {
            inner,
            reads: AtomicUsize::new(0),
            lease_reads: AtomicUsize::new(0),
            settles: AtomicUsize::new(0),
            settle_fails: AtomicBool::new(false),
            lease_fails: AtomicBool::new(false),
            read_fails: AtomicBool::new(false),
            repeats: AtomicBool::new(false),
            before: Mutex::default(),
            read_takes: Mutex::default(),
            live: Arc::default(),
        }
    }

    /// The most events that were listed and not let go of at any time.
    pub(super) fn most_live(&self) -> usize {
        self.live.1.load(Ordering::SeqCst)
    }

    fn lease(&self, key: &Key) -> Result<(), PortError> {
        let fails = key.kind == Kind::LEASE && self.lease_fails.load(Ordering::SeqCst);
        match fails {
            true => Err(PortError::new(ErrorKind::Unavailable, "watched", "lease")),
            false => Ok(()),
        }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl StateStore for Watched {
    fn capabilities(&self) -> CapabilitySet<StateCapability> {
        self.inner.capabilities()
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, PortError> {
        if key.kind == Kind::LEASE {
            self.lease_reads.fetch_add(1, Ordering::SeqCst);
        }
        self.lease(key)?;
        self.inner.get(key).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, PortError> {
        self.inner.get_many(keys).await
    }

    async fn put(
        &self,
        key: &Key,
        value: Bytes,
        options: PutOptions,
    ) -> Result<Option<ETag>, PortError> {
        self.lease(key)?;
        self.inner.put(key, value, options).await
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<(), PortError> {
        self.lease(key)?;
        self.inner.delete(key, options).await
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<Option<ETag>>, PortError> {
        self.inner.commit(commit).await
    }

    async fn pending(
        &self,
        after: Option<PendingId>,
        limit: usize,
    ) -> Result<Vec<PendingEvent>, PortError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.read_fails.load(Ordering::SeqCst) {
            return Err(PortError::new(ErrorKind::Unavailable, "watched", "pending"));
        }
        let takes = *self.read_takes.lock().unwrap();
        let mut page = self.inner.pending(after.clone(), limit).await?;
        if takes > Duration::ZERO {
            tokio::time::sleep(takes).await;
        }
        if self.repeats.load(Ordering::SeqCst) && !page.is_empty() {
            let all = self.inner.pending(None, usize::MAX).await?;
            let mut before = self.before.lock().unwrap();
            let mut again = std::mem::replace(&mut *before, page.clone());
            if after.is_some() && again.last().map(|last| &last.id) == after.as_ref() {
                again.retain(|event| all.contains(event));
                page.splice(0..0, again);
            }
        }
        for pending in &mut page {
            let payload = std::mem::take(&mut pending.event.payload);
            pending.event.payload = Bytes::from_owner(Counted::new(payload, &self.live));
        }
        Ok(page)
    }

    async fn settle(&self, events: &[PendingId]) -> Result<(), PortError> {
        self.settles.fetch_add(1, Ordering::SeqCst);
        if self.settle_fails.load(Ordering::SeqCst) {
            return Err(PortError::new(ErrorKind::Unavailable, "watched", "settle"));
        }
        self.inner.settle(events).await
    }

    async fn scan(
        &self,
        kind: Kind,
        from: Option<String>,
        limit: usize,
    ) -> Result<Page, PortError> {
        self.inner.scan(kind, from, limit).await
    }

    async fn identity(&self) -> Result<Option<Box<str>>, PortError> {
        self.inner.identity().await
    }

    async fn check(&self) -> Result<(), PortError> {
        self.inner.check().await
    }
}

/// How a bus treats the keys that begin so.
#[derive(Debug, Default)]
pub(super) struct Bus {
    /// Key and payload of what it accepted, and when.
    accepted: Mutex<Vec<(String, String, Instant)>>,
    pub(super) attempts: AtomicUsize,
    /// Publications under way of each key.
    running: Mutex<HashSet<String>>,
    refuses: Mutex<Option<Box<str>>>,
    /// The keys that it has refused.
    pub(super) refused: Mutex<HashSet<String>>,
    pub(super) slow: Mutex<Option<(&'static str, Duration)>>,
    /// So many of 12 partitions have no leader: what is for them fails after 10 s.
    pub(super) leaderless: AtomicU64,
    /// The most publications under way at once.
    pub(super) most: AtomicUsize,
    /// Fails at random, so often of 256 times.
    pub(super) unreliable: Mutex<u8>,
    chance: Mutex<Option<SeededEntropy>>,
}

impl Bus {
    /// From now on it refuses the keys that begin so, and no others.
    pub(super) fn refuse(&self, prefix: &str) {
        *self.refuses.lock().unwrap() = Some(prefix.into());
    }

    pub(super) fn refuse_nothing(&self) {
        *self.refuses.lock().unwrap() = None;
    }

    fn refuses(&self, key: &str) -> bool {
        let refuses = self.refuses.lock().unwrap();
        refuses
            .as_ref()
            .is_some_and(|prefix| key.starts_with(&**prefix))
    }

    pub(super) fn accepted(&self) -> Vec<(String, String, Instant)> {
        self.accepted.lock().unwrap().clone()
    }

    /// Says whether a key is for one of this many partitions without a leader.
    pub(super) fn is_for(leaderless: u64, key: &str) -> bool {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        hasher.hash_one(key) % 12 < leaderless
    }

    /// What it accepted of the keys that begin so, in order.
    pub(super) fn payloads(&self, prefix: &str) -> Vec<String> {
        let accepted = self.accepted.lock().unwrap();
        let of_keys = accepted.iter().filter(|(key, ..)| key.starts_with(prefix));
        of_keys.map(|(_, payload, _)| payload.clone()).collect()
    }

    fn is_unlucky(&self) -> bool {
        let mut byte = [0];
        let mut chance = self.chance.lock().unwrap();
        let chance = chance.get_or_insert_with(|| SeededEntropy::new(7));
        chance.fill(&mut byte);
        byte[0] < *self.unreliable.lock().unwrap()
    }
}

/// Takes a key out of those that are under way, also when the publication is dropped.
struct Running<'a>(&'a Bus, &'a str);

impl<'a> Running<'a> {
    fn new(bus: &'a Bus, key: &'a str) -> Self {
        let mut running = bus.running.lock().unwrap();
        let is_first = running.insert(key.to_owned());
        assert!(is_first, "two events of key {key} at once");
        bus.most.fetch_max(running.len(), Ordering::SeqCst);
        Self(bus, key)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.lock().unwrap().remove(self.1);
    }
}

#[async_trait]
impl EventBus for Bus {
    fn capabilities(&self) -> CapabilitySet<BusCapability> {
        CapabilitySet::of(&[])
    }

    async fn publish(&self, event: &Event) -> Result<(), PortError> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        let _running = Running::new(self, &event.key);
        let slow = *self.slow.lock().unwrap();
        if let Some((prefix, pause)) = slow
            && event.key.starts_with(prefix)
        {
            tokio::time::sleep(pause).await;
        }
        let is_leaderless = || Self::is_for(self.leaderless.load(Ordering::SeqCst), &event.key);
        if is_leaderless() {
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        if is_leaderless() {
            return Err(PortError::new(ErrorKind::Timeout, "bus", "publish"));
        }
        if self.refuses(&event.key) || self.is_unlucky() {
            self.refused.lock().unwrap().insert(event.key.to_string());
            return Err(PortError::new(ErrorKind::Unavailable, "bus", "publish"));
        }
        let payload = String::from_utf8(event.payload.to_vec()).unwrap();
        let mut accepted = self.accepted.lock().unwrap();
        accepted.push((event.key.to_string(), payload, Instant::now()));
        Ok(())
    }

    async fn subscribe(
        &self,
        _: Subscription,
        _: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        Err(PortError::new(ErrorKind::Unsupported, "bus", "subscribe"))
    }

    async fn check(&self) -> Result<(), PortError> {
        Ok(())
    }
}

/// Keeps the lines of the log of this thread.
#[derive(Debug, Clone, Default)]
pub(super) struct Lines(Arc<Mutex<Vec<String>>>);

/// While there is one subscriber only, a line that another test writes first is off for all of them.
static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Lines::default()));

impl Lines {
    /// Lines from now on, until the guard is dropped.
    pub(super) fn listen() -> (Self, DefaultGuard) {
        LazyLock::force(&ANOTHER);
        let lines = Self::default();
        let guard = tracing::subscriber::set_default(lines.clone());
        (lines, guard)
    }

    pub(super) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO && metadata.target().contains("relay")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!(" {field}={value:?}"));
    }
}
