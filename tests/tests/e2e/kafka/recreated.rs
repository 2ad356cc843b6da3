//! Logs that are not those in which a group has its positions.

use std::sync::Arc;

use adapters_direct::kafka::KafkaEventBus;
use async_trait::async_trait;
use futures_util::future::try_join_all;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use task_core::ports::{
    Answer, Delivery, EventBus, EventHandler, Group, StartAt, Subscription, Topic,
};
use task_tests::process::KafkaBroker;
use tokio::sync::Semaphore;

use super::{Heard, PATIENCE, bus, event, subscription, telling};
use crate::logs::Logs;

/// What is said of a position that is given up.
const GIVEN_UP: &str = "the position is not one of this log";

fn administrator(broker: &KafkaBroker) -> AdminClient<DefaultClientContext> {
    ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .create()
        .unwrap()
}

/// Deletes a topic and makes it again.
async fn recreate(broker: &KafkaBroker, topic: &str, partitions: u16) {
    let administrator = administrator(broker);
    let deleted = administrator.delete_topics(&[topic], &AdminOptions::new());
    deleted.await.unwrap().remove(0).unwrap();
    broker.create_topic(topic, partitions).await;
}

/// Deletes what lies before an offset, as retention does.
async fn retain(broker: &KafkaBroker, topic: &str, from: i64) {
    let mut offsets = TopicPartitionList::new();
    let offset = Offset::Offset(from);
    offsets.add_partition_offset(topic, 0, offset).unwrap();
    let administrator = administrator(broker);
    let deleted = administrator.delete_records(&offsets, &AdminOptions::new());
    deleted.await.unwrap();
}

/// A client that may ask for a group's positions, and commit them as long as it has no members.
fn client(broker: &KafkaBroker, group: &Group) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .set("group.id", group.as_str())
        .create()
        .unwrap()
}

/// What a group has committed for the first partition of a topic.
fn committed(broker: &KafkaBroker, ours: &Subscription) -> TopicPartitionList {
    let mut asked = TopicPartitionList::new();
    asked.add_partition(ours.topic.as_str(), 0);
    let client = client(broker, &ours.group);
    client.committed_offsets(asked, PATIENCE).unwrap()
}

fn commit(broker: &KafkaBroker, ours: &Subscription, positions: &TopicPartitionList) {
    let client = client(broker, &ours.group);
    client.commit(positions, CommitMode::Sync).unwrap();
}

/// A subscription from the end, for topics with so many partitions.
async fn topics(broker: &KafkaBroker, topic: &str, partitions: u16) -> Subscription {
    broker.create_topic(topic, partitions).await;
    broker.create_topic(&format!("{topic}.dead"), 1).await;
    Subscription {
        start: StartAt::End,
        ..subscription(topic, "g")
    }
}

async fn publish(bus: &KafkaEventBus, topic: &Topic, name: &str, count: usize) {
    let events: Vec<_> = (0..count)
        .map(|n| event(topic.as_str(), &format!("k-{n}"), format!("{name} {n}")))
        .collect();
    let published = events.iter().map(|event| bus.publish(event));
    try_join_all(published).await.unwrap();
}

/// Waits until so many events of this name have come, and answers what came besides.
async fn all(heard: &mut Heard, name: &str, count: usize) -> Vec<String> {
    let mut missing: Vec<String> = (0..count).map(|n| format!("{name} {n}")).collect();
    let mut others = Vec::new();
    while !missing.is_empty() {
        let text = heard.texts(1).await.remove(0);
        match missing.iter().position(|other| *other == text) {
            Some(at) => drop(missing.swap_remove(at)),
            None => others.push(text),
        }
    }
    others
}

/// Subscribes, hears so many new events, and stops; answers what else came.
async fn heard_besides(
    broker: &KafkaBroker,
    ours: &Subscription,
    name: &str,
    count: usize,
) -> Vec<String> {
    let bus = bus(broker);
    let (handler, mut heard) = telling(|_| Answer::Ack);
    let running = bus.subscribe(ours.clone(), handler).await.unwrap();
    publish(&bus, &ours.topic, name, count).await;
    let others = all(&mut heard, name, count).await;
    running.stop().await;
    others
}

/// Subscribes, hears so many new events and nothing else, and stops.
async fn session(broker: &KafkaBroker, ours: &Subscription, name: &str, count: usize) {
    let others = heard_besides(broker, ours, name, count).await;
    assert!(others.is_empty(), "{others:?}");
}

/// The lines about positions of a topic that were given up.
fn given_up(logs: &Logs, topic: &str) -> Vec<String> {
    logs.with(&["WARN", GIVEN_UP, &format!("topic=\"{topic}\"")])
}

#[tokio::test]
async fn a_position_that_has_outlived_its_log_passes_over_nothing() {
    let logs = Logs::collect();
    let broker = KafkaBroker::shared().await;
    let ours = topics(broker, "outlived", 1).await;
    session(broker, &ours, "old", 5).await;
    let outlived = committed(broker, &ours);
    recreate(broker, "outlived", 1).await;
    // A member that still ran would have committed it again.
    commit(broker, &ours, &outlived);
    let bus = bus(broker);
    publish(&bus, &ours.topic, "new", 10).await;
    let (handler, mut heard) = telling(|_| Answer::Ack);
    let running = bus.subscribe(ours.clone(), handler).await.unwrap();
    all(&mut heard, "new", 10).await;
    running.stop().await;
    let lines = given_up(logs, "outlived");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    for said in ["partition=0", "position=5", "begins_at=0"] {
        assert!(lines[0].contains(said), "{lines:#?}");
    }
    // From then on the positions are those of the new log.
    session(broker, &ours, "newer", 3).await;
    assert_eq!(given_up(logs, "outlived").len(), 1);
}

#[tokio::test]
async fn a_topic_that_is_made_again_while_nobody_runs_is_read_from_its_beginning() {
    let logs = Logs::collect();
    let broker = KafkaBroker::shared().await;
    let ours = topics(broker, "forgotten", 2).await;
    let beside = Subscription {
        topic: Topic::new("forgotten-2"),
        ..ours.clone()
    };
    broker.create_topic("forgotten-2", 1).await;
    for ours in [&ours, &beside] {
        session(broker, ours, "old", 5).await;
    }
    for ours in [&ours, &beside] {
        let topic = ours.topic.as_str();
        recreate(broker, topic, 2).await;
        let bus = bus(broker);
        publish(&bus, &ours.topic, "new", 10).await;
        let (handler, mut heard) = telling(|_| Answer::Ack);
        let running = bus.subscribe(ours.clone(), handler).await.unwrap();
        all(&mut heard, "new", 10).await;
        running.stop().await;
        let said = "positions are gone";
        let lines = logs.with(&["WARN", said, &format!("topic=\"{topic}\"")]);
        assert_eq!(lines.len(), 1, "{lines:#?}");
        session(broker, ours, "newer", 3).await;
    }
}

#[tokio::test]
async fn a_position_beyond_the_end_of_its_log_begins_anew_whoever_has_committed_it() {
    let logs = Logs::collect();
    let broker = KafkaBroker::shared().await;
    let ours = topics(broker, "beyond", 1).await;
    let bus = bus(broker);
    publish(&bus, &ours.topic, "new", 3).await;
    let mut beyond = TopicPartitionList::new();
    let offset = Offset::Offset(1_000);
    beyond.add_partition_offset("beyond", 0, offset).unwrap();
    commit(broker, &ours, &beyond);
    let (handler, mut heard) = telling(|_| Answer::Ack);
    let running = bus.subscribe(ours, handler).await.unwrap();
    all(&mut heard, "new", 3).await;
    running.stop().await;
    let lines = given_up(logs, "beyond");
    assert_eq!(lines.len(), 1, "{lines:#?}");
}

#[tokio::test]
async fn what_retention_takes_from_a_log_brings_nothing_again() {
    let logs = Logs::collect();
    let broker = KafkaBroker::shared().await;
    let ours = topics(broker, "retained", 1).await;
    session(broker, &ours, "old", 10).await;
    retain(broker, "retained", 4).await;
    session(broker, &ours, "next", 3).await;
    // Everything that was read is gone, and something that was not.
    let bus = bus(broker);
    publish(&bus, &ours.topic, "while away", 4).await;
    retain(broker, "retained", 15).await;
    let (handler, mut heard) = telling(|_| Answer::Ack);
    let running = bus.subscribe(ours.clone(), handler).await.unwrap();
    let mut rest = heard.texts(2).await;
    rest.sort();
    assert_eq!(rest, ["while away 2", "while away 3"]);
    running.stop().await;
    session(broker, &ours, "last", 1).await;
    assert_eq!(given_up(logs, "retained"), [""; 0]);
}

/// Is busy until it may end.
#[derive(Debug)]
struct Busy {
    may_end: Semaphore,
    handler: Arc<dyn EventHandler>,
}

#[async_trait]
impl EventHandler for Busy {
    async fn handle(&self, delivery: &Delivery) -> Answer {
        drop(self.may_end.acquire().await.unwrap());
        self.handler.handle(delivery).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_grows_beyond_a_running_member_is_read_from_its_beginning() {
    const LARGE: usize = 250_000;
    let logs = Logs::collect();
    let broker = KafkaBroker::shared().await;
    let ours = topics(broker, "overtaken", 1).await;
    let (handler, mut heard) = telling(|_| Answer::Ack);
    let busy = Arc::new(Busy {
        may_end: Semaphore::new(0),
        handler,
    });
    let handler: Arc<dyn EventHandler> = Arc::<Busy>::clone(&busy);
    let first = bus(broker);
    let running = first.subscribe(ours.clone(), handler).await.unwrap();
    // It has so much in hand that it reads no more.
    let payload = bytes::Bytes::from(vec![b'x'; LARGE]);
    for n in 0..200 {
        let event = event("overtaken", &format!("k-{n}"), payload.clone());
        first.publish(&event).await.unwrap();
    }
    recreate(broker, "overtaken", 1).await;
    publish(&bus(broker), &ours.topic, "new", 400).await;
    busy.may_end.add_permits(10_000);
    all(&mut heard, "new", 400).await;
    running.stop().await;
    let lines = given_up(logs, "overtaken");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    heard_besides(broker, &ours, "next", 3).await;
    assert_eq!(given_up(logs, "overtaken").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_comes_back_with_more_or_fewer_partitions_is_read_whole() {
    let broker = KafkaBroker::shared().await;
    for (topic, before, after) in [("more", 2, 4), ("fewer", 4, 2)] {
        let ours = topics(broker, topic, before).await;
        let (handler, mut heard) = telling(|_| Answer::Ack);
        let running = bus(broker).subscribe(ours.clone(), handler).await.unwrap();
        publish(&bus(broker), &ours.topic, "old", 20).await;
        all(&mut heard, "old", 20).await;
        recreate(broker, topic, after).await;
        publish(&bus(broker), &ours.topic, "new", 60).await;
        all(&mut heard, "new", 60).await;
        running.stop().await;
        heard_besides(broker, &ours, "next", 5).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_was_only_away_brings_nothing_again_and_a_new_log_on_it_is_read() {
    let logs = Logs::collect();
    let mut broker = KafkaBroker::start().await;
    let ours = topics(&broker, "away", 1).await;
    session(&broker, &ours, "old", 5).await;
    broker.stop().await;
    broker.restart().await;
    session(&broker, &ours, "next", 5).await;
    let (handler, mut heard) = telling(|_| Answer::Ack);
    let running = bus(&broker).subscribe(ours.clone(), handler).await.unwrap();
    // Its leaders have a second epoch; those of a new topic have their first one.
    broker.stop().await;
    broker.restart().await;
    publish(&bus(&broker), &ours.topic, "after", 5).await;
    let others = all(&mut heard, "after", 5).await;
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(given_up(logs, "away"), [""; 0]);
    recreate(&broker, "away", 1).await;
    publish(&bus(&broker), &ours.topic, "new", 30).await;
    all(&mut heard, "new", 30).await;
    running.stop().await;
}
