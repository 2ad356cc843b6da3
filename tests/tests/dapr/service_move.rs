//! A service that moves from Redis to Dapr, with its sidecar beside it, driven by the commands that users have.

use std::sync::atomic::{AtomicUsize, Ordering};

use task_tests::process::dapr::{Neighbours, self_hosted};
use task_tests::process::migration::{migration, stages};
use task_tests::process::{RedisServer, TaskServer, TaskServerOptions};
use task_tests::wait::until;

/// The options of the service as one half of Dapr and one of a Redis of its own.
fn parallel(world: &Neighbours, redis: &str) -> TaskServerOptions {
    let receiver = format!("http://{}", world.receiver.address());
    let words = [
        "--backend",
        "parallel",
        "--old",
        "direct",
        "--new",
        "dapr",
        "--admin-listen",
        "127.0.0.1:0",
        "--redis-url",
        redis,
        "--bus",
        "redis-streams",
        "--notification-url",
        &receiver,
    ];
    TaskServerOptions {
        arguments: words.map(str::to_owned).into(),
        ..world.options()
    }
}

async fn create(server: &TaskServer, title: &str) -> Option<String> {
    let body = format!(r#"{{"title":"{title}"}}"#);
    let created = server.post("/tasks", &body).await;
    assert!(matches!(created.status, 201 | 503), "{}", created.text());
    let id = (created.status == 201).then(|| created.json()["id"].as_str().map(str::to_owned));
    id.flatten()
}

/// A completion goes by the sidecar alone: its bus, and its way to the receiver.
async fn is_notified_once(world: &Neighbours, server: &TaskServer, id: &str) {
    let target = format!("/tasks/{id}/status?status=completed");
    let done = server.send("PUT", &target, &[], "").await;
    assert_eq!(done.status, 200, "{}", done.text());
    until("the completion is notified", async || {
        (world.notified(id).await > 0).then_some(())
    })
    .await;
    assert_eq!(world.notified(id).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_moves_from_redis_to_dapr_while_tasks_are_made_and_stays_there() {
    let components = RedisServer::start().await;
    let world = Neighbours::start(self_hosted(components.port())).await;
    let old = RedisServer::start().await;
    let options = parallel(&world, &old.url());
    let server = world.begin(&options).listening().await;
    let server = server.unwrap_or_else(|log| panic!("{log}\n{}", world.ours.log()));
    migration(&server, "init").await.with(0);
    until("it is ready", async || {
        (server.get("/ready").await.status == 200).then_some(())
    })
    .await;
    let before = create(&server, "before").await.unwrap();

    let stop_at = AtomicUsize::new(usize::MAX);
    let making = async {
        let mut made = Vec::new();
        while made.len() < stop_at.load(Ordering::SeqCst) {
            made.extend(create(&server, &format!("task {}", made.len())).await);
        }
        made
    };
    let moving = async {
        for command in [
            "advance --port state --to dualwrite",
            "backfill start",
            "verify --full",
            "advance --port state --to shadow",
            "advance --port state --to live --confirm no-foreign-writers",
            "advance --port state --to rampdown",
            "rollback --port state",
            "advance --port state --to rampdown",
            "advance --port bus --to shadow",
            "advance --port bus --to live",
            "advance --port notifier --to new",
        ] {
            migration(&server, command).await.with(0);
        }
        stop_at.store(1, Ordering::SeqCst);
    };
    let (mut made, ()) = tokio::join!(making, moving);
    for port in ["bus", "state"] {
        let complete = format!("advance --port {port} --to complete --confirm no-way-back");
        migration(&server, &complete).await.with(0);
    }
    is_notified_once(&world, &server, &before).await;
    assert_eq!(stages(&server, "state").await, "complete");
    made.push(before);
    for id in &made {
        assert_eq!(
            server.get(&format!("/tasks/{id}")).await.status,
            200,
            "{id}"
        );
        assert!(
            world.stored(id).await.is_some(),
            "{id} is not in the sidecar's store"
        );
    }
    assert!(server.stop().success());
    // The sidecar alone has everything, and is all that is needed.
    let server = world.serve().await;
    for id in &made {
        assert_eq!(
            server.get(&format!("/tasks/{id}")).await.status,
            200,
            "{id}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_under_way_to_dapr_starts_without_its_sidecar_and_goes_on_with_it() {
    let components = RedisServer::start().await;
    let mut world = Neighbours::start(self_hosted(components.port())).await;
    let old = RedisServer::start().await;
    let options = parallel(&world, &old.url());
    let server = world.begin(&options).listening().await.unwrap();
    migration(&server, "init").await.with(0);
    let ready = async |server: &TaskServer| {
        until("it is ready", async || {
            (server.get("/ready").await.status == 200).then_some(())
        })
        .await;
    };
    ready(&server).await;
    migration(&server, "advance --port state --to dualwrite")
        .await
        .with(0);
    server.kill();
    world.ours.kill();

    let server = world.begin(&options).listening().await.unwrap();
    ready(&server).await;
    let alone = create(&server, "without the sidecar").await.unwrap();
    world.ours.restart().await;
    until("the sidecar's store has the task", async || {
        world.stored(&alone).await
    })
    .await;
    for command in [
        "backfill start",
        "verify --full",
        "advance --port state --to shadow",
        "advance --port state --to live --confirm no-foreign-writers",
        "advance --port bus --to shadow",
        "advance --port bus --to live",
        "advance --port notifier --to new",
    ] {
        migration(&server, command).await.with(0);
    }
    is_notified_once(&world, &server, &alone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_copies_of_events_behind_a_sidecar_are_compared_with_the_events() {
    let components = RedisServer::start().await;
    let world = Neighbours::start(self_hosted(components.port())).await;
    let old = RedisServer::start().await;
    let options = parallel(&world, &old.url());
    let server = world.begin(&options).listening().await.unwrap();
    for command in [
        "init",
        "advance --port state --to dualwrite",
        "advance --port bus --to shadow",
    ] {
        migration(&server, command).await.with(0);
    }
    let equal = r#"task_migration_event_comparisons_total{finding="equal"} "#;
    until("an event and its copy were found equal", async || {
        create(&server, "compared").await;
        let metrics = server.get("/metrics").await.text();
        let line = metrics.lines().find_map(|line| line.strip_prefix(equal));
        line.filter(|count| *count != "0").map(drop)
    })
    .await;
    let metrics = server.get("/metrics").await.text();
    assert!(
        metrics.contains(r#"comparisons_total{finding="missing"} 0"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn two_sides_that_keep_tasks_in_one_place_are_refused_because_nothing_has_to_be_copied() {
    let components = RedisServer::start().await;
    let world = Neighbours::start(self_hosted(components.port())).await;
    let options = parallel(&world, &components.url());
    let options = options.arg("--redis-layout").arg("dapr");
    let (status, log) = world.begin(&options).wait();
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(log.contains("both keep tasks in one place"), "{log}");
    assert!(
        log.contains("start replicas with the new backend alone"),
        "{log}"
    );
}
