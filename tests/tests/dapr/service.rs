//! The whole service on Dapr: the program beside its sidecar, and the receiver beside its own.

mod kill;
mod turns;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};
use task_tests::history::{Seen, Writer};
use task_tests::process::dapr::{Names, Readiness, self_hosted};
use task_tests::process::redis::{AppendOnly, RedisOptions};
use task_tests::process::{
    NotificationService, RedisServer, Sidecar, SidecarOptions, StartingServer, TaskServer,
    TaskServerOptions, TestDirectory, free_port,
};
use task_tests::wait::until;

const API_TOKEN: &str = "sidecartoken";
const APP_TOKEN: &str = "apptoken";

/// Everything that runs beside the service.
struct World {
    redis: RedisServer,
    receiver: NotificationService,
    _theirs: Sidecar,
    sidecar: Sidecar,
    port: u16,
    nowhere: TestDirectory,
    names: Names,
}

/// The sidecar of one replica of the service.
fn ours(redis: &RedisServer, names: &Names) -> SidecarOptions {
    SidecarOptions {
        names: Some(names.path()),
        readiness: Readiness::Outbound,
        api_token: Some(API_TOKEN.to_owned()),
        app_token: Some(APP_TOKEN.to_owned()),
        ..SidecarOptions::of("task-api", self_hosted(redis.port()))
    }
}

impl World {
    async fn start() -> Self {
        let durable = RedisOptions {
            append_only: AppendOnly::Always,
            ..RedisOptions::default()
        };
        let redis = RedisServer::start_with(durable).await;
        let names = Names::new();
        let receiver = NotificationService::start("127.0.0.1:0");
        let theirs = SidecarOptions {
            names: Some(names.path()),
            ..SidecarOptions::of("notification-service", [""; 0])
        };
        let theirs = Sidecar::start(theirs.beside(receiver.address().port())).await;
        let port = free_port();
        let sidecar = Sidecar::start(ours(&redis, &names).beside(port)).await;
        Self {
            redis,
            receiver,
            _theirs: theirs,
            sidecar,
            port,
            nowhere: TestDirectory::new("dapr-service"),
            names,
        }
    }

    fn begin(&self, port: u16) -> StartingServer {
        self.begin_beside(&self.sidecar, port)
    }

    fn begin_beside(&self, sidecar: &Sidecar, port: u16) -> StartingServer {
        let variables = [
            ("DAPR_HTTP_PORT", sidecar.http_port().to_string()),
            ("DAPR_GRPC_PORT", sidecar.grpc_port().to_string()),
            ("DAPR_API_TOKEN", API_TOKEN.to_owned()),
            ("APP_API_TOKEN", APP_TOKEN.to_owned()),
        ];
        let mut options = TaskServerOptions {
            listen: SocketAddr::from(([127, 0, 0, 1], port)),
            before: vec!["env".to_owned()],
            ..TaskServerOptions::default()
        };
        let words = variables.map(|(name, value)| format!("{name}={value}"));
        options.before.extend(words);
        let options = options.arg("--backend").arg("dapr");
        TaskServer::begin(self.nowhere.path(), &options)
    }

    async fn serve(&self) -> TaskServer {
        let started = self.begin(self.port).ready().await;
        started.unwrap_or_else(|log| panic!("{log}\n{}", self.sidecar.log()))
    }

    /// What a client of the sidecar sees under a key; it takes an empty value for a missing one.
    async fn stored(&self, id: &str) -> Option<Value> {
        let path = format!("/v1.0/state/statestore/task-{id}");
        let answer = self.sidecar.send("GET", &path, &[], "").await;
        assert!(matches!(answer.status, 200 | 204), "{}", answer.text());
        let text = answer.text();
        (!text.is_empty()).then(|| {
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{id}: {error}: {text:?}"))
        })
    }

    /// Compares what the writers were told with what is published and stored: nothing is lost, nothing invented.
    async fn judge(&self, writers: &[Writer]) {
        let known: BTreeSet<Seen> = writers.iter().flat_map(|one| one.events.clone()).collect();
        assert!(known.len() > 100, "only {} events", known.len());
        until("every event is published", async || {
            self.events().await.is_superset(&known).then_some(())
        })
        .await;
        let phantoms: Vec<Seen> = self.events().await.difference(&known).cloned().collect();
        assert_eq!(phantoms, []);
        for (id, revision) in writers.iter().flat_map(|one| &one.tasks) {
            let stored = self.stored(id).await;
            let found = stored.map(|stored| stored["_meta"]["rev"].as_u64().unwrap());
            assert_eq!(found, *revision, "{id}");
        }
    }

    /// Every event of the stream, as a client of Redis reads it.
    async fn events(&self) -> BTreeSet<Seen> {
        let entries = self
            .redis
            .command(&["XRANGE", "task-events", "-", "+"])
            .await;
        let entries: Vec<(String, Vec<(String, String)>)> =
            redis::from_redis_value(entries).unwrap();
        let envelopes = entries.into_iter().flat_map(|(_, fields)| fields);
        let data = envelopes.filter(|(name, _)| name == "data");
        let seen = data.map(|(_, data)| {
            let event: Value = serde_json::from_str(&data).unwrap();
            let text = |name: &str| event[name].as_str().unwrap().to_owned();
            (text("subject"), text("taskrev"), text("type"))
        });
        seen.collect()
    }

    async fn notified(&self, id: &str) -> usize {
        let received = self.receiver.received().await;
        let all = received["notifications"].as_array().unwrap();
        let of_task = all
            .iter()
            .filter(|one| one["notification"]["task_id"] == id);
        of_task.count()
    }
}

#[tokio::test]
async fn a_session_is_stored_published_and_notified_once() {
    let world = World::start().await;
    let server = world.serve().await;
    let created = server.post("/tasks", r#"{"title":"on Dapr"}"#).await;
    assert_eq!(created.status, 201, "{}", created.text());
    let id = created.json()["id"].as_str().unwrap().to_owned();
    let stored = world.stored(&id).await.unwrap();
    assert_eq!(
        (&stored["title"], &stored["status"]),
        (&json!("on Dapr"), &json!("pending"))
    );
    let target = format!("/tasks/{id}/status?status=completed");
    let done = server.send("PUT", &target, &[], "").await;
    assert_eq!(done.status, 200, "{}", done.text());
    until("the completion is notified", async || {
        (world.notified(&id).await == 1).then_some(())
    })
    .await;
    let entries = world.redis.command(&["XLEN", "task-events"]).await;
    assert_eq!(format!("{entries:?}"), "int(2)");
    let deleted = server
        .send("DELETE", &format!("/tasks/{id}"), &[], "")
        .await;
    assert_eq!(deleted.status, 204);
    assert_eq!(world.stored(&id).await, None);
    assert_eq!(server.get(&format!("/tasks/{id}")).await.status, 404);
    assert_eq!(world.notified(&id).await, 1);
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
        let server = world.serve().await;
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
