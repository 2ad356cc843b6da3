//! The sidecar and its Redis are late, die, hang and come back; the service goes on by itself.
//!
//! Clients judge: what they were told has happened, and no event tells of anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use task_tests::history::{Seen, Writer};
use task_tests::process::dapr::{Neighbours, published, self_hosted};
use task_tests::process::redis::{AppendOnly, RedisOptions};
use task_tests::process::{RedisServer, TaskServer};
use task_tests::wait::until;

const WRITERS: usize = 8;

/// When something happens to those who work for two seconds.
const MIDDLE: Duration = Duration::from_millis(700);

/// How long a sidecar may take to stop before it is killed; a cluster gives it longer.
const GRACE: Duration = Duration::from_secs(5);

/// Longer than any time limit of a call.
const OUTAGE: Duration = Duration::from_secs(30);

/// The service, its neighbours, and clients that know what they were told.
struct World {
    redis: RedisServer,
    neighbours: Neighbours,
    server: TaskServer,
    writers: Vec<Writer>,
}

impl World {
    async fn start() -> Self {
        let redis = durable().await;
        let neighbours = Neighbours::start(self_hosted(redis.port())).await;
        let server = neighbours.serve().await;
        Self {
            redis,
            neighbours,
            server,
            writers: (0..WRITERS).map(Writer::new).collect(),
        }
    }

    /// Lets all clients work for a while, and meanwhile something happen to the neighbours.
    async fn work(&mut self, happens: impl AsyncFnOnce(&mut Neighbours, &mut RedisServer)) {
        let rests_at = Instant::now() + Duration::from_secs(2);
        for writer in &mut self.writers {
            writer.rests_at = Some(rests_at);
        }
        let server = &self.server;
        let work = join_all(self.writers.iter_mut().map(|writer| writer.work(server)));
        let happens = async {
            // In the middle of the work: it is no wait for anything.
            tokio::time::sleep(MIDDLE).await;
            happens(&mut self.neighbours, &mut self.redis).await;
        };
        tokio::join!(work, happens);
    }

    /// Waits for an answer of `GET /ready`, and answers its body.
    async fn is_ready(&self, status: u16) -> Value {
        is_ready(&self.server, status).await
    }

    /// Compares what the clients were told with what is stored and what was published.
    async fn nothing_is_lost_or_invented(mut self) {
        for writer in &mut self.writers {
            writer.finish(&self.server).await;
        }
        let expected: BTreeSet<Seen> = self
            .writers
            .iter()
            .flat_map(|one| one.events.clone())
            .collect();
        assert!(expected.len() > WRITERS, "only {} events", expected.len());
        until("every event is published", async || {
            let seen = self.seen().await;
            expected.is_subset(&seen).then_some(())
        })
        .await;
        let seen = self.seen().await;
        let phantom: Vec<_> = seen.difference(&expected).collect();
        assert!(phantom.is_empty(), "{phantom:?}");
        let tasks: BTreeMap<_, _> = self.writers.iter().flat_map(|one| &one.tasks).collect();
        for (id, revision) in tasks {
            let answer = self.server.get(&format!("/tasks/{id}")).await;
            let found = answer.header("etag").map(str::to_owned);
            let expected = revision.map(|revision| format!("\"0.{revision}\""));
            assert_eq!(found, expected, "{id}: {}", answer.text());
        }
    }

    /// What is in the topic.
    async fn seen(&self) -> BTreeSet<Seen> {
        let events = published(&self.redis, "task-events").await;
        let seen = events.iter().map(|event| {
            let text = |name: &str| event[name].as_str().unwrap().to_owned();
            (text("subject"), text("taskrev"), text("type"))
        });
        seen.collect()
    }
}

/// A Redis that loses nothing when it dies.
async fn durable() -> RedisServer {
    let options = RedisOptions {
        append_only: AppendOnly::Always,
        ..RedisOptions::default()
    };
    RedisServer::start_with(options).await
}

async fn is_ready(server: &TaskServer, status: u16) -> Value {
    until(&format!("GET /ready answers {status}"), async || {
        let answer = server.get("/ready").await;
        (answer.status == status).then(|| answer.json())
    })
    .await
}

#[tokio::test]
async fn the_service_waits_for_its_sidecar_and_says_so() {
    let redis = durable().await;
    let mut world = Neighbours::start(self_hosted(redis.port())).await;
    world.ours.stop().await;
    let starting = world.begin(&world.options());
    until("it says what it waits for", async || {
        let log = starting.log();
        let place = world.ours.http_url();
        (log.contains("waiting for Dapr sidecar") && log.contains(&place)).then_some(())
    })
    .await;
    world.ours.restart().await;
    let server = starting.ready().await.unwrap_or_else(|log| panic!("{log}"));
    let ready = is_ready(&server, 200).await;
    assert_eq!(ready["dependencies"]["state_store"]["status"], "up");
}

#[tokio::test]
async fn a_sidecar_that_never_comes_is_named_when_the_wait_is_over() {
    let redis = durable().await;
    let mut world = Neighbours::start(self_hosted(redis.port())).await;
    world.ours.stop().await;
    let options = world.options().arg("--start-timeout-ms").arg("1500");
    let (status, log) = world.begin(&options).wait();
    assert!(!status.success(), "{log}");
    let named = format!("no Dapr sidecar at {}", world.ours.http_url());
    assert!(
        log.contains(&named) && log.contains("within 1500 ms"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_sidecar_is_killed_paused_and_restarted() {
    let mut world = World::start().await;
    world
        .work(async |neighbours, _| neighbours.ours.kill())
        .await;
    let down = world.is_ready(503).await;
    assert_eq!(down["status"], "not ready");
    let store = &down["dependencies"]["state_store"];
    assert_eq!(store["status"], "down");
    assert!(store["detail"].is_string(), "{store}");
    world.neighbours.ours.restart().await;
    world.is_ready(200).await;

    world
        .work(async |neighbours, _| neighbours.ours.pause())
        .await;
    let down = world.is_ready(503).await;
    assert_eq!(down["dependencies"]["state_store"]["status"], "down");
    world.neighbours.ours.resume();
    world.is_ready(200).await;

    world
        .work(async |neighbours, _| {
            // Version 1.16 may not end while an event of a stream is in hand: who asked it to ends it in time.
            let _ = tokio::time::timeout(GRACE, neighbours.ours.stop()).await;
            neighbours.ours.restart().await;
        })
        .await;
    world.is_ready(200).await;
    world.work(async |_, _| {}).await;
    world.nothing_is_lost_or_invented().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_redis_is_away_for_thirty_seconds() {
    let mut world = World::start().await;
    world.work(async |_, redis| redis.kill()).await;
    let began = Instant::now();
    let down = world.is_ready(503).await;
    assert_eq!(
        down["dependencies"]["state_store"]["status"], "down",
        "{down}"
    );
    // Clients go on asking, and are told that it cannot be now.
    let mut refused = 0;
    while began.elapsed() < OUTAGE {
        let body = json!({"title": "must not be"}).to_string();
        let headers = [("idempotency-key", "in the outage")];
        let answer = world.server.send("POST", "/tasks", &headers, &body).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        refused += 1;
    }
    assert!(refused > 1, "only {refused} refusals");
    assert_eq!(world.server.get("/health").await.status, 200);
    world.redis.restart().await;
    world.is_ready(200).await;
    world.work(async |_, _| {}).await;
    world.nothing_is_lost_or_invented().await;
}
