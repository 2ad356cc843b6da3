//! What the resiliency of this repository makes of refusals: no call is repeated, and none holds up the next one.

use axum::http::StatusCode;
use serde_json::json;
use task_tests::process::dapr::{Names, self_hosted};
use task_tests::process::{RedisServer, Sidecar, SidecarOptions};

use crate::app::{Call, DaprApp};

/// More refusals than any breaker takes for an accident.
const REFUSALS: usize = 20;

#[tokio::test]
async fn a_refused_call_is_not_repeated_and_the_next_one_gets_through() {
    let server = RedisServer::start().await;
    let names = Names::new();
    let answer = |call: &Call| (call.path == "/notify").then(|| (StatusCode::OK, json!("taken")));
    let mut app = DaprApp::start(answer).await;
    let start = async |app_id: &str, port: Option<u16>| {
        let options = SidecarOptions::of(app_id, self_hosted(server.port()));
        let options = port.into_iter().fold(options, SidecarOptions::beside);
        let names = Some(names.path());
        Sidecar::start(SidecarOptions { names, ..options }).await
    };
    let _receiver = start("notification-service", Some(app.port)).await;
    let caller = start("task-api", None).await;
    let call = async |method: &str| {
        let path = format!("/v1.0/invoke/notification-service/method/{method}");
        caller.send("POST", &path, &[], "{}").await.status
    };
    for _ in 0..REFUSALS {
        assert_eq!(call("missing").await, 404);
    }
    assert_eq!(call("notify").await, 200);
    for _ in 0..REFUSALS {
        app.next("/missing").await;
    }
    assert_eq!(app.following().await.path, "/notify");
}
