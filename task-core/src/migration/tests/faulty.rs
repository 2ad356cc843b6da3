//! A store with a bad network: late, silent, or refusing.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until};

use crate::memory::lock;
use crate::ports::{
    CapabilitySet, Commit, DeleteOptions, ETag, Entropy, ErrorKind, Key, Kind, Page, PendingEvent,
    PendingId, PortError, PutOptions, StateCapability, StateStore, Stored,
};

/// How often what goes wrong, each of 100,000.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    /// The call is refused before it does anything.
    pub(super) refused: u64,
    /// The call takes effect, and its answer is lost.
    pub(super) unanswered: u64,
}

/// A process that may be stopped: then nothing of it is sent, and nothing that arrives is read.
#[derive(Debug)]
pub(super) struct Process(Mutex<Instant>);

impl Process {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    pub(super) fn stop_for(&self, time: Duration) {
        *lock(&self.0) = Instant::now() + time;
    }

    async fn runs(&self) {
        loop {
            let until = *lock(&self.0);
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

#[derive(Debug)]
pub(super) struct FaultyStore {
    inner: Arc<dyn StateStore>,
    entropy: Arc<dyn Entropy>,
    faults: Faults,
    process: Arc<Process>,
    pub(super) is_healthy: AtomicBool,
    /// Every call is refused.
    pub(super) is_down: AtomicBool,
    /// Tasks that cannot be read.
    pub(super) broken: Mutex<BTreeSet<Key>>,
    /// How many tasks were read.
    pub(super) reads: AtomicU64,
    /// The server that it says to be.
    pub(super) server: Mutex<Option<Box<str>>>,
}

impl FaultyStore {
    pub(super) fn new(
        inner: Arc<dyn StateStore>,
        entropy: Arc<dyn Entropy>,
        faults: Faults,
        process: Arc<Process>,
    ) -> Self {
        Self {
            inner,
            entropy,
            faults,
            process,
            is_healthy: AtomicBool::new(false),
            is_down: AtomicBool::new(false),
            broken: Mutex::default(),
            reads: AtomicU64::new(0),
            server: Mutex::default(),
        }
    }

    pub(super) fn below(&self, most: u64) -> u64 {
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes);
        u64::from_le_bytes(bytes) % most
    }

    async fn call<T: Send>(
        &self,
        call: impl Future<Output = Result<T, PortError>> + Send,
    ) -> Result<T, PortError> {
        self.process.runs().await;
        if self.is_down.load(Ordering::Relaxed) {
            let error = PortError::new(ErrorKind::Unavailable, "faulty", "call");
            return Err(error.context("down on purpose"));
        }
        if self.is_healthy.load(Ordering::Relaxed) {
            return call.await;
        }
        sleep(Duration::from_micros(self.below(20_000))).await;
        let Faults {
            refused,
            unanswered,
        } = self.faults;
        let draw = self.below(100_000);
        if draw < refused {
            let error = PortError::new(ErrorKind::Unavailable, "faulty", "call");
            return Err(error.context("refused on purpose"));
        }
        // What was sent before the process was stopped may arrive while it is.
        if self.below(2) == 0 {
            self.process.runs().await;
        }
        let answer = call.await;
        sleep(Duration::from_micros(self.below(20_000))).await;
        self.process.runs().await;
        if draw >= 100_000 - unanswered {
            let error = PortError::new(ErrorKind::Timeout, "faulty", "call");
            return Err(error.context("unanswered on purpose").unknown_outcome());
        }
        answer
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl StateStore for FaultyStore {
    fn capabilities(&self) -> CapabilitySet<StateCapability> {
        self.inner.capabilities()
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, PortError> {
        if key.kind == Kind::TASK {
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
        if lock(&self.broken).contains(key) {
            let error = PortError::new(ErrorKind::Corrupt, "faulty", "get");
            return Err(error.context("broken on purpose"));
        }
        self.call(self.inner.get(key)).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, PortError> {
        self.call(self.inner.get_many(keys)).await
    }

    async fn put(
        &self,
        key: &Key,
        value: Bytes,
        options: PutOptions,
    ) -> Result<Option<ETag>, PortError> {
        self.call(self.inner.put(key, value, options)).await
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<(), PortError> {
        self.call(self.inner.delete(key, options)).await
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<Option<ETag>>, PortError> {
        self.call(self.inner.commit(commit)).await
    }

    async fn pending(
        &self,
        after: Option<PendingId>,
        limit: usize,
    ) -> Result<Vec<PendingEvent>, PortError> {
        self.call(self.inner.pending(after, limit)).await
    }

    async fn settle(&self, events: &[PendingId]) -> Result<(), PortError> {
        self.call(self.inner.settle(events)).await
    }

    async fn scan(
        &self,
        kind: Kind,
        from: Option<String>,
        limit: usize,
    ) -> Result<Page, PortError> {
        self.call(self.inner.scan(kind, from, limit)).await
    }

    async fn check(&self) -> Result<(), PortError> {
        self.call(self.inner.check()).await
    }

    async fn identity(&self) -> Result<Option<Box<str>>, PortError> {
        let server = lock(&self.server).clone();
        match server {
            Some(server) => Ok(Some(server)),
            None => self.inner.identity().await,
        }
    }
}
