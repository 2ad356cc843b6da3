//! Two replicas between two Redis servers: what the one has begun, the other one ends.

use std::process::Stdio;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use task_tests::judge::Sides;
use task_tests::process::migration::{migration, stages};
use task_tests::process::{
    NotificationService, RedisServer, StartingServer, TaskServer, TaskServerOptions, TestDirectory,
    program,
};
use task_tests::wait::until;
use tokio::process::Command;

use super::super::create;
use super::fleet::Ways;

/// Tasks before the move: enough for a backfill that is seen under way.
const TASKS: usize = 600;

/// How many of them are created at once.
const AT_ONCE: usize = 100;

pub(super) struct World {
    pub(super) old: RedisServer,
    pub(super) new: RedisServer,
    pub(super) receiver: NotificationService,
    nowhere: TestDirectory,
}

impl World {
    pub(super) async fn start() -> Self {
        Self {
            old: RedisServer::start().await,
            new: RedisServer::start().await,
            receiver: NotificationService::start("127.0.0.1:0"),
            nowhere: TestDirectory::new("move-replicas"),
        }
    }

    pub(super) fn sides(&self) -> Sides<'_> {
        [&self.old, &self.new]
    }

    /// Where both sides are.
    pub(super) fn ways(&self) -> Ways {
        [self.old.url(), self.new.url()]
    }

    fn options(&self, [old, new]: &Ways) -> TaskServerOptions {
        let receiver = format!("http://{}", self.receiver.address());
        let words = [
            "--backend",
            "parallel",
            "--old",
            "direct",
            "--new",
            "direct",
            "--admin-listen",
            "127.0.0.1:0",
            "--redis-url",
            old,
            "--new-redis-url",
            new,
            "--bus",
            "redis-streams",
            "--notification-url",
            &receiver,
        ];
        TaskServerOptions {
            arguments: words.map(str::to_owned).into(),
            ..TaskServerOptions::default()
        }
    }

    pub(super) async fn serve(&self) -> TaskServer {
        self.serve_by(&self.ways()).await
    }

    /// The same for a replica that finds the sides elsewhere.
    pub(super) async fn serve_by(&self, ways: &Ways) -> TaskServer {
        let begun = TaskServer::begin(self.nowhere.path(), &self.options(ways));
        begun.listening().await.unwrap()
    }

    pub(super) fn begin(&self, arguments: &[&str]) -> StartingServer {
        let options = self.options(&self.ways());
        let options = arguments
            .iter()
            .copied()
            .fold(options, TaskServerOptions::arg);
        TaskServer::begin(self.nowhere.path(), &options)
    }
}

pub(super) async fn is_ready(server: &TaskServer) {
    until("it is ready", async || {
        (server.get("/ready").await.status == 200).then_some(())
    })
    .await;
}

/// Creates the tasks before the move, and answers their ids and tags.
pub(super) async fn create_all(server: &TaskServer) -> Vec<(String, String)> {
    let titles: Vec<String> = (0..TASKS).map(|number| format!("task {number}")).collect();
    let mut created = Vec::new();
    // The service takes no more than 512 requests at once.
    for titles in titles.chunks(AT_ONCE) {
        created.extend(join_all(titles.iter().map(|title| create(server, title))).await);
    }
    created
}

async fn backfill(server: &TaskServer) -> Value {
    let said = migration(server, "backfill status --json").await;
    said.with(0);
    said.json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_outlives_who_watches_it_and_the_replica_that_began_it() {
    let world = World::start().await;
    let first = world.serve().await;
    migration(&first, "init").await.with(0);
    is_ready(&first).await;
    let second = world.serve().await;
    is_ready(&second).await;
    let created = create_all(&first).await;
    migration(&second, "advance --port state --to dualwrite")
        .await
        .with(0);

    leaves_it(&first).await;
    let begun = backfill(&second).await;
    assert_eq!(begun["state"], "running", "{begun}");
    first.kill();

    let resumed = migration(&second, "backfill resume --rate 100000").await;
    resumed.with(0);
    let done = backfill(&second).await;
    assert_eq!(
        (&done["state"], &done["id"]),
        (&"done".into(), &begun["id"])
    );
    // A replica that is gone is waited for until it is known to be.
    let step = until("the dead replica is forgotten", async || {
        let step = migration(&second, "advance --port state --to shadow").await;
        (step.code == 0).then_some(step)
    })
    .await;
    assert!(step.stdout.contains("shadow 100.00 %"), "{}", step.stdout);
    assert_eq!(stages(&second, "state").await, "shadow");
    migration(&second, "verify --full").await.with(0);
    for (id, _) in created.iter().step_by(50) {
        let key = format!("task-api||task-{id}");
        let found = world.new.command(&["EXISTS", &key]).await;
        assert_eq!(found, redis::Value::Int(1), "{id}");
    }
}

/// Begins a slow backfill, and stops watching it by Ctrl-C.
async fn leaves_it(server: &TaskServer) {
    let mut watching = Command::new(program())
        .args(["migration", "--admin", &server.admin()])
        .args(["backfill", "start", "--rate", "50"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("it has begun", async || {
        let job = migration(server, "backfill status --json").await.json();
        (job["done"].as_u64().unwrap_or(0) > 0).then_some(())
    })
    .await;
    let id = watching.id().unwrap().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-INT", &id])
        .status();
    assert!(sent.unwrap().success());
    let ended = tokio::time::timeout(Duration::from_secs(10), watching.wait()).await;
    assert_eq!(ended.unwrap().unwrap().code(), Some(130));
    let output = watching.wait_with_output().await.unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("the backfill goes on in the service"),
        "{told}"
    );
    assert!(told.contains("backfill  "), "no progress in {told}");
}

#[tokio::test]
async fn what_was_changed_on_one_side_alone_is_found_named_and_repaired() {
    let world = World::start().await;
    let server = world.serve().await;
    migration(&server, "init").await.with(0);
    is_ready(&server).await;
    let (id, _) = create(&server, "compared").await;
    migration(&server, "advance --port state --to dualwrite")
        .await
        .with(0);
    migration(&server, "backfill start").await.with(0);
    migration(&server, "verify --full").await.with(0);

    let key = format!("task-api||task-{id}");
    let data = world.new.command(&["HGET", &key, "data"]).await;
    let data: String = redis::from_redis_value(data).unwrap();
    let changed = data.replace("\"pending\"", "\"completed\"");
    assert_ne!(data, changed);
    world.new.command(&["HSET", &key, "data", &changed]).await;
    let found = migration(&server, "verify --full").await;
    found.with(1);
    assert!(found.stderr.contains("1 record"), "{}", found.stderr);
    let shown = migration(&server, "diffs --field /status").await;
    for part in [&id, "/status", "\"pending\"", "\"completed\"", "old", "new"] {
        assert!(shown.with(1).contains(part), "{part}: {}", shown.stdout);
    }
    let none = migration(&server, "diffs --field /title").await;
    assert!(!none.with(0).contains(&id), "{}", none.stdout);
    migration(&server, "verify --full --fix").await.with(0);
    migration(&server, "verify --full").await.with(0);
    let repaired = world.new.command(&["HGET", &key, "data"]).await;
    let repaired: String = redis::from_redis_value(repaired).unwrap();
    assert_eq!(repaired, data);
    migration(&server, "repair status").await.with(0);
    migration(&server, "repair drain").await.with(0);
}
