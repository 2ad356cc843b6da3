//! The sidecar and its Redis are late, die, hang and come back; the service goes on by itself.
//!
//! Clients judge: what they were told has happened, and no event tells of anything else.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use task_tests::history::Writer;
use task_tests::process::TaskServer;
use task_tests::wait::until;

use crate::service::World;

const WRITERS: usize = 8;

/// When something happens to those who work for two seconds.
const MIDDLE: Duration = Duration::from_millis(700);

/// How long a sidecar may take to stop before it is killed; a cluster gives it longer.
const GRACE: Duration = Duration::from_secs(5);

/// Longer than any time limit of a call.
const OUTAGE: Duration = Duration::from_secs(30);

/// The service in its world, and clients that know what they were told.
struct Working {
    world: World,
    server: TaskServer,
    writers: Vec<Writer>,
}

impl Working {
    async fn start() -> Self {
        let world = World::start().await;
        let server = world.neighbours.serve().await;
        Self {
            world,
            server,
            writers: (0..WRITERS).map(Writer::new).collect(),
        }
    }

    /// Lets all clients work for a while, and meanwhile something happen to the neighbours.
    async fn work(&mut self, happens: impl AsyncFnOnce(&mut World)) {
        let rests_at = Instant::now() + Duration::from_secs(2);
        for writer in &mut self.writers {
            writer.rests_at = Some(rests_at);
        }
        let server = &self.server;
        let work = join_all(self.writers.iter_mut().map(|writer| writer.work(server)));
        let happens = async {
            // In the middle of the work: it is no wait for anything.
            tokio::time::sleep(MIDDLE).await;
            happens(&mut self.world).await;
        };
        tokio::join!(work, happens);
    }

    /// Waits for an answer of `GET /ready`, and answers its body.
    async fn is_ready(&self, status: u16) -> Value {
        is_ready(&self.server, status).await
    }

    async fn nothing_is_lost_or_invented(mut self) {
        self.world.judge(&mut self.writers, &self.server).await;
    }
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
    let World {
        neighbours: mut world,
        redis: _redis,
    } = World::start().await;
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
    let World {
        neighbours: mut world,
        redis: _redis,
    } = World::start().await;
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
    let mut working = Working::start().await;
    working
        .work(async |world| world.neighbours.ours.kill())
        .await;
    let down = working.is_ready(503).await;
    assert_eq!(down["status"], "not ready");
    let store = &down["dependencies"]["state_store"];
    assert_eq!(store["status"], "down");
    assert!(store["detail"].is_string(), "{store}");
    working.world.neighbours.ours.restart().await;
    working.is_ready(200).await;

    working
        .work(async |world| world.neighbours.ours.pause())
        .await;
    let down = working.is_ready(503).await;
    assert_eq!(down["dependencies"]["state_store"]["status"], "down");
    working.world.neighbours.ours.resume();
    working.is_ready(200).await;

    working
        .work(async |world| {
            // Version 1.16 may not end while an event of a stream is in hand: who asked it to ends it in time.
            let _ = tokio::time::timeout(GRACE, world.neighbours.ours.stop()).await;
            world.neighbours.ours.restart().await;
        })
        .await;
    working.is_ready(200).await;
    working.work(async |_| {}).await;
    working.nothing_is_lost_or_invented().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_redis_is_away_for_thirty_seconds() {
    let mut working = Working::start().await;
    working.work(async |world| world.redis.kill()).await;
    let began = Instant::now();
    let down = working.is_ready(503).await;
    assert_eq!(
        down["dependencies"]["state_store"]["status"], "down",
        "{down}"
    );
    // Clients go on asking, and are told that it cannot be now.
    let mut refused = 0;
    while began.elapsed() < OUTAGE {
        let body = json!({"title": "must not be"}).to_string();
        let headers = [("idempotency-key", "in the outage")];
        let answer = working.server.send("POST", "/tasks", &headers, &body).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        refused += 1;
    }
    assert!(refused > 1, "only {refused} refusals");
    assert_eq!(working.server.get("/health").await.status, 200);
    working.world.redis.restart().await;
    working.is_ready(200).await;
    working.work(async |_| {}).await;
    working.nothing_is_lost_or_invented().await;
}
