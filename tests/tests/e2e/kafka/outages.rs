//! What is said while Kafka is away, and which topics come into being.

use std::time::Duration;

use adapters_direct::kafka::{KafkaEventBus, MissingTopics};
use task_core::ports::{Answer, ErrorKind, EventBus};

use task_tests::process::KafkaBroker;
use task_tests::wait::until;

use super::{bus, config, event, subscription, telling};
use crate::logs::Logs;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_one_line_when_it_begins_and_one_when_it_is_over() {
    let logs = Logs::collect();
    let mut broker = KafkaBroker::start().await;
    for topic in ["outage", "outage.dead"] {
        broker.create_topic(topic, 3).await;
    }
    // A broker that has just started is not ready for everything.
    let ready = until("the broker takes events", async || {
        super::bus(&broker)
            .publish(&event("ready", "k", "{}"))
            .await
            .ok()
    });
    ready.await;
    let mut config = config(&broker);
    config.client_id = "kafka-outage".to_owned();
    config.delivery_timeout = Duration::from_secs(1);
    config.request_timeout = Duration::from_secs(3);
    let bus = KafkaEventBus::open(config).unwrap();
    let (handler, mut heard) = telling(|_| Answer::Ack);
    let running = bus.subscribe(subscription("outage", "g"), handler).await;
    let running = running.unwrap();
    bus.publish(&event("outage", "k", "before")).await.unwrap();
    assert_eq!(heard.texts(1).await, ["before"]);
    // A broker that has just started may not be ready for everything.
    let lines = |text| logs.with(&["kafka-outage", text]).len();
    let told = || (lines("does not answer"), lines("answers again"));
    let (begun, _) = until("nothing is amiss", async || {
        Some(told()).filter(|(begun, over)| begun == over)
    })
    .await;
    let before = lines("");
    broker.kill();
    for n in 0..5 {
        let event = event("outage", "k", n.to_string());
        bus.publish(&event).await.expect_err("nobody is there");
    }
    bus.check().await.expect_err("nobody is there");
    broker.restart().await;
    until("the end is told", async || (told().1 > begun).then_some(())).await;
    until("an event comes", async || {
        let event = event("outage", "k", "after");
        bus.publish(&event).await.ok()
    })
    .await;
    while heard.texts(1).await != ["after"] {}
    running.stop().await;
    let of_client = logs.with(&["kafka-outage"]);
    assert_eq!(told(), (begun + 1, begun + 1), "{of_client:#?}");
    assert_eq!(of_client.len(), before + 2, "{of_client:#?}");
    let of_group = logs.with(&["WARN", "outage.g"]);
    assert!(of_group.is_empty(), "{of_group:#?}");
}

#[tokio::test]
async fn a_missing_topic_is_made_as_stated_or_named_with_the_reason() {
    // Nothing comes by itself on this broker.
    let broker = KafkaBroker::shared().await;
    let made = bus(broker);
    made.publish(&event("made", "k", "{}")).await.unwrap();
    assert_eq!(partitions_of(broker, "made"), 3);
    let mut config = config(broker);
    for (missing_topics, kind, reason) in [
        (
            MissingTopics::Refuse,
            ErrorKind::NotFound,
            "missing_topics is refuse",
        ),
        (
            MissingTopics::Create {
                partitions: 3,
                replication: 2,
            },
            ErrorKind::Invalid,
            "InvalidReplicationFactor: the brokers cannot make such a topic",
        ),
    ] {
        config.missing_topics = missing_topics;
        let bus = KafkaEventBus::open(config.clone()).unwrap();
        let error = bus.publish(&event("not-made", "k", "{}")).await;
        let error = error.expect_err("no topic");
        let expected = format!("topic not-made does not exist and may not be created: {reason}");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(&expected), "{error}");
    }
    assert_eq!(partitions_of(broker, "not-made"), 0);
}

/// The number of partitions of a topic, 0 if there is none.
fn partitions_of(broker: &KafkaBroker, topic: &str) -> usize {
    use rdkafka::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .create()
        .unwrap();
    let metadata = client.fetch_metadata(Some(topic), super::PATIENCE).unwrap();
    metadata.topics()[0].partitions().len()
}
