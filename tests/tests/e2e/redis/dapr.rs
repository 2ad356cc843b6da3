//! Dapr's layout, pinned to what a running Dapr was seen to write and to accept.
//!
//! Dapr itself is played by scripts that do what its `state.redis` does, in words of our own.

use std::sync::Arc;
use std::time::Duration;

use adapters_direct::redis::{KeyPrefix, Redis, RedisLayout, RedisStateStore};
use redis::Value;
use task_core::ports::{
    DeleteMode, DeleteOptions, ETag, ErrorKind, PortError, PutOptions, StateStore, WriteMode,
};
use task_tests::process::RedisServer;
use task_tests::process::redis::try_command;

use super::{ask, bury, config, everything, put, read, store, task, value};

/// Saves as a sidecar does; a missing key takes every version, and a refusal is a script error.
const SAVE: &str = "
local version = redis.call('HGET', KEYS[1], 'version')
local marked = redis.call('HGET', KEYS[1], 'first-write')
if version and version ~= ARGV[1] and not (ARGV[1] == '0' and not marked) then
  return redis.error_reply('ERR refused')
end
redis.call('HSET', KEYS[1], 'data', ARGV[2])
if ARGV[3] == '0' then
  redis.call('HSET', KEYS[1], 'first-write', 0)
end
return redis.call('HINCRBY', KEYS[1], 'version', 1)";

/// Concurrency as a sidecar passes it on.
const LAST_WRITE: &str = "1";
const FIRST_WRITE: &str = "0";

/// A save of key `task-{id}` by app id `task-api`; the version `0` means none.
async fn sidecar_saves(
    address: &str,
    id: &str,
    version: &str,
    data: &str,
    concurrency: &str,
) -> Option<u64> {
    let key = format!("task-api||task-{id}");
    let words = ["EVAL", SAVE, "1", &key, version, data, concurrency];
    let saved = try_command(address, &words).await;
    saved
        .ok()
        .map(|version| redis::from_redis_value(version).unwrap())
}

async fn sidecar_reads(address: &str, id: &str) -> Vec<String> {
    ask(address, &["HGETALL", &format!("task-api||task-{id}")]).await
}

#[tokio::test]
async fn a_hash_has_the_fields_of_dapr_and_no_other() {
    let address = RedisServer::shared().await.next_database_url();
    let store = store(&address, RedisLayout::Dapr).await;
    let first = put(&store, "7", "{\"a\":1}", WriteMode::Create)
        .await
        .unwrap();
    let found = everything(&address).await;
    assert_eq!(found.keys().collect::<Vec<_>>(), ["task-api||task-7"]);
    assert_eq!(found["task-api||task-7"].0, "hash");
    assert_eq!(
        sidecar_reads(&address, "7").await,
        ["data", "{\"a\":1}", "version", first.as_str()]
    );
    let second = put(&store, "7", "{}", WriteMode::Match(first.clone()))
        .await
        .unwrap();
    let number = |etag: &ETag| etag.as_str().parse::<u64>().unwrap();
    assert_eq!(number(&second), number(&first) + 1);
    // Beyond what Dapr counts to, and exact in a double.
    assert!((1_700_000_000_000_000..1 << 53).contains(&number(&first)));
    store
        .delete(&task("7"), DeleteOptions::default())
        .await
        .unwrap();
    // A sidecar would take every version of a key that is gone, so something is left for a while.
    assert_eq!(sidecar_reads(&address, "7").await[1], "\0");
    let left: i64 = ask(&address, &["PTTL", "task-api||task-7"]).await;
    assert!((290_000..=300_000).contains(&left), "{left} ms");
    let late = sidecar_saves(&address, "7", second.as_str(), "late", LAST_WRITE);
    assert_eq!(late.await, None);
    let third = put(&store, "7", "{}", WriteMode::Create).await.unwrap();
    assert_eq!(number(&third), number(&second) + 2);
    ask::<()>(&address, &["DEL", "task-api||task-7"]).await;
    let anew = put(&store, "7", "{}", WriteMode::Create).await.unwrap();
    assert!(number(&anew) > number(&third));
}

#[tokio::test]
async fn every_key_prefix_of_dapr_has_its_key() {
    for (prefix, key) in [
        (KeyPrefix::default(), "task-api||task-7"),
        (
            KeyPrefix::Text("default.task-api".into()),
            "default.task-api||task-7",
        ),
        (KeyPrefix::Text("statestore".into()), "statestore||task-7"),
        (KeyPrefix::None, "task-7"),
    ] {
        let address = RedisServer::shared().await.next_database_url();
        let mut config = config(&address, RedisLayout::Dapr);
        config.key_prefix = prefix;
        let store = Redis::open(&config).await.unwrap().state_store();
        put(&store, "7", "{}", WriteMode::Create).await.unwrap();
        assert_eq!(
            everything(&address).await.into_keys().collect::<Vec<_>>(),
            [key]
        );
        let page = store.scan(task("7").kind, None, 10).await.unwrap();
        assert_eq!(page.entries[0].0, task("7"));
    }
}

#[tokio::test]
async fn a_sidecar_takes_our_versions_and_we_take_its() {
    let address = RedisServer::shared().await.next_database_url();
    let store = store(&address, RedisLayout::Dapr).await;
    let ours = put(&store, "7", "ours", WriteMode::Create).await.unwrap();
    let next = sidecar_saves(&address, "7", ours.as_str(), "its", LAST_WRITE)
        .await
        .unwrap();
    assert!(
        put(&store, "7", "late", WriteMode::Match(ours.clone()))
            .await
            .unwrap_err()
            .is_conflict()
    );
    let seen = read(&store, "7").await.unwrap();
    assert_eq!(
        (seen.value.as_ref(), seen.etag.as_str()),
        (&b"its"[..], next.to_string().as_str())
    );
    put(&store, "7", "ours", WriteMode::Match(seen.etag))
        .await
        .unwrap();
    assert_eq!(
        sidecar_saves(&address, "7", &next.to_string(), "late", LAST_WRITE).await,
        None
    );

    assert_eq!(
        sidecar_saves(&address, "8", "0", "its", LAST_WRITE).await,
        Some(1)
    );
    assert!(
        put(&store, "8", "x", WriteMode::Create)
            .await
            .unwrap_err()
            .is_conflict()
    );
    let one = ETag::new("1");
    assert_eq!(
        put(&store, "8", "ours", WriteMode::Match(one))
            .await
            .unwrap()
            .as_str(),
        "2"
    );
    assert_eq!(
        put(&store, "8", "ours", WriteMode::Overwrite)
            .await
            .unwrap()
            .as_str(),
        "3"
    );
    // How a sidecar creates and nothing else: no version of ours ever is this one.
    assert_eq!(
        sidecar_saves(&address, "7", "2147483647", "x", LAST_WRITE).await,
        None
    );
}

#[tokio::test]
async fn who_asked_for_first_write_is_protected_as_by_dapr() {
    let address = RedisServer::shared().await.next_database_url();
    let store = store(&address, RedisLayout::Dapr).await;
    assert_eq!(
        sidecar_saves(&address, "7", "0", "its", FIRST_WRITE).await,
        Some(1)
    );
    assert_eq!(
        sidecar_saves(&address, "7", "0", "plain", LAST_WRITE).await,
        None
    );
    let plain = put(&store, "7", "plain", WriteMode::Overwrite)
        .await
        .unwrap_err();
    assert!(plain.to_string().contains("first-write"), "{plain}");
    assert!(plain.is_conflict());
    let one = WriteMode::Match(ETag::new("1"));
    put(&store, "7", "ours", one).await.unwrap();
    let fields = sidecar_reads(&address, "7").await;
    assert_eq!(fields, ["data", "ours", "first-write", "0", "version", "2"]);
    // As Dapr's, a deletion without a version is not asked.
    store
        .delete(&task("7"), DeleteOptions::default())
        .await
        .unwrap();
    assert_eq!(value(&store, "7").await, None);
    put(&store, "7", "new", WriteMode::Overwrite).await.unwrap();
    assert_eq!(sidecar_reads(&address, "7").await.len(), 4);
}

#[tokio::test]
async fn a_deleted_task_is_empty_data_until_its_tombstone_ends() {
    let address = RedisServer::shared().await.next_database_url();
    let store = store(&address, RedisLayout::Dapr).await;
    let etag = put(&store, "7", "x", WriteMode::Create).await.unwrap();
    let delete = DeleteOptions {
        mode: DeleteMode::Match(etag.clone()),
        tombstone: Some(Duration::from_secs(100)),
    };
    store.delete(&task("7"), delete).await.unwrap();
    let fields = sidecar_reads(&address, "7").await;
    assert_eq!((fields[0].as_str(), fields[1].as_str()), ("data", ""));
    let left: i64 = ask(&address, &["PTTL", "task-api||task-7"]).await;
    assert!((90_000..=100_000).contains(&left), "{left} ms");
    // A sidecar that still holds the old version is refused by the one that the tombstone has.
    assert_eq!(
        sidecar_saves(&address, "7", etag.as_str(), "stale", LAST_WRITE).await,
        None
    );
    assert_eq!(value(&store, "7").await, None);

    store.delete(&task("8"), bury(Duration::MAX)).await.unwrap();
    assert_eq!(
        ask::<i64>(&address, &["PTTL", "task-api||task-8"]).await,
        -1
    );
    assert!(
        put(&store, "8", "x", WriteMode::Create)
            .await
            .unwrap_err()
            .is_conflict()
    );
    // An empty save of anybody is a deletion.
    sidecar_saves(&address, "9", "0", "", LAST_WRITE)
        .await
        .unwrap();
    assert_eq!(value(&store, "9").await, None);
    let page = store.scan(task("9").kind, None, 10).await.unwrap();
    assert_eq!(page.entries, []);
    assert!(
        put(&store, "9", "x", WriteMode::Match(ETag::new("1")))
            .await
            .unwrap_err()
            .is_conflict()
    );
    put(&store, "9", "anew", WriteMode::Overwrite)
        .await
        .unwrap();
    assert_eq!(value(&store, "9").await.as_deref(), Some("anew"));
}

#[tokio::test]
async fn a_string_is_a_value_without_a_version_until_it_is_written() {
    let address = RedisServer::shared().await.next_database_url();
    let store = store(&address, RedisLayout::Dapr).await;
    let name = "task-api||task-7";
    let set = async |text: &str| ask::<()>(&address, &["SET", name, text, "EX", "1000"]).await;
    set("legacy").await;
    let found = read(&store, "7").await.unwrap();
    assert_eq!(found.value, "legacy");
    let many = store.get_many(&[task("none"), task("7")]).await.unwrap();
    assert_eq!(many, [None, Some(found.clone())]);
    let page = store.scan(task("7").kind, None, 10).await.unwrap();
    assert_eq!(page.entries, [(task("7"), found.clone())]);
    let create = put(&store, "7", "x", WriteMode::Create).await;
    assert!(create.unwrap_err().is_conflict());

    // A foreign writer in between is seen, and so is the second of two of ours.
    let current = || WriteMode::Match(found.etag.clone());
    set("legacy, again").await;
    let late = put(&store, "7", "ours", current()).await;
    assert!(late.unwrap_err().is_conflict());
    set("legacy").await;
    let etag = put(&store, "7", "ours", current()).await.unwrap();
    let late = put(&store, "7", "late", current()).await;
    assert!(late.unwrap_err().is_conflict());
    let fields = sidecar_reads(&address, "7").await;
    assert_eq!(fields, ["data", "ours", "version", etag.as_str()]);
    assert_eq!(ask::<i64>(&address, &["PTTL", name]).await, -1);
    let its = sidecar_saves(&address, "7", etag.as_str(), "its", LAST_WRITE).await;
    assert!(its.is_some());

    for mode in [WriteMode::Overwrite, WriteMode::Raise] {
        ask::<()>(&address, &["DEL", name]).await;
        set("a").await;
        put(&store, "7", "b", mode).await.unwrap();
        assert_eq!(value(&store, "7").await.as_deref(), Some("b"));
    }
    ask::<()>(&address, &["DEL", name]).await;
    set("legacy").await;
    let found = read(&store, "7").await.unwrap();
    let delete = DeleteOptions {
        mode: DeleteMode::Match(found.etag),
        tombstone: Some(Duration::MAX),
    };
    store.delete(&task("7"), delete).await.unwrap();
    assert_eq!(sidecar_reads(&address, "7").await[1], "");
    assert_eq!(value(&store, "7").await, None);

    ask::<()>(&address, &["DEL", name]).await;
    set("").await;
    assert_eq!(value(&store, "7").await, None);
    put(&store, "7", "new", WriteMode::Create).await.unwrap();
}

async fn is_corrupt(store: &RedisStateStore, address: &str, id: &str, what: &str) {
    let before = everything(address).await;
    let kind = |result: Result<(), PortError>| result.expect_err(what).kind();
    let one = task(id);
    assert_eq!(
        kind(store.get(&one).await.map(drop)),
        ErrorKind::Corrupt,
        "get: {what}"
    );
    let many = store.get_many(&[task("none"), one.clone()]).await;
    assert_eq!(kind(many.map(drop)), ErrorKind::Corrupt, "get_many: {what}");
    for mode in [
        WriteMode::Overwrite,
        WriteMode::Create,
        WriteMode::Match(ETag::new("1")),
        WriteMode::Raise,
    ] {
        let options = PutOptions { mode, ttl: None };
        let put = store.put(&one, "x".into(), options.clone()).await;
        assert_eq!(
            kind(put.map(drop)),
            ErrorKind::Corrupt,
            "{options:?}: {what}"
        );
    }
    let matched = DeleteOptions {
        mode: DeleteMode::Match(ETag::new("1")),
        tombstone: None,
    };
    let delete = store.delete(&one, matched).await;
    assert_eq!(kind(delete), ErrorKind::Corrupt, "a match: {what}");
    assert_eq!(everything(address).await, before, "{what}");
}

#[tokio::test]
async fn what_nobody_of_ours_wrote_is_corrupt_and_stays_until_it_is_deleted() {
    for (layout, name, wanted) in [
        (RedisLayout::Legacy, "task:7", "string"),
        (RedisLayout::Dapr, "task-api||task-7", "hash"),
    ] {
        for (command, found) in [("RPUSH", "list"), ("SADD", "set")] {
            let address = RedisServer::shared().await.next_database_url();
            let store = store(&address, layout).await;
            ask::<()>(&address, &[command, name, "x"]).await;
            is_corrupt(&store, &address, "7", found).await;
            let read = store.get(&task("7")).await.unwrap_err().to_string();
            let write = put(&store, "7", "x", WriteMode::Overwrite).await;
            let expected = format!("{name} is a {found}, not a {wanted}");
            for error in [read, write.unwrap_err().to_string()] {
                assert!(error.contains(&expected), "{error}");
            }
            // It is nobody's task, so it holds up no list.
            let page = store.scan(task("7").kind, None, 10).await.unwrap();
            assert_eq!(page.entries, []);
            for options in [DeleteOptions::default(), bury(Duration::MAX)] {
                ask::<()>(&address, &["DEL", name]).await;
                ask::<()>(&address, &[command, name, "x"]).await;
                let buries = options.tombstone.is_some();
                store.delete(&task("7"), options).await.unwrap();
                assert_eq!(value(&store, "7").await, None);
                let create = put(&store, "7", "x", WriteMode::Create).await;
                assert_eq!(create.is_err(), buries, "{create:?}");
            }
        }
    }
    let address = RedisServer::shared().await.next_database_url();
    let store = store(&address, RedisLayout::Dapr).await;
    let name = "task-api||task-7";
    for (fields, what) in [
        (&["version", "1"][..], "no data"),
        (&["data", "x"], "no version"),
        (&["data", "x", "version", "1.5"], "a fraction"),
        (&["data", "x", "version", "-1"], "below 1"),
        (&["data", "x", "version", "01"], "a leading zero"),
        (
            &["data", "x", "version", "9223372036854775807"],
            "the largest integer",
        ),
        (&["data", "x", "version", "many"], "a word"),
    ] {
        ask::<()>(&address, &["DEL", name]).await;
        ask::<()>(&address, &[&["HSET", name], fields].concat()).await;
        is_corrupt(&store, &address, "7", what).await;
    }
    store.delete(&task("7"), bury(Duration::MAX)).await.unwrap();
    assert_eq!(value(&store, "7").await, None);
    // Of a hash that is neither value nor tombstone nothing is known, so it may become one.
    ask::<()>(&address, &["HDEL", name, "data", "version"]).await;
    ask::<()>(&address, &["HSET", name, "other", "x"]).await;
    assert_eq!(value(&store, "7").await, None);
    put(&store, "7", "x", WriteMode::Create).await.unwrap();
    assert_eq!(value(&store, "7").await.as_deref(), Some("x"));
}

#[tokio::test]
async fn sidecars_and_this_adapter_count_together_and_lose_no_step() {
    const WRITERS: u64 = 4;
    const STEPS: u64 = 30;
    let address = RedisServer::shared().await.next_database_url();
    let store = Arc::new(store(&address, RedisLayout::Dapr).await);
    put(&store, "n", "0", WriteMode::Create).await.unwrap();
    let mut running = Vec::new();
    for _ in 0..WRITERS {
        let store = Arc::clone(&store);
        running.push(tokio::spawn(async move {
            for _ in 0..STEPS {
                loop {
                    let seen = read(&store, "n").await.unwrap();
                    let next = (number(&seen.value) + 1).to_string();
                    let put = put(&store, "n", &next, WriteMode::Match(seen.etag));
                    if put.await.is_ok() {
                        break;
                    }
                }
            }
        }));
    }
    for _ in 0..WRITERS {
        let address = address.clone();
        running.push(tokio::spawn(async move {
            for _ in 0..STEPS {
                loop {
                    let fields = ["HMGET", "task-api||task-n", "data", "version"];
                    let [data, version] = ask::<[String; 2]>(&address, &fields).await;
                    let next = (number(data.as_bytes()) + 1).to_string();
                    let saved = sidecar_saves(&address, "n", &version, &next, LAST_WRITE);
                    if saved.await.is_some() {
                        break;
                    }
                }
            }
        }));
    }
    for writer in running {
        writer.await.unwrap();
    }
    let total = number(&read(&store, "n").await.unwrap().value);
    assert_eq!(total, 2 * WRITERS * STEPS);
}

fn number(bytes: &[u8]) -> u64 {
    std::str::from_utf8(bytes).unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_id_with_bars_has_a_key_that_dapr_takes() {
    let address = RedisServer::shared().await.next_database_url();
    let store = store(&address, RedisLayout::Dapr).await;
    let ids = ["a||b", "a|", "a%7C%7Cb", "a%", "a*[?]", "a\\"];
    for id in ids {
        put(&store, id, id, WriteMode::Create).await.unwrap();
    }
    for name in everything(&address).await.into_keys() {
        assert_eq!(name.matches("||").count(), 1, "{name}");
    }
    let page = store.scan(task("x").kind, None, 100).await.unwrap();
    let mut found: Vec<&str> = page.entries.iter().map(|(key, _)| &*key.id).collect();
    found.sort_unstable();
    let mut expected = ids;
    expected.sort_unstable();
    assert_eq!(found, expected);
    // Somebody else's name, which no id of ours has, is nobody's.
    ask::<Value>(
        &address,
        &["HSET", "task-api||task-50%", "data", "x", "version", "1"],
    )
    .await;
    let page = store.scan(task("x").kind, None, 100).await.unwrap();
    assert_eq!(page.entries.len(), ids.len());
}
