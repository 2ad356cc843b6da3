//! What is behind the sidecar is its own business: other components, the same service.

use serde_json::json;
use task_tests::process::dapr::{Component, Neighbours, self_hosted};
use task_tests::process::{KafkaBroker, PostgresServer, RedisServer, TaskServerOptions};
use task_tests::wait::until;

/// A task from its creation to its deletion; answers what the service was started with.
async fn session(resources: Vec<String>) -> TaskServerOptions {
    let world = Neighbours::start(resources).await;
    let server = world.serve().await;
    let created = server.post("/tasks", r#"{"title":"moved"}"#).await;
    assert_eq!(created.status, 201, "{}", created.text());
    let id = created.json()["id"].as_str().unwrap().to_owned();
    let target = format!("/tasks/{id}");
    let stored = world.stored(&id).await.expect("the store has it");
    assert_eq!(stored["title"], "moved");
    assert_eq!(server.get(&target).await.json()["title"], "moved");
    let stale = [("if-match", "\"0.7\"")];
    let edit = r#"{"title":"edited"}"#;
    assert_eq!(server.send("PUT", &target, &stale, edit).await.status, 412);
    assert_eq!(server.send("PUT", &target, &[], edit).await.status, 200);
    let completed = format!("{target}/status?status=completed");
    assert_eq!(server.send("PUT", &completed, &[], "").await.status, 200);
    until("the completion is notified", async || {
        (world.notified(&id).await == 1).then_some(())
    })
    .await;
    assert_eq!(world.stored(&id).await.unwrap()["status"], "completed");
    assert_eq!(server.send("DELETE", &target, &[], "").await.status, 204);
    assert_eq!(server.get(&target).await.status, 404);
    assert_eq!(server.get("/ready").await.status, 200);
    assert!(server.stop().success());
    world.options()
}

/// The self-hosted resources but for one component, in whose place another one stands.
fn with(mut resources: Vec<String>, name: &str, component: &Component) -> Vec<String> {
    let before = resources.len();
    let named = format!("kind: Component\nmetadata:\n  name: {name}\n");
    resources.retain(|text| !text.contains(&named));
    assert_eq!(resources.len(), before - 1, "one component is {name}");
    resources.push(component.to_string());
    resources
}

#[tokio::test]
async fn redis_postgres_and_kafka_are_swapped_by_yaml_alone() {
    let redis = RedisServer::start().await;
    let on_redis = self_hosted(redis.port());
    let postgres = PostgresServer::start().await;
    let connection = postgres.create_database().await;
    let store = Component::postgres_state("statestore", &connection);
    let on_postgres = with(on_redis.clone(), "statestore", &store);
    let broker = KafkaBroker::start().await;
    broker.create_topic("task-events", 2).await;
    let bus = Component::kafka_pubsub("pubsub", &broker);
    let on_kafka = with(on_postgres.clone(), "pubsub", &bus);

    let mut words = Vec::new();
    for resources in [on_redis, on_postgres, on_kafka] {
        let options = session(resources).await;
        // Ports differ, nothing else does.
        let mut started = options.before.clone();
        started.extend(options.arguments);
        started.retain(|word| !word.contains("_PORT="));
        words.push(json!(started));
    }
    assert!(words.windows(2).all(|pair| pair[0] == pair[1]), "{words:?}");
}
