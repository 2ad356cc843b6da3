//! The routes without a sidecar: what a caller may, and what it is answered.

use std::sync::Mutex;

use async_trait::async_trait;
use axum::http::Method;
use serde_json::{Value, json};
use task_core::background::Background;
use task_core::ports::{
    Answer, Delivery, EventBus, EventHandler, Group, Redelivery, StartAt, Subscription,
};
use tower::ServiceExt;

use super::*;
use crate::config::SidecarConfig;
use crate::event_bus::{EventBusOptions, EventBusProfile, NewGroups};
use crate::sidecar::SidecarOptions;

const TOKEN: &str = "hunter2";

/// Remembers what it was given, and answers in turn, at last always with the last answer.
#[derive(Debug)]
struct Script {
    answers: Mutex<Vec<Answer>>,
    seen: Mutex<Vec<Delivery>>,
}

#[async_trait]
impl EventHandler for Script {
    async fn handle(&self, delivery: &Delivery) -> Answer {
        self.seen.lock().expect("no panic").push(delivery.clone());
        let mut answers = self.answers.lock().expect("no panic");
        match answers.len() {
            1 => answers[0].clone(),
            _ => answers.remove(0),
        }
    }
}

struct App {
    bus: DaprEventBus,
    routes: Router,
}

impl App {
    /// An app beside a sidecar that is away.
    fn new(intake: Intake) -> Self {
        let variables = [
            ("APP_API_TOKEN", TOKEN),
            ("DAPR_GRPC_PORT", "1"),
            ("DAPR_HTTP_PORT", "1"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = SidecarConfig::from_env_vars(variables).expect("valid");
        let sidecar = Sidecar::new(config, SidecarOptions::default()).expect("valid");
        let options = EventBusOptions {
            intake,
            new_groups: Some(NewGroups::Exist),
            ..EventBusOptions::default()
        };
        let profile = EventBusProfile {
            component_type: "pubsub.redis".into(),
            app_id: "task-api".into(),
        };
        let bus = DaprEventBus::known(&sidecar, profile, options);
        let routes = callbacks(&sidecar, &bus);
        Self { bus, routes }
    }

    async fn subscribe(&self, answers: &[Answer]) -> (Background, Arc<Script>) {
        let script = Arc::new(Script {
            answers: Mutex::new(answers.to_vec()),
            seen: Mutex::default(),
        });
        let subscription = Subscription {
            start: StartAt::End,
            redelivery: Redelivery {
                first_pause: std::time::Duration::from_millis(1),
                ..Redelivery::default()
            },
            ..Subscription::new(Topic::new("task-events"), Group::new("task-api"))
        };
        let handler = Arc::<Script>::clone(&script);
        let running = self.bus.subscribe(subscription, handler).await;
        (running.expect("no stream is needed"), script)
    }

    async fn call(&self, method: Method, path: &str, token: Option<&str>, body: &[u8]) -> Answered {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(API_TOKEN, token);
        }
        let request = request.body(Body::from(body.to_vec())).expect("a request");
        let response = self
            .routes
            .clone()
            .oneshot(request)
            .await
            .expect("infallible");
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 20)
            .await
            .expect("short");
        let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Answered { status, json }
    }

    async fn deliver(&self, body: &[u8]) -> Value {
        let answer = self
            .call(Method::POST, "/events/task-events", Some(TOKEN), body)
            .await;
        assert_eq!(answer.status, StatusCode::OK);
        answer.json["status"].clone()
    }
}

struct Answered {
    status: StatusCode,
    json: Value,
}

#[tokio::test]
async fn every_route_refuses_a_caller_without_the_app_token() {
    let app = App::new(Intake::Callbacks);
    let (running, script) = app.subscribe(&[Answer::Ack]).await;
    for path in CALLBACK_PATHS {
        let path = path.replace("{topic}", "task-events");
        let mut taken = 0;
        for method in [Method::GET, Method::PUT, Method::POST, Method::DELETE] {
            for token in [None, Some(""), Some("hunter"), Some("hunter22")] {
                let answer = app.call(method.clone(), &path, token, b"{}").await;
                let refused = [StatusCode::UNAUTHORIZED, StatusCode::METHOD_NOT_ALLOWED];
                assert!(
                    refused.contains(&answer.status),
                    "{method} {path} {token:?}"
                );
            }
            let answer = app.call(method, &path, Some(TOKEN), b"{}").await;
            taken += usize::from(answer.status == StatusCode::OK);
        }
        assert_eq!(taken, 1, "{path} has one method");
    }
    running.stop().await;
    assert_eq!(script.seen.lock().expect("no panic").len(), 1);
}

#[tokio::test]
async fn the_sidecar_is_told_of_topics_only_if_it_is_to_call() {
    let route =
        json!([{"pubsubname": "pubsub", "topic": "task-events", "route": "/events/task-events"}]);
    let app = App::new(Intake::Callbacks);
    let subscribed = async || {
        app.call(Method::GET, "/dapr/subscribe", Some(TOKEN), b"")
            .await
            .json
    };
    assert_eq!(subscribed().await, json!([]));
    let (running, _) = app.subscribe(&[Answer::Ack]).await;
    assert_eq!(subscribed().await, route);
    running.stop().await;
    assert_eq!(subscribed().await, json!([]));
    let config = app
        .call(Method::GET, "/dapr/config", Some(TOKEN), b"")
        .await;
    assert_eq!(config.json, json!({"entities": []}));
}

#[tokio::test]
async fn an_event_is_answered_when_it_is_done_with() {
    let app = App::new(Intake::Callbacks);
    let answers = [
        Answer::Retry,
        Answer::Postpone(std::time::Duration::ZERO),
        Answer::Ack,
    ];
    let (running, script) = app.subscribe(&answers).await;
    let envelope = br#"{"specversion":"1.0","subject":"t-1","data":{"a": 1.0}}"#;
    assert_eq!(app.deliver(envelope).await, "SUCCESS");
    let bare = br#"{"event_type":"task.created", "task_id":"t-2"}"#;
    assert_eq!(app.deliver(bare).await, "SUCCESS");
    let seen = script.seen.lock().expect("no panic").clone();
    let seen: Vec<_> = seen
        .iter()
        .map(|one| (&*one.key, &*one.payload, one.attempt))
        .collect();
    let expected: [(&str, &[u8], u32); 4] = [
        ("t-1", envelope, 1),
        ("t-1", envelope, 2),
        ("t-1", envelope, 2),
        ("", bare, 1),
    ];
    assert_eq!(seen, expected);
    running.stop().await;
}

#[tokio::test]
async fn an_event_without_a_subscriber_is_to_come_again() {
    let app = App::new(Intake::Callbacks);
    assert_eq!(app.deliver(b"{}").await, "RETRY");
    let (running, _) = app.subscribe(&[Answer::Ack]).await;
    assert_eq!(app.deliver(b"{}").await, "SUCCESS");
    running.stop().await;
    assert_eq!(app.deliver(b"{}").await, "RETRY");
}

#[tokio::test]
async fn an_event_that_is_in_hand_when_the_service_stops_is_to_come_again() {
    let app = App::new(Intake::Callbacks);
    let longest = Redelivery::default().longest_pause;
    let (running, script) = app.subscribe(&[Answer::Postpone(longest)]).await;
    let delivering = app.deliver(b"{}");
    let stopping = async {
        while script.seen.lock().expect("no panic").is_empty() {
            tokio::task::yield_now().await;
        }
        running.stop().await;
    };
    let (status, ()) = futures_util::future::join(delivering, stopping).await;
    assert_eq!(status, "RETRY");
}

#[tokio::test]
async fn the_same_event_once_more_takes_the_place_of_the_first() {
    let app = App::new(Intake::Callbacks);
    let pause = std::time::Duration::from_millis(200);
    let (running, script) = app.subscribe(&[Answer::Postpone(pause), Answer::Ack]).await;
    let again = async {
        while script.seen.lock().expect("no panic").is_empty() {
            tokio::task::yield_now().await;
        }
        app.deliver(b"{}").await
    };
    let (first, second) = futures_util::future::join(app.deliver(b"{}"), again).await;
    assert_eq!((&first, &second), (&json!("RETRY"), &json!("SUCCESS")));
    assert_eq!(
        script.seen.lock().expect("no panic").len(),
        2,
        "it was handled twice"
    );
    running.stop().await;
}

#[tokio::test]
async fn an_event_beyond_every_limit_is_dropped() {
    let app = App::new(Intake::Callbacks);
    let (running, script) = app.subscribe(&[Answer::Ack]).await;
    let largest = task_core::ports::Event::MAX_PAYLOAD_BYTES;
    assert_eq!(app.deliver(&vec![b'x'; largest]).await, "SUCCESS");
    assert_eq!(app.deliver(&vec![b'x'; largest + 1]).await, "DROP");
    assert_eq!(
        app.deliver(&vec![b'x'; MAX_MESSAGE_BYTES + 1]).await,
        "DROP"
    );
    assert_eq!(script.seen.lock().expect("no panic").len(), 1);
    running.stop().await;
}

#[tokio::test]
async fn an_event_is_not_done_with_before_its_dead_letter_is_published() {
    let app = App::new(Intake::Callbacks);
    let (running, script) = app.subscribe(&[Answer::dropped("bad")]).await;
    let stopping = async {
        while script.seen.lock().expect("no panic").is_empty() {
            tokio::task::yield_now().await;
        }
        running.stop().await;
    };
    let (status, ()) = futures_util::future::join(app.deliver(b"{}"), stopping).await;
    assert_eq!(
        status, "RETRY",
        "there is no sidecar that could have taken it"
    );
}
