//! Who may call a service in the sidecar's name: who shows the app token.

use adapters_dapr::CALLBACK_PATHS;
use serde_json::json;
use task_tests::process::dapr::{APP_TOKEN, Neighbours, THEIR_APP_TOKEN, self_hosted};
use task_tests::process::{Connection, RedisServer};
use task_tests::wait::until;

const HEADER: &str = "dapr-api-token";

#[tokio::test]
async fn every_route_refuses_a_caller_without_the_app_token() {
    let redis = RedisServer::start().await;
    let world = Neighbours::start(self_hosted(redis.port())).await;
    let server = world.serve().await;
    let forged = json!({
        "specversion": "1.0", "id": "forged-1", "source": "nobody", "type": "task.completed", "subject": "f-1",
        "data": {
            "event_type": "task.completed", "task_id": "f-1", "title": "forged", "status": "completed",
            "timestamp": "2099-11-21T02:08:47.911595",
        },
    });
    let body = forged.to_string();
    for path in CALLBACK_PATHS {
        let path = path.replace("{topic}", "task-events");
        let mut taken = 0;
        for method in ["GET", "PUT", "POST", "DELETE"] {
            for headers in [&[][..], &[(HEADER, "")], &[(HEADER, "wrong")]] {
                let status = server.send(method, &path, headers, &body).await.status;
                assert!(matches!(status, 401 | 405), "{method} {path}: {status}");
            }
            let shown = [(HEADER, APP_TOKEN)];
            if method == "GET" {
                let status = server.send(method, &path, &shown, "").await.status;
                taken += usize::from(status == 200);
            }
        }
        assert_eq!(taken, usize::from(path.starts_with("/dapr")), "{path}");
    }
    assert_eq!(world.notified("f-1").await, 0);
    // With the token it is an event like any other.
    let shown = [(HEADER, APP_TOKEN)];
    let path = "/events/task-events";
    let answer = server.send("POST", path, &shown, &body).await;
    assert_eq!(answer.json(), json!({"status": "SUCCESS"}));
    until("the completion is notified", async || {
        (world.notified("f-1").await == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_receiver_refuses_a_notification_without_the_token_of_its_own_sidecar() {
    let redis = RedisServer::start().await;
    let world = Neighbours::start(self_hosted(redis.port())).await;
    let notify = async |headers: &[(&str, &str)]| {
        let mut receiver = Connection::open(world.receiver.address()).await.unwrap();
        let forged = r#"{"type":"task_completed","task_id":"f-1"}"#;
        let answer = receiver.send("POST", "/notify", headers, forged).await;
        answer.unwrap().status
    };
    for token in ["", "wrong", APP_TOKEN] {
        assert_eq!(notify(&[(HEADER, token)]).await, 401, "{token:?}");
    }
    assert_eq!(notify(&[]).await, 401);
    assert_eq!(world.notified("f-1").await, 0);
    assert_eq!(notify(&[(HEADER, THEIR_APP_TOKEN)]).await, 200);
    assert_eq!(world.notified("f-1").await, 1);

    // Its sidecar shows it, whatever the caller has shown to the caller's.
    let server = world.serve().await;
    let created = server.post("/tasks", r#"{"title":"two tokens"}"#).await;
    let id = created.json()["id"].as_str().unwrap().to_owned();
    let target = format!("/tasks/{id}/status?status=completed");
    assert_eq!(server.send("PUT", &target, &[], "").await.status, 200);
    until("the completion is notified", async || {
        (world.notified(&id).await == 1).then_some(())
    })
    .await;
    let log = world.receiver.log();
    assert!(!log.contains(THEIR_APP_TOKEN), "{log}");
}
