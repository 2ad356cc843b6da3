//! Replicas die, sleep, and stages change at random while clients work: the clients' own log is the judge.
//!
//! The sides are two Redis servers, as foreign clients read them in the end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;
use task_tests::config;
use task_tests::history::Writer;
use task_tests::judge::{Heard, no_mark_is_left, tasks_are_as_told};
use task_tests::process::TaskServer;
use task_tests::process::migration::migration;
use tokio::time::sleep;

use super::fleet::{Fleet, REPLICAS, signal};
use super::replicas::World;

const WRITERS: usize = 4;

/// Ports that move.
const PORTS: [&str; 3] = ["state", "bus", "notifier"];

/// Longer than a lease, and longer than others wait for its end.
const LONGEST_SLEEP_MS: u64 = 12_000;

/// How long a writer stays with a replica.
const TURN: Duration = Duration::from_millis(200);

struct Storm {
    fleet: Fleet,
    until: Instant,
    kills: AtomicUsize,
    sleeps: AtomicUsize,
}

impl Storm {
    async fn start(seed: u64) -> Self {
        let world = World::start().await;
        let ways = std::array::from_fn(|_| world.ways());
        let fleet = Fleet::start(world, seed, ways).await;
        for command in [
            "advance --port state --to dualwrite",
            "backfill start",
            "verify --full",
        ] {
            fleet.at_last(command).await;
        }
        Self {
            fleet,
            until: Instant::now() + config::storm(),
            kills: AtomicUsize::new(0),
            sleeps: AtomicUsize::new(0),
        }
    }

    fn random(&self, below: usize) -> usize {
        self.fleet.random(below)
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
                    self.fleet.world.new.pause();
                    sleep(Duration::from_millis(self.random(4_000) as u64)).await;
                    self.fleet.world.new.resume();
                }
                _ => {
                    self.fleet.kill(place).await;
                    self.kills.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    async fn lull(&self, place: usize) {
        let sleeper = self.fleet.replica(place);
        signal("-STOP", &sleeper);
        self.sleeps.fetch_add(1, Ordering::Relaxed);
        let length = self.random(LONGEST_SLEEP_MS as usize) as u64;
        sleep(Duration::from_millis(length)).await;
        signal("-CONT", &sleeper);
    }

    async fn write(&self, writer: &mut Writer) {
        while !self.is_over() {
            // What it was told by one replica it reads from another.
            writer.rests_at = Some(self.until.min(Instant::now() + TURN));
            writer.work(&self.fleet.any()).await;
            // What is refused is not asked again at once.
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Moves forth and back until it is over, and answers how often each command ended with which code.
    async fn move_about(&self) -> BTreeMap<String, [usize; 4]> {
        let mut carried_out: BTreeMap<String, [usize; 4]> = BTreeMap::new();
        while !self.is_over() {
            let replica = self.fleet.any();
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

    /// Whether everything was `off` since the last backfill: then the new side may lack what nobody has followed.
    async fn was_left(&self) -> bool {
        let status = migration(&self.fleet.any(), "status --json").await.json();
        status["backfill"]["generation"] != status["generation"]
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
            heard.listen(storm.fleet.world.sides()).await;
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
    ] {
        storm.fleet.at_last(command).await;
    }
    if storm.was_left().await {
        storm.fleet.at_last("backfill start").await;
    }
    storm.fleet.at_last("verify --full").await;
    for writer in &mut writers {
        writer.finish(&storm.fleet.any()).await;
    }
    let world = &storm.fleet.world;
    no_mark_is_left(&world.old).await;
    let tasks = tasks_are_as_told(world.sides(), &writers).await;
    let heard = heard.is_as_told(world.sides(), &world.receiver, &writers);
    let events = heard.await;
    println!("{tasks} tasks and {events} events compared");
    let carried_out: usize = moved.values().map(|codes| codes[0]).sum();
    assert!(carried_out >= 3, "hardly anything was moved");
}
