//! Every row of the API's table, through the gate and the router, on volatile adapters.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use task_core::memory::{ManualClock, MemoryEventBus, MemoryNotifier, MemoryStateStore};
use task_core::ports::{ErrorKind, PortError};

use super::{Inbox, Received};
use crate::app::App;
use crate::backend::{Backend, Consumer, Replicas};
use crate::config::Config;

/// The service and the ports that a test moves.
struct Fixture {
    app: App,
    notifier: Arc<MemoryNotifier>,
}

impl Fixture {
    async fn new() -> Self {
        Self::with(None).await
    }

    async fn with(inbox: Option<Arc<dyn Inbox>>) -> Self {
        let notifier = Arc::new(MemoryNotifier::new());
        let backend = Backend {
            store: Arc::new(MemoryStateStore::new(Arc::new(ManualClock::default()))),
            bus: Arc::new(MemoryEventBus::new()),
            notifier: Arc::<MemoryNotifier>::clone(&notifier),
            inbox,
            replicas: Replicas::One,
            consumer: Consumer::default(),
            callbacks: None,
            parting: None,
            profile: serde_json::Value::Null,
            parallel: None,
            place: String::new(),
            receiver: None,
        };
        let mut config = Config::defaults();
        config.limits.max_body_bytes = 4_096;
        Self {
            app: App::over(backend, &config)
                .await
                .expect("the volatile backend fits"),
            notifier,
        }
    }

    async fn send(&self, request: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let (method, path) = request.split_once(' ').expect("a method and a path");
        let mut builder = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let request = builder.body(body.into()).expect("a valid request");
        Answer::of(self.app.gate().answer(request).await).await
    }

    async fn call(&self, request: &str) -> Answer {
        self.send(request, &[], "").await
    }

    /// Creates a task and answers its address.
    async fn task(&self) -> String {
        let created = self.send("POST /tasks", &[], r#"{"title":"a"}"#).await;
        created.header("location").to_owned()
    }
}

struct Answer {
    status: u16,
    headers: axum::http::HeaderMap,
    text: String,
}

impl Answer {
    async fn of(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await;
        Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8(bytes.expect("a whole body").to_vec()).expect("UTF-8"),
        }
    }

    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_else(|| {
            panic!(
                "no header {name} with status {}: {}",
                self.status, self.text
            )
        })
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect("a JSON body")
    }

    /// Checks that the answer is a problem, and answers its detail.
    #[track_caller]
    fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["type"], "about:blank");
        assert_eq!(problem["status"], status);
        let title = StatusCode::from_u16(status)
            .expect("a status")
            .canonical_reason();
        assert_eq!(problem["title"].as_str(), title);
        problem["detail"].as_str().expect("a sentence").to_owned()
    }

    #[track_caller]
    fn pointers(&self) -> Vec<String> {
        self.problem(422);
        let errors = self.json()["errors"].as_array().expect("a list").clone();
        errors
            .iter()
            .map(|e| e["pointer"].as_str().expect("a pointer").to_owned())
            .collect()
    }
}

#[tokio::test]
async fn a_create_answers_the_task_its_address_and_its_tag() {
    let api = Fixture::new().await;
    let body = r#"{"title":"é","description":"d","priority":3,"id":"x","status":"completed"}"#;
    let created = api
        .send("POST /tasks", &[("content-type", "application/json")], body)
        .await;
    assert_eq!(created.status, 201);
    assert_eq!(created.header("content-type"), "application/json");
    assert_eq!(created.header("etag"), "\"0.1\"");
    let id = created.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(created.header("location"), format!("/tasks/{id}"));
    let time = "1970-01-01T00:00:00.000000Z";
    let expected = format!(
        r#"{{"id":"{id}","title":"é","description":"d","status":"pending","priority":3,"created_at":"{time}","updated_at":"{time}"}}"#
    );
    assert_eq!(
        created
            .text
            .replace(created.json()["created_at"].as_str().expect("a time"), time),
        expected
    );
    assert_eq!(
        api.call(&format!("GET /tasks/{id}")).await.text,
        created.text
    );
}

#[tokio::test]
async fn all_invalid_fields_are_reported_at_once() {
    let api = Fixture::new().await;
    let body = r#"{"title":"","description":1,"priority":9}"#;
    let refused = api.send("POST /tasks", &[], body).await;
    assert_eq!(refused.pointers(), ["/title", "/description", "/priority"]);
    assert_eq!(
        refused.json()["errors"][2]["detail"],
        "a priority is 1 to 5, this one is 9"
    );
    assert_eq!(refused.problem(422), "the request has 3 invalid fields");
    let long = json!({ "title": "é".repeat(201) }).to_string();
    assert_eq!(
        api.send("POST /tasks", &[], long).await.pointers(),
        ["/title"]
    );
    assert_eq!(api.send("POST /tasks", &[], "[]").await.pointers(), [""]);
    let task = api.task().await;
    assert_eq!(
        api.send(&format!("PUT {task}"), &[], "{}").await.pointers(),
        ["/title"]
    );
}

#[tokio::test]
async fn what_is_not_json_is_400_and_another_media_type_is_415() {
    let api = Fixture::new().await;
    assert!(
        api.send("POST /tasks", &[], "{")
            .await
            .problem(400)
            .contains("line 1")
    );
    let not_utf8 = api
        .send("POST /tasks", &[], &b"{\"title\":\"\xff\"}"[..])
        .await;
    assert_eq!(not_utf8.problem(400), "the body is not UTF-8 at byte 10");
    let xml = api
        .send(
            "POST /tasks",
            &[("content-type", "text/xml")],
            r#"{"title":"a"}"#,
        )
        .await;
    assert!(xml.problem(415).contains("text/xml"));
    let ld = [("content-type", "application/ld+json; charset=utf-8")];
    assert_eq!(
        api.send("POST /tasks", &ld, r#"{"title":"a"}"#)
            .await
            .status,
        201
    );
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_announced_or_streamed() {
    let api = Fixture::new().await;
    let announced = api
        .send("POST /tasks", &[("content-length", "4097")], "")
        .await;
    assert_eq!(
        announced.problem(413),
        "a body has at most 4096 bytes, this one announces 4097"
    );
    let chunks = (0..5).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1_000]));
    let streamed = Body::from_stream(futures_util::stream::iter(chunks));
    let streamed = api.send("POST /tasks", &[], streamed).await;
    assert_eq!(
        streamed.problem(413),
        "a body has at most 4096 bytes, this one has 5000 or more"
    );
    let mut largest = json!({ "title": "a" }).to_string();
    largest.push_str(&" ".repeat(4_096 - largest.len()));
    assert_eq!(api.send("POST /tasks", &[], largest).await.status, 201);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_end_is_408() {
    let api = Fixture::new().await;
    let endless = Body::from_stream(futures_util::stream::pending::<
        Result<Vec<u8>, std::io::Error>,
    >());
    let slow = api.send("POST /tasks", &[], endless).await;
    assert!(slow.problem(408).contains("30000 ms; nothing was changed"));
}

#[tokio::test]
async fn a_body_in_pieces_is_put_together() {
    let api = Fixture::new().await;
    let pieces = [r#"{"ti"#, r#"tle":"#, r#""abc"}"#].map(Ok::<_, std::io::Error>);
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    assert_eq!(
        api.send("POST /tasks", &[], body).await.json()["title"],
        "abc"
    );
}

#[tokio::test]
async fn an_idempotency_key_makes_a_create_repeatable() {
    let api = Fixture::new().await;
    let key = [("idempotency-key", "order-7")];
    let first = api.send("POST /tasks", &key, r#"{"title":"a"}"#).await;
    let again = api.send("POST /tasks", &key, r#"{"title":"a"}"#).await;
    assert_eq!((again.status, &again.text), (201, &first.text));
    assert_eq!(again.header("etag"), first.header("etag"));
    let other = api.send("POST /tasks", &key, r#"{"title":"b"}"#).await;
    assert!(other.problem(422).contains("another body"));
    let deleted = api
        .call(&format!("DELETE {}", first.header("location")))
        .await;
    assert_eq!((deleted.status, deleted.text.as_str()), (204, ""));
    api.send("POST /tasks", &key, r#"{"title":"a"}"#)
        .await
        .problem(409);
}

#[tokio::test]
async fn a_bad_idempotency_key_is_400_with_limit_and_value() {
    let api = Fixture::new().await;
    let long = "x".repeat(256);
    let detail = api
        .send("POST /tasks", &[("idempotency-key", &long)], "{}")
        .await
        .problem(400);
    assert_eq!(
        detail,
        "Idempotency-Key: a key has 1 to 255 bytes, this one has 256"
    );
    api.send("POST /tasks", &[("idempotency-key", "")], "{}")
        .await
        .problem(400);
    let twice = [("idempotency-key", "a"), ("idempotency-key", "b")];
    api.send("POST /tasks", &twice, "{}").await.problem(400);
}

#[tokio::test]
async fn a_read_is_304_for_a_client_that_has_the_state() {
    let api = Fixture::new().await;
    let get = format!("GET {}", api.task().await);
    for known in ["\"0.1\"", "W/\"0.1\"", "\"9\", \"0.1\"", "*"] {
        let answer = api.send(&get, &[("if-none-match", known)], "").await;
        assert_eq!((answer.status, answer.text.as_str()), (304, ""));
        assert_eq!(answer.header("etag"), "\"0.1\"");
    }
    assert_eq!(
        api.send(&get, &[("if-none-match", "\"0.2\"")], "")
            .await
            .status,
        200
    );
    api.send(&get, &[("if-none-match", "0.1")], "")
        .await
        .problem(400);
}

#[tokio::test]
async fn a_task_that_is_not_there_is_404_character_for_character() {
    let api = Fixture::new().await;
    let long = "x".repeat(129);
    for id in ["missing", "a%20b", "%ff", "a%7C%7Cb", &long] {
        for request in [
            format!("GET /tasks/{id}"),
            format!("DELETE /tasks/{id}"),
            format!("PUT /tasks/{id}/status?status=pending"),
        ] {
            // A missing task beats a precondition.
            let answer = api.send(&request, &[("if-match", "\"0.1\"")], "").await;
            assert_eq!(answer.problem(404), "Task not found", "{request}");
        }
        let edit = api
            .send(&format!("PUT /tasks/{id}"), &[], r#"{"title":"a"}"#)
            .await;
        assert_eq!(edit.problem(404), "Task not found");
    }
}

#[tokio::test]
async fn a_status_is_set_once_and_setting_it_again_changes_nothing() {
    let api = Fixture::new().await;
    let task = api.task().await;
    let done = api
        .call(&format!("PUT {task}/status?status=completed"))
        .await;
    assert_eq!((done.status, done.header("etag")), (200, "\"0.2\""));
    assert_eq!(done.json()["status"], "completed");
    let again = api
        .call(&format!("PUT {task}/status?status=completed"))
        .await;
    assert_eq!(
        (again.text.as_str(), again.header("etag")),
        (done.text.as_str(), "\"0.2\"")
    );
    let encoded = api
        .call(&format!("PUT {task}/status?x=1&status=in%5Fprogress"))
        .await;
    assert_eq!(encoded.json()["status"], "in_progress");
}

#[tokio::test]
async fn a_missing_or_unknown_status_is_422() {
    let api = Fixture::new().await;
    let task = api.task().await;
    for query in [
        "",
        "?",
        "?status",
        "?status=",
        "?status=done",
        "?Status=pending",
    ] {
        let refused = api.call(&format!("PUT {task}/status{query}")).await;
        assert_eq!(refused.pointers(), ["/status"], "{query}");
    }
}

#[tokio::test]
async fn if_match_guards_every_change() {
    let api = Fixture::new().await;
    let task = api.task().await;
    let stale = [("if-match", "\"0.9\", W/\"0.1\"")];
    for request in [
        format!("PUT {task}/status?status=completed"),
        format!("PUT {task}"),
        format!("DELETE {task}"),
    ] {
        let refused = api.send(&request, &stale, r#"{"title":"b"}"#).await;
        refused.problem(412);
        assert_eq!(refused.header("etag"), "\"0.1\"");
        api.send(&request, &[("if-match", "0.1")], r#"{"title":"b"}"#)
            .await
            .problem(400);
    }
    let edit = api
        .send(
            &format!("PUT {task}"),
            &[("if-match", "\"0.1\"")],
            r#"{"title":"b"}"#,
        )
        .await;
    assert_eq!((edit.status, edit.header("etag")), (200, "\"0.2\""));
    assert_eq!(
        api.send(&format!("DELETE {task}"), &[("if-match", "*")], "")
            .await
            .status,
        204
    );
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems() {
    let api = Fixture::new().await;
    assert_eq!(
        api.call("GET /nothing").await.problem(404),
        "there is no route \"/nothing\""
    );
    api.call("GET /tasks/").await.problem(404);
    let refused = api.call("GET /tasks").await;
    refused.problem(405);
    assert_eq!(refused.header("allow"), "POST");
    let refused = api.call("PATCH /tasks/a").await;
    refused.problem(405);
    let mut allowed: Vec<_> = refused.header("allow").split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["DELETE", "GET", "HEAD", "PUT"]);
}

#[tokio::test]
async fn health_is_exactly_what_it_was() {
    let health = Fixture::new().await.call("GET /health").await;
    assert_eq!(
        (health.status, health.text.as_str()),
        (200, r#"{"status":"healthy"}"#)
    );
    assert_eq!(health.header("content-type"), "application/json");
}

#[tokio::test(start_paused = true)]
async fn readiness_names_each_dependency_and_a_dead_notifier_only_degrades() {
    let api = Fixture::new().await;
    let up = json!({ "status": "up" });
    let expected = json!({ "status": "ready", "dependencies": { "state_store": up, "event_bus": up, "notifier": up } });
    assert_eq!(api.call("GET /ready").await.json(), expected);
    api.notifier.refuse(Some(ErrorKind::Unavailable));
    // A second probe at the same time is answered by the first one's look.
    assert_eq!(api.call("GET /ready").await.json(), expected);
    tokio::time::advance(Duration::from_secs(1)).await;
    let degraded = api.call("GET /ready").await;
    assert_eq!(degraded.status, 200);
    let notifier =
        json!({ "status": "degraded", "detail": "memory check: unavailable: told to refuse" });
    assert_eq!(degraded.json()["dependencies"]["notifier"], notifier);
    api.app.stop_being_ready();
    let stopping = api.call("GET /ready").await;
    assert_eq!(
        (stopping.status, stopping.json()["status"].as_str()),
        (503, Some("stopping"))
    );
}

#[derive(Debug)]
struct Empty;

#[async_trait]
impl Inbox for Empty {
    async fn latest(&self, _: usize) -> Result<Received, PortError> {
        Ok(Received {
            count: 7,
            notifications: Vec::new(),
        })
    }
}

#[tokio::test]
async fn the_local_inbox_is_shown_where_there_is_one() {
    let with = Fixture::with(Some(Arc::new(Empty)))
        .await
        .call("GET /notifications")
        .await;
    assert_eq!(with.text, r#"{"count":7,"notifications":[]}"#);
    Fixture::new()
        .await
        .call("GET /notifications")
        .await
        .problem(404);
}

#[tokio::test]
async fn every_described_route_exists_and_the_description_names_every_status_and_header() {
    let api = Fixture::new().await;
    let document = api.call("GET /openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().expect("paths");
    let names: Vec<_> = paths.keys().map(String::as_str).collect();
    let expected = [
        "/tasks",
        "/tasks/{id}",
        "/tasks/{id}/status",
        "/notifications",
        "/health",
        "/ready",
        "/metrics",
        "/openapi.json",
    ];
    let sorted = |mut names: Vec<&str>| {
        names.sort_unstable();
        names.join(" ")
    };
    assert_eq!(sorted(names), sorted(expected.to_vec()));
    for (path, item) in paths {
        // The other direction holds by construction: a route is registered with its description.
        for method in item.as_object().expect("operations").keys() {
            let request = format!("{} {}", method.to_uppercase(), path.replace("{id}", "x"));
            let status = api.call(&request).await.status;
            assert!(status != 405, "{request} is described and not there");
        }
    }
    let statuses = |path: &str, method: &str| {
        let responses = document["paths"][path][method]["responses"]
            .as_object()
            .expect("responses");
        sorted(responses.keys().map(String::as_str).collect())
    };
    assert_eq!(
        statuses("/tasks", "post"),
        "201 400 408 409 413 415 422 500 503"
    );
    assert_eq!(statuses("/tasks/{id}", "get"), "200 304 400 404 500 503");
    assert_eq!(
        statuses("/tasks/{id}", "put"),
        "200 400 404 408 412 413 415 422 500 503"
    );
    assert_eq!(statuses("/tasks/{id}", "delete"), "204 400 404 412 500 503");
    assert_eq!(
        statuses("/tasks/{id}/status", "put"),
        "200 400 404 412 422 500 503"
    );
    let text = document.to_string();
    for header in [
        "ETag",
        "If-Match",
        "If-None-Match",
        "Idempotency-Key",
        "Location",
        "Retry-After",
    ] {
        assert!(
            text.contains(&format!("\"{header}\"")),
            "{header} is not described"
        );
    }
}
