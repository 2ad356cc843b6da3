//! Records and events of the service that is being replaced, as they were captured from it.

use std::sync::Arc;

use adapters_direct::embedded::{Embedded, EmbeddedConfig};
use serde_json::Value;
use task_core::application::IncomingEvent;
use task_core::ports::{Key, Kind, PutOptions, StateStore, SystemClock};
use task_tests::process::{TaskServer, TestDirectory};

const STRINGS: &str = include_str!("../../fixtures/legacy-redis-strings.jsonl");
const HASHES: &str = include_str!("../../fixtures/dapr-redis-hashes.jsonl");
const STREAM: &str = include_str!("../../fixtures/dapr-redis-stream.jsonl");

/// Captured records as (id, JSON text).
fn records(capture: &str, field: &str, prefix: &str) -> Vec<(String, String)> {
    let rows = capture.lines().map(|line| {
        let row: Value = serde_json::from_str(line).unwrap();
        let key = row["key"].as_str().unwrap();
        let id = key.strip_prefix(prefix).unwrap().to_owned();
        (id, row[field].as_str().unwrap().to_owned())
    });
    rows.collect()
}

/// A record as the replaced service wrote it, with a field that nobody knows.
fn with_unknown_fields(text: &str) -> String {
    let open = text.trim_end().strip_suffix('}').unwrap();
    format!(r#"{open},"owner":{{"team":"ops","ids":[12345678901234567890123]}},"note":"\u00e9"}}"#)
}

async fn load(data: &TestDirectory, records: &[(String, String)]) {
    let config = EmbeddedConfig::new(data.path());
    let store = Embedded::open(&config, Arc::new(SystemClock))
        .unwrap()
        .state_store();
    for (id, text) in records {
        let key = Key::new(Kind::TASK, id.as_str());
        let text = with_unknown_fields(text);
        store
            .put(&key, text.into(), PutOptions::default())
            .await
            .unwrap();
    }
}

/// A naive legacy time as the API shows it.
fn as_utc(naive: &Value) -> String {
    format!("{}Z", naive.as_str().unwrap())
}

#[tokio::test]
async fn records_captured_from_redis_strings_are_read_and_changed_without_loss() {
    read_and_change(&records(STRINGS, "value", "task:")).await;
}

#[tokio::test]
async fn records_captured_from_dapr_hashes_are_read_and_changed_without_loss() {
    read_and_change(&records(HASHES, "data", "task-api||task-")).await;
}

async fn read_and_change(records: &[(String, String)]) {
    let data = TestDirectory::new("legacy");
    assert_eq!(records.len(), 54);
    load(&data, records).await;
    let server = TaskServer::start(data.path()).await;
    for (id, text) in records {
        let original: Value = serde_json::from_str(text).unwrap();
        let target = format!("/tasks/{id}");
        let read = server.get(&target).await;
        assert_eq!(read.status, 200, "{}", read.text());
        let task = read.json();
        for field in ["id", "title", "description", "status", "priority"] {
            assert_eq!(task[field], original[field], "{field} of {id}");
        }
        for field in ["created_at", "updated_at"] {
            assert_eq!(task[field], as_utc(&original[field]));
        }
        let other = if task["status"] == "completed" {
            "pending"
        } else {
            "completed"
        };
        let only = [("if-match", read.header("etag").unwrap())];
        let change = format!("{target}/status?status={other}");
        let changed = server.send("PUT", &change, &only, "").await;
        assert_eq!(changed.status, 200, "{}", changed.text());
        assert_eq!(server.send("PUT", &change, &only, "").await.status, 412);
    }
    assert!(server.stop().success());

    let config = EmbeddedConfig::new(data.path());
    let store = Embedded::open(&config, Arc::new(SystemClock))
        .unwrap()
        .state_store();
    for (id, text) in records {
        let stored = store
            .get(&Key::new(Kind::TASK, id.as_str()))
            .await
            .unwrap()
            .unwrap();
        let written = std::str::from_utf8(&stored.value).unwrap();
        let unknown = r#""owner":{"team":"ops","ids":[12345678901234567890123]},"note":"\u00e9""#;
        assert!(written.contains(unknown), "{written}");
        let original: Value = serde_json::from_str(text).unwrap();
        let rewritten: Value = serde_json::from_str(written).unwrap();
        for field in ["id", "title", "description", "priority"] {
            assert_eq!(rewritten[field], original[field]);
        }
        assert_eq!(rewritten["created_at"], as_utc(&original["created_at"]));
    }
}

#[tokio::test]
async fn captured_events_are_understood_in_the_envelope_and_bare() {
    let mut read = 0;
    for line in STREAM.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let envelope = row["fields"][1].as_str().unwrap();
        let event = IncomingEvent::parse(envelope.as_bytes()).unwrap();
        let parsed: Value = serde_json::from_str(envelope).unwrap();
        assert_eq!(parsed["id"], event.id.as_str());
        assert_eq!(parsed["source"], event.source.as_str());
        assert_eq!(parsed["data"]["task_id"], event.task_id.as_str());
        assert_eq!(parsed["data"]["event_type"], event.event_type.as_str());
        let bare = parsed["data"].to_string();
        let again = IncomingEvent::parse(bare.as_bytes()).unwrap();
        assert_eq!(again.task_id, event.task_id);
        assert_eq!(again, IncomingEvent::parse(bare.as_bytes()).unwrap());
        read += 1;
    }
    assert_eq!(read, 90);
}
