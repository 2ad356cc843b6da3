//! A backfill of as many records as one asks for: its rate, its memory, and what a killed one repeats.

use std::time::Duration;

use adapters_direct::redis::{Redis, RedisConfig, RedisLayout};
use futures_util::stream::{StreamExt, TryStreamExt, iter};
use serde_json::Value;
use task_core::application::TaskRecord;
use task_core::domain::{Draft, Priority, Revision, Task, TaskId, Timestamp, Title};
use task_core::ports::{Key, Kind, PutOptions, StateStore};
use task_tests::config;
use task_tests::process::migration::migration;
use task_tests::process::{RedisServer, TaskServer, resident_kib};
use task_tests::wait::{DEADLINE, until};
use tokio::time::{Instant, sleep};

use super::replicas::{World, is_ready};

/// Records a second that are asked for.
const RATE: f64 = 2_000.0;

/// From here on the rate can be told within 5 %, whatever else the machine does.
const IN_FULL: u64 = 1_000_000;

/// Records that are written at once before the move.
const AT_ONCE: usize = 256;

/// Pause between two looks at the backfill.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Most memory that a backfill may take beside the service, however many records there are.
const MOST_KIB: u64 = 64 * 1024;

fn id_of(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

/// Fills the old side as the direct backend does.
async fn fill(server: &RedisServer, records: u64) {
    let config = RedisConfig::new(&server.url(), RedisLayout::Legacy);
    let store = Redis::open(&config).await.unwrap().state_store();
    let store = &store;
    let writes = iter(0..records)
        .map(Ok)
        .try_for_each_concurrent(AT_ONCE, |number| async move {
            let id = TaskId::parse(&id_of(number)).unwrap();
            let key = Key::new(Kind::TASK, id.as_str());
            let draft = Draft {
                title: Title::parse(format!("task {number}")).unwrap(),
                description: None,
                priority: Priority::default(),
            };
            let task = Task::create(id, draft, Timestamp::from_unix_micros(0));
            let record = TaskRecord::new(task, Revision { term: 1, rev: 1 }, None);
            let put = store.put(&key, record.encode(), PutOptions::default());
            put.await.map(drop)
        });
    writes.await.unwrap();
}

async fn size(server: &RedisServer) -> u64 {
    redis::from_redis_value(server.command(&["DBSIZE"]).await).unwrap()
}

/// How far the backfill was at a time.
struct Look {
    at: Instant,
    job: Value,
}

impl Look {
    fn done(&self) -> u64 {
        self.job["done"].as_u64().unwrap()
    }

    /// Records a second since another look.
    fn rate_since(&self, earlier: &Self) -> f64 {
        let done = self.done() - earlier.done();
        done as f64 / (self.at - earlier.at).as_secs_f64()
    }
}

async fn look(server: &TaskServer) -> Look {
    let said = migration(server, "backfill status --json").await;
    said.with(0);
    Look {
        at: Instant::now(),
        job: said.json(),
    }
}

/// Looks until so many records are done, as long as the backfill gets on.
async fn done(server: &TaskServer, wanted: u64) -> Look {
    let (mut furthest, mut since) = (0, Instant::now());
    loop {
        let look = look(server).await;
        if look.done() >= wanted {
            return look;
        }
        // First they are counted.
        let place = look.job["total"].as_u64().unwrap() + look.done();
        if place > furthest {
            (furthest, since) = (place, look.at);
        }
        assert!(
            since.elapsed() < DEADLINE,
            "it does not get on: {}",
            look.job
        );
        sleep(LOOK_EVERY).await;
    }
}

/// No rate may be above the one that is set, and a long one is not below it either.
fn is_held(rate: f64, records: u64) {
    assert!(rate < 1.05 * RATE, "{rate} records a second");
    assert!(
        records < IN_FULL || rate > 0.95 * RATE,
        "{rate} records a second"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_backfill_keeps_its_rate_and_repeats_less_than_a_hundredth() {
    let records = config::backfill();
    let world = World::start().await;
    let began = Instant::now();
    fill(&world.old, records).await;
    println!("{records} records written in {:?}", began.elapsed());
    let first = world.serve().await;
    migration(&first, "init").await.with(0);
    is_ready(&first).await;
    let step = migration(&first, "advance --port state --to dualwrite").await;
    step.with(0);

    let (empty, small) = (size(&world.new).await, resident_kib(first.id()));
    migration(&first, &format!("backfill start --detach --rate {RATE}"))
        .await
        .with(0);
    let begun = done(&first, 1).await;
    let second = world.serve().await;
    is_ready(&second).await;
    let small_second = resident_kib(second.id());
    let half = done(&first, records / 2).await;
    let large = resident_kib(first.id());
    first.kill();
    let copied = size(&world.new).await - empty;
    let known = look(&second).await.done();
    let repeated = copied.saturating_sub(known);
    assert!(
        repeated < records / 100,
        "{copied} are copied, {known} known"
    );

    let resumed = done(&second, known + 1).await;
    let nearly = done(&second, records - records / 20).await;
    let last = done(&second, records).await;
    ended(&second).await;
    let copied = size(&world.new).await - empty;
    assert!(copied >= records, "{copied} of {records} are copied");
    let equal = last.job["counts"]["equal"].as_u64().unwrap();
    assert!(equal < records / 100, "{equal} were copied twice");
    let rates = [half.rate_since(&begun), nearly.rate_since(&resumed)];
    let large_second = resident_kib(second.id());
    println!(
        "{records} records, {RATE} a second wanted: {rates:.1?} a second before and after the kill, {repeated} \
         copied and not known, {equal} repeated; memory of the replicas {small} to {large} KiB, \
         {small_second} to {large_second} KiB"
    );
    for rate in rates {
        is_held(rate, records);
    }
    for (small, large) in [(small, large), (small_second, large_second)] {
        assert!(large < small + MOST_KIB, "{small} KiB became {large} KiB");
    }
    let began = Instant::now();
    migration(&second, "verify --full").await.with(0);
    println!("verified in {:?}", began.elapsed());
}

/// Looks until the backfill is over.
async fn ended(server: &TaskServer) {
    until("the backfill is over", async || {
        (look(server).await.job["state"] == "done").then_some(())
    })
    .await;
}
