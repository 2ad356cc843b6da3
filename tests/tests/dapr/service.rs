//! The whole service on Dapr: the program beside its sidecar, and the receiver beside its own.

mod kill;
mod turns;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use task_tests::history::{Seen, Writer};
use task_tests::process::dapr::{API_TOKEN, APP_TOKEN, Neighbours, published, self_hosted};
use task_tests::process::redis::{AppendOnly, RedisOptions};
use task_tests::process::{RedisServer, TaskServer};
use task_tests::wait::until;

/// Everything that runs beside the service, and the Redis behind it.
pub(crate) struct World {
    pub(crate) redis: RedisServer,
    pub(crate) neighbours: Neighbours,
}

impl World {
    /// On a Redis that loses nothing when it dies.
    pub(crate) async fn start() -> Self {
        let durable = RedisOptions {
            append_only: AppendOnly::Always,
            ..RedisOptions::default()
        };
        let redis = RedisServer::start_with(durable).await;
        let neighbours = Neighbours::start(self_hosted(redis.port())).await;
        Self { redis, neighbours }
    }

    /// Compares what the writers were told with what is published, notified and stored: nothing is lost, nothing
    /// invented, and each task's events are in their order.
    pub(crate) async fn judge(&self, writers: &mut [Writer], server: &TaskServer) {
        for writer in &mut *writers {
            writer.finish(server).await;
        }
        let known: BTreeSet<Seen> = writers.iter().flat_map(|one| one.events.clone()).collect();
        assert!(
            known.len() > 2 * writers.len(),
            "only {} events",
            known.len()
        );
        until("every event is published", async || {
            let seen: BTreeSet<Seen> = self.events().await.into_iter().collect();
            seen.is_superset(&known).then_some(())
        })
        .await;
        let mut last: BTreeMap<&str, &str> = BTreeMap::new();
        let (events, mut seen) = (self.events().await, BTreeSet::new());
        for event in &events {
            assert!(known.contains(event), "{event:?} never happened");
            let (task, revision, _) = event;
            // What comes again is the same event, which whoever hears it can tell.
            if seen.insert(event) {
                let before = last.insert(task, revision);
                assert!(before < Some(revision), "{event:?} after {before:?}");
            }
        }
        for (id, revision) in writers.iter().flat_map(|one| &one.tasks) {
            let stored = self.neighbours.stored(id).await;
            let found = stored.map(|stored| stored["_meta"]["rev"].as_u64().unwrap());
            assert_eq!(found, *revision, "{id}");
        }
        let completed = known.iter().filter(|(.., kind)| kind == "task.completed");
        let mut completed: Vec<&str> = completed.map(|(id, ..)| id.as_str()).collect();
        completed.sort_unstable();
        until("every completion is notified, once", async || {
            let mut notified = self.neighbours.receiver.notified();
            notified.sort_unstable();
            (notified == completed).then_some(())
        })
        .await;
    }

    /// Every event of the stream, as a client of Redis reads it, oldest first.
    pub(crate) async fn events(&self) -> Vec<Seen> {
        let events = published(&self.redis, "task-events").await;
        let seen = events.iter().map(|event| {
            let text = |name: &str| event[name].as_str().unwrap().to_owned();
            (text("subject"), text("taskrev"), text("type"))
        });
        seen.collect()
    }
}

#[tokio::test]
async fn a_session_is_stored_published_and_notified_once() {
    let world = World::start().await;
    let server = world.neighbours.serve().await;
    let created = server.post("/tasks", r#"{"title":"on Dapr"}"#).await;
    assert_eq!(created.status, 201, "{}", created.text());
    let id = created.json()["id"].as_str().unwrap().to_owned();
    let stored = world.neighbours.stored(&id).await.unwrap();
    assert_eq!(
        (&stored["title"], &stored["status"]),
        (&json!("on Dapr"), &json!("pending"))
    );
    let target = format!("/tasks/{id}/status?status=completed");
    let done = server.send("PUT", &target, &[], "").await;
    assert_eq!(done.status, 200, "{}", done.text());
    until("the completion is notified", async || {
        (world.neighbours.notified(&id).await == 1).then_some(())
    })
    .await;
    let entries = world.redis.command(&["XLEN", "task-events"]).await;
    assert_eq!(format!("{entries:?}"), "int(2)");
    let deleted = server
        .send("DELETE", &format!("/tasks/{id}"), &[], "")
        .await;
    assert_eq!(deleted.status, 204);
    assert_eq!(world.neighbours.stored(&id).await, None);
    assert_eq!(server.get(&format!("/tasks/{id}")).await.status, 404);
    assert_eq!(world.neighbours.notified(&id).await, 1);
    let log = server.log();
    assert!(
        !log.contains(API_TOKEN) && !log.contains(APP_TOKEN),
        "{log}"
    );
}

#[tokio::test]
async fn what_was_published_before_a_stop_is_not_published_again_after_it() {
    let world = World::start().await;
    for started in 1..=3 {
        let server = world.neighbours.serve().await;
        let created = server.post("/tasks", r#"{"title":"once"}"#).await;
        assert_eq!(created.status, 201, "{}", created.text());
        let id = created.json()["id"].as_str().unwrap().to_owned();
        until("its event is published", async || {
            let events = world.events().await;
            events.iter().any(|(task, ..)| *task == id).then_some(())
        })
        .await;
        assert!(server.stop().success());
        let entries = world.redis.command(&["XLEN", "task-events"]).await;
        assert_eq!(format!("{entries:?}"), format!("int({started})"));
    }
}
