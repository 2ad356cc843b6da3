//! The trace of a request goes on in all that it makes the sidecars do.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use serde_json::json;
use task_tests::process::RedisServer;
use task_tests::process::dapr::{APP_TOKEN, Neighbours, self_hosted};
use task_tests::wait::until;

use crate::app::{Call, DaprApp};

/// Each span is a line of the sidecar's log.
const TRACING: &str = "  tracing:
    samplingRate: \"1\"
    stdout: true
";

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
/// How the sidecar logs that a span has no parent.
const NOBODY: &str = "0000000000000000";
/// The trace of a header that is to be ignored.
const FORBIDDEN: &str = "11111111111111111111111111111111";

/// A span that the sidecar has logged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    name: String,
    trace: String,
    parent: String,
}

impl Span {
    /// Reads `[NAME] Trace: TRACE Span: PARENT/SPAN …`.
    fn read(line: &str) -> Option<Self> {
        let (before, after) = line.split_once("] Trace: ")?;
        let (trace, after) = after.split_once(" Span: ")?;
        Some(Self {
            name: before.rsplit_once('[')?.1.to_owned(),
            trace: trace.to_owned(),
            parent: after.split_once('/')?.0.to_owned(),
        })
    }

    fn all(world: &Neighbours) -> Vec<Self> {
        world.ours.log().lines().filter_map(Self::read).collect()
    }

    /// Waits for what of a trace the sidecar did last: saved a record, after its note.
    async fn of_trace(world: &Neighbours, trace: &str) -> Vec<Self> {
        until("the spans of the request are logged", async || {
            let all = Self::all(world).into_iter();
            let of_trace: Vec<Self> = all.filter(|span| span.trace == trace).collect();
            let saves = of_trace
                .iter()
                .filter(|span| span.name.contains("SaveState"));
            (saves.count() > 1).then_some(of_trace)
        })
        .await
    }
}

#[tokio::test]
async fn a_request_is_one_trace_with_its_calls_of_the_sidecar() {
    let redis = RedisServer::start().await;
    let resources = self_hosted(redis.port());
    let world = Neighbours::start_with(resources, TRACING, |receiver| receiver.port()).await;
    let server = world.serve().await;
    let create = async |traceparent: &str| {
        let headers = [("traceparent", traceparent)];
        let body = r#"{"title":"traced"}"#;
        let created = server.send("POST", "/tasks", &headers, body).await;
        assert_eq!(created.status, 201, "{}", created.text());
    };
    create(&format!("ff-{FORBIDDEN}-{CALLER}-01")).await;
    create(&format!("00-{TRACE}-{CALLER}-01")).await;
    let spans = Span::of_trace(&world, TRACE).await;
    let parents: BTreeSet<&str> = spans.iter().map(|span| &*span.parent).collect();
    assert_eq!(parents.len(), spans.len(), "a call is a span: {spans:?}");
    assert!(!parents.contains(CALLER), "{spans:?}");

    let all = Span::all(&world);
    assert!(all.iter().all(|span| span.trace != FORBIDDEN), "{all:?}");
    // The refused header left its request a trace, and what happens without a request is a trace each time.
    let is_ours = |span: &&Span| span.name.starts_with("/dapr.proto.runtime");
    let others = all.iter().filter(is_ours);
    let roots: Vec<&Span> = others.filter(|span| span.parent == NOBODY).collect();
    assert!(roots.is_empty(), "calls without a traceparent: {roots:?}");
}

#[tokio::test]
async fn an_event_with_a_trace_is_notified_in_that_trace() {
    let answer = |call: &Call| (call.path == "/notify").then(|| (StatusCode::OK, json!("taken")));
    let mut app = DaprApp::start(answer).await;
    let redis = RedisServer::start().await;
    let resources = self_hosted(redis.port());
    let world = Neighbours::start_with(resources, TRACING, |_| app.port).await;
    let server = world.serve().await;
    let event = json!({
        "specversion": "1.0", "id": "e-1", "source": "task-api", "type": "task.completed", "subject": "t-1",
        "data": {
            "event_type": "task.completed", "task_id": "t-1", "title": "traced", "status": "completed",
            "timestamp": "2099-11-21T02:08:47.911595",
        },
    });
    let traceparent = format!("00-{TRACE}-{CALLER}-01");
    let headers = [
        ("dapr-api-token", APP_TOKEN),
        ("traceparent", &*traceparent),
    ];
    let path = "/events/task-events";
    let answer = server
        .send("POST", path, &headers, &event.to_string())
        .await;
    assert_eq!(answer.json(), json!({"status": "SUCCESS"}));
    let call = app.next("/notify").await;
    let trace = call.headers["traceparent"].to_str().unwrap();
    assert_eq!(&trace[3..35], TRACE);
    assert_ne!(&trace[36..52], CALLER, "a call is a span of its own");
}
