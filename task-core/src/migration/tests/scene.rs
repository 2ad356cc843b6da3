//! Replicas on two stores in memory, with a worker that can be killed.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{sleep, timeout};

use super::faulty::{Faults, FaultyStore, Process};
use crate::application::TaskRecord;
use crate::background::{Background, Stop};
use crate::domain::{Draft, Priority, Revision, Task, TaskId, Timestamp, Title};
use crate::memory::{ManualClock, MemoryStateStore, SeededEntropy, lock};
use crate::migration::gone::is_left;
use crate::migration::worker::Worker;
use crate::migration::{
    Bucket, Cause, Coordinator, CoordinatorOptions, JobKind, JobState, JobStatus, Member,
    MemberOptions, Migration, MigrationOptions, MoveError, Pacing, ParallelStateStore, Stage,
};
use crate::ports::{
    CapabilitySet, Clock, Entropy, Key, Kind, PutOptions, StateCapability, StateStore,
};

/// Longest wait for anything, in the paused time of the tests.
const PATIENCE: Duration = Duration::from_secs(600);

/// What a store can do that cannot tell which records it has.
pub(super) const UNLISTED: CapabilitySet<StateCapability> = CapabilitySet::of(&[
    StateCapability::ConditionalWrites,
    StateCapability::UniqueVersions,
    StateCapability::Tombstones,
    StateCapability::Outbox,
]);

pub(super) const CALM: Faults = Faults {
    refused: 0,
    unanswered: 0,
};

/// How many runs of each kind; more by `TASK_CORE_HISTORIES`.
pub(super) fn seeds(first: u64) -> std::ops::Range<u64> {
    let wanted = option_env!("TASK_CORE_HISTORIES").and_then(|text| text.parse().ok());
    first..first + wanted.unwrap_or(2)
}

pub(super) struct Replica {
    pub(super) store: Arc<ParallelStateStore>,
    pub(super) migration: Arc<Migration>,
    pub(super) old: Arc<FaultyStore>,
    pub(super) new: Arc<FaultyStore>,
    pub(super) process: Arc<Process>,
    pub(super) member: Arc<Member>,
    entropy: Arc<dyn Entropy>,
    _running: Vec<Background>,
}

pub(super) struct Scene {
    pub(super) old: Arc<MemoryStateStore>,
    pub(super) new: Arc<MemoryStateStore>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) entropy: Arc<dyn Entropy>,
}

pub(super) fn task(number: u64) -> Key {
    Key::new(Kind::TASK, format!("task-{number}"))
}

pub(super) fn record(key: &Key, rev: u64, title: &str) -> Bytes {
    let id = TaskId::parse(&key.id).expect("an id");
    let draft = Draft {
        title: Title::parse(title.to_owned()).expect("a title"),
        description: None,
        priority: Priority::default(),
    };
    let task = Task::create(id, draft, Timestamp::from_unix_micros(0));
    TaskRecord::new(task, Revision { term: 1, rev }, None).encode()
}

pub(super) fn someone() -> Cause {
    Cause::new("tester", "to see")
}

impl Scene {
    pub(super) fn new(seed: u64) -> Self {
        let clock = Arc::new(ManualClock::default());
        Self {
            old: Arc::new(MemoryStateStore::new(Arc::clone(&clock) as _)),
            new: Arc::new(MemoryStateStore::new(Arc::clone(&clock) as _)),
            clock,
            entropy: Arc::new(SeededEntropy::new(seed)),
        }
    }

    pub(super) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as _
    }

    /// The same with a new side that can do other things.
    pub(super) fn with_new(self, new: MemoryStateStore) -> Self {
        let new = Arc::new(new);
        Self { new, ..self }
    }

    pub(super) fn replica(&self, faults: [Faults; 2]) -> Replica {
        let process = Arc::new(Process::new());
        let faulty = |inner: &Arc<MemoryStateStore>, faults: Faults| {
            let inner: Arc<dyn StateStore> = Arc::clone(inner) as _;
            let entropy = Arc::clone(&self.entropy);
            let store = FaultyStore::new(inner, entropy, faults, Arc::clone(&process));
            let is_calm = faults.refused + faults.unanswered == 0;
            store.is_healthy.store(is_calm, Ordering::Relaxed);
            Arc::new(store)
        };
        let (old, new) = (faulty(&self.old, faults[0]), faulty(&self.new, faults[1]));
        let options = MemberOptions::default();
        let member = Member::new(Arc::clone(&old) as _, options, self.clock(), &*self.entropy);
        let member = Arc::new(member);
        let store = ParallelStateStore::new(
            Arc::clone(&old) as _,
            Arc::clone(&new) as _,
            Arc::clone(&member),
            self.clock(),
        );
        let store = Arc::new(store.expect("both can do what is needed"));
        let options = MigrationOptions::default();
        let migration = Migration::new(&store, Arc::clone(&self.entropy), options);
        Replica {
            _running: vec![member.start(), store.start()],
            migration: Arc::new(migration),
            store,
            old,
            new,
            process,
            member,
            entropy: Arc::clone(&self.entropy),
        }
    }

    /// A replica of a move that has begun.
    pub(super) async fn begun(&self) -> Replica {
        let replica = self.replica([CALM, CALM]);
        let init = replica.migration.init(someone()).await;
        let _ = init.expect("the first one");
        sleep(Duration::from_secs(1)).await;
        replica
    }

    /// Puts tasks that were there before the move.
    pub(super) async fn fill(&self, tasks: u64) {
        for number in 0..tasks {
            let key = task(number);
            let value = record(&key, 1, &format!("title {number}"));
            let put = self.old.put(&key, value, PutOptions::default()).await;
            let _ = put.expect("memory");
        }
    }

    pub(super) async fn put(&self, store: &MemoryStateStore, key: &Key, value: impl Into<Bytes>) {
        let put = store.put(key, value.into(), PutOptions::default()).await;
        let _ = put.expect("memory");
    }

    pub(super) fn below(&self, most: u64) -> u64 {
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes);
        u64::from_le_bytes(bytes) % most
    }

    /// The values of a kind.
    pub(super) async fn values(
        &self,
        store: &MemoryStateStore,
        kind: Kind,
    ) -> BTreeMap<Key, Bytes> {
        let page = store.scan(kind, None, usize::MAX).await.expect("memory");
        let entries = page.entries.into_iter();
        let entries = entries.map(|(key, stored)| (key, stored.value));
        entries.filter(|(_, value)| !is_left(value)).collect()
    }

    pub(super) async fn assert_equal(&self) {
        for kind in [Kind::TASK, Kind::SEEN, Kind::GROUP] {
            let (old, new) = (self.values(&self.old, kind), self.values(&self.new, kind));
            assert_eq!(old.await, new.await);
        }
    }
}

impl Replica {
    /// Lets everything reach a stage without any guard, or be there again.
    pub(super) async fn go(&self, to: Stage) {
        self.moved(to).await.expect("nothing is in the way");
    }

    /// The same where something may be in the way.
    pub(super) async fn try_go(&self, to: Stage) {
        if let Err(error) = self.moved(to).await {
            println!("not at {to}: {error}");
        }
    }

    async fn moved(&self, to: Stage) -> Result<(), MoveError> {
        let mut coordinator = Coordinator::new(&self.store, CoordinatorOptions::default());
        let stays = |stage: &Stage| !matches!(stage, Stage::Off | Stage::Handoff);
        for stage in Stage::ALL.into_iter().filter(stays) {
            let control = coordinator.control().await?;
            if stage <= to && control.state.reached(stage) < Bucket::COUNT {
                let _ = coordinator.advance(stage, Bucket::COUNT).await?;
            }
        }
        for stage in Stage::ALL.into_iter().rev().filter(stays) {
            let control = coordinator.control().await?;
            if stage > to && control.state.reached(stage) > 0 {
                let _ = coordinator.advance(stage, 0).await?;
            }
        }
        // Every replica has followed.
        sleep(Duration::from_secs(1)).await;
        Ok(())
    }

    /// Works on jobs until it is killed: at this moment nothing more happens of it.
    pub(super) async fn work_for(&self, time: Duration) {
        let worker = Worker::new(Arc::clone(self.store.sides()), Arc::clone(&self.entropy));
        let (stop, _owner) = stop().await;
        let _ = timeout(time, Arc::new(worker).run(stop)).await;
    }

    /// Copies what was there before the first mirrored write.
    pub(super) async fn backfill(&self) -> JobStatus {
        let started = self.migration.backfill_start(Pacing::default()).await;
        let _ = started.expect("everything is mirrored");
        self.finish(JobKind::Backfill).await
    }

    pub(super) async fn job(&self, kind: JobKind) -> JobStatus {
        let job = self.migration.job(kind).await.expect("readable");
        job.expect("there is one")
    }

    /// Works on a job until it has ended.
    pub(super) async fn finish(&self, kind: JobKind) -> JobStatus {
        let running = self.migration.start();
        let job = self.ended(kind).await;
        running.stop().await;
        job
    }

    /// Waits until a job has ended.
    pub(super) async fn ended(&self, kind: JobKind) -> JobStatus {
        self.until(kind, |job| {
            !matches!(job.state, JobState::Running | JobState::Paused)
        })
        .await
    }

    pub(super) async fn until(
        &self,
        kind: JobKind,
        wanted: impl Fn(&JobStatus) -> bool + Send + Sync,
    ) -> JobStatus {
        let wait = async {
            loop {
                if let Ok(Some(job)) = self.migration.job(kind).await
                    && wanted(&job)
                {
                    return job;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = timeout(PATIENCE, wait).await;
        match waited {
            Ok(job) => job,
            Err(_) => panic!("never as wanted: {:#?}", self.job(kind).await),
        }
    }
}

/// A request to stop that nobody makes, and its owner.
async fn stop() -> (Stop, Background) {
    let sent = Arc::new(Mutex::new(None));
    let place = Arc::clone(&sent);
    let owner = Background::spawn("owner", |mut stop| async move {
        *lock(&place) = Some(stop.clone());
        stop.raised().await;
    });
    loop {
        if let Some(stop) = lock(&sent).take() {
            return (stop, owner);
        }
        tokio::task::yield_now().await;
    }
}
