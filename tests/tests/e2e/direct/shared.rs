//! A Redis that the service shares with others: with their data in its memory, and with other replicas.

use futures_util::future::join_all;
use redis::{FromRedisValue, from_redis_value};
use serde_json::Value;
use task_tests::process::RedisServer;
use task_tests::process::redis::{AppendOnly, RedisOptions};
use task_tests::wait::until;

use super::World;
use crate::create;

const LEASE: &str = "task-api:state:lease:relay";

async fn ask<T: FromRedisValue>(world: &World, words: &[&str]) -> T {
    from_redis_value(world.redis.command(words).await).unwrap()
}

async fn is_full(world: &World, full: bool) {
    let bytes = if full { "1" } else { "0" };
    let config = ["CONFIG", "SET", "maxmemory", bytes];
    ask::<()>(world, &config).await;
}

async fn waiting(world: &World) -> u64 {
    ask(world, &["XLEN", "task-api:outbox"]).await
}

async fn beat(world: &World) -> Option<u64> {
    let lease: Option<String> = ask(world, &["GET", LEASE]).await;
    let lease: Value = serde_json::from_str(&lease?).unwrap();
    lease["beat"].as_u64()
}

#[tokio::test]
async fn replicas_of_both_layouts_have_one_lease_for_their_one_outbox() {
    let world = World::start().await;
    let legacy = world.serve(&[]).await;
    let dapr = world.serve(&["--redis-layout", "dapr"]).await;
    for server in [&legacy, &dapr] {
        create(server, "published by one of the two").await;
    }
    until("both are published", async || {
        (waiting(&world).await == 0).then_some(())
    })
    .await;
    let leases: Vec<String> = ask(&world, &["KEYS", "*lease*"]).await;
    assert_eq!(leases, [LEASE]);
}

#[tokio::test]
async fn a_full_redis_drains_when_the_bus_is_back_and_is_read_all_the_while() {
    let world = World::start().await;
    let server = world.serve(&[]).await;
    let (id, _) = create(&server, "first").await;
    until("it is published", async || {
        (waiting(&world).await == 0).then_some(())
    })
    .await;
    world.kafka.pause();
    for _ in 0..5 {
        create(&server, "waits").await;
    }
    is_full(&world, true).await;
    let before = beat(&world).await.expect("a lease");
    // Longer than the lease lasts without a renewal, which is every second.
    until("the lease is renewed without memory", async || {
        (beat(&world).await >= Some(before + 5)).then_some(())
    })
    .await;
    let target = format!("/tasks/{id}");
    let writers = (0..8).map(async |_| {
        for _ in 0..50 {
            let refused = server.post("/tasks", r#"{"title":"x"}"#).await;
            assert_eq!(refused.status, 503, "{}", refused.text());
        }
    });
    let reader = async {
        for _ in 0..100 {
            let read = server.get(&target).await;
            assert_eq!(read.status, 200, "{}", read.text());
        }
    };
    tokio::join!(join_all(writers), reader);
    let log = server.log();
    assert!(!log.contains("circuit opened"), "{log}");
    assert_eq!(waiting(&world).await, 5);
    world.kafka.resume();
    until("everything is published", async || {
        (waiting(&world).await == 0).then_some(())
    })
    .await;
    is_full(&world, false).await;
    create(&server, "after").await;
}

#[tokio::test]
async fn what_a_full_redis_cannot_mark_is_notified_once_and_marked_when_there_is_room() {
    let world = World::start().await;
    let arguments = ["--redelivery-longest-pause-ms", "200", "--log", "debug"];
    let server = world.serve(&arguments).await;
    let (id, _) = create(&server, "completed before").await;
    until("it is published", async || {
        (waiting(&world).await == 0).then_some(())
    })
    .await;
    world.kafka.pause();
    let done = format!("/tasks/{id}/status?status=completed");
    assert_eq!(server.send("PUT", &done, &[], "").await.status, 200);
    is_full(&world, true).await;
    world.kafka.resume();
    until("the mark is refused again and again", async || {
        let log = server.log();
        (log.matches("notification failed").count() >= 5).then_some(())
    })
    .await;
    is_full(&world, false).await;
    until("it is marked", async || {
        let marks: Vec<String> = ask(&world, &["KEYS", "task-api:state:seen:*"]).await;
        (marks.len() == 1).then_some(())
    })
    .await;
    let log = server.log();
    let sent = format!("Notification sent for task {id}");
    assert_eq!(log.matches(&sent).count(), 1, "{log}");
    assert_eq!(world.receiver.notified(), [id]);
}

#[tokio::test]
async fn a_redis_that_may_lose_data_is_used_with_a_warning_of_each_kind() {
    let mut world = World::start().await;
    world.redis = RedisServer::start_with(RedisOptions {
        append_only: AppendOnly::Off,
        lines: vec!["maxmemory-policy allkeys-lru".to_owned()],
        ..RedisOptions::default()
    })
    .await;
    let risky = world.serve(&[]).await;
    world.redis = RedisServer::start().await;
    let safe = world.serve(&[]).await;
    for (warning, cause) in [
        ("redis has no append-only file", "address"),
        ("redis evicts data", "maxmemory_policy=\"allkeys-lru\""),
    ] {
        let log = risky.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains(warning)).collect();
        assert_eq!(lines.len(), 1, "{log}");
        assert!(
            lines[0].contains("WARN") && lines[0].contains(cause),
            "{log}"
        );
        assert!(!safe.log().contains(warning), "{}", safe.log());
    }
}
