//! A small real receiver of notifications: it prints each one and shows the latest.
//!
//! Beside a sidecar that shows an app token (`APP_API_TOKEN`), it takes notifications from that sidecar alone.

use std::collections::{HashSet, VecDeque};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde_json::value::RawValue;
use task_core::domain::{FieldError, IdempotencyKey};
use task_core::ports::{Clock, PortError, SystemClock};

use crate::app::StartError;
use crate::backend;
use crate::config::{Config, Limits};
use crate::http::notifications::MAX_LISTED;
use crate::http::{self, Gate, Inbox, JsonText, Problem, Received, ReceivedNotification};

/// Most idempotency keys that are remembered; the oldest is forgotten first.
const MAX_KEYS: usize = 100_000;

/// What has been received. It lives and dies with the process.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    state: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    count: u64,
    latest: VecDeque<ReceivedNotification>,
    keys: HashSet<Arc<str>>,
    order: VecDeque<Arc<str>>,
}

/// The answer to a notification.
#[derive(Debug, Serialize)]
struct Accepted {
    /// `received`, or `duplicate` for a key that was seen before.
    status: &'static str,
}

/// Largest notification; the list that is kept is bounded by it.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// The routes of the notification service behind their limits.
///
/// # Errors
/// There is an app token, and this build cannot ask for one, or it is none.
pub fn gate(config: &Config) -> Result<Gate, StartError> {
    let limits = Limits {
        max_body_bytes: config.limits.max_body_bytes.min(MAX_BODY_BYTES),
        ..config.limits.clone()
    };
    Ok(Gate::new(router(config)?, &limits))
}

fn router(config: &Config) -> Result<Router, StartError> {
    let receiver = Arc::new(Receiver::default());
    let notified = Router::new().route("/notify", post(notify));
    let notified = notified.with_state(Arc::clone(&receiver));
    let for_people = Router::new()
        .route("/notifications", get(list))
        .route("/health", get(http::health::health))
        .with_state(receiver);
    let router = for_people.merge(backend::with_app_token(notified, config)?);
    Ok(http::with_fallbacks(router))
}

async fn notify(
    State(receiver): State<Arc<Receiver>>,
    headers: HeaderMap,
    body: JsonText,
) -> Result<Response, Problem> {
    let key = http::idempotency_key(&headers)?;
    let text = String::from_utf8(body.into_bytes().into())
        .map_err(|_| Problem::bad_request("the body is not UTF-8"))?;
    let raw = RawValue::from_string(text)
        .map_err(|error| Problem::bad_request(format!("the body is not JSON: {error}")))?;
    if !raw.get().starts_with('{') {
        let error = FieldError::new("", "a notification is a JSON object");
        return Err(Problem::invalid(vec![error]));
    }
    let is_new = receiver.take(key.as_ref(), raw);
    let status = if is_new { "received" } else { "duplicate" };
    Ok((StatusCode::OK, axum::Json(Accepted { status })).into_response())
}

async fn list(State(receiver): State<Arc<Receiver>>) -> Result<Response, Problem> {
    http::notifications::list(&*receiver).await
}

impl Receiver {
    /// Keeps and prints a notification; false when its key was seen before.
    fn take(&self, key: Option<&IdempotencyKey>, notification: Box<RawValue>) -> bool {
        let mut memory = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if key.is_some_and(|key| !memory.remember(key)) {
            return false;
        }
        let received = ReceivedNotification {
            idempotency_key: key.map(|key| key.as_str().into()),
            received_at: SystemClock.now(),
            notification: notification.into(),
        };
        memory.count += 1;
        if memory.latest.len() == MAX_LISTED {
            memory.latest.pop_front();
        }
        memory.latest.push_back(received.clone());
        drop(memory);
        print(&received);
        true
    }
}

impl Memory {
    /// False when the key is known.
    fn remember(&mut self, key: &IdempotencyKey) -> bool {
        if self.keys.contains(key.as_str()) {
            return false;
        }
        if self.order.len() == MAX_KEYS
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
        let key: Arc<str> = key.as_str().into();
        self.keys.insert(Arc::clone(&key));
        self.order.push_back(key);
        true
    }
}

#[async_trait]
impl Inbox for Receiver {
    async fn latest(&self, limit: usize) -> Result<Received, PortError> {
        let memory = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = memory.latest.len().saturating_sub(limit);
        Ok(Received {
            count: memory.count,
            notifications: memory.latest.iter().skip(skipped).cloned().collect(),
        })
    }
}

/// Prints one line. Line breaks of a JSON text stand between tokens only, so a space does as well.
fn print(received: &ReceivedNotification) {
    let Ok(mut line) = serde_json::to_vec(received) else {
        return;
    };
    for byte in &mut line {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    line.push(b'\n');
    if let Err(error) = std::io::stdout().lock().write_all(&line) {
        tracing::warn!(%error, "cannot print a notification");
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use serde_json::Value;

    use super::*;

    async fn send(gate: &Gate, request: &str, key: Option<&str>, body: &str) -> (u16, Value) {
        let (method, path) = request.split_once(' ').expect("a method and a path");
        let mut builder = Request::builder().method(method).uri(path);
        if let Some(key) = key {
            builder = builder.header("idempotency-key", key);
        }
        let request = builder.body(Body::from(body.to_owned()));
        let response = gate.answer(request.expect("a valid request")).await;
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await;
        let json = serde_json::from_slice(&bytes.expect("a whole body"));
        (status, json.expect("a JSON body"))
    }

    #[tokio::test]
    async fn a_repeated_key_is_accepted_and_counted_once() {
        let gate = gate(&Config::defaults()).expect("no token");
        let body = "{\"message\":\n\"hello\"}";
        for expected in ["received", "duplicate"] {
            let (status, answer) = send(&gate, "POST /notify", Some("k"), body).await;
            assert_eq!((status, answer["status"].as_str()), (200, Some(expected)));
        }
        send(&gate, "POST /notify", None, "{}").await;
        let (_, list) = send(&gate, "GET /notifications", None, "").await;
        assert_eq!(list["count"], 2);
        assert_eq!(list["notifications"][0]["idempotency_key"], "k");
        assert_eq!(list["notifications"][0]["notification"]["message"], "hello");
        assert_eq!(list["notifications"][1]["idempotency_key"], Value::Null);
    }

    #[tokio::test]
    async fn what_is_no_json_object_is_refused() {
        let gate = gate(&Config::defaults()).expect("no token");
        assert_eq!(send(&gate, "POST /notify", None, "{").await.0, 400);
        assert_eq!(send(&gate, "POST /notify", None, "[]").await.0, 422);
        assert_eq!(send(&gate, "GET /notify", None, "").await.0, 405);
    }

    #[test]
    fn the_oldest_key_is_forgotten_first() {
        let mut memory = Memory::default();
        let key = |n: usize| IdempotencyKey::parse(&n.to_string()).expect("a valid key");
        for n in 0..=MAX_KEYS {
            assert!(memory.remember(&key(n)));
        }
        assert!(!memory.remember(&key(1)));
        assert!(memory.remember(&key(0)));
        assert_eq!(
            (memory.keys.len(), memory.order.len()),
            (MAX_KEYS, MAX_KEYS)
        );
    }
}
