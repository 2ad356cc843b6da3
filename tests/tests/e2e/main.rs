//! The program as its users meet it: real processes, real files, real connections.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test ends at the first surprise, and its name says what it shows"
)]

mod cli;
mod concurrency;
mod contract;
mod crash;
mod direct;
mod faults;
mod kafka;
mod legacy;
mod logs;
mod migration;
mod notifications;
mod redis;
mod redis_streams;
mod servers;

use serde_json::Value;
use task_tests::process::{Response, TaskServer};

/// Creates a task and answers its id and its tag as the header has it.
async fn create(server: &TaskServer, title: &str) -> (String, String) {
    let body = serde_json::json!({ "title": title }).to_string();
    let created = server.post("/tasks", &body).await;
    assert_eq!(created.status, 201, "{}", created.text());
    let id = created.json()["id"].as_str().unwrap().to_owned();
    (id, created.header("etag").unwrap().to_owned())
}

/// Asserts that an answer is a problem document with this status and answers it.
fn problem(response: &Response, status: u16) -> Value {
    assert_eq!(response.status, status, "{}", response.text());
    let content_type = response.header("content-type");
    assert_eq!(content_type, Some("application/problem+json"));
    let body = response.json();
    assert_eq!(body["status"], status);
    assert!(
        body["title"].is_string() && body["detail"].is_string(),
        "{body}"
    );
    body
}
