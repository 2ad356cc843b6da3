//! Dead letters: what they carry, and what happens where the brokers refuse them.

use bytes::Bytes;
use futures_util::future::join_all;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::message::Headers as _;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Message as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use task_core::ports::{Answer, EventBus, Redelivery, Subscription};
use task_tests::process::KafkaBroker;
use task_tests::wait::until;

use super::{PATIENCE, bus, event, subscription, telling};
use crate::logs::Logs;

/// What lies in a dead-letter topic.
#[derive(Debug)]
pub(super) struct Dead {
    key: Option<String>,
    payload: Vec<u8>,
    headers: Vec<(String, String)>,
}

impl Dead {
    pub(super) fn header(&self, name: &str) -> &str {
        let mut named = self.headers.iter().filter(|(key, _)| key == name);
        let value = named.next().map_or("missing", |(_, value)| value);
        assert!(named.next().is_none(), "{name} twice: {self:?}");
        value
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap()
    }
}

/// Reads so many messages of a topic with a client that shows everything.
pub(super) async fn dead_letters(broker: &KafkaBroker, topic: &str, count: usize) -> Vec<Dead> {
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .set("group.id", format!("{topic}-reader"))
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    let mut seen = Vec::new();
    while seen.len() < count {
        let next = tokio::time::timeout(PATIENCE, consumer.recv()).await;
        let message = next.expect("a dead letter in time").unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let headers = message.headers().into_iter().flat_map(|all| all.iter());
        seen.push(Dead {
            key: message.key().map(text),
            payload: message.payload().map(<[u8]>::to_vec).unwrap(),
            headers: headers
                .map(|header| (header.key.to_owned(), text(header.value.unwrap())))
                .collect(),
        });
    }
    seen
}

fn administrator(broker: &KafkaBroker) -> AdminClient<DefaultClientContext> {
    ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .create()
        .unwrap()
}

/// Makes a topic with one partition that takes messages of so many bytes.
async fn topic_with_limit(broker: &KafkaBroker, name: &str, max_bytes: usize) {
    let limit = max_bytes.to_string();
    let topic = NewTopic::new(name, 1, TopicReplication::Fixed(1)).set("max.message.bytes", &limit);
    // It answers as long as it lives.
    let administrator = administrator(broker);
    let created = administrator.create_topics([&topic], &AdminOptions::new());
    created.await.unwrap().remove(0).unwrap();
}

/// Produces as somebody whose messages may be larger than ours.
async fn produce(broker: &KafkaBroker, topic: &str, key: &str, payload: &[u8]) {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .set("message.max.bytes", "8000000")
        .create()
        .unwrap();
    let record = FutureRecord::to(topic).key(key).payload(payload);
    producer.send(record, PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_dead_letter_says_why_and_where_it_was() {
    let broker = KafkaBroker::shared().await;
    for topic in ["why", "why.dead"] {
        broker.create_topic(topic, 1).await;
    }
    let bus = bus(broker);
    let (handler, _heard) = telling(|delivery| match &*delivery.payload {
        b"dropped" => Answer::dropped("its id is empty"),
        b"failing" => Answer::Retry,
        _ => Answer::Ack,
    });
    let subscription = Subscription {
        redelivery: Redelivery {
            max_deliveries: 3,
            ..subscription("why", "g").redelivery
        },
        ..subscription("why", "g")
    };
    let running = bus.subscribe(subscription, handler).await.unwrap();
    for (key, payload) in [("k-0", "good"), ("k-1", "dropped"), ("k-2", "failing")] {
        bus.publish(&event("why", key, payload)).await.unwrap();
    }
    let letters = dead_letters(broker, "why.dead", 2).await;
    for (payload, key, offset, reason, deliveries) in [
        ("dropped", "k-1", "1", "dropped: its id is empty", "1"),
        ("failing", "k-2", "2", "deliveries exhausted", "3"),
    ] {
        let mut found = letters.iter();
        let letter = found.find(|letter| letter.payload == payload.as_bytes());
        let letter = letter.expect(payload);
        assert_eq!(letter.key.as_deref(), Some(key));
        for (name, expected) in [
            ("x-dead-letter-reason", reason),
            ("x-original-topic", "why"),
            ("x-original-partition", "0"),
            ("x-original-offset", offset),
            ("x-deliveries", deliveries),
        ] {
            assert_eq!(letter.header(name), expected, "{name} of {letter:?}");
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn a_message_that_is_too_large_for_a_dead_letter_has_a_substitute_and_the_group_goes_on() {
    let broker = KafkaBroker::shared().await;
    // Too large for our producer, and too large for the topic alone.
    for (topic, limit, bytes) in [("huge", 1_000_000, 4_000_000), ("large", 2_000, 5_000)] {
        let dead = format!("{topic}.dead");
        topic_with_limit(broker, topic, 8_000_000).await;
        topic_with_limit(broker, &dead, limit).await;
        let payload = vec![b'x'; bytes];
        produce(broker, topic, "k-big", &payload).await;
        let bus = bus(broker);
        bus.publish(&event(topic, "k-1", "good")).await.unwrap();
        let (handler, mut heard) = telling(|delivery| match &*delivery.payload {
            b"good" | b"mark" => Answer::Ack,
            _ => Answer::dropped("bad"),
        });
        let running = bus.subscribe(subscription(topic, "g"), handler).await;
        assert_eq!(heard.next().await.payload.len(), bytes);
        assert_eq!(heard.texts(1).await, ["good"]);

        let letter = dead_letters(broker, &dead, 1).await.remove(0);
        let digest = Sha256::digest(&payload);
        let sha256: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = json!({
            "topic": topic, "partition": 0, "offset": 0, "key": "k-big", "bytes": bytes,
            "sha256": sha256, "reason": "too large",
        });
        assert_eq!(
            (letter.json(), letter.key.as_deref()),
            (expected, Some("k-big"))
        );
        assert_eq!(letter.header("x-dead-letter-reason"), "too large");
        assert_eq!(letter.header("x-original-offset"), "0");

        // It is finished: the group does not see it again.
        running.unwrap().stop().await;
        let (handler, mut heard) = telling(|_| Answer::Ack);
        let running = bus.subscribe(subscription(topic, "g"), handler).await;
        bus.publish(&event(topic, "k-2", "mark")).await.unwrap();
        assert_eq!(heard.next().await.payload, "mark");
        running.unwrap().stop().await;
    }
}

#[tokio::test]
async fn dead_letters_that_fit_one_by_one_are_written_whole_however_many_come_at_once() {
    const LETTERS: usize = 300;
    const AT_ONCE: usize = 5;
    const BYTES: usize = 5_500;
    let broker = KafkaBroker::shared().await;
    topic_with_limit(broker, "half", 8_000_000).await;
    // Any two of them are too large for one batch.
    topic_with_limit(broker, "half.dead", 10_000).await;
    let bus = bus(broker);
    let payload = Bytes::from("x".repeat(BYTES));
    let publish = async |n: usize| {
        let event = event("half", &format!("k-{n}"), payload.clone());
        bus.publish(&event).await.unwrap();
    };
    let (handler, _heard) = telling(|_| Answer::dropped("bad"));
    let running = bus.subscribe(subscription("half", "g"), handler).await;
    // Some come while others, refused with their batch, are tried again.
    for n in (0..LETTERS).step_by(AT_ONCE) {
        join_all((n..n + AT_ONCE).map(publish)).await;
    }
    let letters = dead_letters(broker, "half.dead", LETTERS).await;
    let substitutes = letters.iter().filter(|dead| dead.payload.len() != BYTES);
    assert_eq!(substitutes.count(), 0);
    running.unwrap().stop().await;
}

#[tokio::test]
async fn dead_letters_that_are_refused_hold_back_no_other_key_and_are_written_when_they_may() {
    let logs = Logs::collect();
    let broker = KafkaBroker::shared().await;
    broker.create_topic("refused", 1).await;
    // A compacted topic takes nothing without a key.
    let dead = NewTopic::new("refused.dead", 1, TopicReplication::Fixed(1));
    let dead = dead.set("cleanup.policy", "compact");
    let administrator = administrator(broker);
    let created = administrator.create_topics([&dead], &AdminOptions::new());
    created.await.unwrap().remove(0).unwrap();
    let bus = bus(broker);
    let (handler, mut heard) = telling(|delivery| match &*delivery.payload {
        b"bad" => Answer::dropped("bad"),
        _ => Answer::Ack,
    });
    let running = bus.subscribe(subscription("refused", "g"), handler).await;
    for n in 0..20 {
        let (bad, good) = (event("refused", "", "bad"), format!("k-{n}"));
        bus.publish(&bad).await.unwrap();
        let good = event("refused", &good, "good");
        bus.publish(&good).await.unwrap();
    }
    let all = heard.texts(40).await;
    assert_eq!(all.iter().filter(|text| *text == "good").count(), 20);
    let told = |text| logs.with(&["refused.dead", text]).len();
    until("the refusal is told", async || {
        (told("dead letters are not written") > 0).then_some(())
    })
    .await;
    let healed = AlterConfig::new(ResourceSpecifier::Topic("refused.dead"));
    let healed = healed.set("cleanup.policy", "delete");
    let healed = administrator.alter_configs([&healed], &AdminOptions::new());
    healed.await.unwrap().remove(0).unwrap();
    for letter in dead_letters(broker, "refused.dead", 20).await {
        assert_eq!((&*letter.payload, letter.key), (&b"bad"[..], None));
    }
    running.unwrap().stop().await;
    let lines = logs.with(&["refused.dead"]);
    assert_eq!(told("dead letters are not written"), 1, "{lines:#?}");
    assert_eq!(told("dead letters are written again"), 1, "{lines:#?}");
}
