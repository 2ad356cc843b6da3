//! Replicas work while buckets move back and forth, and calls are refused, lost and frozen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::faulty::{Faults, FaultyStore, Process};
use super::history::{History, Read, Told, Wrote};
use crate::application::TaskRecord;
use crate::background::Background;
use crate::domain::{Draft, Priority, Revision, Task, TaskId, Timestamp, Title};
use crate::memory::{ManualClock, MemoryStateStore, SeededEntropy, lock};
use crate::migration::{
    Bucket, Coordinator, CoordinatorOptions, Member, MemberOptions, ParallelStateStore, Stage,
};
use crate::ports::{
    Clock, Commit, DeleteMode, DeleteOptions, Entropy, Event, Key, Kind, Outcome, PendingId,
    PutOptions, StateStore, Topic, Write, WriteMode,
};

const KEYS: u64 = 12;
const REPLICAS: usize = 3;
const WORKERS: usize = 6;

struct Replica {
    store: Arc<ParallelStateStore>,
    network: Vec<Arc<FaultyStore>>,
    process: Arc<Process>,
    running: Vec<Background>,
}

struct World {
    old: Arc<MemoryStateStore>,
    new: Arc<MemoryStateStore>,
    clock: Arc<ManualClock>,
    entropy: Arc<dyn Entropy>,
    replicas: Vec<Replica>,
    histories: Mutex<BTreeMap<Key, History>>,
}

fn key(number: u64) -> Key {
    Key::new(Kind::TASK, format!("task-{number}"))
}

/// A record whose title is unique.
fn record(key: &Key, revision: Revision, title: &str) -> bytes::Bytes {
    let id = TaskId::parse(&key.id).expect("an id");
    let draft = Draft {
        title: Title::parse(title.to_owned()).expect("a title"),
        description: None,
        priority: Priority::default(),
    };
    let task = Task::create(id, draft, Timestamp::from_unix_micros(0));
    TaskRecord::new(task, revision, None).encode()
}

fn title_of(value: &[u8]) -> String {
    let record = TaskRecord::decode(value).expect("a record of ours");
    record.task.draft.title.as_str().to_owned()
}

impl World {
    fn new(seed: u64, faults: [Faults; 2]) -> Self {
        let clock = Arc::new(ManualClock::default());
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(seed));
        let store = || Arc::new(MemoryStateStore::new(Arc::<ManualClock>::clone(&clock)));
        let (old, new) = (store(), store());
        let mut world = Self {
            old,
            new,
            clock,
            entropy,
            replicas: Vec::new(),
            histories: Mutex::default(),
        };
        for _ in 0..REPLICAS {
            let replica = world.replica(faults);
            world.replicas.push(replica);
        }
        world
    }

    fn replica(&self, faults: [Faults; 2]) -> Replica {
        let process = Arc::new(Process::new());
        let faulty = |inner: &Arc<MemoryStateStore>, faults| {
            let inner: Arc<dyn StateStore> = Arc::clone(inner) as _;
            let process = Arc::clone(&process);
            Arc::new(FaultyStore::new(
                inner,
                Arc::clone(&self.entropy),
                faults,
                process,
            ))
        };
        let (old, new) = (faulty(&self.old, faults[0]), faulty(&self.new, faults[1]));
        let network = vec![Arc::clone(&old), Arc::clone(&new)];
        let (old, new): (Arc<dyn StateStore>, Arc<dyn StateStore>) = (old, new);
        let clock = || -> Arc<dyn Clock> { Arc::<ManualClock>::clone(&self.clock) };
        let options = MemberOptions::default();
        let member = Member::new(Arc::clone(&old), options, clock(), &*self.entropy);
        let member = Arc::new(member);
        let store = ParallelStateStore::new(old, new, Arc::clone(&member), clock());
        let store = Arc::new(store.expect("both can do what is needed"));
        Replica {
            running: vec![member.start(), store.start()],
            store,
            process,
            network,
        }
    }

    fn below(&self, most: u64) -> u64 {
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes);
        u64::from_le_bytes(bytes) % most
    }

    fn coordinator(&self, replica: usize) -> Coordinator {
        let options = CoordinatorOptions::default();
        Coordinator::new(&self.replicas[replica].store, options)
    }

    /// One client that reads, creates, changes and deletes.
    async fn work(&self, worker: usize, until: Instant) {
        let mut count = 0;
        while Instant::now() < until {
            count += 1;
            let key = key(self.below(KEYS));
            let place = self.small(REPLICAS as u64);
            let store = &self.replicas[place].store;
            let from = Instant::now();
            let Ok(found) = store.get(&key).await else {
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            let saw = found.as_ref().map(|stored| title_of(&stored.value));
            let read = Read {
                saw: saw.clone(),
                from,
                to: Instant::now(),
            };
            self.note(&key, |history| history.reads.push(read));
            if self.below(3) == 0 {
                continue;
            }
            let name = format!("{worker}.{count}");
            let revision = found.as_ref().map_or(Revision::first(1), |stored| {
                let record = TaskRecord::decode(&stored.value).expect("ours");
                record.revision.expect("ours").next(0)
            });
            let is_deletion = found.is_some() && self.below(30) == 0;
            let write = match (&found, is_deletion) {
                (Some(stored), true) => Write::Delete {
                    key: key.clone(),
                    options: DeleteOptions {
                        mode: DeleteMode::Match(stored.etag.clone()),
                        tombstone: Some(Duration::MAX),
                    },
                },
                (found, _) => Write::Put {
                    key: key.clone(),
                    value: record(&key, revision, &name),
                    options: PutOptions {
                        mode: found.as_ref().map_or(WriteMode::Create, |stored| {
                            WriteMode::Match(stored.etag.clone())
                        }),
                        ttl: None,
                    },
                },
            };
            let event = Event {
                topic: Topic::new("t"),
                key: key.id.clone(),
                payload: name.clone().into(),
            };
            let from = Instant::now();
            let answer = store.commit(Commit::of(write).event(event)).await;
            let told = match &answer {
                Ok(_) => Told::Done,
                Err(error) if error.outcome() == Outcome::Unknown => Told::Unknown,
                Err(_) => continue,
            };
            let wrote = Wrote {
                base: saw,
                made: (!is_deletion).then(|| name.clone()),
                name,
                told,
                from,
                to: Instant::now(),
            };
            self.note(&key, |history| history.writes.push(wrote));
        }
    }

    fn note(&self, key: &Key, note: impl FnOnce(&mut History)) {
        note(lock(&self.histories).entry(key.clone()).or_default());
    }

    /// Moves up and down all stages for a time, by shares; what is refused is tried again.
    async fn wander(&self, until: Instant, done: &Mutex<BTreeSet<Stage>>) {
        const WAY: [Stage; 4] = [
            Stage::DualWrite,
            Stage::Shadow,
            Stage::Live,
            Stage::RampDown,
        ];
        const SHARES: [u16; 3] = [3_000, 6_000, Bucket::COUNT];
        let mut coordinator = self.coordinator(0);
        let mut height = 0;
        let mut climbs = true;
        while Instant::now() < until {
            sleep(Duration::from_millis(100 + self.below(900))).await;
            if self.below(6) == 0 {
                climbs = !climbs;
            }
            let (stage, share) = match climbs {
                true if height < WAY.len() => (WAY[height], SHARES[self.small(3)]),
                true => {
                    climbs = false;
                    continue;
                }
                false if height > 0 => (WAY[height - 1], 0),
                false => {
                    climbs = true;
                    continue;
                }
            };
            // What was written in `off` has no mark.
            if climbs && stage == Stage::Live {
                self.backfill().await;
            }
            if coordinator.advance(stage, share).await.is_ok() {
                lock(done).insert(stage);
                height = if climbs { height + 1 } else { height - 1 };
            }
        }
    }

    /// Copies every record that may be copied, whichever side has it.
    async fn backfill(&self) {
        for key in (0..KEYS).map(key) {
            let store = &self.replicas[0].store;
            while store.sync(&key).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Stops one process after the other, often for longer than two leases.
    async fn stop_processes(&self, until: Instant, longest: Duration) {
        while !longest.is_zero() && Instant::now() < until {
            sleep(Duration::from_millis(self.below(8_000))).await;
            let time = Duration::from_millis(self.below(1 + longest.as_millis() as u64));
            self.replicas[self.small(REPLICAS as u64)]
                .process
                .stop_for(time);
            sleep(time).await;
        }
    }

    fn small(&self, most: u64) -> usize {
        usize::try_from(self.below(most)).expect("small")
    }

    fn heal(&self) {
        for network in self.replicas.iter().flat_map(|replica| &replica.network) {
            network.is_healthy.store(true, Ordering::Relaxed);
        }
    }

    async fn events(&self) -> BTreeSet<String> {
        let mut events = BTreeSet::new();
        for store in [&self.old, &self.new] {
            let mut after: Option<PendingId> = None;
            loop {
                let page = store.pending(after.take(), 500).await.expect("memory");
                let Some(last) = page.last() else { break };
                after = Some(last.id.clone());
                for event in page {
                    events.insert(String::from_utf8(event.event.payload.to_vec()).expect("text"));
                }
            }
        }
        events
    }
}

async fn init(world: &World) {
    let coordinator = world.coordinator(0);
    // Its first write may be refused or lost.
    while coordinator.control().await.is_err() {
        let _ = coordinator.init("salt").await;
    }
}

async fn moves_back_and_forth(seed: u64, faults: [Faults; 2], stops: Duration) -> BTreeSet<Stage> {
    let world = World::new(seed, faults);
    init(&world).await;
    let until = Instant::now() + Duration::from_secs(180);
    let done = Mutex::default();
    let work = (0..WORKERS).map(|worker| world.work(worker, until));
    let work = futures_util::future::join_all(work);
    let harm = world.stop_processes(until, stops);
    futures_util::future::join3(work, world.wander(until, &done), harm).await;
    world.heal();
    // Everything that was frozen has arrived, and what was left is finished.
    sleep(Duration::from_secs(60)).await;
    let events = world.events().await;
    let mut expected = BTreeSet::new();
    let histories = std::mem::take(&mut *lock(&world.histories));
    for (key, history) in histories {
        let mut answers = Vec::new();
        for replica in &world.replicas {
            let found = replica.store.get(&key).await.expect("healthy");
            answers.push(found.map(|stored| title_of(&stored.value)));
        }
        assert!(
            answers.windows(2).all(|pair| pair[0] == pair[1]),
            "{key}: {answers:?}"
        );
        let old = world.old.get(&key).await.expect("memory");
        let old = old.map(|stored| title_of(&stored.value));
        assert_eq!(
            old, answers[0],
            "{key}: the old side has everything before `complete`"
        );
        let chain = history.explain(&answers[0]);
        expected.extend(
            chain
                .into_iter()
                .map(|(_, name)| name)
                .filter(|name| !name.is_empty()),
        );
    }
    let lost: Vec<_> = expected.difference(&events).collect();
    let phantom: Vec<_> = events.difference(&expected).collect();
    assert!(lost.is_empty(), "events lost: {lost:?}");
    assert!(phantom.is_empty(), "events of nothing: {phantom:?}");
    for replica in world.replicas {
        for running in replica.running {
            running.stop().await;
        }
    }
    done.into_inner().expect("not poisoned")
}

const CALM: Faults = Faults {
    refused: 0,
    unanswered: 0,
};
const BAD: Faults = Faults {
    refused: 1_000,
    unanswered: 1_000,
};
const LONG: Duration = Duration::from_secs(20);

/// How many histories of each kind; more by `TASK_CORE_HISTORIES`.
fn seeds(first: u64) -> std::ops::Range<u64> {
    let wanted = option_env!("TASK_CORE_HISTORIES").and_then(|text| text.parse().ok());
    first..first + wanted.unwrap_or(4)
}

async fn all(first: u64, faults: [Faults; 2], stops: Duration) {
    let mut reached = BTreeSet::new();
    for seed in seeds(first) {
        println!("seed {seed}");
        reached.extend(moves_back_and_forth(seed, faults, stops).await);
    }
    assert!(reached.contains(&Stage::RampDown), "{reached:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_while_buckets_move_in_calm() {
    all(0, [CALM, CALM], Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_while_buckets_move_and_calls_fail() {
    all(1_000, [BAD, BAD], Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_while_buckets_move_and_processes_stop() {
    all(2_000, [CALM, CALM], LONG).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_while_everything_happens_at_once() {
    all(3_000, [BAD, BAD], LONG).await;
}
