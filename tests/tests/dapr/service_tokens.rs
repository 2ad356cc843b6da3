//! Who may call the service in the sidecar's name: who shows the app token.

use adapters_dapr::CALLBACK_PATHS;
use serde_json::json;
use task_tests::process::RedisServer;
use task_tests::process::dapr::{APP_TOKEN, Neighbours, self_hosted};
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
