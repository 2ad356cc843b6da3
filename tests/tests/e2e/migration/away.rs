//! The new side is away: no outage of the service, not even at its start.

use std::sync::atomic::{AtomicBool, Ordering};

use task_tests::config;
use task_tests::process::migration::{migration, stages};
use task_tests::process::{RedisServer, TaskServer};
use task_tests::wait::until;
use tokio::time::sleep;

use super::super::create;
use super::replicas::{World, is_ready};

async fn is_on_the_new_side(world: &World, id: &str) {
    let key = format!("task-api||task-{id}");
    until("the new side has the task", async || {
        let found = world.new.command(&["EXISTS", &key]).await;
        (found == redis::Value::Int(1)).then_some(())
    })
    .await;
}

/// A service under way to the new side, which lives on the old one.
async fn under_way(world: &World) -> TaskServer {
    let server = world.serve().await;
    migration(&server, "init").await.with(0);
    is_ready(&server).await;
    migration(&server, "advance --port state --to dualwrite")
        .await
        .with(0);
    server
}

#[tokio::test]
async fn a_replica_starts_while_the_new_side_is_away_and_follows_it_when_it_is_back() {
    let mut world = World::start().await;
    let server = under_way(&world).await;
    world.new.kill();
    server.kill();
    let server = world.serve().await;
    is_ready(&server).await;
    let log = server.log();
    assert!(log.contains("(new_redis_url) is away"), "{log}");
    let (id, _) = create(&server, "while it is away").await;
    world.new.restart().await;
    is_on_the_new_side(&world, &id).await;

    world.new.pause();
    server.kill();
    let server = world.serve().await;
    is_ready(&server).await;
    let (id, _) = create(&server, "while it is silent").await;
    world.new.resume();
    is_on_the_new_side(&world, &id).await;
    migration(&server, "backfill start").await.with(0);
    migration(&server, "verify --full").await.with(0);
    assert_eq!(stages(&server, "state").await, "dualwrite");
}

#[tokio::test]
async fn a_new_side_that_was_never_there_is_waited_for_and_missed_by_its_key() {
    let mut world = World::start().await;
    under_way(&world).await.kill();
    let met = std::mem::replace(&mut world.new, RedisServer::start().await);
    world.new.kill();
    // That another one was there is no reason to begin without this one.
    let (status, log) = world.begin(&["--start-timeout-ms", "300"]).wait();
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(log.contains("(new_redis_url) within 300 ms"), "{log}");
    world.new = met;
    world.new.kill();
    is_ready(&world.serve().await).await;
}

/// Works until it is told to stop: every answer is a success. Answers how many tasks it has made.
async fn work(server: &TaskServer, is_over: &AtomicBool) -> Vec<String> {
    let mut made = Vec::new();
    while !is_over.load(Ordering::SeqCst) {
        let (id, _) = create(server, "while the new side is away").await;
        let target = format!("/tasks/{id}/status?status=in_progress");
        let changed = server.send("PUT", &target, &[], "").await;
        assert_eq!(changed.status, 200, "{}", changed.text());
        let read = server.get(&format!("/tasks/{id}")).await;
        assert_eq!(read.status, 200, "{}", read.text());
        assert_eq!(read.json()["status"], "in_progress", "{}", read.text());
        let ready = server.get("/ready").await;
        assert_eq!(ready.status, 200, "{}", ready.text());
        made.push(id);
    }
    made
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_in_any_stage_before_rampdown_that_the_new_side_hangs_and_dies() {
    let mut world = World::start().await;
    let server = under_way(&world).await;
    migration(&server, "backfill start").await.with(0);
    migration(&server, "verify --full").await.with(0);
    let mut made = Vec::new();
    for stage in ["dualwrite", "shadow", "live"] {
        let advance = format!("advance --port state --to {stage} --confirm no-foreign-writers");
        migration(&server, &advance).await.with(0);
        let is_over = AtomicBool::new(false);
        let breaking = async {
            world.new.pause();
            sleep(config::outage()).await;
            world.new.resume();
            world.new.kill();
            sleep(config::outage()).await;
            world.new.restart().await;
            is_over.store(true, Ordering::SeqCst);
        };
        let (ids, ()) = tokio::join!(work(&server, &is_over), breaking);
        assert!(!ids.is_empty(), "{stage}");
        made.extend(ids);
        until("the new side has caught up", async || {
            let drained = migration(&server, "repair drain").await;
            (drained.code == 0).then_some(())
        })
        .await;
        migration(&server, "verify --full").await.with(0);
        assert_eq!(stages(&server, "state").await, stage);
    }
    for id in &made {
        is_on_the_new_side(&world, id).await;
    }
}
