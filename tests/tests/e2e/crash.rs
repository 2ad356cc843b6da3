//! `kill -9` of the server under load, on the embedded backend: the clients' own log is the judge.
//!
//! In the end every task and every event must be exactly what the logs allow.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use adapters_direct::embedded::{Embedded, EmbeddedConfig};
use futures_util::future::join_all;
use serde_json::Value;
use task_core::memory::SeededEntropy;
use task_core::ports::{
    Entropy, EventBus, Group, Key, Kind, StartAt, StateStore, Subscription, SystemClock, Topic,
};
use task_tests::process::{TaskServer, TaskServerOptions, TestDirectory};
use task_tests::wait::until;

use task_tests::history::{Judge, Seen, Writer};

const WRITERS: usize = 64;
const KILLS: usize = 200;

fn judge_subscription() -> Subscription {
    Subscription {
        start: StartAt::Beginning,
        ..Subscription::new(Topic::new("task-events"), Group::new("judge"))
    }
}

fn open(data: &TestDirectory) -> Embedded {
    Embedded::open(&EmbeddedConfig::new(data.path()), Arc::new(SystemClock)).unwrap()
}

/// Registers the judge's group before the first event, so that nothing is removed unseen.
async fn register_judge(data: &TestDirectory) {
    let bus = open(data).event_bus();
    let handler = Arc::new(Judge::default());
    bus.subscribe(judge_subscription(), handler)
        .await
        .unwrap()
        .stop()
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_server_is_killed_200_times() {
    let data = TestDirectory::new("kill");
    register_judge(&data).await;
    let seed = u64::from(std::process::id());
    let entropy = SeededEntropy::new(seed);
    let options = TaskServerOptions::default().arg("--log").arg("error");
    let mut writers: Vec<Writer> = (0..WRITERS).map(Writer::new).collect();
    for _ in 0..KILLS {
        let server = TaskServer::start_with(data.path(), &options).await;
        let mut random = [0; 1];
        entropy.fill(&mut random);
        let life = Duration::from_millis(5 + u64::from(random[0]));
        let work = join_all(writers.iter_mut().map(|writer| writer.work(&server)));
        let kill = async {
            // The moment of death is what varies: it is no wait for anything.
            tokio::time::sleep(life).await;
            let id = server.id().to_string();
            std::process::Command::new("kill")
                .args(["-9", &id])
                .status()
                .unwrap();
        };
        tokio::join!(work, kill);
    }
    finish(&data, &options, &mut writers).await;
    compare(&data, &writers, seed).await;
}

/// Resolves what the last kill cut off, and lets the relay finish.
async fn finish(data: &TestDirectory, options: &TaskServerOptions, writers: &mut [Writer]) {
    let server = TaskServer::start_with(data.path(), options).await;
    for writer in writers {
        writer.finish(&server).await;
    }
    assert!(server.stop().success());
}

async fn compare(data: &TestDirectory, writers: &[Writer], seed: u64) {
    let embedded = open(data);
    let store = embedded.state_store();
    let left = store.pending(None, 1).await.unwrap();
    assert!(left.is_empty(), "events stay pending after a graceful stop");
    let mut tasks = 0;
    for (id, expected) in writers.iter().flat_map(|writer| &writer.tasks) {
        let stored = store.get(&Key::new(Kind::TASK, id.as_str())).await.unwrap();
        let found = stored.map(|stored| {
            let record: Value = serde_json::from_slice(&stored.value).unwrap();
            record["_meta"]["rev"].as_u64().unwrap()
        });
        assert_eq!(found, *expected, "task {id}, seed {seed}");
        tasks += 1;
    }
    let expected: BTreeSet<Seen> = writers.iter().flat_map(|w| w.events.clone()).collect();
    let judge = Arc::new(Judge::default());
    let bus = embedded.event_bus();
    let subscribed = bus
        .subscribe(judge_subscription(), Arc::<Judge>::clone(&judge))
        .await
        .unwrap();
    until("the judge has heard everything", async || {
        (judge.seen.lock().unwrap().len() >= expected.len()).then_some(())
    })
    .await;
    subscribed.stop().await;
    let seen = judge.seen.lock().unwrap().clone();
    let missing: Vec<_> = expected.difference(&seen).collect();
    let phantom: Vec<_> = seen.difference(&expected).collect();
    assert!(missing.is_empty(), "missing {missing:?}, seed {seed}");
    assert!(phantom.is_empty(), "phantom {phantom:?}, seed {seed}");
    println!(
        "{KILLS} kills, {tasks} tasks and {} events compared, seed {seed}",
        seen.len()
    );
}
