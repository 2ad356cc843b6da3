//! The real Dapr that other tests stand on does what those tests assume.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};
use task_tests::process::dapr::{Component, Names, Placement, Scheduler, Sentry, self_hosted};
use task_tests::process::{
    KafkaBroker, PostgresServer, Python, RedisServer, Sidecar, SidecarOptions, postgres, redis,
};
use task_tests::wait::until;

use crate::app::{Call, DaprApp};

/// How long something that must not answer is listened to.
const SILENCE: Duration = Duration::from_millis(500);

const STATE: &str = "/v1.0/state/statestore";

/// An app that subscribes to `task-events` and takes everything.
async fn subscriber() -> DaprApp {
    let answer = |call: &Call| match call.path.as_str() {
        "/dapr/subscribe" => {
            let route = json!({"pubsubname": "pubsub", "topic": "task-events", "route": "/events"});
            Some((StatusCode::OK, json!([route])))
        }
        "/events" => Some((StatusCode::OK, json!({"status": "SUCCESS"}))),
        _ => None,
    };
    DaprApp::start(answer).await
}

async fn publish(sidecar: &Sidecar, event: &Value) {
    let path = "/v1.0/publish/pubsub/task-events";
    let answer = sidecar.send("POST", path, &[], &event.to_string()).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
}

async fn save(sidecar: &Sidecar, key: &str, value: &Value) {
    let body = json!([{"key": key, "value": value}]).to_string();
    let answer = sidecar.send("POST", STATE, &[], &body).await;
    assert_eq!(answer.status, 204, "{}", answer.text());
}

/// What the script with the SDK prints.
async fn python(sidecar: &Sidecar, arguments: &[&str]) -> String {
    let ports = [sidecar.http_port(), sidecar.grpc_port()].map(|port| port.to_string());
    let arguments = [&[&*ports[0], &*ports[1]], arguments].concat();
    let python = Python::with_dapr().await;
    python.run("dapr_state.py", &arguments).await
}

async fn read(sidecar: &Sidecar, key: &str) -> Value {
    let answer = sidecar
        .send("GET", &format!("{STATE}/{key}"), &[], "")
        .await;
    assert_eq!(answer.status, 200, "{key}: {}", answer.text());
    answer.json()
}

#[tokio::test]
async fn a_task_is_the_same_hash_for_the_sidecar_for_redis_and_for_python() {
    let server = RedisServer::shared().await;
    let url = server.next_database_url();
    let store = Component::redis_state("statestore", &url).with("actorStateStore", "true");
    let sidecar = Sidecar::start(SidecarOptions::of("task-api", [store])).await;
    let task = json!({"id": "1", "title": "first", "description": null, "priority": 2});
    save(&sidecar, "task-1", &task).await;
    let field = async |name: &str| {
        let words = ["HGET", "task-api||task-1", name];
        let value = redis::command(&url, &words).await;
        ::redis::from_redis_value::<String>(value).unwrap()
    };
    let stored: Value = serde_json::from_str(&field("data").await).unwrap();
    assert_eq!(stored, task);
    assert_eq!(field("version").await, "1");

    let run = async |arguments: &[&str]| python(&sidecar, arguments).await;
    let seen: Value = serde_json::from_str(&run(&["get", "1"]).await).unwrap();
    assert_eq!(seen, json!({"task": task, "etag": "1"}));
    run(&["update", "1", "title=second"]).await;
    assert_eq!(read(&sidecar, "task-1").await["title"], "second");
    assert_eq!(field("version").await, "2");
    run(&["delete", "1"]).await;
    let gone: Value = serde_json::from_str(&run(&["get", "1"]).await).unwrap();
    assert_eq!(gone["task"], Value::Null);
    let gone = sidecar
        .send("GET", &format!("{STATE}/task-1"), &[], "")
        .await;
    assert_eq!(gone.status, 204);
}

#[tokio::test]
async fn an_event_reaches_the_app_on_every_pubsub_and_from_python() {
    let server = RedisServer::shared().await;
    let broker = KafkaBroker::shared().await;
    broker.create_topic("task-events", 1).await;
    let pubsubs = [
        Component::redis_pubsub("pubsub", &server.next_database_url()),
        Component::kafka_pubsub("pubsub", broker),
        Component::in_memory_pubsub("pubsub"),
    ];
    for pubsub in pubsubs {
        let mut app = subscriber().await;
        let options = SidecarOptions::of("task-api", [pubsub]).beside(app.port);
        let sidecar = Sidecar::start(options).await;
        let event = json!({"event_type": "task.created", "task_id": "1"});
        publish(&sidecar, &event).await;
        let delivered = app.next("/events").await.json();
        assert_eq!(delivered["data"], event);
        assert_eq!(delivered["topic"], "task-events");

        let event = json!({"event_type": "task.completed", "task_id": "1"});
        python(&sidecar, &["publish", "task-events", &event.to_string()]).await;
        assert_eq!(app.next("/events").await.json()["data"], event);
    }
}

#[tokio::test]
async fn python_receives_what_was_published_before_it_came() {
    let server = RedisServer::shared().await;
    let pubsub = Component::redis_pubsub("pubsub", &server.next_database_url());
    let sidecar = Sidecar::start(SidecarOptions::of("task-api", [pubsub])).await;
    let event = json!({"event_type": "task.completed", "task_id": "1"});
    publish(&sidecar, &event).await;
    let received = python(&sidecar, &["receive", "task-events", "1"]).await;
    let received: Value = serde_json::from_str(&received).unwrap();
    assert_eq!(received["data"], event);
    assert_eq!(received["source"], "task-api");
}

#[tokio::test]
async fn the_self_hosted_resources_deliver_again_what_the_app_could_not_take() {
    let server = RedisServer::start().await;
    let tries = Arc::new(AtomicU32::new(0));
    let answer = {
        let tries = Arc::clone(&tries);
        move |call: &Call| {
            let first =
                call.path == "/events/task-events" && tries.fetch_add(1, Ordering::SeqCst) == 0;
            let status = if first { "RETRY" } else { "SUCCESS" };
            let known = matches!(call.path.as_str(), "/events/task-events");
            known.then(|| (StatusCode::OK, json!({ "status": status })))
        }
    };
    let mut app = DaprApp::start(answer).await;
    let options = SidecarOptions::of("task-api", self_hosted(server.port())).beside(app.port);
    let sidecar = Sidecar::start(options).await;
    let event = json!({"event_type": "task.completed", "task_id": "1"});
    publish(&sidecar, &event).await;
    let first = app.next("/events/task-events").await.json();
    let second = app.next("/events/task-events").await.json();
    assert_eq!(first["data"], event);
    assert_eq!(first["id"], second["id"]);
    let dead = server.command(&["EXISTS", "task-events.dead"]).await;
    assert_eq!(dead, ::redis::Value::Int(0));

    let metadata = sidecar.send("GET", "/v1.0/metadata", &[], "").await.json();
    let components = metadata["components"].as_array().unwrap().iter();
    let names: BTreeSet<&str> = components
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        BTreeSet::from(["kubernetes-secrets", "pubsub", "statestore"])
    );
}

#[tokio::test]
async fn a_sidecar_works_again_after_a_kill_a_pause_and_a_stop() {
    let server = RedisServer::shared().await;
    let url = server.next_database_url();
    let mut app = subscriber().await;
    let resources = [
        Component::redis_state("statestore", &url),
        Component::redis_pubsub("pubsub", &url),
    ];
    let options = SidecarOptions::of("task-api", resources).beside(app.port);
    let mut sidecar = Sidecar::start(options).await;
    let (ports, id) = ((sidecar.http_port(), sidecar.grpc_port()), sidecar.id());
    save(&sidecar, "task-1", &json!("first")).await;

    sidecar.kill();
    let refused = tokio::net::TcpStream::connect(("127.0.0.1", ports.0)).await;
    assert!(refused.is_err(), "a killed sidecar listens");
    sidecar.restart().await;
    assert_eq!((sidecar.http_port(), sidecar.grpc_port()), ports);
    assert_ne!(sidecar.id(), id);
    assert_eq!(read(&sidecar, "task-1").await, "first");
    publish(&sidecar, &json!({"number": 1})).await;
    assert_eq!(app.next("/events").await.json()["data"]["number"], 1);

    sidecar.pause();
    let silent = tokio::time::timeout(SILENCE, read(&sidecar, "task-1")).await;
    assert!(silent.is_err(), "a paused sidecar answers {silent:?}");
    sidecar.resume();
    assert_eq!(read(&sidecar, "task-1").await, "first");

    sidecar.stop().await;
    sidecar.restart().await;
    publish(&sidecar, &json!({"number": 2})).await;
    assert_eq!(app.next("/events").await.json()["data"]["number"], 2);
}

#[tokio::test]
async fn a_sidecar_calls_another_by_its_name_with_both_tokens() {
    let names = Names::new();
    let secrets = names.path().with_file_name("secrets.json");
    fs::write(&secrets, r#"{"api-key": "hunter2"}"#).unwrap();
    let answer = |call: &Call| (call.path == "/notify").then(|| (StatusCode::OK, json!("taken")));
    let mut app = DaprApp::start(answer).await;
    let none: [&str; 0] = [];
    let _receiver = Sidecar::start(SidecarOptions {
        names: Some(names.path()),
        app_token: Some("apptoken".to_owned()),
        ..SidecarOptions::of("notification-service", none).beside(app.port)
    })
    .await;
    let caller = Sidecar::start(SidecarOptions {
        names: Some(names.path()),
        api_token: Some("apitoken".to_owned()),
        ..SidecarOptions::of("task-api", [Component::local_secrets("secrets", &secrets)])
    })
    .await;
    let path = "/v1.0/invoke/notification-service/method/notify";
    let answer = caller.send("POST", path, &[], r#"{"task_id":"1"}"#).await;
    assert_eq!((answer.status, answer.json()), (200, json!("taken")));
    let call = app.next("/notify").await;
    assert_eq!(call.json()["task_id"], "1");
    assert_eq!(call.headers["dapr-api-token"], "apptoken");

    let path = "/v1.0/secrets/secrets/api-key";
    let secret = caller.send("GET", path, &[], "").await;
    assert_eq!(secret.json(), json!({"api-key": "hunter2"}));
    let stranger = [("dapr-api-token", "wrong")];
    let refused = caller.send("GET", path, &stranger, "").await;
    assert_eq!(refused.status, 401);
}

#[tokio::test]
async fn a_reminder_reaches_its_actor_and_the_sidecar_stays_on_loopback() {
    let server = RedisServer::shared().await;
    let (placement, scheduler) = (Placement::start().await, Scheduler::start().await);
    let answer = |call: &Call| match call.path.as_str() {
        "/dapr/config" => Some((StatusCode::OK, json!({"entities": ["Task"]}))),
        path if path.starts_with("/actors/Task/1") => Some((StatusCode::OK, json!("done"))),
        _ => None,
    };
    let mut app = DaprApp::start(answer).await;
    let store = Component::redis_state("statestore", &server.next_database_url());
    let sidecar = Sidecar::start(SidecarOptions {
        placement: Some(placement.address()),
        scheduler: Some(scheduler.address()),
        ..SidecarOptions::of("task-api", [store.with("actorStateStore", "true")]).beside(app.port)
    })
    .await;
    let method = "/v1.0/actors/Task/1/method/get";
    until("the actor answers", async || {
        let answer = sidecar.send("PUT", method, &[], "").await;
        (answer.status == 200).then_some(())
    })
    .await;
    let reminder = "/v1.0/actors/Task/1/reminders/deadline";
    let body = r#"{"dueTime":"0s","data":"late"}"#;
    let registered = sidecar.send("POST", reminder, &[], body).await;
    assert_eq!(registered.status, 204, "{}", registered.text());
    let reminded = app.next("/actors/Task/1/method/remind/deadline").await;
    assert_eq!(reminded.json()["data"], "late");

    assert_eq!(beyond_loopback(sidecar.id()), [""; 0]);
    // Their health port cannot be told where to listen.
    for id in [placement.id(), scheduler.id()] {
        let open = beyond_loopback(id);
        assert_eq!(open.len(), 1, "{id} listens on {open:?}");
    }
}

/// Addresses beyond loopback that a process listens on, as the kernel writes them.
fn beyond_loopback(id: u32) -> Vec<String> {
    const LISTEN: &str = "0A";
    const LOOPBACK: &str = "0100007F:";
    let folder = Path::new("/proc").join(id.to_string());
    let files = fs::read_dir(folder.join("fd")).unwrap().flatten();
    let sockets: BTreeSet<String> = files
        .filter_map(|file| fs::read_link(file.path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .collect();
    let tables = ["tcp", "tcp6"].map(|name| fs::read_to_string(folder.join("net").join(name)));
    let tables = tables.map(Result::unwrap_or_default).concat();
    let rows = tables
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(3) == Some(&LISTEN))
        .filter(|row| sockets.contains(&format!("socket:[{}]", row[9])))
        .map(|row| row[1].to_owned())
        .filter(|address| !address.starts_with(LOOPBACK))
        .collect()
}

#[tokio::test]
async fn sidecars_trust_each_other_by_certificates_of_sentry() {
    let sentry = Sentry::start().await;
    let names = Names::new();
    let anchors = fs::read_to_string(sentry.trust_anchors()).unwrap();
    let answer = |call: &Call| (call.path == "/notify").then(|| (StatusCode::OK, json!("taken")));
    let app = DaprApp::start(answer).await;
    let encrypted = |app_id: &str| {
        let none: [&str; 0] = [];
        let mut options = SidecarOptions::of(app_id, none);
        options.names = Some(names.path());
        options.arguments = vec![
            "--enable-mtls".to_owned(),
            format!("--sentry-address={}", sentry.address()),
        ];
        options.environment = vec![("DAPR_TRUST_ANCHORS".to_owned(), anchors.clone())];
        options
    };
    let _receiver = Sidecar::start(encrypted("notification-service").beside(app.port)).await;
    let caller = Sidecar::start(encrypted("task-api")).await;
    let path = "/v1.0/invoke/notification-service/method/notify";
    let answer = caller.send("POST", path, &[], "{}").await;
    assert_eq!(answer.json(), json!("taken"));

    let none: [&str; 0] = [];
    let stranger = Sidecar::start(SidecarOptions {
        names: Some(names.path()),
        ..SidecarOptions::of("stranger", none)
    })
    .await;
    let refused = stranger.send("POST", path, &[], "{}").await;
    assert_eq!(refused.status, 500, "{}", refused.text());
}

#[tokio::test]
async fn a_task_in_postgres_survives_a_kill_a_pause_and_a_stop() {
    let mut server = PostgresServer::start().await;
    let connection = server.create_database().await;
    let store = Component::postgres_state("statestore", &connection);
    let sidecar = Sidecar::start(SidecarOptions::of("task-api", [store])).await;
    save(&sidecar, "task-1", &json!("first")).await;
    let statement = "SELECT key FROM state";
    let keys = postgres::query(&connection, statement).await;
    assert_eq!(keys.trim(), "task-api||task-1");

    server.pause();
    let silent = tokio::time::timeout(SILENCE, read(&sidecar, "task-1")).await;
    assert!(silent.is_err(), "a paused server answers {silent:?}");
    server.resume();
    assert_eq!(read(&sidecar, "task-1").await, "first");

    server.pause();
    server.kill();
    let refused = postgres::try_query(&connection, "SELECT 1").await;
    assert!(refused.is_err(), "a killed server answers {refused:?}");
    server.restart().await;
    until("the sidecar has found the server again", async || {
        let answer = sidecar
            .send("GET", &format!("{STATE}/task-1"), &[], "")
            .await;
        (answer.status == 200).then_some(())
    })
    .await;
    server.stop().await;
    server.restart().await;
    assert_eq!(postgres::query(&connection, statement).await, keys);
}
