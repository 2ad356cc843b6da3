//! A completion reaches its receiver.

use std::time::Duration;

use serde_json::{Value, json};
use task_tests::process::{NotificationService, TaskServer, TaskServerOptions, TestDirectory};
use task_tests::wait::until;

use super::create;

async fn complete(server: &TaskServer, title: &str) -> String {
    let (id, _) = create(server, title).await;
    let target = format!("/tasks/{id}/status?status=completed");
    assert_eq!(server.send("PUT", &target, &[], "").await.status, 200);
    id
}

fn ids(received: &Value) -> Vec<String> {
    let list = received["notifications"].as_array().unwrap();
    let id = |row: &Value| row["notification"]["task_id"].as_str().unwrap().to_owned();
    list.iter().map(id).collect()
}

fn to(receiver: &NotificationService) -> TaskServerOptions {
    to_within(receiver, "1000")
}

fn to_within(receiver: &NotificationService, deliveries: &str) -> TaskServerOptions {
    TaskServerOptions::default()
        .arg("--notification-url")
        .arg(format!("http://{}", receiver.address()))
        .arg("--redelivery-max")
        .arg(deliveries)
        .arg("--redelivery-first-pause-ms")
        .arg("50")
        .arg("--redelivery-longest-pause-ms")
        .arg("200")
}

#[tokio::test]
async fn without_an_address_it_arrives_at_the_local_inbox_which_is_announced() {
    let data = TestDirectory::new("inbox");
    let server = TaskServer::start(data.path()).await;
    assert!(server.log().contains("/notifications"), "{}", server.log());
    let id = complete(&server, "x").await;
    let received = until("the notification arrives", async || {
        let inbox = server.get("/notifications").await.json();
        (inbox["count"] == 1).then_some(inbox)
    })
    .await;
    let expected = json!({
        "type": "task_completed", "task_id": id, "message": format!("Task {id} has been completed"),
    });
    assert_eq!(received["notifications"][0]["notification"], expected);
    let log = server.log();
    assert!(
        log.contains(&format!("Received event: task.completed for task {id}")),
        "{log}"
    );
    assert!(
        log.contains(&format!("Notification sent for task {id}")),
        "{log}"
    );
}

#[tokio::test]
async fn with_an_address_each_arrives_exactly_once_also_over_restarts() {
    let data = TestDirectory::new("receiver");
    let receiver = NotificationService::start("127.0.0.1:0");
    let mut expected = Vec::new();
    for _ in 0..3 {
        let server = TaskServer::start_with(data.path(), &to(&receiver)).await;
        for n in 0..20 {
            expected.push(complete(&server, &n.to_string()).await);
        }
        server.kill();
    }
    let server = TaskServer::start_with(data.path(), &to(&receiver)).await;
    let received = until("all notifications arrive", async || {
        let received = receiver.received().await;
        (received["count"] == expected.len()).then_some(received)
    })
    .await;
    let mut arrived = ids(&received);
    arrived.sort();
    expected.sort();
    assert_eq!(arrived, expected);
    drop(server);
    assert_eq!(receiver.received().await["count"], expected.len());
}

#[tokio::test]
async fn a_receiver_that_was_away_gets_everything_when_it_is_back() {
    let data = TestDirectory::new("receiver-away");
    let receiver = NotificationService::start("127.0.0.1:0");
    let address = receiver.address().to_string();
    let options = to(&receiver);
    receiver.kill();
    let server = TaskServer::start_with(data.path(), &options).await;
    let mut expected = Vec::new();
    for n in 0..10 {
        expected.push(complete(&server, &n.to_string()).await);
    }
    until("a failure is reported", async || {
        server.log().contains("circuit opened").then_some(())
    })
    .await;
    let ready = server.get("/ready").await;
    assert_eq!(
        ready.status, 200,
        "a missing receiver must not stop the service"
    );

    let receiver = NotificationService::start(&address);
    let received = until("all notifications arrive", async || {
        let received = receiver.received().await;
        (received["count"] == expected.len()).then_some(received)
    })
    .await;
    let mut arrived = ids(&received);
    arrived.sort();
    expected.sort();
    assert_eq!(arrived, expected);
    // However many attempts there were: it fails, the circuit opens; readiness, once it was asked.
    let log = server.log();
    assert!(log.contains("calls succeed again"), "{log}");
    assert!(log.matches("WARN").count() <= 3, "{log}");
}

#[tokio::test]
async fn a_receiver_that_lets_nobody_in_uses_up_no_event() {
    let data = TestDirectory::new("receiver-denies");
    let before = [
        "env",
        "APP_API_TOKEN=canary6c20",
        "DAPR_HTTP_PORT=tcp://10.0.0.1:80",
    ];
    let receiver = NotificationService::start_with(&before, "127.0.0.1:0");
    let address = receiver.address().to_string();
    let options = to_within(&receiver, "2");
    let server = TaskServer::start_with(data.path(), &options).await;
    let id = complete(&server, "x").await;
    until("it is denied again and again", async || {
        let denied = receiver
            .log()
            .matches("does not show the app token")
            .count();
        (denied > 5).then_some(())
    })
    .await;
    let log = receiver.log();
    assert!(log.contains("POST /notify asks for the app token"), "{log}");
    assert!(!log.contains("canary6c20"), "{log}");
    let log = server.log();
    assert!(!log.contains("dead letter"), "{log}");
    assert_eq!(log.matches("calls fail").count(), 1, "{log}");
    assert!(log.contains("denied: the receiver answered 401"), "{log}");
    receiver.kill();
    let receiver = NotificationService::start(&address);
    let received = until("the notification arrives", async || {
        let received = receiver.received().await;
        (received["count"] == 1).then_some(received)
    })
    .await;
    assert_eq!(ids(&received), [id]);
}

#[tokio::test]
async fn the_receiver_prints_and_counts_each_key_once() {
    let receiver = NotificationService::start("127.0.0.1:0");
    let mut connection = task_tests::process::Connection::open(receiver.address())
        .await
        .unwrap();
    let body = r#"{"type":"task_completed","task_id":"t-1","message":"m"}"#;
    for _ in 0..3 {
        let key = [("idempotency-key", "k-1")];
        let answer = connection
            .send("POST", "/notify", &key, body)
            .await
            .unwrap();
        assert_eq!(answer.status, 200);
    }
    assert_eq!(
        connection
            .send("POST", "/notify", &[], "{")
            .await
            .unwrap()
            .status,
        400
    );
    let received = receiver.received().await;
    assert_eq!(received["count"], 1);
    assert_eq!(received["notifications"][0]["idempotency_key"], "k-1");
    tokio::time::timeout(Duration::from_secs(10), async {
        until("it is printed", async || {
            receiver.log().contains("t-1").then_some(())
        })
        .await;
    })
    .await
    .unwrap();
    assert_eq!(receiver.log().matches("t-1").count(), 1);
}
