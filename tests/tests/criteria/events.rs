//! SC-3: a task's events are published to `pubsub`, and the subscription receives them.

use serde_json::{Value, json};
use task_tests::criteria::Criterion;
use task_tests::process::dapr::{everything_taken, published};
use task_tests::wait::until;

use crate::{World, holds};

const TOPIC: &str = "task-events";

const TYPES: [&str; 2] = ["task.created", "task.completed"];

pub(crate) async fn check(world: &World) -> Criterion {
    let mut criterion = Criterion::new("SC-3");
    let id = world.create("completed").await;
    world.complete(&id).await;
    let what = "`task.created` and `task.completed` are published to `pubsub`";
    criterion.check(what, publishes(world, &id)).await;
    let what = "the subscription receives them";
    criterion.check(what, receives(world, &id)).await;
    criterion
}

async fn publishes(world: &World, id: &str) -> Result<String, String> {
    let events = until("two events are published", async || {
        let events = published(&world.redis, TOPIC).await;
        let ours = events.into_iter().filter(|event| event["subject"] == id);
        let ours: Vec<Value> = ours.collect();
        (ours.len() >= TYPES.len()).then_some(ours)
    })
    .await;
    let field = |name: &str| {
        events
            .iter()
            .map(|event| event[name].clone())
            .collect::<Vec<_>>()
    };
    let data = events
        .iter()
        .map(|event| event["data"]["event_type"].clone());
    let found = json!([field("type"), data.collect::<Vec<_>>()]);
    holds(found == json!([TYPES, TYPES]), || {
        format!(
            "the stream {TOPIC} has {} with ids {}",
            found[0],
            json!(field("id"))
        )
    })
}

async fn receives(world: &World, id: &str) -> Result<String, String> {
    let lines = TYPES.map(|name| format!("Received event: {name} for task {id}"));
    until("the service has received both", async || {
        let log = world.server.log();
        lines.iter().all(|line| log.contains(line)).then_some(())
    })
    .await;
    // Only what was taken is done with.
    let group = everything_taken(&world.redis, TOPIC).await;
    Ok(format!(
        "{}; the group {group} has nothing left",
        lines.join(", ")
    ))
}
