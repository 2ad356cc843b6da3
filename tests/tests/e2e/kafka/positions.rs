//! Where a group goes on that somebody else has left, or whose topic has grown.

use std::sync::atomic::{AtomicU32, Ordering};

use adapters_direct::kafka::{KafkaEventBus, Predecessor};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use task_core::ports::{
    Answer, Clock as _, ErrorKind, EventBus, Group, StartAt, Subscription, SystemClock,
};
use task_tests::process::{KafkaBroker, Python};
use task_tests::wait::until;

use super::{PATIENCE, bus, config, subscription, telling};

/// Puts a message into one partition.
async fn produce(broker: &KafkaBroker, topic: &str, partition: i32, payload: &str) {
    publish(
        broker,
        FutureRecord::to(topic)
            .partition(partition)
            .payload(payload),
    )
    .await;
}

async fn publish(broker: &KafkaBroker, record: FutureRecord<'_, str, str>) {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .create()
        .unwrap();
    producer.send(record.key("k"), PATIENCE).await.unwrap();
}

async fn commit(broker: &KafkaBroker, topic: &str, group: &Group, positions: &[&str]) {
    let bootstrap = broker.bootstrap();
    let arguments = [bootstrap.as_str(), "commit", topic, group.as_str()];
    let arguments = [&arguments, positions].concat();
    let python = Python::shared().await;
    python.run("kafka_events.py", &arguments).await;
}

fn administrator(broker: &KafkaBroker) -> AdminClient<DefaultClientContext> {
    ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .create()
        .unwrap()
}

async fn grow(broker: &KafkaBroker, topic: &str, partitions: usize) {
    let grown = NewPartitions::new(topic, partitions);
    let administrator = administrator(broker);
    let grown = administrator.create_partitions([&grown], &AdminOptions::new());
    grown.await.unwrap().remove(0).unwrap();
}

/// Takes from a partition what lies before an offset, as retention does.
async fn retain_from(broker: &KafkaBroker, topic: &str, partition: i32, offset: i64) {
    let mut before = TopicPartitionList::new();
    let offset = Offset::Offset(offset);
    before
        .add_partition_offset(topic, partition, offset)
        .unwrap();
    let administrator = administrator(broker);
    let deleted = administrator.delete_records(&before, &AdminOptions::new());
    let deleted = deleted.await.unwrap();
    assert_eq!(deleted.elements()[0].error(), Ok(()));
}

/// What a group is given until it has read one mark in each partition.
async fn given(broker: &KafkaBroker, subscription: &Subscription, partitions: i32) -> Vec<String> {
    given_by(&bus(broker), broker, subscription, partitions).await
}

async fn given_by(
    bus: &KafkaEventBus,
    broker: &KafkaBroker,
    subscription: &Subscription,
    partitions: i32,
) -> Vec<String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let topic = subscription.topic.as_str();
    let mark = format!("mark {}", NEXT.fetch_add(1, Ordering::Relaxed));
    let (handler, mut heard) = telling(|_| Answer::Ack);
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
async fn what_a_stopped_group_has_left_is_heard_and_one_that_runs_or_never_was_is_refused() {
    let broker = KafkaBroker::shared().await;
    for topic in ["left", "left.dead"] {
        broker.create_topic(topic, 4).await;
    }
    let heir = |group: &str, other: &str| Subscription {
        start: StartAt::Group(Group::new(format!("left.{other}"))),
        ..subscription("left", group)
    };
    let mut strict = config(broker);
    strict.predecessor = Predecessor::Stopped;
    let strict = KafkaEventBus::open(strict).unwrap();
    let refused = async |other: &str| {
        let (handler, _heard) = telling(|_| Answer::Ack);
        let refused = strict.subscribe(heir("refused", other), handler).await;
        refused.map(drop).expect_err("no such predecessor")
    };
    let error = refused("nobody").await;
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let reason = "group left.nobody has no position in topic left";
    assert!(error.to_string().contains(reason), "{error}");

    // It has read one event of partition 0. What came elsewhere before it began is history.
    let hour_ago = SystemClock.now().unix_micros() / 1000 - 3_600_000;
    let history = FutureRecord::to("left").partition(1).payload("1 history");
    publish(broker, history.timestamp(hour_ago)).await;
    produce(broker, "left", 0, "0 read").await;
    commit(broker, "left", &Group::new("left.python"), &["0=1"]).await;
    for (partition, name) in [(0, "0 left"), (1, "1 left"), (2, "2 left")] {
        produce(broker, "left", partition, name).await;
    }
    let running: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .set("group.id", "left.python")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    running.subscribe(&["left"]).unwrap();
    until("it has joined", async || {
        let _ = tokio::time::timeout(std::time::Duration::from_millis(50), running.recv()).await;
        (running.assignment().ok()?.count() == 4).then_some(())
    })
    .await;
    let error = refused("python").await;
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let reason = "group left.python has members, 1 of them";
    assert!(error.to_string().contains(reason), "{error}");
    drop(running);
    let expected = ["0 left", "1 left", "2 left"];
    let heard = given_by(&strict, broker, &heir("heir", "python"), 4).await;
    assert_eq!(heard, expected);
    // It is known by now, and needs nobody any more.
    let heard = given_by(&strict, broker, &heir("heir", "nobody"), 4).await;
    assert_eq!(heard, [""; 0]);

    let everywhere = ["0=1", "1=2", "2=1", "3=0"];
    commit(broker, "left", &Group::new("left.everywhere"), &everywhere).await;
    let heard = given_by(&strict, broker, &heir("heir-2", "everywhere"), 4).await;
    assert_eq!(heard, ["0 left"]);
}

#[tokio::test]
async fn what_a_group_has_left_is_heard_when_the_last_event_it_read_is_beyond_retention() {
    let broker = KafkaBroker::shared().await;
    for topic in ["bequeathed", "bequeathed.dead"] {
        broker.create_topic(topic, 3).await;
    }
    produce(broker, "bequeathed", 0, "0 read").await;
    let stopped = Group::new("retained.python");
    commit(broker, "bequeathed", &stopped, &["0=1"]).await;
    retain_from(broker, "bequeathed", 0, 1).await;
    produce(broker, "bequeathed", 1, "1 left").await;
    produce(broker, "bequeathed", 2, "2 left").await;
    let mut strict = config(broker);
    strict.predecessor = Predecessor::Stopped;
    let strict = KafkaEventBus::open(strict).unwrap();
    let heir = Subscription {
        start: StartAt::Group(stopped),
        ..subscription("bequeathed", "bequeathed.heir")
    };
    let heard = given_by(&strict, broker, &heir, 3).await;
    assert_eq!(heard, ["1 left", "2 left"]);
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
