//! Events that the sidecar brings to the service's own port.

use adapters_dapr::{
    DaprEventBus, EventBusOptions, Intake, NewGroups, Sidecar as Adapter,
    SidecarOptions as AdapterOptions, callbacks,
};
use axum::Router;
use task_core::background::Background;
use task_core::ports::{Answer, EventBus};
use task_tests::backends::dapr::connect;
use task_tests::process::dapr::Readiness;
use task_tests::process::{Connection, RedisServer, Sidecar, SidecarOptions};
use task_tests::wait::until;
use tokio::net::TcpListener;

use super::{APP, TOPIC, ear, event, next, redis_pubsub, subscription};

/// What an operator may write; without a dead-letter topic.
const DECLARED: &str = "apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata:
  name: task-events
spec:
  pubsubname: pubsub
  topic: task-events
  routes:
    default: /events/task-events
scopes:
  - task-api
";

/// A service on a port that its sidecar knows; the sidecar comes first, as in a pod it may.
struct Service {
    sidecar: Sidecar,
    bus: DaprEventBus,
    adapter: Adapter,
    listener: TcpListener,
    port: u16,
}

impl Service {
    async fn start(resources: &[String], intake: Intake) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let sidecar = Sidecar::start(SidecarOptions {
            readiness: Readiness::Outbound,
            app_token: Some("apptoken".to_owned()),
            ..SidecarOptions::of(APP, resources).beside(port)
        })
        .await;
        let tokens = [("APP_API_TOKEN", "apptoken")];
        let adapter = connect(&sidecar, &tokens, AdapterOptions::default()).unwrap();
        let options = EventBusOptions {
            intake,
            new_groups: Some(NewGroups::Exist),
            ..EventBusOptions::default()
        };
        let bus = DaprEventBus::open(&adapter, options).await.unwrap();
        Self {
            sidecar,
            bus,
            adapter,
            listener,
            port,
        }
    }

    fn serve(self) -> (Sidecar, DaprEventBus, Background) {
        let routes: Router = callbacks(&self.adapter, &self.bus);
        let serving = Background::spawn("service", |mut stop| async move {
            let serving = axum::serve(self.listener, routes);
            let stopped = async move { stop.raised().await };
            serving.with_graceful_shutdown(stopped).await.unwrap();
        });
        (self.sidecar, self.bus, serving)
    }
}

async fn delivers(resources: &[String], intake: Intake) {
    let service = Service::start(resources, intake).await;
    let port = service.port;
    let (handler, mut hear) = ear(|delivery| match delivery.attempt {
        1 => Answer::Retry,
        _ => Answer::Ack,
    });
    let running = service
        .bus
        .subscribe(subscription(), handler)
        .await
        .unwrap();
    let (_sidecar, bus, _serving) = service.serve();
    bus.publish(&event("t-1")).await.unwrap();
    for attempt in 1..=2 {
        let heard = next(&mut hear).await;
        assert_eq!((heard.attempt, &*heard.key), (attempt, "t-1"));
        assert_eq!(heard.payload, event("t-1").payload);
    }
    let address = (std::net::Ipv4Addr::LOCALHOST, port).into();
    let mut connection = Connection::open(address).await.unwrap();
    let path = format!("/events/{TOPIC}");
    let refused = connection.send("POST", &path, &[], "{}").await.unwrap();
    assert_eq!(refused.status, 401, "a stranger may not bring events");
    running.stop().await;
}

#[tokio::test]
async fn the_sidecar_brings_what_the_service_names_at_its_start() {
    let server = RedisServer::shared().await;
    let pubsub = redis_pubsub(&server.next_database_url()).to_string();
    delivers(&[pubsub], Intake::Callbacks).await;
}

#[tokio::test]
async fn the_sidecar_brings_what_an_operator_declares() {
    let server = RedisServer::shared().await;
    let pubsub = redis_pubsub(&server.next_database_url()).to_string();
    delivers(&[pubsub, DECLARED.to_owned()], Intake::Callbacks).await;
}

#[tokio::test]
async fn a_declared_subscription_and_a_stream_share_one_group() {
    let server = RedisServer::shared().await;
    let pubsub = redis_pubsub(&server.next_database_url()).to_string();
    let service = Service::start(&[pubsub, DECLARED.to_owned()], Intake::Streams).await;
    let (handler, mut hear) = ear(|_| Answer::Ack);
    let running = service
        .bus
        .subscribe(subscription(), handler)
        .await
        .unwrap();
    let (_sidecar, bus, _serving) = service.serve();
    for n in 0..20 {
        bus.publish(&event(&format!("t-{n}"))).await.unwrap();
    }
    let mut heard = std::collections::BTreeSet::new();
    for _ in 0..20 {
        assert!(
            heard.insert(next(&mut hear).await.key),
            "an event came twice"
        );
    }
    running.stop().await;
}

#[tokio::test]
async fn what_comes_before_anybody_subscribes_is_not_forgotten() {
    let server = RedisServer::shared().await;
    let pubsub = redis_pubsub(&server.next_database_url()).to_string();
    let service = Service::start(&[pubsub, DECLARED.to_owned()], Intake::Callbacks).await;
    let (sidecar, bus, _serving) = service.serve();
    until("the sidecar has brought it once", async || {
        bus.publish(&event("t-1")).await.unwrap();
        sidecar
            .log()
            .contains("RETRY status returned from app")
            .then_some(())
    })
    .await;
    let (handler, mut hear) = ear(|_| Answer::Ack);
    let running = bus.subscribe(subscription(), handler).await.unwrap();
    assert_eq!(next(&mut hear).await.payload, event("t-1").payload);
    running.stop().await;
}
