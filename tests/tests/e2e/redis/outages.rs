//! A server that is killed, paused, restarted or cut off under load: what was acknowledged stays, what is not
//! known is said to be unknown, and the same adapter goes on afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use adapters_direct::redis::{Redis, RedisConfig, RedisLayout, RedisStateStore};
use task_core::ports::{Commit, ErrorKind, Outcome, Retry, StateStore, WriteMode};
use task_tests::conformance::state_store;
use task_tests::process::redis::{AppendOnly, RedisOptions};
use task_tests::process::{RedisServer, resident_kib};
use task_tests::wait::until;

use super::{BOTH, event, put, put_write, task, value};

const WRITERS: usize = 64;

pub(super) async fn durable_server() -> RedisServer {
    let options = RedisOptions {
        append_only: AppendOnly::Always,
        ..RedisOptions::default()
    };
    RedisServer::start_with(options).await
}

/// Short limits, so that an outage is noticed soon.
fn impatient(server: &RedisServer, layout: RedisLayout) -> RedisConfig {
    let mut config = RedisConfig::new(&server.url(), layout);
    config.connect_timeout = Duration::from_millis(300);
    config.response_timeout = Duration::from_millis(500);
    config
}

/// What one writer was told of its numbered writes.
#[derive(Debug, Default)]
pub(super) struct Told {
    done: BTreeSet<u64>,
    unknown: BTreeSet<u64>,
    refused: u64,
}

/// Writers that count up, each on a key of its own and with an event for each number.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    writers: Vec<tokio::task::JoinHandle<Told>>,
}

impl Load {
    pub(super) fn begin(store: &RedisStateStore) -> Self {
        let (stop, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let writers = (0..WRITERS).map(|writer| {
            let (store, stop, done) = (store.clone(), Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move { write(&store, writer, &stop, &done).await })
        });
        Self {
            writers: writers.collect(),
            stop,
            done,
        }
    }

    /// Waits until this many more writes were acknowledged.
    pub(super) async fn advances(&self, count: u64) {
        let goal = self.done.load(Ordering::Relaxed) + count;
        until("writes are acknowledged", async || {
            (self.done.load(Ordering::Relaxed) >= goal).then_some(())
        })
        .await;
    }

    pub(super) async fn end(self) -> Vec<Told> {
        self.stop.store(true, Ordering::Relaxed);
        let mut told = Vec::new();
        for writer in self.writers {
            told.push(writer.await.unwrap());
        }
        told
    }
}

async fn write(
    store: &RedisStateStore,
    writer: usize,
    stop: &AtomicBool,
    done: &AtomicU64,
) -> Told {
    let mut told = Told::default();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let put = put_write(
            &format!("w-{writer}"),
            &number.to_string(),
            WriteMode::Overwrite,
        );
        let commit = Commit::of(put).event(event(&format!("{writer} {number}")));
        let Err(error) = store.commit(commit).await else {
            told.done.insert(number);
            done.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let expected = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout);
        assert!(expected, "{error}");
        match error.outcome() {
            Outcome::Unknown => {
                told.unknown.insert(number);
            }
            Outcome::NotApplied | Outcome::NotMade => told.refused += 1,
        }
        // As the layer above would.
        let pause = match error.retryable() {
            Retry::After(pause) => pause,
            Retry::Maybe => Duration::from_millis(5),
            Retry::Never => panic!("an outage is said to be final: {error}"),
        };
        tokio::time::sleep(pause).await;
    }
    told
}

/// Holds what the writers were told against what is there.
pub(super) async fn nothing_is_lost(store: &RedisStateStore, told: &[Told]) {
    let mut events: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
    let mut after = None;
    loop {
        let page = store.pending(after, 1_000).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        for pending in &page {
            let text = std::str::from_utf8(&pending.event.payload).unwrap();
            let (writer, number) = text.split_once(' ').unwrap();
            let new = events.entry(writer.parse().unwrap()).or_default();
            assert!(new.insert(number.parse().unwrap()), "{text} happened twice");
        }
    }
    for (writer, told) in told.iter().enumerate() {
        let found = events.remove(&writer).unwrap_or_default();
        let lost: Vec<_> = told.done.difference(&found).collect();
        assert!(
            lost.is_empty(),
            "writer {writer} lost the events of {lost:?}"
        );
        let phantoms = found
            .iter()
            .filter(|number| !told.done.contains(number) && !told.unknown.contains(number));
        let phantoms: Vec<_> = phantoms.collect();
        assert!(
            phantoms.is_empty(),
            "writer {writer} was refused {phantoms:?}"
        );
        // A timed-out write may come late, but never before what was answered before it.
        let value = value(store, &format!("w-{writer}")).await;
        let value: u64 = value.unwrap_or_else(|| "0".to_owned()).parse().unwrap();
        assert!(
            found.contains(&value) || value == 0,
            "writer {writer}: {value} has no event"
        );
        let last = told.done.last().copied().unwrap_or_default();
        let late = value < last && told.unknown.contains(&value);
        assert!(
            value >= last || late,
            "writer {writer} was told {last}, there is {value}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing_that_was_acknowledged() {
    for layout in BOTH {
        let mut server = durable_server().await;
        let redis = Redis::open(&impatient(&server, layout)).await.unwrap();
        let store = redis.state_store();
        let load = Load::begin(&store);
        for _ in 0..3 {
            load.advances(500).await;
            server.kill();
            until("the adapter notices", async || store.check().await.err()).await;
            server.restart().await;
        }
        load.advances(500).await;
        let told = load.end().await;
        let unknown: usize = told.iter().map(|told| told.unknown.len()).sum();
        let refused: u64 = told.iter().map(|told| told.refused).sum();
        println!("{layout:?}: {unknown} unknown, {refused} refused");
        assert!(
            unknown > 0,
            "no write was under way when the server was killed"
        );
        assert!(
            refused > 0,
            "no write was refused while the server was down"
        );
        nothing_is_lost(&store, &told).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_server_loses_nothing_and_is_found_again() {
    for layout in BOTH {
        let server = durable_server().await;
        let redis = Redis::open(&impatient(&server, layout)).await.unwrap();
        let store = redis.state_store();
        let load = Load::begin(&store);
        load.advances(300).await;
        server.pause();
        let error = until("a write is not answered", async || {
            put(&store, "other", "x", WriteMode::Overwrite).await.err()
        })
        .await;
        assert_eq!(
            (error.kind(), error.outcome()),
            (ErrorKind::Timeout, Outcome::Unknown)
        );
        // Now nobody waits for the silent one: what follows is refused, and was not sent.
        until("writes are refused", async || {
            let error = put(&store, "other", "x", WriteMode::Overwrite)
                .await
                .err()?;
            (error.outcome() == Outcome::NotApplied).then_some(())
        })
        .await;
        server.resume();
        load.advances(300).await;
        let told = load.end().await;
        assert!(told.iter().any(|told| !told.unknown.is_empty()));
        nothing_is_lost(&store, &told).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_seconds_of_silence_cost_little_memory_and_end() {
    const SILENCE: Duration = Duration::from_secs(30);
    const CLIENTS: usize = 256;
    let server = durable_server().await;
    let mut config = impatient(&server, RedisLayout::Dapr);
    config.max_in_flight = 32;
    let store = Redis::open(&config).await.unwrap().state_store();
    put(&store, "7", "before", WriteMode::Create).await.unwrap();
    server.pause();
    let before = resident_kib(std::process::id());
    let end = Instant::now() + SILENCE;
    let clients = (0..CLIENTS).map(|client| {
        let store = store.clone();
        tokio::spawn(async move {
            let (mut unknown, mut refused, mut longest) = (0_u64, 0_u64, Duration::ZERO);
            let large = "x".repeat(64 * 1024);
            while Instant::now() < end {
                let begin = Instant::now();
                let put = put(&store, &format!("c-{client}"), &large, WriteMode::Overwrite).await;
                longest = longest.max(begin.elapsed());
                match put.unwrap_err().outcome() {
                    Outcome::Unknown => unknown += 1,
                    Outcome::NotApplied | Outcome::NotMade => refused += 1,
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (unknown, refused, longest)
        })
    });
    let (mut unknown, mut refused, mut longest) = (0, 0, Duration::ZERO);
    for client in clients.collect::<Vec<_>>() {
        let told = client.await.unwrap();
        (unknown, refused, longest) = (unknown + told.0, refused + told.1, longest.max(told.2));
    }
    let grown = resident_kib(std::process::id()).saturating_sub(before);
    println!("{unknown} unknown, {refused} refused, longest {longest:?}, {grown} KiB more");
    // What waits at once is bounded by the limit, and so is how long.
    assert!(
        unknown <= 2 * config.max_in_flight as u64,
        "{unknown} were sent into the silence"
    );
    assert!(refused > 1_000);
    assert!(longest < SILENCE / 2, "{longest:?}");
    // Everything that was tried would be gigabytes.
    assert!(grown < 256 * 1024, "{grown} KiB more");
    server.resume();
    until("the store is back", async || store.check().await.ok()).await;
    assert_eq!(value(&store, "7").await.as_deref(), Some("before"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_connections_lose_nothing() {
    for layout in BOTH {
        let server = durable_server().await;
        let redis = Redis::open(&impatient(&server, layout)).await.unwrap();
        let store = redis.state_store();
        let load = Load::begin(&store);
        for _ in 0..20 {
            load.advances(100).await;
            server
                .command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
                .await;
        }
        load.advances(100).await;
        let told = load.end().await;
        assert!(told.iter().any(|told| !told.unknown.is_empty()));
        nothing_is_lost(&store, &told).await;
    }
}

#[tokio::test]
async fn a_write_after_an_idle_connection_was_cut_is_sent_on_a_new_one() {
    let server = RedisServer::start().await;
    let redis = Redis::open(&impatient(&server, RedisLayout::Legacy))
        .await
        .unwrap();
    let store = redis.state_store();
    for round in 0..5 {
        server
            .command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
            .await;
        until("the adapter has heard it", async || {
            redis.run_id().is_none().then_some(())
        })
        .await;
        put(&store, "7", &round.to_string(), WriteMode::Overwrite)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn more_commands_than_allowed_are_refused_and_not_queued_for_ever() {
    let server = RedisServer::start().await;
    let mut config = impatient(&server, RedisLayout::Legacy);
    config.max_in_flight = 4;
    let store = Redis::open(&config).await.unwrap().state_store();
    server.pause();
    let calls = (0..40).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.get(&task("7")).await.unwrap_err().kind() })
    });
    let mut kinds = BTreeMap::new();
    for call in calls.collect::<Vec<_>>() {
        *kinds.entry(call.await.unwrap().to_string()).or_insert(0) += 1;
    }
    server.resume();
    assert_eq!(kinds.get("timeout"), Some(&4), "{kinds:?}");
    assert!(kinds.contains_key("throttled"), "{kinds:?}");
    until("the store is back", async || store.check().await.ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_killed_server() {
    let case = state_store::case("acknowledged_writes_survive_a_restart").unwrap();
    for layout in BOTH {
        let backend = task_tests::backends::RestartedRedis::fresh(layout);
        state_store::run(case, backend).await.unwrap();
    }
}
