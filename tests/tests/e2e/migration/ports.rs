//! Events and notifications move as tasks do, each at its own pace.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use task_tests::process::dapr::published;
use task_tests::process::migration::{migration, stages};
use task_tests::process::{RedisServer, TaskServer};
use task_tests::wait::until;

use super::super::create;
use super::replicas::{World, is_ready};

/// Completes tasks until it is told to stop, and answers which.
async fn complete_tasks(server: &TaskServer, is_over: &AtomicBool) -> BTreeSet<String> {
    let mut done = BTreeSet::new();
    while !is_over.load(Ordering::SeqCst) {
        let (id, _) = create(server, "completed meanwhile").await;
        let target = format!("/tasks/{id}/status?status=completed");
        let answer = server.send("PUT", &target, &[], "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        done.insert(id);
    }
    done
}

/// The tasks whose completion a bus has.
async fn completed_on(redis: &RedisServer) -> BTreeSet<String> {
    let events = published(redis, "task-events").await.into_iter();
    let completed = events.filter(|event| event["type"] == "task.completed");
    let tasks = completed.map(|event| event["subject"].as_str().unwrap().to_owned());
    tasks.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bus_and_the_notifier_move_while_tasks_are_completed_and_each_is_notified_once() {
    let world = World::start().await;
    let server = world.serve().await;
    migration(&server, "init").await.with(0);
    is_ready(&server).await;

    let is_over = AtomicBool::new(false);
    let moving = async {
        for command in [
            "advance --port bus --to shadow",
            "advance --port bus --to live --percent 30",
            "advance --port bus --to live",
            "rollback --port bus --to shadow",
            "advance --port bus --to live",
            "advance --port notifier --to new --percent 50",
            "advance --port notifier --to new",
            "rollback --port notifier --to old",
            "advance --port notifier --to new",
            "status",
        ] {
            migration(&server, command).await.with(0);
        }
        is_over.store(true, Ordering::SeqCst);
    };
    let (done, ()) = tokio::join!(complete_tasks(&server, &is_over), moving);
    assert_eq!(stages(&server, "bus").await, "live");
    assert_eq!(stages(&server, "notifier").await, "new");
    let notified = until("every completion is notified", async || {
        let received = world.receiver.received().await;
        (received["count"].as_u64() >= u64::try_from(done.len()).ok()).then_some(received)
    })
    .await;
    let all = notified["notifications"].as_array().unwrap().iter();
    let of_tasks: Vec<&Value> = all.map(|one| &one["notification"]["task_id"]).collect();
    let once: BTreeSet<String> = of_tasks
        .iter()
        .map(|id| id.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(of_tasks.len(), once.len(), "somebody was told twice");
    assert_eq!(once, done);

    let (old, new) = (
        completed_on(&world.old).await,
        completed_on(&world.new).await,
    );
    assert!(
        !old.is_empty() && !new.is_empty(),
        "{} {}",
        old.len(),
        new.len()
    );
    let everywhere: BTreeSet<String> = old.union(&new).cloned().collect();
    assert_eq!(everywhere, done, "an event is lost");
}
