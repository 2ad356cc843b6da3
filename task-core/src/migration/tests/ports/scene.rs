//! A move on memory adapters with several replicas, for tests of its parts.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::fakes::{SomeBus, SomeNotifier, SomeStore};
use crate::application::{TaskRecord, task_event};
use crate::background::Background;
use crate::domain::{
    Draft, EventType, Priority, Revision, Task, TaskEvent, TaskId, Timestamp, Title,
};
use crate::memory::{ManualClock, MemoryStateStore, SeededEntropy};
use crate::migration::{
    Bucket, BusStage, Control, Coordinator, CoordinatorOptions, Member, MemberOptions,
    NotifierStage, ParallelBusOptions, ParallelEventBus, ParallelNotifier, ParallelStateStore,
    Stage,
};
use crate::ports::{Event, Key, Kind};

pub(super) const ALL: u16 = Bucket::COUNT;

/// Everything that both sides are.
pub(super) struct Scene {
    pub(super) clock: Arc<ManualClock>,
    pub(super) old: Arc<SomeStore>,
    pub(super) new: Arc<SomeStore>,
    pub(super) old_bus: Arc<SomeBus>,
    pub(super) new_bus: Arc<SomeBus>,
    pub(super) old_notifier: Arc<SomeNotifier>,
    pub(super) new_notifier: Arc<SomeNotifier>,
    pub(super) entropy: SeededEntropy,
}

/// One process of the service.
pub(super) struct Replica {
    pub(super) member: Arc<Member>,
    pub(super) store: Arc<ParallelStateStore>,
    pub(super) bus: Arc<ParallelEventBus>,
    pub(super) notifier: Arc<ParallelNotifier>,
    running: Vec<Background>,
}

impl Scene {
    pub(super) fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        let store = || {
            Arc::new(SomeStore::new(MemoryStateStore::new(
                Arc::clone(&clock) as _
            )))
        };
        Self {
            old: store(),
            new: store(),
            clock: Arc::clone(&clock),
            old_bus: Arc::default(),
            new_bus: Arc::default(),
            old_notifier: Arc::default(),
            new_notifier: Arc::default(),
            entropy: SeededEntropy::new(7),
        }
    }

    /// A scene with a move that has begun, and one replica.
    pub(super) async fn begun() -> (Self, Replica) {
        let scene = Self::new();
        let replica = scene.replica();
        let begun = coordinator(&replica).init("salt").await;
        begun.expect("nothing is there");
        replica.follows().await;
        (scene, replica)
    }

    pub(super) fn replica(&self) -> Replica {
        self.replica_with(MemberOptions::default())
    }

    /// A replica that takes seconds to hear of a move.
    pub(super) fn slow_replica(&self) -> Replica {
        self.replica_with(MemberOptions {
            beat_every: Duration::from_secs(4),
            ..MemberOptions::default()
        })
    }

    fn replica_with(&self, options: MemberOptions) -> Replica {
        let member = Member::new(
            Arc::clone(&self.old) as _,
            options,
            Arc::clone(&self.clock) as _,
            &self.entropy,
        );
        let member = Arc::new(member);
        let store = ParallelStateStore::new(
            Arc::clone(&self.old) as _,
            Arc::clone(&self.new) as _,
            Arc::clone(&member),
            Arc::clone(&self.clock) as _,
        );
        let store = Arc::new(store.expect("memory can do all"));
        let bus = ParallelEventBus::new(
            Arc::clone(&self.old_bus) as _,
            Arc::clone(&self.new_bus) as _,
            Arc::clone(&self.old) as _,
            Arc::clone(&member),
            Arc::clone(store.recorder()),
            ParallelBusOptions::default(),
        );
        let bus = bus.expect("memory can do all");
        let notifier = ParallelNotifier::new(
            Arc::clone(&self.old_notifier) as _,
            Arc::clone(&self.new_notifier) as _,
            Arc::clone(&self.old) as _,
            Arc::clone(&member),
            Arc::clone(store.recorder()),
        );
        let notifier = notifier.expect("memory can do all");
        let running = vec![member.start(), store.start(), bus.start(), notifier.start()];
        Replica {
            member,
            store,
            bus: Arc::new(bus),
            notifier: Arc::new(notifier),
            running,
        }
    }
}

impl Replica {
    /// Waits until the control record is adopted as it is now.
    pub(super) async fn follows(&self) {
        let control = coordinator(self).control().await.expect("there is one");
        let adopted = || self.member.pin().map(|pin| pin.control().epoch);
        until("adoption", || {
            adopted().is_ok_and(|epoch| epoch >= control.epoch)
        })
        .await;
    }

    /// Moves all buckets through the stages of the state store to this one.
    pub(super) async fn moves_state(&self, to: Stage) -> Control {
        let mut coordinator = coordinator(self);
        let way = Stage::ALL.into_iter().skip(1).filter(|stage| *stage <= to);
        for stage in way.filter(|stage| *stage != Stage::Handoff) {
            coordinator
                .advance(stage, ALL)
                .await
                .expect("nothing is behind");
        }
        self.follows().await;
        coordinator.control().await.expect("there is one")
    }

    /// Moves all buckets through the stages of the bus to this one.
    pub(super) async fn moves_bus(&self, to: BusStage) -> Control {
        let mut coordinator = coordinator(self);
        for stage in [BusStage::Shadow, BusStage::Live, BusStage::Complete] {
            if stage <= to {
                coordinator.advance_bus(stage, ALL).await.expect("all hear");
            }
        }
        self.follows().await;
        coordinator.control().await.expect("there is one")
    }

    pub(super) async fn moves_notifier(&self, to: NotifierStage) {
        let buckets = if to == NotifierStage::New { ALL } else { 0 };
        let mut coordinator = coordinator(self);
        let moved = coordinator.advance_notifier(NotifierStage::New, buckets);
        moved.await.expect("nothing stands in the way");
        self.follows().await;
    }

    pub(super) async fn stop(self) {
        for running in self.running {
            running.stop().await;
        }
    }
}

pub(super) fn coordinator(replica: &Replica) -> Coordinator {
    Coordinator::new(&replica.store, CoordinatorOptions::default())
}

/// Waits for a condition; paused time runs on meanwhile.
pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(300), "never: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

pub(super) fn key(name: &str) -> Key {
    Key::new(Kind::TASK, name)
}

fn task(id: &str, title: &str) -> Task {
    let draft = Draft {
        title: Title::parse(title.to_owned()).expect("a title"),
        description: None,
        priority: Priority::default(),
    };
    let id = TaskId::parse(id).expect("an id");
    Task::create(
        id,
        draft,
        Timestamp::from_unix_micros(1_767_225_600_000_000),
    )
}

/// A task's record of this revision.
pub(super) fn record(id: &str, rev: u64, title: &str) -> bytes::Bytes {
    let revision = Revision { term: 1, rev };
    TaskRecord::new(task(id, title), revision, None).encode()
}

/// The event of a completed task at a time.
pub(super) fn event(id: &str, rev: u64, at: Timestamp) -> Event {
    let event = TaskEvent {
        timestamp: at,
        ..TaskEvent::of(&task(id, "a"), EventType::Completed)
    };
    task_event(&event, Revision { term: 1, rev })
}
