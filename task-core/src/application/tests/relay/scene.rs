//! What the tests of a running relay have around it.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use super::super::*;
use super::fakes::{Bus, Watched};
use crate::application::Relay;
use crate::ports::{Commit, Event, Topic};

/// An outbox, and a bus and a relay for it.
pub(super) struct Scene {
    pub(super) clock: Arc<ManualClock>,
    pub(super) memory: Arc<MemoryStateStore>,
    pub(super) store: Arc<Watched>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) bus: Arc<Bus>,
}

impl Scene {
    pub(super) fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        Self::of(Arc::new(MemoryStateStore::new(clock)))
    }

    /// Another replica of this one: its own way to the store, and its own bus to tell them apart.
    pub(super) fn replica(&self) -> Self {
        Self::of(self.memory.clone())
    }

    fn of(memory: Arc<MemoryStateStore>) -> Self {
        let store = Arc::new(Watched::new(memory.clone()));
        Self {
            clock: Arc::default(),
            memory,
            outbox: Arc::new(Outbox::new(store.clone()).unwrap()),
            bus: Arc::new(Bus::default()),
            store,
        }
    }

    pub(super) fn relay(&self) -> Relay {
        Relay::new(self.outbox.clone(), self.bus.clone())
    }

    pub(super) fn shared(&self, seed: u64) -> Relay {
        let entropy = SeededEntropy::new(seed);
        Relay::shared(
            self.outbox.clone(),
            self.bus.clone(),
            self.store.clone(),
            "relay",
            self.clock.clone(),
            &entropy,
        )
        .unwrap()
    }

    pub(super) async fn commit(&self, key: &str, payload: usize) {
        let event = Event {
            topic: Topic::new("t"),
            key: key.into(),
            payload: Bytes::from(payload.to_string()),
        };
        let mut commit = Commit::default();
        commit.events.push(event);
        self.outbox.commit(commit).await.unwrap();
    }

    pub(super) async fn commit_keys(&self, prefix: &str, count: usize) {
        for n in 0..count {
            self.commit(&format!("{prefix}{n}"), n).await;
        }
    }

    /// How many events are pending, as far as it matters.
    pub(super) async fn pending(&self, most: usize) -> usize {
        let pending = self.memory.pending(None, most).await;
        pending.unwrap().len()
    }

    pub(super) async fn until_pending(&self, count: usize, limit: Duration) -> Duration {
        let began = Instant::now();
        // Counting many takes long, and no test that leaves many needs to know the millisecond.
        let pause = Duration::from_millis(if count < 100 { 1 } else { 20 });
        let wait = async {
            while self.pending(count + 1).await != count {
                sleep(pause).await;
            }
        };
        if timeout(limit, wait).await.is_err() {
            let pending = self.pending(usize::MAX).await;
            panic!("{pending} events are pending, not {count}");
        }
        began.elapsed()
    }
}

pub(super) fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

pub(super) const SECOND: Duration = Duration::from_secs(1);
