//! Two buses and two notifiers in a move, in each of their stages, as one backend under test.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use task_core::background::Background;
use task_core::memory::MemoryStateStore;
use task_core::migration::{
    Bucket, Control, Coordinator, CoordinatorOptions, Member, MemberOptions, MoveError,
    NotifierStage, ParallelBusOptions, ParallelEventBus, ParallelNotifier, ParallelStateStore,
    PortStage,
};
use task_core::ports::{
    Clock, EventBus, Notification, Notifier, StateStore, SystemClock, SystemEntropy,
};
use tokio::sync::Mutex;

use super::{MemoryEventBuses, MemoryNotifiers};
use crate::conformance::Failure;
use crate::conformance::event_bus::EventBusBackend;
use crate::conformance::notifier::{NotifierBackend, Refusal};

/// A move with one replica, whose stores are in memory.
#[derive(Debug)]
struct Moving {
    records: Arc<dyn StateStore>,
    store: ParallelStateStore,
    running: Vec<Background>,
}

impl Moving {
    /// Begins a move.
    async fn begin() -> Result<Self, Failure> {
        let clock = || -> Arc<dyn Clock> { Arc::new(SystemClock) };
        let records: Arc<dyn StateStore> = Arc::new(MemoryStateStore::new(clock()));
        let new = Arc::new(MemoryStateStore::new(clock()));
        let mut options = MemberOptions::default();
        options.beat_every = Duration::from_millis(10);
        let member = Member::new(Arc::clone(&records), options, clock(), &SystemEntropy);
        let member = Arc::new(member);
        let running = vec![member.start()];
        let store = ParallelStateStore::new(Arc::clone(&records), new, member, clock())?;
        let begun = coordinator(&store).init("salt").await;
        begun.map_err(failed)?;
        store.member().adopted_after(0).await;
        Ok(Self {
            records,
            store,
            running,
        })
    }

    /// Lets everything reach a stage, through those before it.
    async fn go(&self, to: PortStage) -> Result<(), Failure> {
        let mut coordinator = coordinator(&self.store);
        let mut control: Option<Control> = None;
        for stage in PortStage::all(to.port()).into_iter().skip(1) {
            if stage <= to {
                let moved = coordinator.advance_port(stage, Bucket::COUNT).await;
                control = Some(moved.map_err(failed)?);
            }
        }
        if let Some(control) = control {
            // The first request is to find the stage adopted.
            let before = control.epoch - 1;
            self.store.member().adopted_after(before).await;
        }
        Ok(())
    }

    async fn end(self) {
        for background in self.running {
            background.stop().await;
        }
    }
}

fn coordinator(store: &ParallelStateStore) -> Coordinator {
    Coordinator::new(store, CoordinatorOptions::default())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is what `map_err` calls with the error"
)]
fn failed(error: MoveError) -> Failure {
    Failure::new(error.to_string())
}

/// Buses in memory of a move that has come to a stage, with every key in it.
#[derive(Debug)]
pub struct ParallelEventBuses {
    stage: PortStage,
    moving: Mutex<Option<Moving>>,
}

impl ParallelEventBuses {
    /// From memory to memory.
    #[must_use]
    pub fn in_memory(stage: impl Into<PortStage>) -> Arc<Self> {
        Arc::new(Self {
            stage: stage.into(),
            moving: Mutex::default(),
        })
    }
}

#[async_trait]
impl EventBusBackend for ParallelEventBuses {
    async fn open(&self) -> Result<Arc<dyn EventBus>, Failure> {
        let mut moving = Moving::begin().await?;
        moving.go(self.stage).await?;
        let bus = ParallelEventBus::new(
            MemoryEventBuses.open().await?,
            MemoryEventBuses.open().await?,
            Arc::clone(&moving.records),
            Arc::clone(moving.store.member()),
            Arc::clone(moving.store.recorder()),
            ParallelBusOptions::default(),
        )?;
        moving.running.push(bus.start());
        *self.moving.lock().await = Some(moving);
        Ok(Arc::new(bus))
    }

    async fn reopen(&self, _: Arc<dyn EventBus>) -> Result<Arc<dyn EventBus>, Failure> {
        Err(Failure::new("memory does not outlive its process"))
    }

    fn patience(&self) -> Duration {
        MemoryEventBuses.patience()
    }

    async fn close(&self) {
        if let Some(moving) = self.moving.lock().await.take() {
            moving.end().await;
        }
    }
}

/// Notifiers in memory of a move that has come to a stage, with every notification in it.
#[derive(Debug)]
pub struct ParallelNotifiers {
    stage: NotifierStage,
    old: MemoryNotifiers,
    new: MemoryNotifiers,
    moving: Mutex<Option<Moving>>,
}

impl ParallelNotifiers {
    /// From memory to memory.
    #[must_use]
    pub fn in_memory(stage: NotifierStage) -> Arc<Self> {
        Arc::new(Self {
            stage,
            old: MemoryNotifiers::default(),
            new: MemoryNotifiers::default(),
            moving: Mutex::default(),
        })
    }
}

#[async_trait]
impl NotifierBackend for ParallelNotifiers {
    async fn open(&self) -> Result<Arc<dyn Notifier>, Failure> {
        let mut moving = Moving::begin().await?;
        moving.go(self.stage.into()).await?;
        let notifier = ParallelNotifier::new(
            self.old.open().await?,
            self.new.open().await?,
            Arc::clone(&moving.records),
            Arc::clone(moving.store.member()),
            Arc::clone(moving.store.recorder()),
        )?;
        moving.running.push(notifier.start());
        *self.moving.lock().await = Some(moving);
        Ok(Arc::new(notifier))
    }

    async fn received(&self) -> Vec<Notification> {
        let mut received = self.old.received().await;
        received.extend(self.new.received().await);
        received
    }

    async fn refuse(&self, refusal: Option<Refusal>) {
        self.old.refuse(refusal).await;
        self.new.refuse(refusal).await;
    }

    async fn close(&self) {
        if let Some(moving) = self.moving.lock().await.take() {
            moving.end().await;
        }
    }
}
