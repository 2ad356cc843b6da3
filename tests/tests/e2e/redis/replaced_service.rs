//! The replaced service, which is redis-py, on the same strings at the same time.

use std::collections::BTreeMap;
use std::time::Duration;

use adapters_direct::redis::RedisLayout;
use serde_json::{Value, json};
use task_core::ports::{DeleteMode, DeleteOptions, ErrorKind, StateStore, WriteMode};
use task_tests::process::{Python, RedisServer};

use super::{HASHES, STRINGS, ask, bury, put, read, store, task, value};

async fn python(address: &str, arguments: &[&str]) -> String {
    let arguments = [&[address], arguments].concat();
    Python::shared()
        .await
        .run("redis_task.py", &arguments)
        .await
}

async fn read_by_python(address: &str, id: &str) -> Value {
    serde_json::from_str(&python(address, &["read", id]).await).unwrap()
}

#[tokio::test]
async fn redis_py_and_this_adapter_work_on_the_same_tasks() {
    let address = RedisServer::shared().await.next_database_url();
    let store = store(&address, RedisLayout::Legacy).await;
    let first = json!({"id": "t-1", "title": "gr\u{fc}n \u{1f600}", "status": "pending"});
    python(&address, &["write", &first.to_string()]).await;
    let seen = read(&store, "t-1").await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&seen.value).unwrap(), first);

    let ours = json!({"id": "t-1", "title": "ours", "status": "pending"}).to_string();
    let etag = put(&store, "t-1", &ours, WriteMode::Match(seen.etag))
        .await
        .unwrap();
    assert_eq!(read_by_python(&address, "t-1").await["title"], "ours");

    // Between our read and our write the other one writes: its change stays.
    python(&address, &["update", "t-1", "status=completed"]).await;
    let late = put(&store, "t-1", "{}", WriteMode::Match(etag.clone())).await;
    assert!(late.unwrap_err().is_conflict());
    let delete = DeleteOptions {
        mode: DeleteMode::Match(etag),
        tombstone: None,
    };
    let late = store.delete(&task("t-1"), delete).await;
    assert!(late.unwrap_err().is_conflict());
    assert_eq!(read_by_python(&address, "t-1").await["status"], "completed");

    store
        .delete(&task("t-1"), bury(Duration::from_secs(3600)))
        .await
        .unwrap();
    assert_eq!(read_by_python(&address, "t-1").await, Value::Null);
    assert_eq!(python(&address, &["list"]).await, "");
    let again = put(&store, "t-1", "{}", WriteMode::Create).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::Conflict);
    // It knows nothing of tombstones, and what it writes is there.
    python(&address, &["write", &first.to_string()]).await;
    let seen = read(&store, "t-1").await.unwrap();
    put(&store, "t-1", &ours, WriteMode::Match(seen.etag))
        .await
        .unwrap();
    assert_eq!(python(&address, &["delete", "t-1"]).await, "1\n");
    put(&store, "t-1", &ours, WriteMode::Create).await.unwrap();
}

#[tokio::test]
async fn an_expiring_task_of_ours_expires_for_redis_py() {
    let address = RedisServer::shared().await.next_database_url();
    let store = store(&address, RedisLayout::Legacy).await;
    let options = task_core::ports::PutOptions {
        mode: WriteMode::Overwrite,
        ttl: Some(Duration::from_secs(3600)),
    };
    store.put(&task("t-1"), "{}".into(), options).await.unwrap();
    let left: i64 = ask(&address, &["PTTL", "task:t-1"]).await;
    assert!((3_590_000..=3_600_000).contains(&left), "{left} ms");
    put(&store, "t-1", "{}", WriteMode::Overwrite)
        .await
        .unwrap();
    assert_eq!(ask::<i64>(&address, &["PTTL", "task:t-1"]).await, -1);
}

/// Captured records as (key, id, JSON text, version).
fn records<'a>(
    capture: &'a str,
    field: &str,
    prefix: &str,
) -> Vec<(String, String, String, String)> {
    let rows = capture.lines().map(|line: &'a str| {
        let row: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let key = text("key");
        let id = key.strip_prefix(prefix).unwrap().to_owned();
        (key, id, text(field), text("version"))
    });
    rows.collect()
}

#[tokio::test]
async fn captured_strings_are_read_changed_and_enumerated() {
    let address = RedisServer::shared().await.next_database_url();
    let store = store(&address, RedisLayout::Legacy).await;
    let records = records(STRINGS, "value", "task:");
    assert_eq!(records.len(), 54);
    for (key, _, text, _) in &records {
        ask::<()>(&address, &["SET", key, text]).await;
    }
    for (key, id, text, _) in &records {
        let seen = read(&store, id).await.unwrap();
        assert_eq!(seen.value, text.as_bytes());
        let changed = format!("{text} ");
        put(&store, id, &changed, WriteMode::Match(seen.etag))
            .await
            .unwrap();
        assert_eq!(ask::<String>(&address, &["GET", key]).await, changed);
    }
    let page = store.scan(task("x").kind, None, 1_000).await.unwrap();
    assert_eq!(page.entries.len(), records.len());
}

#[tokio::test]
async fn captured_hashes_are_read_and_changed_as_dapr_would() {
    let address = RedisServer::shared().await.next_database_url();
    let store = store(&address, RedisLayout::Dapr).await;
    let records = records(HASHES, "data", "task-api||task-");
    assert_eq!(records.len(), 54);
    for (key, _, text, version) in &records {
        ask::<()>(&address, &["HSET", key, "data", text, "version", version]).await;
    }
    for (key, id, text, version) in &records {
        let seen = read(&store, id).await.unwrap();
        assert_eq!(
            (seen.value.as_ref(), seen.etag.as_str()),
            (text.as_bytes(), version.as_str())
        );
        let changed = format!("{text} ");
        let etag = put(&store, id, &changed, WriteMode::Match(seen.etag))
            .await
            .unwrap();
        let next = (version.parse::<u64>().unwrap() + 1).to_string();
        assert_eq!(etag.as_str(), next);
        let fields: BTreeMap<String, String> = ask(&address, &["HGETALL", key]).await;
        let expected =
            [("data", changed), ("version", next)].map(|(name, text)| (name.to_owned(), text));
        assert_eq!(fields, BTreeMap::from(expected));
    }
    let page = store.scan(task("x").kind, None, 1_000).await.unwrap();
    assert_eq!(page.entries.len(), records.len());
    assert_eq!(value(&store, "none").await, None);
}
