//! Redis streams beside a sidecar, after faults and under load.

mod faults;
mod groups;
mod load;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use adapters_direct::redis::{Redis, RedisConfig, RedisLayout, StreamConfig};
use async_trait::async_trait;
use redis::Value;
use task_core::background::Background;
use task_core::ports::{
    Answer, Delivery, Event, EventBus, EventHandler, Group, Redelivery, Subscription, Topic,
};
use task_tests::process::redis::command;
use task_tests::process::{Python, RedisServer};
use task_tests::wait::until;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Idle time after which these tests let events be taken over.
const TAKE_OVER: Duration = Duration::from_millis(600);

const STREAM: &str = "task-events";

/// Longest wait for an event.
const PATIENCE: Duration = Duration::from_secs(30);

async fn bus(url: &str) -> Arc<dyn EventBus> {
    bus_with(url, StreamConfig::default()).await
}

async fn bus_with(url: &str, streams: StreamConfig) -> Arc<dyn EventBus> {
    let mut config = RedisConfig::new(url, RedisLayout::Dapr);
    config.response_timeout = Duration::from_millis(500);
    let redis = Redis::open(&config).await.unwrap();
    Arc::new(redis.event_bus(streams))
}

fn short() -> StreamConfig {
    StreamConfig {
        take_over_after: TAKE_OVER,
        ..StreamConfig::default()
    }
}

fn event(key: &str, payload: &str) -> Event {
    Event {
        topic: Topic::new(STREAM),
        key: key.into(),
        payload: payload.to_owned().into(),
    }
}

fn subscription(group: &str) -> Subscription {
    Subscription {
        redelivery: Redelivery {
            max_deliveries: 1000,
            first_pause: Duration::from_millis(5),
            longest_pause: Duration::from_millis(40),
        },
        ..Subscription::new(Topic::new(STREAM), Group::new(group))
    }
}

/// Tells the test what it is given, and answers as the test has said.
struct Recorder<F> {
    heard: mpsc::UnboundedSender<Delivery>,
    answer: F,
}

impl<F> std::fmt::Debug for Recorder<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

#[async_trait]
impl<F: Fn(&Delivery) -> Answer + Send + Sync + 'static> EventHandler for Recorder<F> {
    async fn handle(&self, delivery: &Delivery) -> Answer {
        let answer = (self.answer)(delivery);
        // A test that has stopped listening knows enough.
        let _ = self.heard.send(delivery.clone());
        answer
    }
}

struct Listener {
    running: Background,
    heard: mpsc::UnboundedReceiver<Delivery>,
}

impl Listener {
    async fn start(
        bus: &Arc<dyn EventBus>,
        subscription: Subscription,
        answer: impl Fn(&Delivery) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let (sender, heard) = mpsc::unbounded_channel();
        let recorder = Arc::new(Recorder {
            heard: sender,
            answer,
        });
        let running = bus.subscribe(subscription, recorder).await.unwrap();
        Self { running, heard }
    }

    async fn acknowledging(bus: &Arc<dyn EventBus>, subscription: Subscription) -> Self {
        Self::start(bus, subscription, |_| Answer::Ack).await
    }

    async fn hear(&mut self) -> Delivery {
        let heard = timeout(PATIENCE, self.heard.recv()).await;
        heard.expect("an event is lost").unwrap()
    }

    async fn hear_payloads(&mut self, count: usize) -> Vec<String> {
        let mut payloads = Vec::new();
        while payloads.len() < count {
            payloads.push(String::from_utf8(self.hear().await.payload.to_vec()).unwrap());
        }
        payloads
    }

    /// What has been heard and not been asked for.
    fn more(&mut self) -> Vec<Delivery> {
        std::iter::from_fn(|| self.heard.try_recv().ok()).collect()
    }
}

/// A subscriber in a process of its own, as far as Redis can tell.
struct Process {
    runtime: Runtime,
    listener: Listener,
}

impl Process {
    fn start(
        url: &str,
        subscription: Subscription,
        answer: impl Fn(&Delivery) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let url = url.to_owned();
        let started = runtime.spawn(async move {
            let bus = bus_with(&url, short()).await;
            Listener::start(&bus, subscription, answer).await
        });
        // A runtime must not be waited for within another one.
        let listener = std::thread::scope(|scope| {
            let wait = scope.spawn(|| runtime.block_on(started).unwrap());
            wait.join().unwrap()
        });
        Self { runtime, listener }
    }

    /// Ends it in the middle of whatever it does, and its connections with it.
    fn crash(self) {
        self.runtime.shutdown_background();
    }
}

/// The answer to a command, read as what it should be.
async fn ask<T: redis::FromRedisValue>(url: &str, words: &[&str]) -> T {
    redis::from_redis_value(command(url, words).await).unwrap()
}

/// The rows of the group's pending list: id, consumer, idle time in ms, deliveries.
async fn pending(url: &str, group: &str) -> Vec<(String, String, u64, u64)> {
    let words = ["XPENDING", STREAM, group, "-", "+", "1000000"];
    ask(url, &words).await
}

async fn is_finished(url: &str, group: &str) {
    until("nothing is pending", async || {
        pending(url, group).await.is_empty().then_some(())
    })
    .await;
}

/// What Python prints, a JSON text a line.
async fn python(url: &str, arguments: &[&str]) -> Vec<String> {
    let arguments = [&[url], arguments].concat();
    let printed = Python::shared().await.run("redis_stream.py", &arguments);
    let lines = printed.await;
    let texts = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    texts.collect()
}

#[tokio::test]
async fn what_a_sidecar_wrote_is_heard_byte_for_byte() {
    let url = RedisServer::shared().await.next_database_url();
    let bus = bus(&url).await;
    let mut listener = Listener::acknowledging(&bus, subscription("task-api")).await;
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let file = fixtures.join("dapr-redis-stream.jsonl");
    python(&url, &["publish", STREAM, file.to_str().unwrap()]).await;
    let rows = std::fs::read_to_string(&file).unwrap();
    let expected = rows.lines().map(|row| {
        let row: serde_json::Value = serde_json::from_str(row).unwrap();
        row["fields"][1].as_str().unwrap().to_owned()
    });
    let mut expected: Vec<String> = expected.collect();
    let mut heard = listener.hear_payloads(expected.len()).await;
    heard.sort_unstable();
    expected.sort_unstable();
    assert_eq!(heard, expected);
    is_finished(&url, "task-api").await;
    listener.running.stop().await;
}

#[tokio::test]
async fn the_key_of_a_foreign_event_is_what_its_publisher_meant() {
    let url = RedisServer::shared().await.next_database_url();
    let bus = bus(&url).await;
    let mut listener = Listener::acknowledging(&bus, subscription("task-api")).await;
    let envelope = r#"{"specversion":"1.0","id":"1","subject":"task-7"}"#;
    let metadata = r#"{"partitionKey":"task-8"}"#;
    for (fields, key) in [
        (vec!["data", envelope], "task-7"),
        (vec!["metadata", metadata, "data", envelope], "task-8"),
        (vec!["data", r#"{"event_type":"task.created"}"#], ""),
        (vec!["data", "not JSON", "x", "y"], ""),
    ] {
        python(&url, &[&["send", STREAM], &fields[..]].concat()).await;
        assert_eq!(&*listener.hear().await.key, key, "{fields:?}");
    }
    listener.running.stop().await;
}

#[tokio::test]
async fn a_sidecar_reads_what_we_publish() {
    let url = RedisServer::shared().await.next_database_url();
    let bus = bus(&url).await;
    let payloads: Vec<String> = (0..50)
        .map(|n| format!("{{\"z\": 1.0, \"n\":{n}, \"t\":\"\u{e4}\\u00e4\"}}\n"))
        .collect();
    for payload in &payloads {
        bus.publish(&event("task-\u{e4}", payload)).await.unwrap();
    }
    let read = python(&url, &["consume", STREAM, "task-api", "50"]).await;
    assert_eq!(read, payloads);
    let fields: Vec<(String, Vec<String>)> = ask(&url, &["XRANGE", STREAM, "-", "+"]).await;
    let expected = ["data", &payloads[0], "key", "task-\u{e4}"];
    assert_eq!(fields[0].1, expected);
}

#[tokio::test]
async fn a_sidecar_in_our_group_shares_the_events_and_each_takes_over_from_the_other() {
    let url = RedisServer::shared().await.next_database_url();
    let bus = bus_with(&url, short()).await;
    for n in 0..10 {
        bus.publish(&event("k", &n.to_string())).await.unwrap();
    }
    // A sidecar reads three events and dies; what it acknowledged before is not ours.
    let mut expected: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    let done = python(&url, &["consume", STREAM, "task-api", "2"]).await;
    assert_eq!(done, expected[..2]);
    let dead = python(&url, &["read", STREAM, "task-api", "3"]).await;
    assert_eq!(dead, expected[2..5]);
    let mut listener = Listener::acknowledging(&bus, subscription("task-api")).await;
    let mut heard = listener.hear_payloads(8).await;
    heard.sort_unstable();
    expected.drain(..2);
    assert_eq!(heard, expected);
    is_finished(&url, "task-api").await;
    listener.running.stop().await;

    // We stop with an unfinished event; a sidecar claims it like any that timed out.
    let never = |_: &Delivery| Answer::Postpone(PATIENCE);
    let patient = Subscription {
        redelivery: Redelivery {
            longest_pause: 2 * PATIENCE,
            ..subscription("task-api").redelivery
        },
        ..subscription("task-api")
    };
    let mut listener = Listener::start(&bus, patient, never).await;
    bus.publish(&event("k", "unfinished")).await.unwrap();
    listener.hear().await;
    listener.running.stop().await;
    let reclaimed = python(&url, &["reclaim", STREAM, "task-api", "60000"]).await;
    assert_eq!(reclaimed, ["unfinished"]);
    is_finished(&url, "task-api").await;
}
