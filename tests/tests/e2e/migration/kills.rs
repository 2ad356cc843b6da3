//! Replicas die at each step of the protocol, while clients work and a backfill runs.
//!
//! A replica is killed as soon as its command is on its way to Redis, or carried out there and not answered. The
//! clients' own log is the judge, and the sides are two Redis servers, as foreign clients read them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;
use task_tests::config;
use task_tests::history::Writer;
use task_tests::judge::{Heard, no_mark_is_left, tasks_are_as_told};
use task_tests::process::migration::migration;
use task_tests::process::trap::{Moment, Trap, TrapProxy};
use task_tests::wait::until;
use tokio::time::{sleep, timeout};

use super::fleet::{Fleet, REPLICAS};
use super::replicas::{World, create_all};
use super::steps::{BACKFILL, BACKWARDS, FORWARDS, MOVE, RELAY, Step, points};

const WRITERS: usize = 4;

/// How long a writer stays with a replica, and rests before the next one.
const TURN: Duration = Duration::from_millis(100);

/// Longest wait for somebody to come to a step: others wait for the dead, twice in a row.
const LONGEST: Duration = Duration::from_secs(120);

/// Of so many kills one is at a step that waits for the dead before it.
const RARELY: usize = 16;

/// Of three replicas this one dies only at such a step, so that somebody lives long enough to take over what the
/// dead had begun.
const SURVIVOR: usize = 0;

/// A part of the move.
struct Phase {
    name: &'static str,
    /// What leads there.
    way: &'static [&'static str],
    /// At which steps most of them die.
    often: &'static [&'static [Step]],
    /// At which steps one dies now and then, or all of them if there are no others.
    rarely: &'static [&'static [Step]],
    /// What moves stages back and forth meanwhile, by its number.
    moves: Option<fn(usize) -> String>,
}

/// Only there a backfill has something to copy, and what it should have copied is seen to be missing.
const FIRST: Phase = Phase {
    name: "the first backfill",
    way: &[
        "advance --port state --to dualwrite",
        "backfill start --rate 50 --detach",
    ],
    often: &[&FORWARDS],
    rarely: &[&BACKFILL],
    moves: None,
};

const MIXED: Phase = Phase {
    name: "all stages at once",
    way: &[
        "verify --full",
        "advance --port state --to shadow --percent 80",
        "advance --port state --to live --percent 60 --confirm no-foreign-writers",
        "advance --port state --to rampdown --percent 40",
        "backfill start --rate 50 --detach",
    ],
    often: &[&FORWARDS, &BACKWARDS],
    rarely: &[&MOVE, &BACKFILL, &RELAY],
    // A bucket at a time goes back: before one goes on from `shadow`, the backfill would have to end.
    moves: Some(|number| match number % 2 {
        0 => format!(
            "advance --port state --to shadow --percent {}",
            80 + number / 2 % 2
        ),
        _ => format!(
            "advance --port state --to rampdown --percent {:.2}",
            40.0 - number as f64 / 200.0
        ),
    }),
};

const FROM_SIDE_TO_SIDE: Phase = Phase {
    name: "from side to side",
    way: &[
        "verify --full",
        "advance --port state --to shadow",
        "advance --port state --to live --confirm no-foreign-writers",
    ],
    often: &[],
    rarely: &[&MOVE],
    moves: Some(|number| {
        let there = "advance --port state --to rampdown";
        let back = "rollback --port state --to live";
        [there, back][number % 2].to_owned()
    }),
};

struct Kills {
    fleet: Fleet,
    trap: Trap,
    _proxies: Vec<[TrapProxy; 2]>,
    is_over: AtomicBool,
    moves: AtomicUsize,
    counts: Mutex<BTreeMap<(&'static str, &'static str, Moment), usize>>,
}

impl Kills {
    async fn start(seed: u64) -> Self {
        let (world, trap) = (World::start().await, Trap::default());
        let mut proxies = Vec::new();
        for place in 0..REPLICAS {
            let old = TrapProxy::to(world.old.port(), place, &trap).await;
            proxies.push([old, TrapProxy::to(world.new.port(), place, &trap).await]);
        }
        let ways = std::array::from_fn(|place| proxies[place].each_ref().map(TrapProxy::url));
        Self {
            fleet: Fleet::start(world, seed, ways).await,
            trap,
            _proxies: proxies,
            is_over: AtomicBool::new(false),
            moves: AtomicUsize::new(0),
            counts: Mutex::default(),
        }
    }

    /// Somebody who knows the tasks that were there before the move.
    async fn first_writer(&self) -> Writer {
        let mut writer = Writer::new(WRITERS);
        for (id, _) in create_all(&self.fleet.any()).await {
            let event = (id.clone(), "0.1".to_owned(), "task.created".to_owned());
            writer.events.insert(event);
            writer.tasks.insert(id, Some(1));
        }
        writer
    }

    async fn write(&self, writer: &mut Writer) {
        while !self.is_over.load(Ordering::SeqCst) {
            // What it was told by one replica it reads from another.
            writer.rests_at = Some(Instant::now() + TURN);
            writer.work(&self.fleet.any()).await;
            sleep(TURN).await;
        }
    }

    /// Kills so many replicas in a part of the move.
    async fn kill(&self, phase: &Phase, count: usize) {
        let (often, rarely) = (points(phase.often), points(phase.rarely));
        let every = match often.is_empty() {
            true => 1,
            false => RARELY.min(count / 2).max(1),
        };
        let from = self.fleet.random(often.len() + rarely.len());
        for number in 0..count {
            if number % every < every - 1 {
                let point = often[(from + number) % often.len()];
                self.kill_at(phase, point, Some(SURVIVOR)).await;
                continue;
            }
            if !often.is_empty() {
                self.backfill_goes_on().await;
            }
            let point = rarely[(from + number / every) % rarely.len()];
            self.kill_at(phase, point, None).await;
        }
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Waits until a replica comes to a step, and kills it there.
    async fn kill_at(&self, phase: &Phase, (step, moment): (Step, Moment), spared: Option<usize>) {
        let caught = self.trap.set(step.is_it, moment, spared);
        let moving = async {
            loop {
                match phase.moves.filter(|_| spared.is_none()) {
                    Some(moves) => {
                        let next = moves(self.moves.fetch_add(1, Ordering::Relaxed));
                        migration(&self.fleet.any(), &next).await;
                    }
                    None => std::future::pending().await,
                }
            }
        };
        let coming = async {
            tokio::select! {
                place = caught => place.unwrap(),
                () = moving => unreachable!("it goes on"),
            }
        };
        let place = timeout(LONGEST, coming).await;
        let place = place.unwrap_or_else(|_| {
            panic!("nobody comes to {}, {moment:?}: {}", step.name, phase.name)
        });
        self.fleet.kill(place).await;
        let mut counts = self.counts.lock().unwrap();
        *counts.entry((phase.name, step.name, moment)).or_default() += 1;
    }

    /// The state of the backfill, and how far it is.
    async fn backfill(&self) -> (String, Value, u64) {
        let said = migration(&self.fleet.any(), "backfill status --json").await;
        let job: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
        let state = job["state"].as_str().unwrap_or_default().to_owned();
        (state, job["id"].clone(), job["done"].as_u64().unwrap_or(0))
    }

    /// Whoever worked on it may be dead: somebody else goes on with it.
    async fn backfill_goes_on(&self) {
        let (_, before, far) = self.backfill().await;
        until("the backfill goes on", async || {
            let (state, id, done) = self.backfill().await;
            if matches!(&*state, "done" | "failed" | "aborted") {
                migration(&self.fleet.any(), "backfill start --rate 50 --detach").await;
            }
            (id != Value::Null && (id != before || done > far)).then_some(())
        })
        .await;
    }

    /// Lets the backfill end.
    async fn fill(&self) {
        let filling = async {
            loop {
                let command = match &*self.backfill().await.0 {
                    "done" => return,
                    "aborted" => "backfill start",
                    _ => "backfill resume --rate 100000",
                };
                migration(&self.fleet.any(), command).await;
            }
        };
        timeout(LONGEST, filling).await.unwrap();
    }

    /// Goes through a part of the move.
    async fn go_through(
        &self,
        phase: &Phase,
        count: usize,
        writers: &mut [Writer],
        heard: &mut Heard,
    ) {
        for command in phase.way {
            self.fleet.at_last(command).await;
        }
        self.is_over.store(false, Ordering::SeqCst);
        let working = join_all(writers.iter_mut().map(|writer| self.write(writer)));
        let listening = async {
            while !self.is_over.load(Ordering::SeqCst) {
                heard.listen(self.fleet.world.sides()).await;
                sleep(Duration::from_millis(500)).await;
            }
        };
        tokio::join!(working, listening, self.kill(phase, count));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_are_killed_at_each_step_of_the_protocol_lose_nothing_and_invent_nothing() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let kills = Kills::start(seed).await;
    let (world, wanted) = (&kills.fleet.world, config::kills());
    let (first, last) = (wanted / 5, (wanted / 100).max(2));
    let mut writers: Vec<Writer> = (0..WRITERS).map(Writer::doubting).collect();
    writers.push(kills.first_writer().await);
    let mut heard = Heard::default();
    let mixed = wanted - first - last;
    for (phase, count) in [(FIRST, first), (MIXED, mixed), (FROM_SIDE_TO_SIDE, last)] {
        let began = Instant::now();
        kills
            .go_through(&phase, count, &mut writers[..WRITERS], &mut heard)
            .await;
        match phase.moves {
            None => kills.fill().await,
            // What it copies later would hide what is lost.
            Some(_) => drop(migration(&kills.fleet.any(), "backfill abort").await),
        }
        for writer in &mut writers {
            writer.finish(&kills.fleet.any()).await;
        }
        no_mark_is_left(&world.old).await;
        let tasks = tasks_are_as_told(world.sides(), &writers).await;
        println!(
            "{}: {count} kills, {tasks} tasks compared, {:?}",
            phase.name,
            began.elapsed()
        );
        kills.fill().await;
    }
    let heard = heard.is_as_told(world.sides(), &world.receiver, &writers);
    let events = heard.await;
    println!(
        "{events} events compared; {:#?}",
        kills.counts.lock().unwrap()
    );
}
