//! Two buses and two notifiers in a move, in each of their stages, as one backend under test.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use task_core::background::Background;
use task_core::memory::MemoryStateStore;
use task_core::migration::{
    Bucket, BusStage, Control, Coordinator, CoordinatorOptions, Member, MemberOptions,
    NotifierStage, ParallelBusOptions, ParallelEventBus, ParallelNotifier, ParallelStateStore,
    PortStage,
};
use task_core::ports::{
    Clock, EventBus, Notification, Notifier, StateStore, SystemClock, SystemEntropy,
};
use tokio::sync::Mutex;

use super::MemoryNotifiers;
use super::parallel::BEAT_EVERY;
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
        options.beat_every = BEAT_EVERY;
        let member = Member::new(Arc::clone(&records), options, clock(), &SystemEntropy);
        let member = Arc::new(member);
        let running = vec![member.start()];
        let store = ParallelStateStore::new(Arc::clone(&records), new, member, clock())?;
        coordinator(&store).init("salt").await?;
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
                control = Some(coordinator.advance_port(stage, Bucket::COUNT).await?);
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

/// The backends of a move's two sides.
#[derive(Debug)]
pub struct BusSides {
    /// Where events went.
    pub old: Arc<dyn EventBusBackend>,
    /// Where they go.
    pub new: Arc<dyn EventBusBackend>,
}

/// A move of buses that has come to a stage, with every key in it.
#[derive(Debug)]
pub struct ParallelEventBuses {
    sides: BusSides,
    stage: BusStage,
    joined: Mutex<Option<Joined>>,
}

/// The buses of a move, and the one that is both.
#[derive(Debug)]
struct Joined {
    moving: Moving,
    buses: [Arc<dyn EventBus>; 2],
    copying: Background,
}

impl ParallelEventBuses {
    /// A move between two backends; each is opened with it.
    #[must_use]
    pub fn between(sides: BusSides, stage: BusStage) -> Arc<Self> {
        Arc::new(Self {
            sides,
            stage,
            joined: Mutex::default(),
        })
    }

    async fn join(
        &self,
        moving: Moving,
        buses: [Arc<dyn EventBus>; 2],
    ) -> Result<Arc<dyn EventBus>, Failure> {
        let [old, new] = buses.each_ref().map(Arc::clone);
        // What a busy machine publishes late would come by both buses.
        let mut options = ParallelBusOptions::default();
        options.deadline = self.patience();
        let bus = ParallelEventBus::new(
            old,
            new,
            Arc::clone(&moving.records),
            Arc::clone(moving.store.member()),
            Arc::clone(moving.store.recorder()),
            options,
        )?;
        *self.joined.lock().await = Some(Joined {
            moving,
            buses,
            copying: bus.start(),
        });
        Ok(Arc::new(bus))
    }

    /// Ends what goes on beside the case, but for the move itself.
    async fn leave(&self) -> Option<(Moving, [Arc<dyn EventBus>; 2])> {
        let joined = self.joined.lock().await.take()?;
        joined.copying.stop().await;
        Some((joined.moving, joined.buses))
    }
}

#[async_trait]
impl EventBusBackend for ParallelEventBuses {
    async fn open(&self) -> Result<Arc<dyn EventBus>, Failure> {
        let moving = Moving::begin().await?;
        moving.go(self.stage.into()).await?;
        let buses = [self.sides.old.open().await?, self.sides.new.open().await?];
        self.join(moving, buses).await
    }

    async fn reopen(&self, bus: Arc<dyn EventBus>) -> Result<Arc<dyn EventBus>, Failure> {
        let left = self.leave().await;
        drop(bus);
        let (moving, [old, new]) = left.ok_or_else(|| Failure::new("no bus is open"))?;
        let old = self.sides.old.reopen(old).await?;
        let new = self.sides.new.reopen(new).await?;
        self.join(moving, [old, new]).await
    }

    fn patience(&self) -> Duration {
        self.sides.old.patience().max(self.sides.new.patience())
    }

    async fn close(&self) {
        if let Some((moving, buses)) = self.leave().await {
            drop(buses);
            moving.end().await;
        }
        tokio::join!(self.sides.old.close(), self.sides.new.close());
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
