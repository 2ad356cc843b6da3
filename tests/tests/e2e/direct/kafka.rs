//! The service on a Kafka that others run: topics that they have made, certificates that they ask for,
//! groups that they have left.

use std::fs;
use std::path::Path;

use task_tests::process::kafka::{Entry, KafkaOptions};
use task_tests::process::redis::{Certificates, Encryption, RedisOptions};
use task_tests::process::{KafkaBroker, Python, RedisServer};
use task_tests::wait::until;

use super::World;
use crate::create;

/// No topic is made because it is missing.
const AS_IT_IS: [&str; 2] = ["--kafka-create-partitions", "0"];

#[tokio::test]
async fn a_topic_that_is_missing_is_named_at_the_start_with_what_to_do() {
    let world = World::start().await;
    for missing in ["task-events", "task-events.dead"] {
        let (code, log) = world.refused(&AS_IT_IS);
        assert_eq!(code, Some(2), "{log}");
        let named = format!("topic {missing} does not exist");
        assert!(log.contains(&named), "{log}");
        let advice =
            "make the topics task-events and task-events.dead, or set kafka_create_partitions";
        assert!(log.contains(advice), "{log}");
        world.kafka.create_topic(missing, 1).await;
    }
    let server = world.serve(&AS_IT_IS).await;
    assert!(server.stop().success());
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}

/// The three keys of a client that both sides trust.
fn trusted(server: &str, certificates: &Certificates) -> [String; 6] {
    [
        format!("--{server}-ca-file"),
        text(certificates.authority()),
        format!("--{server}-certificate-file"),
        text(certificates.client_certificate()),
        format!("--{server}-key-file"),
        text(certificates.client_key()),
    ]
}

#[tokio::test]
async fn servers_that_ask_for_certificates_are_shown_those_that_are_named_and_no_key_is_told() {
    let mut world = World::start().await;
    world.redis = RedisServer::start_with(RedisOptions {
        encryption: Encryption::Mutual,
        ..RedisOptions::default()
    })
    .await;
    world.kafka = KafkaBroker::start_with(KafkaOptions {
        secured: Some(Entry::Certificate),
        ..KafkaOptions::default()
    })
    .await;
    let (redis, kafka) = (world.redis.tls_url(), world.kafka.secured().bootstrap());
    let of_redis = trusted("redis", world.redis.certificates());
    let of_kafka = trusted("kafka", world.kafka.secured().certificates());
    let own = ["--redis-url", &redis, "--kafka-brokers", &kafka];
    let own = own
        .into_iter()
        .chain(["--kafka-security", "tls", "--log", "trace"]);
    let with = |files: &[String]| {
        let files = files.iter().map(String::as_str);
        own.clone()
            .chain(files)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let all = with(&[&of_redis[..], &of_kafka].concat());
    let words: Vec<&str> = all.iter().map(String::as_str).collect();
    let server = world.serve(&words).await;
    let (id, _) = create(&server, "between those who know each other").await;
    let done = format!("/tasks/{id}/status?status=completed");
    assert_eq!(server.send("PUT", &done, &[], "").await.status, 200);
    until("it is notified", async || {
        (world.receiver.notified() == [id.as_str()]).then_some(())
    })
    .await;
    let log = server.log();
    for certificates in [
        world.redis.certificates(),
        world.kafka.secured().certificates(),
    ] {
        let key = fs::read_to_string(certificates.client_key()).unwrap();
        let secret = key.lines().nth(1).unwrap();
        assert!(!log.contains(secret), "the log tells a key");
    }
    assert!(server.stop().success());

    // Without a certificate of its own it is refused, and told what to look at.
    for (files, advice) in [
        (
            [&of_redis[..2], &of_kafka[..]],
            "the keys that begin with redis_ and end in _file",
        ),
        (
            [&of_redis[..], &of_kafka[..2]],
            "kafka_certificate_file and kafka_key_file",
        ),
    ] {
        let without = with(&files.concat());
        let words: Vec<&str> = without.iter().map(String::as_str).collect();
        let (code, log) = world.refused(&words);
        assert_eq!(code, Some(2), "{log}");
        assert!(log.contains(advice), "{log}");
    }
}

/// A completion as the replaced service publishes it.
fn completion(task: &str) -> String {
    let time = "2026-11-21T02:08:47.911595";
    format!(
        r#"{{"event_type":"task.completed","task_id":"{task}","title":"t","status":"completed","timestamp":"{time}"}}"#
    )
}

#[tokio::test]
async fn the_consumer_of_the_replaced_service_is_continued_where_it_stands_and_refused_if_it_never_was()
 {
    let world = World::start().await;
    for topic in ["task-events", "task-events.dead"] {
        world.kafka.create_topic(topic, 6).await;
    }
    let bootstrap = world.kafka.bootstrap();
    let python = Python::shared().await;
    let produce = async |tasks: [&str; 3]| {
        let [a, b, c] = tasks.map(completion);
        let arguments = [&bootstrap, "produce", "task-events", &a, &b, &c];
        python.run("kafka_events.py", &arguments).await;
    };
    produce(["old-1", "old-2", "old-3"]).await;
    let arguments = [&bootstrap, "consume", "task-events", "3", "task-notifier"];
    python.run("kafka_events.py", &arguments).await;
    produce(["new-1", "new-2", "new-3"]).await;

    let (code, log) = world.refused(&["--kafka-start-group", "task-notifer"]);
    assert_eq!(code, Some(2), "{log}");
    let reason = "group task-notifer has no position in topic task-events";
    assert!(log.contains(reason), "{log}");

    let server = world.serve(&["--kafka-start-group", "task-notifier"]).await;
    let mut notified = until("what is new is notified", async || {
        let notified = world.receiver.notified();
        (notified.len() >= 3).then_some(notified)
    })
    .await;
    notified.sort_unstable();
    assert_eq!(notified, ["new-1", "new-2", "new-3"]);
    assert!(server.stop().success());
    // From then on the position is its own.
    let server = world.serve(&["--kafka-start-group", "forgotten"]).await;
    assert!(server.stop().success());
}
