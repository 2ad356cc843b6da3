//! The real servers and foreign clients that other tests stand on do what those tests assume.

use std::time::Duration;

use serde_json::Value;
use task_tests::process::redis::{self, AppendOnly, Encryption, RedisOptions};
use task_tests::process::{KafkaBroker, Python, RedisServer};

/// How long something that must not answer is listened to.
const SILENCE: Duration = Duration::from_millis(500);

const STRINGS: &str = include_str!("../../fixtures/legacy-redis-strings.jsonl");
const STREAM: &str = include_str!("../../fixtures/dapr-redis-stream.jsonl");

fn lines(text: &str) -> Vec<Value> {
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

#[tokio::test]
async fn redis_survives_kill_and_restart_with_its_data() {
    let options = RedisOptions {
        append_only: AppendOnly::Always,
        ..RedisOptions::default()
    };
    let mut server = RedisServer::start_with(options).await;
    let (url, id) = (server.url(), server.id());
    server.command(&["SET", "task:1", "first"]).await;
    server.kill();
    let refused = redis::try_command(&url, &["GET", "task:1"]).await;
    assert!(refused.is_err(), "a killed server answers {refused:?}");
    server.restart().await;
    assert_eq!(server.url(), url);
    assert_ne!(server.id(), id);
    let kept = server.command(&["GET", "task:1"]).await;
    assert_eq!(kept, ::redis::Value::BulkString(b"first".to_vec()));
    server.stop().await;
    server.restart().await;
    let kept = server.command(&["GET", "task:1"]).await;
    assert_eq!(kept, ::redis::Value::BulkString(b"first".to_vec()));
}

#[tokio::test]
async fn redis_loses_everything_at_a_restart_without_its_file() {
    let options = RedisOptions {
        append_only: AppendOnly::Off,
        ..RedisOptions::default()
    };
    let mut server = RedisServer::start_with(options).await;
    server.command(&["SET", "task:1", "first"]).await;
    server.restart().await;
    let kept = server.command(&["GET", "task:1"]).await;
    assert_eq!(kept, ::redis::Value::Nil);
}

#[tokio::test]
async fn redis_asks_for_passwords_certificates_and_memory() {
    let options = RedisOptions {
        password: Some("secret1".to_owned()),
        users: vec!["reader on >secret2 ~* +get +ping".to_owned()],
        encryption: Encryption::Mutual,
        max_memory: Some(4 << 20),
        ..RedisOptions::default()
    };
    let server = RedisServer::start_with(options).await;
    let port = server.port();
    let refused = async |url: String, words: &[&str]| {
        let answer = redis::try_command(&url, words).await;
        answer.expect_err("it must be refused").to_string()
    };
    let stranger = refused(format!("redis://127.0.0.1:{port}/"), &["GET", "a"]).await;
    assert!(stranger.contains("NOAUTH"), "{stranger}");
    let reader = format!("redis://reader:secret2@127.0.0.1:{port}/");
    let reader = refused(reader, &["SET", "a", "b"]).await;
    assert!(reader.contains("no permissions"), "{reader}");
    let large = "x".repeat(8 << 20);
    let full = refused(server.url(), &["SET", "a", &large]).await;
    assert!(full.contains("maxmemory"), "{full}");

    let certificates = server.certificates();
    let answer = async |with_client: bool| {
        let mut command = tokio::process::Command::new("redis-cli");
        command.args(["--no-auth-warning", "-u", &server.tls_url(), "--cacert"]);
        command.arg(certificates.authority());
        if with_client {
            command.arg("--cert").arg(certificates.client_certificate());
            command.arg("--key").arg(certificates.client_key());
        }
        let output = command.arg("PING").output().await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(answer(true).await, "PONG\n");
    assert_ne!(answer(false).await, "PONG\n");
}

#[tokio::test]
async fn a_paused_redis_is_silent_until_it_is_resumed() {
    let server = RedisServer::start().await;
    server.pause();
    let silent = tokio::time::timeout(SILENCE, server.command(&["PING"])).await;
    assert!(silent.is_err(), "a paused server answers {silent:?}");
    server.resume();
    let pong = ::redis::Value::SimpleString("PONG".to_owned());
    assert_eq!(server.command(&["PING"]).await, pong);
}

#[tokio::test]
async fn each_case_has_a_database_of_its_own() {
    let server = RedisServer::shared().await;
    let (one, other) = (server.next_database_url(), server.next_database_url());
    redis::command(&one, &["SET", "key", "value"]).await;
    let empty = ::redis::Value::Int(0);
    assert_eq!(redis::command(&other, &["DBSIZE"]).await, empty);
    assert_ne!(redis::command(&one, &["DBSIZE"]).await, empty);
}

#[tokio::test]
async fn captured_records_load_into_redis_and_python_reads_and_writes_them() {
    let server = RedisServer::shared().await;
    let python = Python::shared().await;
    let url = server.next_database_url();
    let mut tasks = Vec::new();
    for row in lines(STRINGS) {
        let (key, value) = (row["key"].as_str().unwrap(), row["value"].as_str().unwrap());
        redis::command(&url, &["SET", key, value]).await;
        tasks.push(serde_json::from_str::<Value>(value).unwrap());
    }
    let run = async |arguments: &[&str]| {
        let arguments = [&[url.as_str()], arguments].concat();
        python.run("redis_task.py", &arguments).await
    };
    let mut ids: Vec<&str> = tasks
        .iter()
        .map(|task| task["id"].as_str().unwrap())
        .collect();
    assert_eq!(lines(&run(&[&["read"], &ids[..]].concat()).await), tasks);
    run(&["update", ids[0], "status=completed"]).await;
    let changed = lines(&run(&["read", ids[0]]).await);
    assert_eq!(changed[0]["status"], "completed");
    assert_eq!(changed[0]["title"], tasks[0]["title"]);
    assert_eq!(run(&["delete", ids[1], "none"]).await, "1\n");
    let deleted = ids.remove(1);
    assert_eq!(run(&["read", deleted]).await, "null\n");
    ids.sort_unstable();
    assert_eq!(run(&["list"]).await.lines().collect::<Vec<_>>(), ids);
}

#[tokio::test]
async fn kafka_keeps_what_python_produced_through_a_pause_and_a_kill() {
    let mut broker = KafkaBroker::start().await;
    let bootstrap = broker.bootstrap();
    broker.create_topic("task-events", 3).await;
    let events: Vec<Value> = lines(STREAM)
        .iter()
        .map(|row| serde_json::from_str::<Value>(row["fields"][1].as_str().unwrap()).unwrap())
        .map(|envelope| envelope["data"].clone())
        .collect();
    let texts: Vec<String> = events.iter().map(Value::to_string).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let run = async |arguments: &[&str]| {
        let arguments = [&[bootstrap.as_str()], arguments].concat();
        let python = Python::shared().await;
        python.run("kafka_events.py", &arguments).await
    };

    broker.pause();
    let arguments = [&["produce", "task-events"], &texts[..]].concat();
    let mut produce = Box::pin(run(&arguments));
    let silent = tokio::time::timeout(SILENCE, &mut produce).await;
    assert!(silent.is_err(), "a paused broker answers");
    broker.resume();
    produce.await;

    broker.kill();
    broker.restart().await;
    run(&["envelope", "task-events", texts[0]]).await;
    let count = (events.len() + 1).to_string();
    let seen = lines(&run(&["consume", "task-events", &count]).await);
    let value = |line: &Value| serde_json::from_str::<Value>(line["value"].as_str().unwrap());
    let (bare, enveloped): (Vec<_>, Vec<_>) = seen
        .iter()
        .map(|line| (line["key"].clone(), value(line).unwrap()))
        .partition(|(_, value)| value["specversion"].is_null());
    assert_eq!(bare.len(), events.len());
    for event in &events {
        let expected = (event["task_id"].clone(), event.clone());
        assert!(bare.contains(&expected), "{event} is lost");
    }
    assert_eq!(enveloped[0].0, events[0]["task_id"]);
    assert_eq!(enveloped[0].1["data"], events[0]);
}
