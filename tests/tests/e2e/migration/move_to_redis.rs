//! From the embedded file to Redis and back, with clients at work all the time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::Value;
use task_tests::history::{Writer, work_until};
use task_tests::process::migration::{Said, migration, stages};
use task_tests::process::{
    NotificationService, RedisServer, TaskServer, TaskServerOptions, TestDirectory, redis,
};
use task_tests::wait::until;

use super::super::{create, problem};

/// Clients that work at once.
const WRITERS: usize = 2;

struct World {
    directory: TestDirectory,
    receiver: NotificationService,
    redis_url: String,
}

impl World {
    async fn start() -> Self {
        Self {
            directory: TestDirectory::new("move-to-redis"),
            receiver: NotificationService::start("127.0.0.1:0"),
            redis_url: RedisServer::shared().await.next_database_url(),
        }
    }

    fn options(&self, backend: &[&str]) -> TaskServerOptions {
        let receiver = format!("http://{}", self.receiver.address());
        let own = [
            "--notification-url",
            &receiver,
            "--redis-url",
            &self.redis_url,
            "--redis-layout",
            "dapr",
            "--bus",
            "redis-streams",
        ];
        let words = [backend, &own].concat();
        TaskServerOptions {
            arguments: words.into_iter().map(str::to_owned).collect(),
            ..TaskServerOptions::default()
        }
    }

    fn parallel(&self) -> TaskServerOptions {
        self.options(&[
            "--backend",
            "parallel",
            "--old",
            "embedded",
            "--new",
            "direct",
            "--admin-listen",
            "127.0.0.1:0",
        ])
    }

    /// A task as Redis has it; `None` if it has none.
    async fn in_redis(&self, id: &str) -> Option<Value> {
        let key = format!("task-api||task-{id}");
        let found = redis::command(&self.redis_url, &["HGET", &key, "data"]).await;
        let text: Option<String> = ::redis::from_redis_value(found).unwrap();
        let value = text.and_then(|text| serde_json::from_str::<Value>(&text).ok());
        // What is left of a deletion has no title.
        value.filter(|value| value["title"].is_string())
    }
}

/// Every command succeeds, and says something.
async fn all_of(server: &TaskServer, commands: &[&str]) {
    for command in commands {
        let began = Instant::now();
        let said = migration(server, command).await;
        println!(
            "{command}: {:?}\n{}{}",
            began.elapsed(),
            said.stdout,
            said.stderr
        );
        assert!(!said.with(0).is_empty(), "{command}");
    }
}

/// What every client was told is what the service and Redis have.
async fn is_everywhere(world: &World, server: &TaskServer, writers: &[Writer]) {
    for (id, revision) in writers.iter().flat_map(|writer| &writer.tasks) {
        let found = server.get(&format!("/tasks/{id}")).await;
        let in_redis = world.in_redis(id).await;
        match revision {
            Some(revision) => {
                let tag = found.header("etag").unwrap_or_default();
                assert!(
                    tag.ends_with(&format!(".{revision}\"")),
                    "{id}: {tag} {revision}"
                );
                let in_redis = in_redis.unwrap_or_else(|| panic!("{id} is not in redis"));
                assert_eq!(in_redis["status"], found.json()["status"], "{id}");
            }
            None => assert_eq!((found.status, in_redis), (404, None), "{id}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_moves_from_its_file_to_redis_while_clients_work_and_goes_back() {
    let world = World::start().await;
    let data = world.directory.path();
    let alone = world.options(&["--backend", "embedded"]);
    let server = TaskServer::start_with(data, &alone).await;
    let (before, _) = create(&server, "before the move").await;
    assert!(server.stop().success());

    let server = TaskServer::begin(data, &world.parallel())
        .listening()
        .await
        .unwrap();
    is_refused_before_init(&server).await;
    migration(&server, "init").await.with(0);
    until("it is ready", async || {
        (server.get("/ready").await.status == 200).then_some(())
    })
    .await;
    let again = migration(&server, "init").await;
    again.with(2);
    assert_eq!(server.get(&format!("/tasks/{before}")).await.status, 200);

    let is_over = AtomicBool::new(false);
    let forwards = async {
        all_of(&server, &["advance --port state --to dualwrite"]).await;
        assert_eq!(stages(&server, "state").await, "dualwrite");
        let jump = migration(&server, "advance --port state --to live").await;
        is_refused_by_a_guard(&jump);
        all_of(
            &server,
            &[
                "backfill start",
                "verify --full",
                "advance --port state --to shadow",
                "verify --full",
                "plan --port state --to rampdown",
                "advance --port state --to live --percent 10 --confirm no-foreign-writers",
                "advance --port state --to live --confirm no-foreign-writers",
                "status",
                "advance --port state --to rampdown",
            ],
        )
        .await;
        assert_eq!(stages(&server, "state").await, "rampdown");
        is_over.store(true, Ordering::SeqCst);
    };
    let (writers, ()) = tokio::join!(work_until(WRITERS, &server, &is_over), forwards);
    let told: usize = writers.iter().map(|writer| writer.tasks.len()).sum();
    assert!(told > WRITERS, "only {told} tasks were told of");
    is_everywhere(&world, &server, &writers).await;
    assert!(world.in_redis(&before).await.is_some(), "it was copied");

    goes_back(&server).await;
    assert!(server.stop().success());
    // The file alone has everything again.
    let server = TaskServer::start_with(data, &alone).await;
    for (id, revision) in writers.iter().flat_map(|writer| &writer.tasks) {
        let found = server.get(&format!("/tasks/{id}")).await;
        assert_eq!(found.status == 200, revision.is_some(), "{id}");
    }
}

async fn is_refused_before_init(server: &TaskServer) {
    let ready = server.get("/ready").await;
    assert_eq!(ready.status, 503);
    assert!(
        ready.text().contains("task-server migration init"),
        "{}",
        ready.text()
    );
    let refused = problem(&server.post("/tasks", r#"{"title":"early"}"#).await, 503);
    let detail = refused["detail"].as_str().unwrap();
    assert!(detail.contains("task-server migration init"), "{detail}");
    assert!(detail.contains("nothing was changed"), "{detail}");
    assert!(
        server.log().contains("task-server migration init --admin"),
        "{}",
        server.log()
    );
    let status = migration(server, "status").await;
    assert!(
        status.with(0).contains("migration init"),
        "{}",
        status.stdout
    );
}

fn is_refused_by_a_guard(said: &Said) {
    said.with(2);
    assert!(said.stderr.contains("refused by"), "{}", said.stderr);
}

async fn goes_back(server: &TaskServer) {
    let is_over = AtomicBool::new(false);
    let back = async {
        all_of(
            server,
            &["rollback --port state", "rollback --port state --to off"],
        )
        .await;
        assert_eq!(stages(server, "state").await, "off");
        is_over.store(true, Ordering::SeqCst);
    };
    let ((), ()) = tokio::join!(
        async {
            work_as_others(server, &is_over).await;
        },
        back
    );
    let audit = migration(server, "audit --json").await;
    audit.with(0);
    assert!(
        audit.json().as_array().unwrap().len() > 6,
        "{}",
        audit.stdout
    );
    migration(server, "report").await.with(0);
}

/// Clients whose names are others than before.
async fn work_as_others(server: &TaskServer, is_over: &AtomicBool) {
    let mut number = 0;
    while !is_over.load(Ordering::SeqCst) {
        let body = format!(r#"{{"title":"on the way back {number}"}}"#);
        let created = server.post("/tasks", &body).await;
        assert!(matches!(created.status, 201 | 503), "{}", created.text());
        number += 1;
    }
}
