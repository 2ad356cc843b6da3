//! Replicas die, sleep, and stages change at random while clients work: the clients' own log is the judge.
//!
//! The sides are two Redis servers, as foreign clients read them in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;
use task_core::memory::SeededEntropy;
use task_core::ports::Entropy;
use task_tests::config;
use task_tests::history::{Seen, Writer};
use task_tests::process::migration::migration;
use task_tests::process::{RedisServer, TaskServer};
use task_tests::wait::until;
use tokio::time::sleep;

use super::replicas::{World, is_ready};

const REPLICAS: usize = 3;
const WRITERS: usize = 4;

/// Ports that move.
const PORTS: [&str; 3] = ["state", "bus", "notifier"];

/// Longer than a lease, and longer than others wait for its end.
const LONGEST_SLEEP_MS: u64 = 12_000;

struct Storm {
    world: World,
    replicas: [Mutex<Arc<TaskServer>>; REPLICAS],
    random: SeededEntropy,
    until: Instant,
    kills: AtomicUsize,
    sleeps: AtomicUsize,
}

impl Storm {
    async fn start(seed: u64) -> Self {
        let world = World::start().await;
        let first = world.serve().await;
        migration(&first, "init").await.with(0);
        let rest = [world.serve().await, world.serve().await];
        let [second, third] = rest;
        let mut storm = Self {
            world,
            replicas: [first, second, third].map(|one| Mutex::new(Arc::new(one))),
            random: SeededEntropy::new(seed),
            until: Instant::now(),
            kills: AtomicUsize::new(0),
            sleeps: AtomicUsize::new(0),
        };
        for place in 0..REPLICAS {
            is_ready(&storm.replica(place)).await;
        }
        for command in [
            "advance --port state --to dualwrite",
            "backfill start",
            "verify --full",
        ] {
            storm.at_last(command).await;
        }
        storm.until = Instant::now() + config::storm();
        storm
    }

    fn random(&self, below: usize) -> usize {
        let mut random = [0; 8];
        self.random.fill(&mut random);
        usize::try_from(u64::from_le_bytes(random) % below as u64).unwrap()
    }

    fn replica(&self, place: usize) -> Arc<TaskServer> {
        Arc::clone(&self.replicas[place].lock().unwrap())
    }

    fn any(&self) -> Arc<TaskServer> {
        self.replica(self.random(REPLICAS))
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Kills and pauses until it is over; in the end every replica runs.
    async fn break_things(&self) {
        while !self.is_over() {
            // Where a replica has just died, nothing moves until it is known to be gone.
            let longest = [1_000, 20_000][self.random(2)];
            sleep(Duration::from_millis(self.random(longest) as u64)).await;
            let place = self.random(REPLICAS);
            match self.random(4) {
                0 => self.lull(place).await,
                1 => {
                    self.world.new.pause();
                    sleep(Duration::from_millis(self.random(4_000) as u64)).await;
                    self.world.new.resume();
                }
                _ => self.kill(place).await,
            }
        }
    }

    async fn kill(&self, place: usize) {
        signal("-9", &self.replica(place));
        self.kills.fetch_add(1, Ordering::Relaxed);
        let fresh = Arc::new(self.world.serve().await);
        *self.replicas[place].lock().unwrap() = fresh;
    }

    async fn lull(&self, place: usize) {
        let sleeper = self.replica(place);
        signal("-STOP", &sleeper);
        self.sleeps.fetch_add(1, Ordering::Relaxed);
        let length = self.random(LONGEST_SLEEP_MS as usize) as u64;
        sleep(Duration::from_millis(length)).await;
        signal("-CONT", &sleeper);
    }

    async fn write(&self, writer: &mut Writer) {
        writer.rests_at = Some(self.until);
        while !self.is_over() {
            writer.work(&self.any()).await;
            // What is refused is not asked again at once.
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Moves forth and back until it is over, and answers how often each command ended with which code.
    async fn move_about(&self) -> BTreeMap<String, [usize; 4]> {
        let mut carried_out: BTreeMap<String, [usize; 4]> = BTreeMap::new();
        while !self.is_over() {
            let replica = self.any();
            let command = self.next_command(&replica).await;
            let said = migration(&replica, &command).await;
            // Found differences are what is not yet copied; the end says whether they stay.
            assert!(matches!(said.code, 0..=3), "{command}: {said:?}");
            let words: Vec<&str> = command.split(' ').take(5).collect();
            let tried = carried_out.entry(words.join(" ")).or_insert([0; 4]);
            tried[usize::try_from(said.code).unwrap()] += 1;
        }
        carried_out
    }

    /// A step of one port, mostly forwards, of all tasks or a part of them; or a look at the whole.
    async fn next_command(&self, replica: &TaskServer) -> String {
        let port = PORTS[self.random(PORTS.len())];
        match self.random(12) {
            0 => return "verify --full".to_owned(),
            1 => return "repair drain".to_owned(),
            2 | 3 => return format!("rollback --port {port}"),
            _ => {}
        }
        let status = migration(replica, "status --json").await;
        let status: Value = serde_json::from_str(&status.stdout).unwrap_or_default();
        let mut ports = status["ports"].as_array().into_iter().flatten();
        let next = ports.find(|one| one["port"] == port);
        match next.and_then(|one| one["next"]["to"].as_str()) {
            Some(to) if to != "complete" => {
                let percent = [100, 1 + self.random(99)][self.random(2)];
                let confirm = "--confirm no-foreign-writers";
                format!("advance --port {port} --to {to} --percent {percent} {confirm}")
            }
            _ => format!("rollback --port {port}"),
        }
    }

    async fn at_last(&self, command: &str) {
        // A step may wait for replicas that have died, as long as nobody knows that.
        const MOST: usize = 12;
        let mut last = None;
        for _ in 0..MOST {
            let said = migration(&self.any(), command).await;
            if said.code == 0 {
                return;
            }
            sleep(Duration::from_secs(1)).await;
            last = Some(said);
        }
        panic!("{command}: {last:?}");
    }
}

fn signal(signal: &str, server: &TaskServer) {
    let id = server.id().to_string();
    let sent = Command::new("kill").args([signal, &id]).status();
    assert!(sent.unwrap().success(), "{signal} {id}");
}

/// An event without the term in which it was made, which the writers do not know.
fn without_term(seen: &Seen) -> Seen {
    let (_, revision) = seen.1.split_once('.').unwrap();
    (seen.0.clone(), revision.to_owned(), seen.2.clone())
}

/// The events of both buses, as long as they keep them.
#[derive(Default)]
struct Heard {
    last: [String; 2],
    events: BTreeSet<Seen>,
}

impl Heard {
    async fn listen(&mut self, world: &World) {
        for (redis, last) in [&world.old, &world.new].into_iter().zip(&mut self.last) {
            let from = match last.as_str() {
                "" => "-".to_owned(),
                last => format!("({last}"),
            };
            let entries = redis.command(&["XRANGE", "task-events", &from, "+"]).await;
            let entries: Vec<(String, Vec<(String, String)>)> =
                redis::from_redis_value(entries).unwrap();
            for (id, fields) in entries {
                let data = fields.into_iter().find(|(name, _)| name == "data");
                let event: Value = serde_json::from_str(&data.unwrap().1).unwrap();
                let seen = ["subject", "taskrev", "type"];
                let seen = seen.map(|name| event[name].as_str().unwrap().to_owned());
                self.events.insert(without_term(&seen.into()));
                *last = id;
            }
        }
    }
}

/// The revision of a task as a client of Redis reads it.
async fn revision(redis: &RedisServer, words: &[&str]) -> Option<u64> {
    let found = redis.command(words).await;
    let found: Option<String> = redis::from_redis_value(found).unwrap();
    let record = found.and_then(|text| serde_json::from_str::<Value>(&text).ok())?;
    record["_meta"]["rev"].as_u64()
}

/// Compares what the clients were told with what both sides have.
async fn judge(storm: &Storm, writers: &[Writer], mut heard: Heard) {
    let world = &storm.world;
    let doubts = writers.iter().filter_map(|writer| writer.doubts.as_ref());
    let mut allowed: BTreeMap<String, BTreeSet<Option<u64>>> = BTreeMap::new();
    for doubts in doubts.clone() {
        allowed.extend(doubts.tasks.clone());
    }
    let kept = writers.iter().flat_map(|writer| &writer.tasks);
    allowed.extend(kept.map(|(id, revision)| (id.clone(), [*revision].into())));
    for (id, revisions) in &allowed {
        let key = format!("task:{id}");
        let old = revision(&world.old, &["GET", &key]).await;
        let key = format!("task-api||task-{id}");
        let new = revision(&world.new, &["HGET", &key, "data"]).await;
        assert!(
            revisions.contains(&old),
            "{id} is {old:?}, not {revisions:?}"
        );
        assert_eq!(new, old, "{id} differs");
    }

    let known: BTreeSet<Seen> = writers
        .iter()
        .flat_map(|writer| writer.events.iter().map(without_term))
        .collect();
    let possible: BTreeSet<Seen> = doubts
        .flat_map(|doubts| doubts.events.iter().map(without_term))
        .collect();
    let seen = until("every event is published", async || {
        heard.listen(world).await;
        heard
            .events
            .is_superset(&known)
            .then(|| heard.events.clone())
    })
    .await;
    let phantoms: Vec<&Seen> = seen.difference(&known).collect();
    let phantoms = phantoms.iter().filter(|event| !possible.contains(**event));
    assert_eq!(phantoms.collect::<Vec<_>>(), Vec::<&&Seen>::new());
    println!("{} tasks and {} events compared", allowed.len(), seen.len());
    each_completion_is_notified_once(world, &seen).await;
}

async fn each_completion_is_notified_once(world: &World, seen: &BTreeSet<Seen>) {
    let completed = seen.iter().filter(|event| event.2 == "task.completed");
    let completed: BTreeSet<&str> = completed.map(|event| &*event.0).collect();
    let received = until("every completion is notified", async || {
        let received = world.receiver.notified();
        (received.len() >= completed.len()).then_some(received)
    })
    .await;
    let once: BTreeSet<&str> = received.iter().map(String::as_str).collect();
    assert_eq!(once.len(), received.len(), "somebody was told twice");
    assert_eq!(once, completed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_die_and_sleep_under_random_moves_lose_nothing_and_invent_nothing() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let storm = Storm::start(seed).await;
    let mut writers: Vec<Writer> = (0..WRITERS).map(Writer::doubting).collect();
    let working = join_all(writers.iter_mut().map(|writer| storm.write(writer)));
    let mut heard = Heard::default();
    let listening = async {
        while !storm.is_over() {
            // The new side does not answer while it is paused.
            heard.listen(&storm.world).await;
            sleep(Duration::from_millis(500)).await;
        }
    };
    let (broken, moving) = (storm.break_things(), storm.move_about());
    let (_, (), (), moved) = tokio::join!(working, listening, broken, moving);
    let (kills, sleeps) = (&storm.kills, &storm.sleeps);
    println!("{kills:?} kills, {sleeps:?} sleeps; ended with 0, 1, 2, 3: {moved:#?}");
    for command in [
        "rollback --port bus --to off",
        "rollback --port notifier --to old",
        "rollback --port state --to dualwrite",
        "repair drain",
        "verify --full",
    ] {
        storm.at_last(command).await;
    }
    for writer in &mut writers {
        writer.finish(&storm.any()).await;
    }
    judge(&storm, &writers, heard).await;
    let carried_out: usize = moved.values().map(|codes| codes[0]).sum();
    assert!(carried_out >= 3, "hardly anything was moved");
}
