//! Where a group goes on that somebody else has left, or whose topic has grown.

use std::sync::atomic::{AtomicU32, Ordering};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};
use task_core::ports::{Answer, EventBus, Group, StartAt, Subscription};
use task_tests::process::{KafkaBroker, Python};

use super::{PATIENCE, bus, subscription, telling};

/// Puts a message into one partition.
async fn produce(broker: &KafkaBroker, topic: &str, partition: i32, payload: &str) {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .create()
        .unwrap();
    let record = FutureRecord::to(topic).key("k").payload(payload);
    let sent = producer.send(record.partition(partition), PATIENCE).await;
    sent.unwrap();
}

async fn commit(broker: &KafkaBroker, topic: &str, group: &Group, positions: &[&str]) {
    let bootstrap = broker.bootstrap();
    let arguments = [bootstrap.as_str(), "commit", topic, group.as_str()];
    let arguments = [&arguments, positions].concat();
    let python = Python::shared().await;
    python.run("kafka_events.py", &arguments).await;
}

async fn grow(broker: &KafkaBroker, topic: &str, partitions: usize) {
    let administrator: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .create()
        .unwrap();
    let grown = NewPartitions::new(topic, partitions);
    let grown = administrator.create_partitions([&grown], &AdminOptions::new());
    grown.await.unwrap().remove(0).unwrap();
}

/// What a group is given until it has read one mark in each partition.
async fn given(broker: &KafkaBroker, subscription: &Subscription, partitions: i32) -> Vec<String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let topic = subscription.topic.as_str();
    let mark = format!("mark {}", NEXT.fetch_add(1, Ordering::Relaxed));
    let (handler, mut heard) = telling(|_| Answer::Ack);
    let bus = bus(broker);
    let running = bus.subscribe(subscription.clone(), handler).await.unwrap();
    for partition in 0..partitions {
        produce(broker, topic, partition, &mark).await;
    }
    let (mut given, mut marks) = (Vec::new(), 0);
    while marks < partitions {
        let text = heard.texts(1).await.remove(0);
        match text == mark {
            true => marks += 1,
            false if text.starts_with("mark") => {}
            false => given.push(text),
        }
    }
    running.stop().await;
    given.sort();
    given
}

#[tokio::test]
async fn the_group_of_somebody_else_goes_on_where_it_stands_and_repeats_no_history() {
    let broker = KafkaBroker::shared().await;
    for topic in ["theirs", "theirs.dead"] {
        broker.create_topic(topic, 3).await;
    }
    for (partition, name) in [(0, "0 old"), (0, "0 unread"), (1, "1 old"), (2, "2 old")] {
        produce(broker, "theirs", partition, name).await;
    }
    let taken_over = Subscription {
        start: StartAt::End,
        ..subscription("theirs", "python")
    };
    // It has read one event of partition 0 and all of partition 1, and partition 2 never.
    commit(broker, "theirs", &taken_over.group, &["0=1", "1=1"]).await;
    let beside = Subscription {
        start: StartAt::Group(taken_over.group.clone()),
        ..subscription("theirs", "beside")
    };
    assert_eq!(given(broker, &taken_over, 3).await, ["0 unread"]);

    // Another group of that kind, from which a group of ours begins.
    let other = Group::new("theirs.python-2");
    commit(broker, "theirs", &other, &["0=1", "1=2"]).await;
    let beside = Subscription {
        start: StartAt::Group(other),
        ..beside
    };
    assert_eq!(given(broker, &beside, 3).await, ["0 unread"]);
}

#[tokio::test]
async fn a_group_of_ours_misses_nothing_in_partitions_that_are_added() {
    let broker = KafkaBroker::shared().await;
    broker.create_topic("grows", 2).await;
    broker.create_topic("grows.dead", 1).await;
    produce(broker, "grows", 0, "old").await;
    let ours = Subscription {
        start: StartAt::End,
        ..subscription("grows", "ours")
    };
    // It begins at the end of every partition and is gone before anything is finished.
    let (handler, _heard) = telling(|_| Answer::Ack);
    let running = bus(broker).subscribe(ours.clone(), handler).await;
    running.unwrap().stop().await;
    produce(broker, "grows", 1, "1 while away").await;
    grow(broker, "grows", 3).await;
    produce(broker, "grows", 2, "2 while away").await;
    let expected = ["1 while away", "2 while away"];
    assert_eq!(given(broker, &ours, 3).await, expected);
    assert_eq!(given(broker, &ours, 3).await, [""; 0]);

    // Also one whose positions were all those of somebody else when it was taken over.
    let theirs = Subscription {
        start: StartAt::End,
        ..subscription("grows", "theirs")
    };
    commit(broker, "grows", &theirs.group, &["0=1", "1=1", "2=1"]).await;
    let (handler, _heard) = telling(|_| Answer::Ack);
    let running = bus(broker).subscribe(theirs.clone(), handler).await;
    running.unwrap().stop().await;
    grow(broker, "grows", 4).await;
    produce(broker, "grows", 3, "3 while away").await;
    let given = given(broker, &theirs, 4).await;
    assert!(given.contains(&"3 while away".to_owned()), "{given:?}");
    assert!(!given.contains(&"old".to_owned()), "{given:?}");
}
