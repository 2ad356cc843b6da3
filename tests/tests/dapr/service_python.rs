//! The service and a Python service with Dapr's SDK, behind one sidecar: each reads what the other wrote.

use serde_json::{Value, json};
use task_tests::process::dapr::{API_TOKEN, Neighbours, self_hosted};
use task_tests::process::{Python, RedisServer, Sidecar, SidecarOptions, TaskServer};
use task_tests::wait::until;

/// What the script prints; it shows the sidecar's token.
async fn python(sidecar: &Sidecar, arguments: &[&str]) -> String {
    let ports = [sidecar.http_port(), sidecar.grpc_port()].map(|port| port.to_string());
    let arguments = [&[&*ports[0], &*ports[1]], arguments].concat();
    let variables = [("DAPR_API_TOKEN", API_TOKEN)];
    let python = Python::with_dapr().await;
    python
        .run_with("dapr_state.py", &variables, &arguments)
        .await
}

async fn create(server: &TaskServer, title: &str) -> String {
    let body = json!({ "title": title }).to_string();
    let created = server.post("/tasks", &body).await;
    assert_eq!(created.status, 201, "{}", created.text());
    created.json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_service_serves_what_python_saved_and_python_reads_what_the_service_saved() {
    let redis = RedisServer::start().await;
    let world = Neighbours::start(self_hosted(redis.port())).await;
    let server = world.serve().await;
    let theirs = json!({
        "id": "py-1", "title": "from Python", "description": null, "status": "pending", "priority": 3,
        "created_at": "2026-11-21T02:08:47.911595", "updated_at": "2026-11-21T02:08:47.911595", "team": "blue",
    });
    python(&world.ours, &["save", &theirs.to_string()]).await;
    let read = server.get("/tasks/py-1").await;
    assert_eq!(read.status, 200, "{}", read.text());
    let read = read.json();
    assert_eq!(
        (&read["title"], &read["priority"]),
        (&json!("from Python"), &json!(3))
    );
    assert_eq!(read["created_at"], "2026-11-21T02:08:47.911595Z");

    let target = "/tasks/py-1/status?status=in_progress";
    let changed = server.send("PUT", target, &[], "").await;
    assert_eq!(changed.status, 200, "{}", changed.text());
    let id = create(&server, "from the service").await;
    let seen = python(&world.ours, &["get", "py-1", &id, "nobody"]).await;
    let seen: Vec<Value> = seen
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let tasks: Vec<&Value> = seen.iter().map(|one| &one["task"]).collect();
    assert_eq!(
        (&tasks[0]["status"], &tasks[0]["team"]),
        (&json!("in_progress"), &json!("blue"))
    );
    assert_eq!(tasks[1]["title"], "from the service");
    assert_eq!(tasks[2], &Value::Null);

    python(&world.ours, &["update", &id, "title=edited in Python"]).await;
    let read = server.get(&format!("/tasks/{id}")).await.json();
    assert_eq!(read["title"], "edited in Python");
    python(&world.ours, &["delete", &id]).await;
    assert_eq!(server.get(&format!("/tasks/{id}")).await.status, 404);
}

#[tokio::test]
async fn a_completion_that_python_publishes_is_notified_and_python_receives_ours() {
    let redis = RedisServer::start().await;
    let world = Neighbours::start(self_hosted(redis.port())).await;
    let server = world.serve().await;
    let event = json!({
        "event_type": "task.completed", "task_id": "py-1", "title": "from Python", "status": "completed",
        "timestamp": "2099-11-21T02:08:47.911595",
    });
    let event = event.to_string();
    python(&world.ours, &["publish", "task-events", &event]).await;
    until("the completion is notified", async || {
        (world.notified("py-1").await == 1).then_some(())
    })
    .await;

    let id = create(&server, "from the service").await;
    // An app of its own: with the id of the service it would take events away from it.
    let resources = self_hosted(redis.port());
    let audit = Sidecar::start(SidecarOptions {
        api_token: Some(API_TOKEN.to_owned()),
        ..SidecarOptions::of("audit", resources)
    })
    .await;
    let received = python(&audit, &["receive", "task-events", "2"]).await;
    let received: Vec<Value> = received
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let ours = received.iter().find(|one| one["data"]["task_id"] == *id);
    let ours = ours.unwrap_or_else(|| panic!("{received:?}"));
    assert_eq!(
        (&ours["type"], &ours["source"]),
        (&json!("task.created"), &json!("task-api"))
    );
    assert_eq!(ours["data"]["title"], "from the service");
}
