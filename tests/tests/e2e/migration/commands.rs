//! What the commands say before there is anything to move, and when they are refused.

use std::net::TcpListener;

use task_tests::process::migration::{migration, migration_at};
use task_tests::process::{RedisServer, TaskServer, TaskServerOptions, TestDirectory};

use super::super::problem;

fn parallel(old: &str, new: &str) -> TaskServerOptions {
    let words = ["--backend", "parallel", "--old", old, "--new", new];
    let admin = ["--admin-listen", "127.0.0.1:0"];
    TaskServerOptions {
        arguments: [&words[..], &admin]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect(),
        ..TaskServerOptions::default()
    }
}

#[tokio::test]
async fn a_pair_that_cannot_be_moved_between_is_refused_with_its_reason() {
    let directory = TestDirectory::new("pairs");
    for (old, new, reason) in [
        ("embedded", "embedded", "there is nothing to move"),
        ("embedded", "dapr", "move from embedded to direct first"),
        ("dapr", "direct", "a sidecar can neither mark a record"),
        ("dapr", "dapr", "there is nothing to move"),
        ("direct", "direct", "new_redis_url (default): must be set"),
        ("embedded", "direct", "redis_layout (default): must be dapr"),
    ] {
        let options = parallel(old, new)
            .arg("--notification-url")
            .arg("http://127.0.0.1:1");
        let (status, log) = TaskServer::begin(directory.path(), &options).wait();
        assert_eq!(status.code(), Some(2), "{old} {new}: {log}");
        assert!(log.contains(reason), "{old} {new}: {log}");
    }
}

#[tokio::test]
async fn one_database_under_two_names_is_refused() {
    let (directory, redis) = (
        TestDirectory::new("one-database"),
        RedisServer::start().await,
    );
    let url = redis.url();
    let options = parallel("direct", "direct")
        .arg("--notification-url")
        .arg("http://127.0.0.1:1")
        .arg("--bus")
        .arg("redis-streams")
        .arg("--redis-url")
        .arg(&url)
        .arg("--new-redis-url");
    for (other, reason) in [
        (
            url.clone(),
            "new_redis_url (flag): must be another database",
        ),
        (
            url.replace("127.0.0.1", "localhost"),
            "redis_url and new_redis_url are one database",
        ),
    ] {
        let options = options.clone().arg(other);
        let (status, log) = TaskServer::begin(directory.path(), &options).wait();
        assert_eq!(status.code(), Some(2), "{log}");
        assert!(log.contains(reason), "{log}");
    }
}

#[tokio::test]
async fn admin_routes_that_others_reach_need_a_token() {
    let directory = TestDirectory::new("open-admin");
    let options = parallel("embedded", "direct")
        .arg("--notification-url")
        .arg("http://127.0.0.1:1")
        .arg("--admin-listen=0.0.0.0:0");
    let mut options = options;
    options
        .arguments
        .retain(|word| word != "--admin-listen" && word != "127.0.0.1:0");
    let (status, log) = TaskServer::begin(directory.path(), &options).wait();
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(
        log.contains("admin_token_secret (default): must be set"),
        "{log}"
    );
}

#[tokio::test]
async fn nobody_there_is_3_and_nonsense_is_64() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    for words in [
        "status",
        "status --json",
        "backfill status",
        "advance --port state --to live",
    ] {
        let said = migration_at(&address, words).await;
        said.with(3);
        assert!(said.stderr.contains(&address), "{}", said.stderr);
    }
    for words in [
        "",
        "stats",
        "advance --port state",
        "advance --port state --to live --percent 101",
    ] {
        migration_at(&address, words).await.with(64);
    }
    migration_at("not an address", "status").await.with(64);
}

#[tokio::test]
async fn a_token_is_demanded_where_one_is_set_and_is_in_no_output() {
    let directory = TestDirectory::new("token");
    let redis = RedisServer::shared().await;
    let mut options = parallel("embedded", "direct")
        .arg("--notification-url")
        .arg("http://127.0.0.1:1")
        .arg("--redis-url")
        .arg(redis.next_database_url())
        .arg("--redis-layout")
        .arg("dapr")
        .arg("--bus")
        .arg("redis-streams")
        .arg("--admin-token-secret")
        .arg("admin/token");
    options.before = vec![
        "env".to_owned(),
        "TASK_SECRET_ADMIN__TOKEN=canary-71".to_owned(),
    ];
    let server = TaskServer::begin(directory.path(), &options)
        .listening()
        .await
        .unwrap();
    let said = migration(&server, "status").await;
    said.with(2);
    assert!(said.stderr.contains("TASK_ADMIN_TOKEN"), "{}", said.stderr);
    migration(&server, "status --admin-token canary-70")
        .await
        .with(2);
    let said = migration(&server, "status --admin-token canary-71").await;
    assert!(said.with(0).contains("migration init"), "{}", said.stdout);
    let all = server.log() + &said.stdout + &said.stderr;
    assert!(!all.contains("canary"), "{all}");
    problem(&server.get("/migration").await, 404);
}
