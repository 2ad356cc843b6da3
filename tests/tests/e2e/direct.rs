//! The service on a real Redis and a real Kafka: foreign clients and the clients' own log are the judges.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::future::{FutureExt, join_all};
use futures_util::stream::{FuturesUnordered, StreamExt};
use serde_json::{Value, json};
use task_tests::process::redis::{AppendOnly, RedisOptions};
use task_tests::process::{
    KafkaBroker, NotificationService, Python, RedisServer, StartingServer, TaskServer,
    TaskServerOptions, TestDirectory,
};
use task_tests::wait::until;

mod kafka;
mod shared;

use super::{create, problem};
use task_tests::history::{Seen, Writer};

/// What the service depends on.
struct World {
    redis: RedisServer,
    kafka: KafkaBroker,
    receiver: NotificationService,
    nowhere: TestDirectory,
}

impl World {
    async fn start() -> Self {
        let durable = RedisOptions {
            append_only: AppendOnly::Always,
            ..RedisOptions::default()
        };
        Self {
            redis: RedisServer::start_with(durable).await,
            kafka: KafkaBroker::start().await,
            receiver: NotificationService::start("127.0.0.1:0"),
            nowhere: TestDirectory::new("direct"),
        }
    }

    /// The world's own arguments, but for those that `more` has.
    fn options(&self, more: &[&str]) -> TaskServerOptions {
        let mut options = TaskServerOptions::default();
        let receiver = format!("http://{}", self.receiver.address());
        for (flag, value) in [
            ("--backend", "direct"),
            ("--redis-url", &self.redis.url()),
            ("--kafka-brokers", &self.kafka.bootstrap()),
            ("--kafka-create-partitions", "3"),
            ("--notification-url", &receiver),
            ("--redelivery-first-pause-ms", "50"),
        ] {
            if !more.contains(&flag) {
                options.arguments.extend([flag, value].map(str::to_owned));
            }
        }
        let more = more.iter().map(|word| (*word).to_owned());
        options.arguments.extend(more);
        options
    }

    fn begin(&self, more: &[&str]) -> StartingServer {
        TaskServer::begin(self.nowhere.path(), &self.options(more))
    }

    /// Exit code and output of a start that is refused.
    fn refused(&self, more: &[&str]) -> (Option<i32>, String) {
        let (status, log) = self.begin(more).wait();
        (status.code(), log)
    }

    async fn serve(&self, more: &[&str]) -> TaskServer {
        TaskServer::start_with(self.nowhere.path(), &self.options(more)).await
    }

    /// Every event of the topic as a foreign client sees it, in the order of its partition.
    async fn events(&self) -> Vec<Value> {
        let bootstrap = self.kafka.bootstrap();
        let arguments = [bootstrap.as_str(), "all", "task-events"];
        let lines = Python::shared()
            .await
            .run("kafka_events.py", &arguments)
            .await;
        let messages = lines.lines().map(|line| {
            let mut message: Value = serde_json::from_str(line).unwrap();
            message["value"] = serde_json::from_str(message["value"].as_str().unwrap()).unwrap();
            message
        });
        messages.collect()
    }
}

#[tokio::test]
async fn a_session_in_either_layout_is_stored_published_and_notified() {
    let world = World::start().await;
    let sides = [
        ("legacy", "kafka", "appid", ""),
        ("dapr", "kafka", "appid", "task-api||"),
        ("dapr", "redis-streams", "none", ""),
    ];
    for (expected, (layout, bus, prefix, begin)) in (1..).zip(sides) {
        let arguments = ["--redis-layout", layout, "--bus", bus];
        let server = world
            .serve(&[&arguments[..], &["--redis-key-prefix", prefix]].concat())
            .await;
        let (id, tag) = create(&server, "a session").await;
        let target = format!("/tasks/{id}");
        let read = server.get(&target).await;
        assert_eq!(
            (read.status, read.header("etag")),
            (200, Some(tag.as_str()))
        );

        // What a foreign client finds where it looks.
        let url = world.redis.url();
        let stored = match layout {
            "legacy" => {
                Python::shared()
                    .await
                    .run("redis_task.py", &[&url, "read", &id])
                    .await
            }
            _ => {
                let key = format!("{begin}task-{id}");
                let data = world.redis.command(&["HGET", &key, "data"]).await;
                redis::from_redis_value(data).unwrap()
            }
        };
        let stored: Value = serde_json::from_str(&stored).unwrap();
        assert_eq!(stored["title"], "a session", "{layout}");

        let done = format!("{target}/status?status=completed");
        assert_eq!(server.send("PUT", &done, &[], "").await.status, 200);
        let received = until("the notification arrives", async || {
            let received = world.receiver.received().await;
            (received["count"] == expected).then_some(received)
        })
        .await;
        let message = format!("Task {id} has been completed");
        assert!(received.to_string().contains(&message), "{received}");
        assert_eq!(server.send("DELETE", &target, &[], "").await.status, 204);
        assert_eq!(server.get(&target).await.status, 404);
        assert!(server.stop().success());
    }
}

#[tokio::test]
async fn a_foreign_change_that_keeps_our_revision_is_noticed() {
    let world = World::start().await;
    let server = world.serve(&[]).await;
    let (id, tag) = create(&server, "shared").await;
    let (target, url) = (format!("/tasks/{id}"), world.redis.url());
    // The replaced service reads, changes, and writes everything back that it read, ours included.
    let update = [url.as_str(), "update", &id, "status=completed"];
    Python::shared().await.run("redis_task.py", &update).await;

    let known = [("if-none-match", tag.as_str())];
    let read = server.send("GET", &target, &known, "").await;
    assert_eq!(read.status, 200, "a changed task is not the known one");
    assert_eq!(read.json()["status"], "completed");
    let stale = [("if-match", tag.as_str())];
    let back = format!("{target}/status?status=pending");
    assert_eq!(server.send("PUT", &back, &stale, "").await.status, 412);
    // The completion that comes after it is another event than any before, and is notified.
    assert_eq!(server.send("PUT", &back, &[], "").await.status, 200);
    let done = format!("{target}/status?status=completed");
    assert_eq!(server.send("PUT", &done, &[], "").await.status, 200);
    until("the notification arrives", async || {
        (world.receiver.received().await["count"] == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_the_service_needs_is_named_when_it_is_missing() {
    let mut world = World::start().await;
    world.redis.kill();
    let (code, log) = world.refused(&["--start-timeout-ms", "1500"]);
    let port = world.redis.port();
    let missing = format!("no redis at 127.0.0.1:{port} (redis_url) within 1500 ms");
    assert!(code == Some(2) && log.contains(&missing), "{code:?} {log}");
    world.redis.restart().await;
    world.kafka.kill();
    let (code, log) = world.refused(&["--start-timeout-ms", "1500"]);
    let kafka = world.kafka.bootstrap();
    let missing = format!("no kafka at {kafka} (kafka_brokers) within 1500 ms");
    assert!(code == Some(2) && log.contains(&missing), "{code:?} {log}");
    world.kafka.restart().await;

    let server = world.serve(&[]).await;
    world.redis.kill();
    let ready = until("redis is missed", async || {
        let ready = server.get("/ready").await;
        (ready.status == 503).then_some(ready)
    })
    .await;
    assert!(ready.text().contains("store"), "{}", ready.text());
    assert_eq!(server.get("/health").await.status, 200);
    let refused = server.post("/tasks", r#"{"title":"x"}"#).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    world.redis.restart().await;
    until("it is ready again", async || {
        (server.get("/ready").await.status == 200).then_some(())
    })
    .await;
    create(&server, "after").await;
}

#[tokio::test]
async fn a_redis_that_refuses_writes_is_not_ready_and_says_why() {
    let world = World::start().await;
    let server = world.serve(&[]).await;
    for (maxmemory, status, reason) in [("1", 503, "maxmemory"), ("0", 200, "ready")] {
        let config = ["CONFIG", "SET", "maxmemory", maxmemory];
        world.redis.command(&config).await;
        let ready = until("readiness follows", async || {
            let ready = server.get("/ready").await;
            (ready.status == status).then_some(ready)
        })
        .await;
        assert!(ready.text().contains(reason), "{}", ready.text());
    }
}

#[tokio::test]
async fn garbage_under_a_task_is_named_without_its_content_and_can_be_deleted() {
    let world = World::start().await;
    let server = world.serve(&[]).await;
    for garbage in ["canary-5e1f", "[1]", "\u{1}", r#"{"id":"canary-5e1f"}"#] {
        world.redis.command(&["SET", "task:g-1", garbage]).await;
        let read = problem(&server.get("/tasks/g-1").await, 500);
        assert!(read["detail"].as_str().unwrap().contains("g-1"), "{read}");
        let done = "/tasks/g-1/status?status=completed";
        problem(&server.send("PUT", done, &[], "").await, 500);
        let known = [("if-match", "\"0.1\"")];
        problem(&server.send("DELETE", "/tasks/g-1", &known, "").await, 500);
        assert!(!read.to_string().contains("canary"), "{read}");
        let deleted = server.send("DELETE", "/tasks/g-1", &[], "").await;
        assert_eq!(deleted.status, 204, "{}", deleted.text());
        problem(&server.get("/tasks/g-1").await, 404);
    }
    let log = server.log();
    assert_eq!(
        log.matches("stored task cannot be read").count(),
        12,
        "{log}"
    );
    assert!(
        !log.contains("canary") && !log.contains("panicked"),
        "{log}"
    );
}

#[tokio::test]
async fn an_outage_is_a_few_lines_in_the_log_however_many_requests_there_are() {
    let mut world = World::start().await;
    let server = world.serve(&[]).await;
    world.redis.kill();
    // A look at what it needs serves every probe for a moment.
    until("it is not ready", async || {
        (server.get("/ready").await.status == 503).then_some(())
    })
    .await;
    let requests = (0..40).map(async |_| {
        let refused = server.post("/tasks", r#"{"title":"x"}"#).await;
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert_eq!(server.get("/tasks/7").await.status, 503);
        assert_eq!(server.get("/ready").await.status, 503);
    });
    join_all(requests).await;
    let log = server.log();
    // Once for writes; once for reads, if one was made before the circuit opened.
    assert!(
        (1..=2).contains(&log.matches("calls fail").count()),
        "{log}"
    );
    assert!(
        log.matches("WARN").count() <= 10 && !log.contains("ERROR"),
        "{log}"
    );
    world.redis.restart().await;
    until("it works again", async || {
        server.get("/tasks/7").await;
        server.post("/tasks", r#"{"title":"x"}"#).await;
        let log = server.log();
        log.contains("calls succeed again").then_some(())
    })
    .await;
}

/// Waits until a server says that it waits for something at this address.
async fn waits_for(server: &StartingServer, needed: &str) {
    let line = format!("waiting for {needed}");
    until("it says what it waits for", async || {
        server.log().contains(&line).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_started_later_is_waited_for() {
    let mut world = World::start().await;
    world.redis.kill();
    world.kafka.kill();
    let began = Instant::now();
    let starting = world.begin(&[]);
    let redis = format!("redis at 127.0.0.1:{} (redis_url)", world.redis.port());
    waits_for(&starting, &redis).await;
    assert!(began.elapsed() < Duration::from_secs(5), "it says so late");
    world.redis.restart().await;
    let kafka = format!("kafka at {} (kafka_brokers)", world.kafka.bootstrap());
    waits_for(&starting, &kafka).await;
    world.kafka.restart().await;
    let server = starting.ready().await.unwrap();
    create(&server, "after").await;
    assert_eq!(server.log().matches("waiting for").count(), 2);
}

#[tokio::test]
async fn a_wait_ends_at_once_when_the_service_is_told_to_stop() {
    let mut world = World::start().await;
    for down in ["redis", "kafka"] {
        match down {
            "redis" => world.redis.kill(),
            _ => {
                world.redis.restart().await;
                world.kafka.kill();
            }
        }
        let starting = world.begin(&[]);
        waits_for(&starting, down).await;
        let told = Instant::now();
        starting.terminate();
        let (status, log) = starting.wait();
        assert!(status.success(), "{status:?} {log}");
        assert!(told.elapsed() < Duration::from_secs(5), "{log}");
    }
}

#[tokio::test]
async fn what_time_cannot_heal_is_refused_at_once() {
    let world = World::start().await;
    let password = RedisOptions {
        password: Some("secret1".to_owned()),
        ..RedisOptions::default()
    };
    let cluster = RedisOptions {
        lines: vec!["cluster-enabled yes".to_owned()],
        ..RedisOptions::default()
    };
    for (options, reason) in [(password, "denied"), (cluster, "Cluster")] {
        let server = RedisServer::start_with(options).await;
        let url = format!("redis://127.0.0.1:{}", server.port());
        let began = Instant::now();
        let (code, log) = world.refused(&["--redis-url", &url]);
        assert_eq!(code, Some(2), "{log}");
        assert!(log.contains(reason) && !log.contains("waiting"), "{log}");
        assert!(began.elapsed() < Duration::from_secs(5), "{log}");
    }
}

#[tokio::test]
async fn while_redis_hangs_requests_are_refused_without_waiting_for_it() {
    let world = World::start().await;
    let server = world.serve(&[]).await;
    let (id, _) = create(&server, "before").await;
    let task = format!("/tasks/{id}");
    world.redis.pause();
    // Each of these waits out its time limit.
    join_all((0..16).map(|_| server.get(&task))).await;
    until("all are answered but the one that asks Redis", async || {
        let mut answers: FuturesUnordered<_> = (0..4).map(|_| server.get(&task)).collect();
        for _ in 0..3 {
            let answer = answers.next().await.unwrap();
            assert_eq!(answer.status, 503, "{}", answer.text());
            assert!(answer.header("retry-after").is_some());
        }
        let still_asks = answers.next().now_or_never().is_none();
        while answers.next().await.is_some() {}
        still_asks.then_some(())
    })
    .await;
    world.redis.resume();
    until("it is read again", async || {
        (server.get(&task).await.status == 200).then_some(())
    })
    .await;
}

const WRITERS: usize = 16;

/// What goes wrong, one after the other, while two replicas serve.
#[derive(Debug, Clone, Copy)]
enum Fault {
    KillReplica,
    KillRedis,
    PauseRedis,
    KillKafka,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_a_replica_redis_or_kafka_dies() {
    let mut world = World::start().await;
    let mut writers: Vec<Writer> = (0..WRITERS).map(Writer::new).collect();
    let mut replicas = [world.serve(&[]).await, world.serve(&[]).await];
    for fault in [
        Fault::KillReplica,
        Fault::KillRedis,
        Fault::PauseRedis,
        Fault::KillKafka,
        Fault::KillReplica,
        Fault::KillRedis,
    ] {
        let rest = Instant::now() + Duration::from_secs(8);
        let work = join_all(writers.iter_mut().enumerate().map(|(n, writer)| {
            // It also ends at its first failure, and goes on after the fault.
            writer.rests_at = Some(rest);
            writer.work(&replicas[n % 2])
        }));
        let (redis, kafka) = (&mut world.redis, &mut world.kafka);
        let first = replicas[0].id().to_string();
        let harm = async {
            // The moment of death is what varies: it is no wait for anything.
            tokio::time::sleep(Duration::from_millis(500)).await;
            match fault {
                Fault::KillReplica => {
                    let kill = std::process::Command::new("kill")
                        .args(["-9", &first])
                        .status();
                    assert!(kill.unwrap().success());
                }
                Fault::KillRedis => {
                    redis.kill();
                    redis.restart().await;
                }
                Fault::PauseRedis => {
                    redis.pause();
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    redis.resume();
                }
                Fault::KillKafka => {
                    kafka.kill();
                    kafka.restart().await;
                }
            }
        };
        tokio::join!(work, harm);
        if matches!(fault, Fault::KillReplica) {
            replicas[0] = world.serve(&[]).await;
        }
        for replica in &replicas {
            until("it is ready again", async || {
                (replica.get("/ready").await.status == 200).then_some(())
            })
            .await;
        }
    }
    for (n, writer) in writers.iter_mut().enumerate() {
        writer.finish(&replicas[n % 2]).await;
    }
    compare(&world, &writers).await;
}

async fn compare(world: &World, writers: &[Writer]) {
    until("every event is published", async || {
        let left: u64 =
            redis::from_redis_value(world.redis.command(&["XLEN", "task-api:outbox"]).await)
                .unwrap();
        (left == 0).then_some(())
    })
    .await;
    let mut tasks = 0;
    for (id, expected) in writers.iter().flat_map(|writer| &writer.tasks) {
        let stored = world.redis.command(&["GET", &format!("task:{id}")]).await;
        let stored: Option<String> = redis::from_redis_value(stored).unwrap();
        let found = stored.map(|stored| {
            let record: Value = serde_json::from_str(&stored).unwrap();
            record["_meta"]["rev"].as_u64().unwrap()
        });
        assert_eq!(found, *expected, "task {id}");
        tasks += 1;
    }
    let expected: BTreeSet<Seen> = writers.iter().flat_map(|w| w.events.clone()).collect();
    let (mut seen, mut last) = (BTreeSet::new(), BTreeMap::<String, u64>::new());
    for line in world.events().await {
        let event = &line["value"];
        let text = |name: &str| event[name].as_str().unwrap().to_owned();
        let one = (text("subject"), text("taskrev"), text("type"));
        assert_eq!(line["key"], json!(one.0), "the key of {event}");
        let revision = one.1.split_once('.').unwrap().1.parse().unwrap();
        if seen.insert(one.clone()) {
            let before = last.insert(one.0.clone(), revision).unwrap_or(0);
            assert!(before < revision, "{one:?} came after {before}");
        }
    }
    let missing: Vec<_> = expected.difference(&seen).collect();
    let phantom: Vec<_> = seen.difference(&expected).collect();
    assert!(missing.is_empty(), "missing {missing:?}");
    assert!(phantom.is_empty(), "phantom {phantom:?}");
    // Each completion is notified under one key, and nothing else is.
    let completed = expected
        .iter()
        .filter(|(_, _, kind)| kind == "task.completed");
    let mut completed: Vec<String> = completed.map(|(task, ..)| task.clone()).collect();
    completed.sort_unstable();
    until("every completion is notified", async || {
        (world.receiver.notified().len() >= completed.len()).then_some(())
    })
    .await;
    let mut notified = world.receiver.notified();
    notified.sort_unstable();
    assert!(!completed.is_empty());
    assert_eq!(notified, completed, "what the receiver was told");
    println!(
        "{tasks} tasks, {} events and {} notifications compared",
        seen.len(),
        notified.len()
    );
}
