//! From the Redis of the replaced service into the embedded file, to the end: the way back of a trial.

use task_tests::process::migration::{migration, stages};
use task_tests::process::{
    NotificationService, Python, RedisServer, TaskServer, TaskServerOptions, TestDirectory,
};
use task_tests::wait::until;

use super::super::{create, problem};

fn options(backend: &str, redis: &str, receiver: &str) -> TaskServerOptions {
    let own = ["--redis-url", redis, "--bus", "redis-streams"];
    let words = backend.split(' ').chain(own);
    let words = words.chain(["--notification-url", receiver]);
    TaskServerOptions {
        arguments: words.map(str::to_owned).collect(),
        ..TaskServerOptions::default()
    }
}

#[tokio::test]
async fn a_service_moves_from_legacy_redis_into_its_file_and_the_old_one_may_not_write_any_more() {
    let redis = RedisServer::shared().await.next_database_url();
    let receiver = NotificationService::start("127.0.0.1:0");
    let receiver = format!("http://{}", receiver.address());
    let directory = TestDirectory::new("move-to-file");
    let options = |backend: &str| options(backend, &redis, &receiver);
    let parallel = "--backend parallel --old direct --new embedded --admin-listen 127.0.0.1:0";
    let alone = TaskServer::start_with(directory.path(), &options("--backend direct")).await;
    let (before, _) = create(&alone, "before").await;
    let server = TaskServer::begin(directory.path(), &options(parallel));
    let server = server.listening().await.unwrap();
    migration(&server, "init").await.with(0);
    until("it is ready", async || {
        (server.get("/ready").await.status == 200).then_some(())
    })
    .await;
    // As long as everything is off, a service on the old side alone works as ever.
    create(&alone, "beside").await;
    migration(&server, "advance --port state --to dualwrite")
        .await
        .with(0);
    reads_and_may_not_write(&alone, &before).await;

    let (during, _) = create(&server, "during").await;
    is_read_by_the_old_reader(&server, &redis, &during).await;
    // The end has to be confirmed.
    migration(&server, "advance --port state --to complete")
        .await
        .with(2);
    let complete = "advance --port state --to complete --confirm no-way-back";
    migration(&server, complete).await.with(0);
    assert_eq!(stages(&server, "state").await, "complete");
    migration(&server, "rollback --port state --to off")
        .await
        .with(2);
    assert!(server.stop().success());
    let server = TaskServer::start(directory.path()).await;
    for id in [&before, &during] {
        assert_eq!(
            server.get(&format!("/tasks/{id}")).await.status,
            200,
            "{id}"
        );
    }
    create(&server, "after").await;
}

/// The move goes on without a service on the old side alone.
async fn reads_and_may_not_write(alone: &TaskServer, id: &str) {
    let late = alone.post("/tasks", r#"{"title":"past the move"}"#).await;
    let late = problem(&late, 503);
    let detail = late["detail"].as_str().unwrap();
    assert!(detail.contains("nothing was changed"), "{late}");
    assert_eq!(alone.get(&format!("/tasks/{id}")).await.status, 200);
}

/// The replaced service's readers see every write until the end.
async fn is_read_by_the_old_reader(server: &TaskServer, redis: &str, id: &str) {
    for command in [
        "backfill start",
        "verify --full",
        "advance --port state --to shadow",
        "advance --port state --to live --confirm no-foreign-writers",
        "advance --port state --to rampdown",
    ] {
        migration(server, command).await.with(0);
        let read = ["redis_task.py", redis, "read", id];
        let read = Python::shared().await.run(read[0], &read[1..]).await;
        assert!(read.contains("during"), "{command}: {read}");
    }
}
