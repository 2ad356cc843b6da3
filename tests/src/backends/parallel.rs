//! Two stores in a move, in each of its stages, as one backend under test.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use task_core::application::Relay;
use task_core::background::Background;
use task_core::memory::{ManualClock, MemoryEventBus};
use task_core::migration::{
    Bucket, Coordinator, CoordinatorOptions, Member, MemberOptions, ParallelStateStore, Stage,
};
use task_core::ports::{
    Clock, EventBus, Kind, StateCapability, StateStore, SystemClock, SystemEntropy,
};
use tokio::sync::Mutex;

use super::MemoryStateStores;
use crate::conformance::Failure;
use crate::conformance::state_store::{StateStoreBackend, Time};

/// The kinds of the suite.
const KINDS: &[Kind] = &[
    Kind::TASK,
    Kind::new("other"),
    Kind::new("tas"),
    Kind::new("tasks"),
    Kind::listed("listed"),
];

/// What a move of stores that keep nothing declares.
pub(super) const DECLARED_VOLATILE: &[StateCapability] = &[
    StateCapability::ConditionalWrites,
    StateCapability::Tombstones,
    StateCapability::Publishes,
    StateCapability::Ttl,
    StateCapability::Scan,
];

/// A move that has come to a stage, with every record in it.
#[derive(Debug)]
pub struct ParallelBackends {
    old: Arc<dyn StateStoreBackend>,
    new: Arc<dyn StateStoreBackend>,
    /// The clock of both, if they have one.
    moved: Option<Arc<ManualClock>>,
    stage: Stage,
    bus: Arc<dyn EventBus>,
    running: Mutex<Vec<Background>>,
}

impl ParallelBackends {
    /// From memory to memory.
    #[must_use]
    pub fn in_memory(stage: Stage) -> Arc<Self> {
        let clock = Arc::<ManualClock>::default();
        Arc::new(Self {
            old: MemoryStateStores::of_clock(&clock),
            new: MemoryStateStores::of_clock(&clock),
            moved: Some(clock),
            stage,
            bus: Arc::new(MemoryEventBus::new()),
            running: Mutex::default(),
        })
    }

    /// From one backend to another; time is the machine's.
    #[must_use]
    pub fn between(
        old: Arc<dyn StateStoreBackend>,
        new: Arc<dyn StateStoreBackend>,
        stage: Stage,
    ) -> Arc<Self> {
        Arc::new(Self {
            old,
            new,
            moved: None,
            stage,
            bus: Arc::new(MemoryEventBus::new()),
            running: Mutex::default(),
        })
    }

    /// A replica of the move.
    async fn join(
        &self,
        old: Arc<dyn StateStore>,
        new: Arc<dyn StateStore>,
    ) -> Result<ParallelStateStore, Failure> {
        let mut options = MemberOptions::default();
        options.beat_every = Duration::from_millis(10);
        let clock = || -> Arc<dyn Clock> {
            match &self.moved {
                Some(clock) => Arc::<ManualClock>::clone(clock),
                None => Arc::new(SystemClock),
            }
        };
        let member = Member::new(Arc::clone(&old), options, clock(), &SystemEntropy);
        let member = Arc::new(member);
        let sides = [Arc::clone(&old), Arc::clone(&new)];
        let store = ParallelStateStore::of_kinds(KINDS, old, new, Arc::clone(&member), clock())?;
        let mut running = self.running.lock().await;
        running.extend([member.start(), store.start()]);
        let relays = store.relays(
            &self.bus,
            [(&sides[0], "old"), (&sides[1], "new")],
            &SystemEntropy,
        )?;
        running.extend(relays.map(Relay::start));
        Ok(store)
    }

    async fn leave(&self) {
        for background in self.running.lock().await.drain(..) {
            background.stop().await;
        }
    }
}

#[async_trait]
impl StateStoreBackend for ParallelBackends {
    async fn open(&self) -> Result<Arc<dyn StateStore>, Failure> {
        let (old, new) = (self.old.open().await?, self.new.open().await?);
        let store = self.join(old, new).await?;
        let mut coordinator = Coordinator::new(&store, CoordinatorOptions::default());
        let failed = |error: &dyn std::error::Error| Failure::new(error.to_string());
        let begun = coordinator.init("salt").await;
        begun.map_err(|error| failed(&error))?;
        let way = Stage::ALL.into_iter().skip(1);
        for stage in way.filter(|stage| *stage <= self.stage && *stage != Stage::Handoff) {
            let moved = coordinator.advance(stage, Bucket::COUNT).await;
            moved.map_err(|error| failed(&error))?;
        }
        // The first request is to find the stage adopted.
        let control = coordinator.control().await;
        let epoch = control.map_err(|error| failed(&error))?.epoch;
        store.member().adopted_after(epoch - 1).await;
        Ok(Arc::new(store))
    }

    async fn reopen(&self, store: Arc<dyn StateStore>) -> Result<Arc<dyn StateStore>, Failure> {
        self.leave().await;
        drop(store);
        let (old, new) = (self.old.open().await?, self.new.open().await?);
        let store = self.join(old, new).await?;
        store.member().adopted_after(0).await;
        Ok(Arc::new(store))
    }

    async fn bus(&self) -> Result<Arc<dyn EventBus>, Failure> {
        Ok(Arc::clone(&self.bus))
    }

    async fn elapse(&self, time: Duration) {
        match &self.moved {
            Some(clock) => clock.advance(time),
            None => {
                tokio::join!(self.old.elapse(time), self.new.elapse(time));
            }
        }
    }

    fn time(&self) -> Time {
        match (self.old.time(), self.new.time()) {
            (Time::Moved, Time::Moved) => Time::Moved,
            (Time::Waited, _) | (_, Time::Waited) => Time::Waited,
        }
    }

    async fn close(&self) {
        self.leave().await;
        tokio::join!(self.old.close(), self.new.close());
    }
}
