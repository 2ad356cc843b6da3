//! Messages that others write and read.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use task_core::application::CompletionNotifier;
use task_core::memory::{MemoryNotifier, MemoryStateStore};
use task_core::ports::{Answer, EventBus, Group, Notifier, SystemClock};
use task_tests::process::{KafkaBroker, Python};
use task_tests::wait::until;

use super::burials::dead_letters;
use super::{bus, event, subscription, telling};

#[tokio::test]
async fn what_python_produces_is_delivered_as_it_is() {
    let broker = KafkaBroker::shared().await;
    broker.create_topic("from-python", 3).await;
    let python = Python::shared().await;
    let events = [1, 2, 3].map(|n| json!({"task_id": format!("t-{n}"), "n": n}).to_string());
    let arguments = |command| {
        let first = [broker.bootstrap(), command, "from-python".to_owned()];
        let all = first.into_iter().chain(events.clone());
        all.collect::<Vec<String>>()
    };
    for command in ["produce", "envelope"] {
        let arguments = arguments(command.to_owned());
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        python.run("kafka_events.py", &arguments).await;
    }
    let (handler, mut heard) = telling(|_| Answer::Ack);
    let subscription = subscription("from-python", "reader");
    let running = bus(broker).subscribe(subscription, handler).await.unwrap();
    let (mut bare, mut enveloped) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        let delivery = heard.next().await;
        let value: Value = serde_json::from_slice(&delivery.payload).unwrap();
        let (kind, data) = match value.get("specversion") {
            Some(_) => (&mut enveloped, &value["data"]),
            None => (&mut bare, &value),
        };
        assert_eq!(data["task_id"], *delivery.key, "{value}");
        kind.push(data["n"].as_u64().unwrap());
    }
    bare.sort_unstable();
    enveloped.sort_unstable();
    assert_eq!((bare, enveloped), (vec![1, 2, 3], vec![1, 2, 3]));
    running.stop().await;
}

#[tokio::test]
async fn python_reads_key_partition_and_bytes_of_what_is_published() {
    const PARTITIONS: u16 = 5;
    let broker = KafkaBroker::shared().await;
    broker.create_topic("to-python", PARTITIONS).await;
    let bus = bus(broker);
    let payload = |n: u32| format!("{{\"z\": 1.0,  \"n\":{n}, \"a\":\"\\u00e4\u{e4}\"}}\n");
    let key = |n: u32| format!("task-{n}-\u{e4}");
    for n in 0..20 {
        let event = event("to-python", &key(n), payload(n));
        bus.publish(&event).await.unwrap();
    }
    let bootstrap = broker.bootstrap();
    let arguments = [bootstrap.as_str(), "consume", "to-python", "20"];
    let python = Python::shared().await;
    let printed = python.run("kafka_events.py", &arguments).await;
    let mut seen = 0;
    for line in printed.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let n = (0..20).find(|&n| line["key"] == key(n)).unwrap();
        assert_eq!(line["value"], payload(n));
        assert_eq!(line["headers"], json!({}));
        // FNV-1a, signed, absolute: what Dapr's component computes.
        let hash = key(n).bytes().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        let expected = (hash.cast_signed() % i32::from(PARTITIONS)).abs();
        assert_eq!(line["partition"], expected, "{line}");
        seen += 1;
    }
    assert_eq!(seen, 20);
}

/// An envelope with one completion, for a task that is named by what is special about it.
fn completion(version: &str, name: &str, special: &Value) -> Value {
    let mut envelope = json!({
        "specversion": version, "id": name, "source": "elsewhere", "type": "task.completed",
        "data": {"event_type": "task.completed", "task_id": name},
    });
    let fields = envelope.as_object_mut().unwrap();
    fields.extend(special.as_object().unwrap().clone());
    fields.retain(|_, value| !value.is_null());
    envelope
}

#[tokio::test]
async fn envelopes_of_others_are_understood_and_those_that_are_not_say_why_in_their_letters() {
    let broker = KafkaBroker::shared().await;
    for topic in ["envelopes", "envelopes.dead"] {
        broker.create_topic(topic, 1).await;
    }
    // {"event_type":"task.completed","task_id":"in base64"}
    let base64 = "eyJldmVudF90eXBlIjoidGFzay5jb21wbGV0ZWQiLCJ0YXNrX2lkIjoiaW4gYmFzZTY0In0=";
    let in_data = json!({"datacontentencoding": "base64", "data": base64});
    let over = json!({"expiration": "2020-01-01T00:00:00Z"});
    let not_over = json!({"expiration": "2999-01-01T00:00:00Z"});
    let bus = bus(broker);
    for envelope in [
        completion("1.0", "1", &json!({"data": null, "data_base64": base64})),
        completion("0.3", "2", &in_data),
        completion("0.3", "old", &json!({})),
        completion("1.0", "expired", &over),
        completion("1.0", "in time", &not_over),
        completion("2.0", "new", &json!({})),
        completion(
            "1.0",
            "no task",
            &json!({"data": {"event_type": "task.completed"}}),
        ),
        completion("1.0", "last", &json!({})),
    ] {
        let event = event("envelopes", "k", envelope.to_string());
        bus.publish(&event).await.unwrap();
    }
    let notifier = Arc::new(MemoryNotifier::new());
    let store = Arc::new(MemoryStateStore::new(Arc::new(SystemClock)));
    let to: Arc<dyn Notifier> = Arc::<MemoryNotifier>::clone(&notifier);
    let handler = CompletionNotifier::new(Group::new("g"), store, to);
    let subscription = subscription("envelopes", "g");
    let running = bus
        .subscribe(subscription, Arc::new(handler))
        .await
        .unwrap();
    let ids = until("the last one is notified", async || {
        let received = notifier.received().into_iter();
        let ids: Vec<String> = received
            .map(|one| one.idempotency_key.to_string())
            .collect();
        ids.contains(&"last".to_owned()).then_some(ids)
    })
    .await;
    assert_eq!(ids, ["1", "2", "old", "in time", "last"]);
    let letters = dead_letters(broker, "envelopes.dead", 2).await;
    let reasons = letters
        .iter()
        .map(|letter| letter.header("x-dead-letter-reason"));
    let expected = [
        r#"dropped: not an event: its specversion must be 1.0 or 0.3, it is "2.0""#,
        "dropped: not an event: its task_id is missing",
    ];
    assert_eq!(reasons.collect::<Vec<_>>(), expected);
    running.stop().await;
}

#[tokio::test]
async fn a_message_without_a_key_is_delivered_and_a_tombstone_is_passed_over() {
    let broker = KafkaBroker::shared().await;
    for topic in ["odd", "odd.dead"] {
        broker.create_topic(topic, 1).await;
    }
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .create()
        .unwrap();
    let headers = || {
        OwnedHeaders::new().insert(Header {
            key: "partitionKey",
            value: Some("x"),
        })
    };
    let message = || FutureRecord::<[u8], [u8]>::to("odd");
    for record in [
        message().payload(b"no key").headers(headers()),
        message().key(b"k"),
        message().key(b"\xff").payload(b"odd key"),
        message().key(b"k").payload(b"last"),
    ] {
        let sent = producer.send(record, Duration::from_secs(30)).await;
        sent.unwrap();
    }
    let bus = bus(broker);
    let (handler, mut heard) = telling(|delivery| match &*delivery.payload {
        b"last" => Answer::Ack,
        _ => Answer::dropped("bad"),
    });
    let running = bus.subscribe(subscription("odd", "g"), handler).await;
    let mut keys = Vec::new();
    for _ in 0..3 {
        let delivery = heard.next().await;
        let payload = String::from_utf8_lossy(&delivery.payload).into_owned();
        keys.push((payload, delivery.key.to_string()));
    }
    let expected = [("no key", ""), ("odd key", "\u{fffd}"), ("last", "k")];
    let expected = expected.map(|(payload, key)| (payload.to_owned(), key.to_owned()));
    keys.sort();
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(keys, expected);

    dead_letters_are_as_they_were(broker).await;
    running.unwrap().stop().await;
}

/// Reads the dead letters of the case above with a client that shows everything.
async fn dead_letters_are_as_they_were(broker: &KafkaBroker) {
    use rdkafka::Message as _;
    use rdkafka::consumer::{Consumer as _, StreamConsumer};
    use rdkafka::message::Headers as _;

    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .set("group.id", "odd-reader")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&["odd.dead"]).unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let next = tokio::time::timeout(super::PATIENCE, consumer.recv()).await;
        let message = next.expect("a dead letter in time").unwrap();
        let key = message.key().map(<[u8]>::to_vec);
        let headers = message.headers().map_or(0, |headers| headers.count());
        let payload = message.payload().map(<[u8]>::to_vec).unwrap();
        seen.push((String::from_utf8(payload).unwrap(), key, headers));
    }
    seen.sort();
    let expected = [
        ("no key".to_owned(), None, 6),
        ("odd key".to_owned(), Some(b"\xff".to_vec()), 5),
    ];
    assert_eq!(seen, expected);
}
