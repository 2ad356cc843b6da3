//! What travels on a bus of Dapr's, beside foreign publishers and subscribers.

use adapters_dapr::{DaprEventBus, EventBusOptions};
use serde_json::{Value, json};
use task_core::ports::{Answer, ErrorKind, EventBus, Group, StartAt, Subscription, Topic};
use task_tests::process::{Python, RedisServer, Sidecar, SidecarOptions, redis};

use super::{APP, TOPIC, adapter, bus, ear, event, next, redis_pubsub, subscription};
use crate::app::{Call, DaprApp};

#[tokio::test]
async fn the_broker_holds_our_envelope_byte_for_byte() {
    let server = RedisServer::shared().await;
    let url = server.next_database_url();
    let sidecar = Sidecar::start(SidecarOptions::of(APP, [redis_pubsub(&url)])).await;
    let bus = bus(&adapter(&sidecar)).await;
    bus.publish(&event("t-1")).await.unwrap();
    let entries = redis::command(&url, &["XRANGE", TOPIC, "-", "+"]).await;
    let entries: Vec<(String, Vec<(String, String)>)> = ::redis::from_redis_value(entries).unwrap();
    let [(_, fields)] = &*entries else {
        panic!("not one entry: {entries:?}");
    };
    let field = |name: &str| {
        fields
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    };
    assert_eq!(field("data").unwrap().as_bytes(), event("t-1").payload);
    // By which a direct subscriber on the same stream knows the key.
    let metadata: Value = serde_json::from_str(field("metadata").unwrap()).unwrap();
    assert_eq!(metadata["partitionKey"], "t-1");
}

#[tokio::test]
async fn a_declared_subscriber_is_given_our_envelope_byte_for_byte() {
    let server = RedisServer::shared().await;
    let answer = |call: &Call| match call.path.as_str() {
        "/dapr/subscribe" => {
            let route = json!({"pubsubname": "pubsub", "topic": TOPIC, "route": "/events"});
            Some((axum::http::StatusCode::OK, json!([route])))
        }
        "/events" => Some((axum::http::StatusCode::OK, json!({"status": "SUCCESS"}))),
        _ => None,
    };
    let mut app = DaprApp::start(answer).await;
    let pubsub = redis_pubsub(&server.next_database_url());
    let options = SidecarOptions::of("other-app", [pubsub]).beside(app.port);
    let sidecar = Sidecar::start(options).await;
    let bus = bus(&adapter(&sidecar)).await;
    bus.publish(&event("t-1")).await.unwrap();
    let call = app.next("/events").await;
    assert_eq!(call.body, event("t-1").payload);
}

#[tokio::test]
async fn events_are_exchanged_with_the_sdk_for_python() {
    let server = RedisServer::shared().await;
    let pubsub = redis_pubsub(&server.next_database_url());
    let sidecar = Sidecar::start(SidecarOptions::of(APP, [&pubsub])).await;
    let theirs = Sidecar::start(SidecarOptions::of("other-app", [&pubsub])).await;
    let bus = bus(&adapter(&sidecar)).await;
    let (handler, mut hear) = ear(|_| Answer::Ack);
    let running = bus.subscribe(subscription(), handler).await.unwrap();
    let python = async |sidecar: &Sidecar, arguments: &[&str]| {
        let ports = [sidecar.http_port(), sidecar.grpc_port()].map(|port| port.to_string());
        let arguments = [&[&*ports[0], &*ports[1]], arguments].concat();
        Python::with_dapr()
            .await
            .run("dapr_state.py", &arguments)
            .await
    };
    let data = json!({"event_type": "task.completed", "task_id": "1"});
    python(&theirs, &["publish", TOPIC, &data.to_string()]).await;
    let heard = next(&mut hear).await;
    let envelope: Value = serde_json::from_slice(&heard.payload).unwrap();
    assert_eq!((&envelope["data"], &*heard.key), (&data, ""));
    running.stop().await;

    bus.publish(&event("t-1")).await.unwrap();
    // The first one is its own: a new app id is given the whole stream.
    let received = python(&theirs, &["receive", TOPIC, "2"]).await;
    let ids: Vec<Value> = received
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone())
        .collect();
    assert!(ids.contains(&json!("t-1")), "{received}");
}

#[tokio::test]
async fn what_a_sidecar_cannot_do_is_refused_before_it_is_asked() {
    let server = RedisServer::shared().await;
    let pubsub = redis_pubsub(&server.next_database_url());
    let sidecar = Sidecar::start(SidecarOptions::of(APP, [pubsub])).await;
    let adapter = adapter(&sidecar);
    let bus = DaprEventBus::open(&adapter, EventBusOptions::default())
        .await
        .unwrap();
    let refused = async |subscription: Subscription| {
        let (handler, _hear) = ear(|_| Answer::Ack);
        bus.subscribe(subscription, handler).await.unwrap_err()
    };
    let other = Subscription {
        start: StartAt::Beginning,
        ..Subscription::new(Topic::new(TOPIC), Group::new("other"))
    };
    let error = refused(other).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(
        error
            .to_string()
            .contains("its app id \"task-api\", not \"other\""),
        "{error}"
    );

    // It would begin at the oldest event, and notify of everything once more.
    for start in [StartAt::End, StartAt::Group(Group::new("old"))] {
        let error = refused(Subscription {
            start,
            ..subscription()
        })
        .await;
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
    let (handler, mut hear) = ear(|_| Answer::Ack);
    bus.publish(&event("t-1")).await.unwrap();
    let start = StartAt::Beginning;
    let running = bus
        .subscribe(
            Subscription {
                start,
                ..subscription()
            },
            handler,
        )
        .await
        .unwrap();
    assert_eq!(next(&mut hear).await.payload, event("t-1").payload);
    running.stop().await;
}

#[tokio::test]
async fn a_bus_without_its_component_is_not_opened() {
    let nothing: [&str; 0] = [];
    let sidecar = Sidecar::start(SidecarOptions::of(APP, nothing)).await;
    let opened = DaprEventBus::open(&adapter(&sidecar), EventBusOptions::default()).await;
    let error = opened.unwrap_err();
    assert_eq!(
        error.to_string(),
        "dapr open: not found: the sidecar has no component \"pubsub\""
    );
}
