//! What becomes of a notification that the other app does not take.

use std::time::Duration;

use adapters_dapr::{DaprNotifier, SidecarOptions as AdapterOptions, TraceParent};
use axum::http::StatusCode;
use bytes::Bytes;
use serde_json::json;
use task_core::ports::{ErrorKind, Notification, Notifier, Outcome, PortError, Retry};
use task_tests::backends::dapr::connect;
use task_tests::process::dapr::Names;
use task_tests::process::{Sidecar, SidecarOptions};

use super::{APP, adapter};
use crate::app::{Call, DaprApp};

const TRACE_ID: [u8; 16] = [0x0a; 16];

/// One try within half a second, and a breaker that opens at the third failure.
const POLICY: &str = "apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata:
  name: resiliency
spec:
  policies:
    timeouts:
      short: 500ms
    circuitBreakers:
      third:
        maxRequests: 1
        timeout: 60s
        trip: consecutiveFailures >= 3
  targets:
    apps:
      notification-service:
        timeout: short
        circuitBreaker: third
";

fn notification() -> Notification {
    Notification {
        idempotency_key: "key-1".into(),
        body: Bytes::from_static(br#"{"type": "task_completed",  "task_id":"1"}"#),
    }
}

/// A receiver behind its sidecar, and ours.
struct Pair {
    app: DaprApp,
    theirs: Sidecar,
    ours: Sidecar,
    _names: Names,
}

async fn pair(status: u16, resources: &[&str]) -> Pair {
    let names = Names::new();
    let answer = move |call: &Call| {
        let status = StatusCode::from_u16(status).unwrap();
        (call.path == "/notify").then(|| (status, json!("said")))
    };
    let app = DaprApp::start(answer).await;
    let named = |app_id: &str, resources: &[&str]| SidecarOptions {
        names: Some(names.path()),
        ..SidecarOptions::of(app_id, resources)
    };
    let theirs = Sidecar::start(named("notification-service", &[]).beside(app.port)).await;
    let ours = Sidecar::start(named(APP, resources)).await;
    Pair {
        app,
        theirs,
        ours,
        _names: names,
    }
}

fn meaning(error: &PortError) -> (ErrorKind, Retry, Outcome) {
    (error.kind(), error.retryable(), error.outcome())
}

#[tokio::test]
async fn a_notification_arrives_as_it_is_with_key_and_trace() {
    let mut pair = pair(200, &[]).await;
    let mut options = AdapterOptions::default();
    options.trace = || TraceParent::new(TRACE_ID, [7; 8], 1);
    let adapter = connect(&pair.ours, &[], options).unwrap();
    DaprNotifier::new(adapter)
        .notify(&notification())
        .await
        .unwrap();
    let call = pair.app.next("/notify").await;
    assert_eq!(call.body, notification().body);
    assert_eq!(call.headers["idempotency-key"], "key-1");
    assert_eq!(call.headers["content-type"], "application/json");
    let trace = call.headers["traceparent"].to_str().unwrap();
    assert_eq!(trace[3..35], "0a".repeat(16), "the trace goes on");
}

#[tokio::test]
async fn what_the_app_answers_means_what_it_means_without_a_sidecar() {
    use Outcome::{NotApplied, Unknown};
    for (status, expected) in [
        (404, (ErrorKind::Invalid, Retry::Never, NotApplied)),
        (422, (ErrorKind::Invalid, Retry::Never, NotApplied)),
        (403, (ErrorKind::Denied, Retry::Never, NotApplied)),
        (429, (ErrorKind::Throttled, Retry::Maybe, NotApplied)),
        (503, (ErrorKind::Unavailable, Retry::Maybe, NotApplied)),
        (500, (ErrorKind::Unavailable, Retry::Maybe, Unknown)),
        (302, (ErrorKind::Invalid, Retry::Never, NotApplied)),
    ] {
        let pair = pair(status, &[]).await;
        let notifier = DaprNotifier::new(adapter(&pair.ours));
        let error = notifier.notify(&notification()).await.unwrap_err();
        assert_eq!(meaning(&error), expected, "{status}: {error}");
        let text = format!("the app answered {status}");
        assert!(error.to_string().contains(&text), "{error}");
    }
}

#[tokio::test]
async fn an_absent_app_is_unavailable_and_was_not_called() {
    let nothing: [&str; 0] = [];
    let ours = Sidecar::start(SidecarOptions::of(APP, nothing)).await;
    let notifier = DaprNotifier::new(adapter(&ours));
    let error = notifier.notify(&notification()).await.unwrap_err();
    let expected = (ErrorKind::Unavailable, Retry::Maybe, Outcome::NotApplied);
    assert_eq!(meaning(&error), expected, "{error}");
    notifier.check().await.unwrap();
}

#[tokio::test]
async fn a_slow_app_is_a_timeout_by_our_deadline_and_by_the_operators() {
    let unknown = (ErrorKind::Timeout, Retry::Maybe, Outcome::Unknown);
    let slow = pair(200, &[]).await;
    slow.theirs.pause();
    let notifier = DaprNotifier::new(adapter(&slow.ours)).within(Duration::from_millis(300));
    let error = notifier.notify(&notification()).await.unwrap_err();
    assert_eq!(meaning(&error), unknown, "{error}");
    assert!(
        error.to_string().contains("no answer within 300 ms"),
        "{error}"
    );

    let limited = pair(200, &[POLICY]).await;
    limited.theirs.pause();
    let notifier = DaprNotifier::new(adapter(&limited.ours));
    for attempt in 1..=3 {
        let error = notifier.notify(&notification()).await.unwrap_err();
        assert_eq!(meaning(&error), unknown, "attempt {attempt}: {error}");
    }
    let error = notifier.notify(&notification()).await.unwrap_err();
    let open = (ErrorKind::Unavailable, Retry::Maybe, Outcome::NotApplied);
    assert_eq!(meaning(&error), open, "{error}");
    assert!(
        error.to_string().contains("circuit breaker is open"),
        "{error}"
    );
}

#[tokio::test]
async fn without_a_sidecar_nothing_was_sent() {
    let mut pair = pair(200, &[]).await;
    pair.ours.kill();
    let notifier = DaprNotifier::new(adapter(&pair.ours));
    let error = notifier.notify(&notification()).await.unwrap_err();
    let expected = (ErrorKind::Unavailable, Retry::Maybe, Outcome::NotApplied);
    assert_eq!(meaning(&error), expected, "{error}");
    notifier.check().await.unwrap_err();
    pair.ours.restart().await;
    notifier.notify(&notification()).await.unwrap();
    assert_eq!(pair.app.next("/notify").await.body, notification().body);
}
