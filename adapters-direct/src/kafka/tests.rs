//! Producer and member against librdkafka's own mock of a cluster, which fails as told.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use task_core::background::Background;
use task_core::ports::{
    Answer, Delivery, ErrorKind, Event, EventBus, EventHandler, Group, Outcome, PortError, Retry,
    StartAt, Subscription, Topic,
};
use tokio::sync::oneshot;

use super::error::{Failure, port_error};
use super::member::{self, Flow, Loss};
use super::message::Message;
use super::producer::{Producer, Record};
use super::subscription::Subscriber;
use super::{KafkaConfig, KafkaEventBus, client};

type Cluster = MockCluster<'static, DefaultProducerContext>;

const TOPIC: &str = "tasks";

fn cluster(partitions: i32) -> Cluster {
    let cluster = MockCluster::new(1).expect("a mock cluster");
    let created = cluster.create_topic(TOPIC, partitions, 1);
    created.expect("a topic of the mock cluster");
    cluster
}

fn config(brokers: &str) -> KafkaConfig {
    let mut config = KafkaConfig::new(brokers);
    config.request_timeout = Duration::from_secs(1);
    config
}

fn bus(cluster: &Cluster) -> KafkaEventBus {
    let config = config(&cluster.bootstrap_servers());
    KafkaEventBus::open(config).expect("a bus")
}

fn event() -> Event {
    Event {
        topic: Topic::new(TOPIC),
        key: "t-1".into(),
        payload: Bytes::from_static(b"{}"),
    }
}

fn meaning(error: &PortError) -> (ErrorKind, Retry, Outcome) {
    (error.kind(), error.retryable(), error.outcome())
}

/// FNV-1a for 32 bits, from its definition.
fn fnv1a(key: &str) -> u32 {
    let bytes = key.bytes();
    bytes.fold(0x811c_9dc5, |hash: u32, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// What sarama's hash partitioner computes: the hash as a signed number, its remainder, and of that
/// the absolute value.
fn partition_of_dapr(key: &str, partitions: i32) -> i32 {
    (fnv1a(key).cast_signed() % partitions).abs()
}

#[tokio::test]
async fn a_key_has_the_partition_that_dapr_chooses() {
    const PARTITIONS: i32 = 7;
    let cluster = cluster(PARTITIONS);
    let config = client::producer(&config(&cluster.bootstrap_servers()));
    let producer: FutureProducer = config.create().expect("a producer");
    let mut telling = 0;
    let many = (0..200).map(|n| format!("task-{n}"));
    let others = ["a", "foobar", "\u{e4}\u{20ac}", "0199-7b1c"].map(str::to_owned);
    for key in many.chain(others) {
        let record = FutureRecord::to(TOPIC).key(&key).payload("{}");
        let sent = producer.send(record, Duration::ZERO).await;
        let found = sent.expect("an answer").partition;
        assert_eq!(found, partition_of_dapr(&key, PARTITIONS), "{key:?}");
        let unsigned = fnv1a(&key) % PARTITIONS.cast_unsigned();
        telling += usize::from(unsigned.cast_signed() != found);
    }
    assert!(
        telling > 20,
        "only {telling} keys tell how the sign is handled"
    );
    // Test vectors of the hash's authors.
    assert_eq!([fnv1a("a"), fnv1a("foobar")], [0xe40c_292c, 0xbf9c_f968]);
}

#[tokio::test]
async fn a_fatal_error_is_told_and_the_next_event_has_a_new_producer() {
    let cluster = cluster(1);
    let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    // The first one may be met before the first event.
    cluster.request_errors(RDKafkaApiKey::InitProducerId, &[denied; 3]);
    let bus = bus(&cluster);
    let mut told = 0;
    while let Err(error) = bus.publish(&event()).await {
        use ErrorKind::{Denied, Timeout, Unavailable};
        // Who meets what another one has left is told to begin anew, or nothing in time.
        let kind = error.kind();
        assert!(matches!(kind, Denied | Unavailable | Timeout), "{error}");
        told += usize::from(kind == Denied);
    }
    assert!((1..=3).contains(&told), "told {told} times");
}

#[tokio::test]
async fn a_refused_event_has_the_meaning_of_its_refusal() {
    use ErrorKind::{Denied, Invalid};
    let cluster = cluster(1);
    let bus = bus(&cluster);
    for (code, kind) in [
        (
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
            Denied,
        ),
        (
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
            Invalid,
        ),
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD, Invalid),
    ] {
        cluster.request_errors(RDKafkaApiKey::Produce, &[code]);
        let error = bus.publish(&event()).await.expect_err("a refusal");
        let expected = (kind, Retry::Never, Outcome::NotApplied);
        assert_eq!(meaning(&error), expected, "{error}");
        bus.publish(&event()).await.expect("the next event");
    }
}

#[tokio::test]
async fn an_event_that_is_not_acknowledged_in_time_has_an_unknown_outcome() {
    let cluster = cluster(1);
    let mut config = config(&cluster.bootstrap_servers());
    config.delivery_timeout = Duration::from_millis(1500);
    let bus = KafkaEventBus::open(config).expect("a bus");
    bus.publish(&event()).await.expect("an answer in time");
    let slow = cluster.broker_round_trip_time(1, Duration::from_secs(5));
    slow.expect("a slow broker");
    let error = bus.publish(&event()).await.expect_err("an answer too late");
    let expected = (ErrorKind::Timeout, Retry::Maybe, Outcome::Unknown);
    assert_eq!(meaning(&error), expected, "{error}");
    assert!(error.to_string().contains("1500 ms"), "{error}");
}

#[tokio::test]
async fn without_brokers_nothing_is_sent_and_nothing_grows() {
    let mut config = config("127.0.0.1:9");
    config.delivery_timeout = Duration::from_secs(300);
    let bus = KafkaEventBus::open(config.clone()).expect("no broker need be there");
    let unavailable = [ErrorKind::Unavailable, ErrorKind::Timeout];
    for error in [bus.check().await, bus.publish(&event()).await] {
        let error = error.expect_err("no broker");
        assert!(unavailable.contains(&error.kind()), "{error}");
        assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
    }
    let producer = Producer::new(&config).expect("no broker need be there");
    let record = Record {
        topic: TOPIC,
        key: None,
        payload: b"{}",
        headers: None,
    };
    let mut waiting = 0;
    let full = loop {
        match producer.send(record.clone()).now_or_never() {
            None => waiting += 1,
            Some(sent) => break sent.expect_err("a full queue"),
        }
    };
    assert_eq!(waiting, 10_000);
    assert!(matches!(full, Failure::Enqueue(_)), "{full:?}");
    let error = port_error("publish", full);
    let expected = (ErrorKind::Throttled, Retry::Maybe, Outcome::NotApplied);
    assert_eq!(meaning(&error), expected, "{error}");
}

#[tokio::test]
async fn a_missing_topic_is_named_and_made_by_nobody() {
    let cluster = cluster(1);
    let unknown = RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    cluster
        .topic_error("absent", unknown)
        .expect("a topic that is said to be absent");
    let mut config = config(&cluster.bootstrap_servers());
    config.topics = vec![Topic::new("absent")];
    let bus = KafkaEventBus::open(config).expect("a bus");
    let event = Event {
        topic: Topic::new("absent"),
        ..event()
    };
    for error in [bus.publish(&event).await, bus.check().await] {
        let error = error.expect_err("no topic");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains("topic absent"), "{error}");
    }
}

#[derive(Debug)]
struct Acknowledges;

#[async_trait]
impl EventHandler for Acknowledges {
    async fn handle(&self, _: &Delivery) -> Answer {
        Answer::Ack
    }
}

#[tokio::test]
async fn a_rebalance_ends_a_pause_of_reading() {
    let cluster = cluster(1);
    let config = config(&cluster.bootstrap_servers());
    let bus = KafkaEventBus::open(config).expect("a bus");
    let created = cluster.create_topic("tasks.dead", 1, 1);
    created.expect("a topic of the mock cluster");
    bus.publish(&event()).await.expect("an answer");
    let subscription = Subscription {
        start: StartAt::Beginning,
        ..Subscription::new(Topic::new(TOPIC), Group::new("g"))
    };
    let brokers = bus.brokers();
    let joined = Subscriber::join(brokers, subscription, Arc::new(Acknowledges)).await;
    let (mut subscriber, _joined) = joined.expect("a member");
    let (tell, told) = oneshot::channel();
    let running = Background::spawn("the case", |mut stop| async move {
        // librdkafka says what the group wants while it is asked for messages.
        let assigned = loop {
            tokio::select! {
                Some(event) = subscriber.member.events.recv() => break event,
                _ = Message::receive(&subscriber.member.consumer) => {}
            }
        };
        subscriber.answer(assigned, &mut stop).await;
        let numbers: Vec<i32> = subscriber.partitions.numbers().collect();
        subscriber
            .member
            .flow(Flow::Paused, numbers.iter().copied());
        subscriber
            .answer(member::Event::Revoked(Loss::Orderly), &mut stop)
            .await;
        subscriber
            .answer(member::Event::Assigned(numbers), &mut stop)
            .await;
        let read = Message::receive(&subscriber.member.consumer);
        let read = tokio::time::timeout(Duration::from_secs(10), read).await;
        let _ = tell.send(read.is_ok());
        subscriber.leave().await;
    });
    assert!(told.await.expect("an answer"), "nothing is read any more");
    running.stop().await;
}
