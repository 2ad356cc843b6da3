//! A side that is lost: the commands that lead out of it, on two Redis servers and under the hands of clients.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;
use task_tests::history::{Writer, work_until};
use task_tests::process::TaskServer;
use task_tests::process::migration::{migration, stages};
use task_tests::wait::until;

use super::replicas::{World, is_ready};

/// Clients that work at once.
const WRITERS: usize = 2;

/// Lets clients work for a while.
async fn worked(server: &TaskServer) -> Vec<Writer> {
    let mut writers: Vec<Writer> = (0..WRITERS).map(Writer::new).collect();
    join_all(writers.iter_mut().map(async |writer| {
        writer.rests_at = Some(Instant::now() + Duration::from_millis(500));
        writer.work(server).await;
        writer.finish(server).await;
    }))
    .await;
    writers
}

/// Everything is in a stage, without anything that was there before.
async fn arrives(server: &TaskServer, stage: &str) {
    migration(server, "init").await.with(0);
    is_ready(server).await;
    for command in [
        "advance --port state --to dualwrite",
        "backfill start",
        "verify --full",
        "advance --port state --to shadow",
        "advance --port state --to live --confirm no-foreign-writers",
        "advance --port state --to rampdown",
    ] {
        let said = migration(server, command).await;
        said.with(0);
        if command.contains(&format!("--to {stage}")) {
            break;
        }
    }
    assert_eq!(stages(server, "state").await, stage);
}

/// What clients were told is what the service has.
async fn is_as_told(server: &TaskServer, writers: &[Writer]) {
    for (id, revision) in writers.iter().flat_map(|writer| &writer.tasks) {
        let found = server.get(&format!("/tasks/{id}")).await;
        match revision {
            Some(revision) => {
                let tag = found.header("etag").unwrap_or_default();
                let ends = format!(".{revision}\"");
                assert!(tag.ends_with(&ends), "{id}: {tag} {revision}");
            }
            None => assert_eq!(found.status, 404, "{id}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_side_that_is_gone_for_good_is_left_without_a_loss() {
    let world = World::start().await;
    let server = world.serve().await;
    arrives(&server, "rampdown").await;
    let is_over = AtomicBool::new(false);
    let losing = async {
        let early = migration(&server, "rollback --port state --new-lost").await;
        early.with(2);
        assert!(early.stderr.contains("new_side_lost"), "{}", early.stderr);
        world.new.pause();
        let why = "rollback --port state --new-lost --why burnt --json";
        let moved = until("the way back", async || {
            let said = migration(&server, why).await;
            (said.code == 0).then(|| said.json())
        })
        .await;
        println!("{moved:#}");
        assert_eq!(moved["to"][0]["stage"], "shadow", "{moved}");
        is_over.store(true, Ordering::SeqCst);
    };
    let (writers, ()) = tokio::join!(work_until(WRITERS, &server, &is_over), losing);
    is_as_told(&server, &writers).await;
    let audit = migration(&server, "audit --json").await.json();
    let why = |entry: &Value| entry["why"] == "burnt";
    assert!(audit.as_array().unwrap().iter().any(why), "{audit}");
    world.new.resume();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_side_that_is_emptied_is_found_out_left_and_filled_anew() {
    let world = World::start().await;
    let server = world.serve().await;
    arrives(&server, "live").await;
    let writers = worked(&server).await;
    until("the old side remembers a number", async || {
        let found = world.old.command(&["KEYS", "*canary*"]).await;
        let found: Vec<String> = redis::from_redis_value(found).unwrap();
        (!found.is_empty()).then_some(())
    })
    .await;
    world.new.command(&["FLUSHALL"]).await;
    until("it is found out", async || {
        let stage = stages(&server, "state").await;
        (stage == "shadow").then_some(())
    })
    .await;
    is_as_told(&server, &writers).await;
    let audit = migration(&server, "audit").await;
    assert!(audit.with(0).contains("canary"), "{}", audit.stdout);
    until("the backfill of the next generation", async || {
        let job = migration(&server, "backfill status --json").await.json();
        (job["generation"] == 2 && job["state"] == "done").then_some(())
    })
    .await;
    migration(&server, "verify --full").await.with(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_side_that_is_gone_is_left_while_the_new_one_decides() {
    let world = World::start().await;
    let server = world.serve().await;
    arrives(&server, "rampdown").await;
    let writers = worked(&server).await;
    let early = migration(&server, "rollback --port state --old-lost").await;
    early.with(2);
    assert!(early.stderr.contains("old_side_lost"), "{}", early.stderr);
    world.old.command(&["FLUSHALL"]).await;
    let moved = migration(&server, "rollback --port state --old-lost").await;
    assert!(moved.with(0).contains("complete"), "{}", moved.stdout);
    is_ready(&server).await;
    is_as_told(&server, &writers).await;
}
