//! Zero copy: the direct Redis adapter and the one for Dapr on the same records of one Redis, at the same time.

mod mixed;

use std::time::Duration;

use adapters_dapr::{DaprStateStore, Events, StateStoreOptions};
use adapters_direct::redis::{
    Converted, KeyPrefix, Redis, RedisConfig, RedisLayout, RedisStateStore,
};
use bytes::Bytes;
use serde_json::{Value, json};
use task_core::ports::{
    Commit, DeleteMode, DeleteOptions, ETag, Event, Key, Kind, PendingId, PortError, PutOptions,
    StateStore, Topic, Write, WriteMode,
};
use task_tests::backends::dapr::connect;
use task_tests::process::{Python, RedisServer, Sidecar};
use task_tests::wait::until;

use super::state_store;

/// A Redis, a sidecar on it, and the direct adapter on it as well.
struct Stack {
    sidecar: Sidecar,
    redis: RedisServer,
}

impl Stack {
    async fn start() -> Self {
        let state_store::Stack { sidecar, redis } = state_store::Stack::start().await;
        Self { sidecar, redis }
    }

    async fn dapr(&self) -> DaprStateStore {
        let sidecar = connect(&self.sidecar, &[], adapters_dapr::SidecarOptions::default());
        let mut options = StateStoreOptions::default();
        options.events = Events::Kept;
        let store = DaprStateStore::open(&sidecar.unwrap(), options).await;
        store.unwrap()
    }

    async fn redis(&self) -> Redis {
        let mut config = RedisConfig::new(&self.redis.url(), RedisLayout::Dapr);
        config.key_prefix = KeyPrefix::Text("task-api".into());
        config.response_timeout = Duration::from_secs(20);
        Redis::open(&config).await.unwrap()
    }

    async fn direct(&self) -> RedisStateStore {
        self.redis().await.state_store()
    }

    async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        redis::from_redis_value(self.redis.command(words).await).unwrap()
    }

    /// What lies in the hash of a task.
    async fn data(&self, id: &str) -> Option<String> {
        self.ask(&["HGET", &name(id), "data"]).await
    }

    async fn version(&self, id: &str) -> Option<u64> {
        self.ask(&["HGET", &name(id), "version"]).await
    }

    /// What a Python service reads by the SDK of Dapr.
    async fn seen_by_sdk(&self, ids: &[&str]) -> Vec<Value> {
        let ports = [self.sidecar.http_port(), self.sidecar.grpc_port()];
        let [http, grpc] = ports.map(|port| port.to_string());
        let arguments = [&[&*http, &*grpc, "get"], ids].concat();
        let python = Python::with_dapr().await;
        let answers = lines(&python.run("dapr_state.py", &arguments).await);
        let tasks = answers.into_iter();
        tasks.map(|mut answer| answer["task"].take()).collect()
    }

    /// What a Python service reads by the SDK of Dapr, and by redis-py.
    async fn seen(&self, ids: &[&str]) -> [Vec<Value>; 2] {
        let url = self.redis.url();
        let arguments = [&[&*url, "hash"], ids].concat();
        let python = Python::shared().await;
        let by_redis = lines(&python.run("redis_task.py", &arguments).await);
        [self.seen_by_sdk(ids).await, by_redis]
    }
}

fn lines(text: &str) -> Vec<Value> {
    let lines = text.lines().map(serde_json::from_str::<Value>);
    lines.map(Result::unwrap).collect()
}

fn name(id: &str) -> String {
    format!("task-api||task-{id}")
}

fn task(id: &str) -> Key {
    Key::new(Kind::TASK, id)
}

fn event(name: &str) -> Event {
    Event {
        topic: Topic::new("task-events"),
        key: "k".into(),
        payload: Bytes::copy_from_slice(name.as_bytes()),
    }
}

fn put(id: &str, value: &Value, mode: WriteMode) -> Commit {
    Commit::of(Write::Put {
        key: task(id),
        value: value.to_string().into(),
        options: PutOptions { mode, ttl: None },
    })
}

async fn write(
    store: &dyn StateStore,
    id: &str,
    value: Value,
    mode: WriteMode,
) -> Result<(), PortError> {
    store.commit(put(id, &value, mode)).await.map(drop)
}

async fn etag(store: &dyn StateStore, id: &str) -> ETag {
    store.get(&task(id)).await.unwrap().unwrap().etag
}

async fn current(store: &dyn StateStore, id: &str) -> WriteMode {
    WriteMode::Match(etag(store, id).await)
}

async fn value(store: &dyn StateStore, id: &str) -> Option<Value> {
    let stored = store.get(&task(id)).await.unwrap()?;
    Some(serde_json::from_slice(&stored.value).unwrap())
}

fn deletion(mode: DeleteMode, tombstone: Option<Duration>) -> DeleteOptions {
    DeleteOptions { mode, tombstone }
}

async fn pending(store: &dyn StateStore) -> Vec<String> {
    let all = store.pending(None, 1_000).await.unwrap();
    let text = |event: Event| String::from_utf8(event.payload.to_vec()).unwrap();
    all.into_iter().map(|found| text(found.event)).collect()
}

async fn settle_all(store: &dyn StateStore) {
    let all = store.pending(None, 1_000).await.unwrap();
    let ids: Vec<PendingId> = all.into_iter().map(|found| found.id).collect();
    store.settle(&ids).await.unwrap();
}

fn is_conflict<T: std::fmt::Debug>(result: Result<T, PortError>) {
    let error = result.expect_err("a conflict");
    assert!(error.is_conflict(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_adapters_count_the_versions_of_a_record_together() {
    let stack = Stack::start().await;
    let (direct, dapr) = (stack.direct().await, stack.dapr().await);
    // Begun by each: a sidecar begins at 1, we begin at the time in microseconds.
    write(&direct, "1", json!({"n": 0}), WriteMode::Create)
        .await
        .unwrap();
    write(&dapr, "2", json!({"n": 0}), WriteMode::Create)
        .await
        .unwrap();
    assert_eq!(stack.version("2").await, Some(1));
    for id in ["1", "2"] {
        let begin = stack.version(id).await.unwrap();
        for step in 1..=3 {
            let (ours, its) = (current(&direct, id).await, current(&dapr, id).await);
            write(&dapr, id, json!({"n": 2 * step - 1}), its.clone())
                .await
                .unwrap();
            is_conflict(write(&direct, id, json!("late"), ours).await);
            is_conflict(write(&dapr, id, json!("late"), its).await);
            let (ours, its) = (current(&direct, id).await, current(&dapr, id).await);
            write(&direct, id, json!({"n": 2 * step}), ours.clone())
                .await
                .unwrap();
            is_conflict(write(&dapr, id, json!("late"), its).await);
            is_conflict(write(&direct, id, json!("late"), ours).await);
            assert_eq!(value(&dapr, id).await, Some(json!({"n": 2 * step})));
            assert_eq!(stack.version(id).await, Some(begin + 2 * step));
        }
    }
    // As far as Lua counts exactly; a sidecar counts on in integers.
    const LAST: u64 = (1 << 53) - 1;
    let set = async |version: u64| {
        let version = version.to_string();
        let words = ["HSET", &name("1"), "data", "{}", "version", &version];
        let _: redis::Value = stack.ask(&words).await;
    };
    set(LAST - 2).await;
    let its = current(&dapr, "1").await;
    write(&dapr, "1", json!({}), its).await.unwrap();
    let ours = current(&direct, "1").await;
    assert_eq!(ours, WriteMode::Match(ETag::new((LAST - 1).to_string())));
    write(&direct, "1", json!({}), ours).await.unwrap();
    assert_eq!(stack.version("1").await, Some(LAST));
    let its = current(&dapr, "1").await;
    write(&dapr, "1", json!({}), its).await.unwrap();
    assert_eq!(stack.version("1").await, Some(LAST + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_keeps_the_events_that_wait_in_a_record_and_drops_those_that_are_settled() {
    let stack = Stack::start().await;
    let (direct, dapr) = (stack.direct().await, stack.dapr().await);
    let first = put("1", &json!({"v": 1}), WriteMode::Create).event(event("first"));
    dapr.commit(first).await.unwrap();
    let stored = direct.get(&task("1")).await.unwrap().unwrap();
    assert_eq!(stored.value, r#"{"v":1}"#);
    let version = stack.version("1").await.unwrap().to_string();
    assert_eq!(stored.etag.as_str(), version);

    // Each way to write; `second` is an event of the direct adapter, which has a place of its own.
    let second = put("1", &json!({"v": 2}), WriteMode::Match(stored.etag.clone()));
    direct.commit(second.event(event("second"))).await.unwrap();
    is_conflict(write(&direct, "1", json!("late"), WriteMode::Match(stored.etag)).await);
    write(&direct, "1", json!({"v": 3}), WriteMode::Overwrite)
        .await
        .unwrap();
    is_conflict(write(&direct, "1", json!("late"), WriteMode::Create).await);
    assert_eq!(value(&dapr, "1").await, Some(json!({"v": 3})));
    assert_eq!(pending(&dapr).await, ["first"]);
    assert_eq!(pending(&direct).await, ["second"]);
    for seen in stack.seen(&["1"]).await {
        assert_eq!(
            (&seen[0]["v"], &seen[0]["_pending"][0]["data"]),
            (&json!(3), &json!("first"))
        );
    }
    // Its own next write carries both.
    let third = put("1", &json!({"v": 4}), current(&dapr, "1").await).event(event("third"));
    dapr.commit(third).await.unwrap();
    let ours = current(&direct, "1").await;
    write(&direct, "1", json!({"v": 5}), ours).await.unwrap();
    assert_eq!(pending(&stack.dapr().await).await, ["first", "third"]);

    // One is settled and noted as such; the other one waits on.
    let one = dapr.pending(None, 1).await.unwrap();
    dapr.settle(&[one[0].id.clone()]).await.unwrap();
    dapr.flush().await.unwrap();
    let ours = current(&direct, "1").await;
    write(&direct, "1", json!({"v": 6}), ours).await.unwrap();
    let data = stack.data("1").await.unwrap();
    assert!(
        data.contains("third") && !data.contains("first"),
        "what is settled is gone with the next write: {data}"
    );
    assert_eq!(pending(&dapr).await, ["third"]);
    settle_all(&dapr).await;
    dapr.flush().await.unwrap();
    let ours = current(&direct, "1").await;
    write(&direct, "1", json!({"v": 7}), ours).await.unwrap();
    assert_eq!(stack.data("1").await.as_deref(), Some(r#"{"v":7}"#));
    for seen in stack.seen(&["1"]).await {
        assert_eq!(seen, [json!({"v": 7})]);
    }
    assert_eq!(pending(&direct).await, ["second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_task_is_missing_to_all_at_once_and_its_events_wait_on() {
    let stack = Stack::start().await;
    let (direct, dapr) = (stack.direct().await, stack.dapr().await);
    for (id, buries) in [("1", true), ("2", false)] {
        let create = put(id, &json!({"id": id}), WriteMode::Create).event(event(id));
        dapr.commit(create).await.unwrap();
        let (ours, its) = (etag(&direct, id).await, current(&dapr, id).await);
        let tombstone = buries.then_some(Duration::from_secs(100));
        let delete = deletion(DeleteMode::Match(ours), tombstone);
        direct.delete(&task(id), delete).await.unwrap();
        // What may be created again is marked by a byte that only tasks of no service of Python's have.
        if buries {
            for seen in stack.seen(&[id]).await {
                assert_eq!(seen, [Value::Null]);
            }
        }
        let left: i64 = stack.ask(&["PTTL", &name(id)]).await;
        assert!((1..=300_000).contains(&left), "{left} ms");
        is_conflict(write(&dapr, id, json!("late"), its).await);
        for store in [&direct as &dyn StateStore, &dapr] {
            assert_eq!(value(store, id).await, None);
        }
        let create = write(&dapr, id, json!({}), WriteMode::Create).await;
        assert_eq!(create.is_err(), buries, "{create:?}");
    }
    // They changed hands, whole and in order.
    assert_eq!(pending(&direct).await, ["1", "2"]);
    assert_eq!(pending(&dapr).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_adapter_deletes_is_missing_to_the_other_and_refuses_who_comes_late() {
    let stack = Stack::start().await;
    let (direct, dapr) = (stack.direct().await, stack.dapr().await);
    let stores: [(&str, &dyn StateStore, &dyn StateStore); 2] =
        [("direct", &direct, &dapr), ("dapr", &dapr, &direct)];
    for (who, deleter, other) in stores {
        for tombstone in [None, Some(Duration::from_secs(100)), Some(Duration::MAX)] {
            let id = format!("{who}-{tombstone:?}");
            write(deleter, &id, json!({}), WriteMode::Create)
                .await
                .unwrap();
            let late = current(other, &id).await;
            let delete = deletion(DeleteMode::Match(etag(deleter, &id).await), tombstone);
            deleter.delete(&task(&id), delete.clone()).await.unwrap();
            assert_eq!(value(other, &id).await, None, "{id}");
            is_conflict(write(other, &id, json!("late"), late).await);
            is_conflict(deleter.delete(&task(&id), delete).await);
            let left: i64 = stack.ask(&["PTTL", &name(&id)]).await;
            assert_eq!(left > 0, tombstone != Some(Duration::MAX), "{id}: {left}");
            // Without a condition there is nothing to delete, and a tombstone stays.
            let any = deletion(DeleteMode::Any, None);
            other.delete(&task(&id), any).await.unwrap();
            let again = write(other, &id, json!({"again": true}), WriteMode::Create).await;
            assert_eq!(again.is_err(), tombstone.is_some(), "{id}: {again:?}");
            if tombstone.is_none() {
                assert_eq!(value(deleter, &id).await, Some(json!({"again": true})));
                let left: i64 = stack.ask(&["PTTL", &name(&id)]).await;
                assert_eq!(left, -1, "{id}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_dapr_deletes_while_its_event_waits_is_missing_to_the_direct_adapter() {
    let stack = Stack::start().await;
    let (direct, dapr) = (stack.direct().await, stack.dapr().await);
    for (id, tombstone) in [("1", Some(Duration::from_secs(100))), ("2", None)] {
        let create = put(id, &json!({"id": id}), WriteMode::Create).event(event(id));
        dapr.commit(create).await.unwrap();
        let ours = current(&direct, id).await;
        let delete = deletion(DeleteMode::Match(etag(&dapr, id).await), tombstone);
        dapr.delete(&task(id), delete).await.unwrap();
        assert_eq!(value(&direct, id).await, None);
        is_conflict(write(&direct, id, json!("late"), ours).await);
        let create = write(&direct, id, json!({"again": true}), WriteMode::Create).await;
        assert_eq!(create.is_err(), tombstone.is_some(), "{id}: {create:?}");
    }
    // Whoever has them now, both are there to be published.
    let mut all = [pending(&direct).await, pending(&dapr).await].concat();
    all.sort_unstable();
    assert_eq!(all, ["1", "2"]);
}

/// A key that both adapters give a limit.
fn seen(id: &str) -> Key {
    Key::new(Kind::SEEN, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_with_a_limit_is_one_for_both_adapters() {
    let stack = Stack::start().await;
    let (direct, dapr) = (stack.direct().await, stack.dapr().await);
    let stores: [(&str, &dyn StateStore, &dyn StateStore); 2] =
        [("direct", &direct, &dapr), ("dapr", &dapr, &direct)];
    for (who, writer, reader) in stores {
        let key = seen(who);
        let limited = |mode| PutOptions {
            mode,
            ttl: Some(Duration::from_secs(100)),
        };
        writer
            .put(&key, "x".into(), limited(WriteMode::Create))
            .await
            .unwrap();
        let stored = reader.get(&key).await.unwrap().unwrap();
        assert_eq!(stored.value, "x");
        // Matched without a limit it has none, whoever gave it.
        let lasting = PutOptions {
            mode: WriteMode::Match(stored.etag),
            ttl: None,
        };
        reader.put(&key, "y".into(), lasting).await.unwrap();
        let name = format!("task-api||seen-{who}");
        assert_eq!(stack.ask::<i64>(&["PTTL", &name]).await, -1, "{who}");
        assert_eq!(writer.get(&key).await.unwrap().unwrap().value, "y");
        // Gone without a trace, it is not matched into being again.
        writer
            .put(&key, "z".into(), limited(WriteMode::Overwrite))
            .await
            .unwrap();
        let stale = reader.get(&key).await.unwrap().unwrap().etag;
        let _: i64 = stack.ask(&["DEL", &name]).await;
        let late = limited(WriteMode::Match(stale));
        is_conflict(reader.put(&key, "late".into(), late).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_string_is_read_as_the_sidecar_reads_it() {
    let stack = Stack::start().await;
    let direct = stack.direct().await;
    let legacy = r#"{"id": "1", "title": "legacy"}"#;
    let _: redis::Value = stack.ask(&["SET", &name("1"), legacy]).await;
    assert_eq!(
        stack.seen_by_sdk(&["1"]).await,
        [json!({"id": "1", "title": "legacy"})]
    );
    assert_eq!(
        value(&direct, "1").await,
        Some(json!({"id": "1", "title": "legacy"}))
    );
    let ours = current(&direct, "1").await;
    write(&direct, "1", json!({"id": "1"}), ours).await.unwrap();
    for seen in stack.seen(&["1"]).await {
        assert_eq!(seen, [json!({"id": "1"})]);
    }
    let dapr = stack.dapr().await;
    let its = current(&dapr, "1").await;
    write(&dapr, "1", json!({"id": "1", "v": 2}), its)
        .await
        .unwrap();
}

/// Records as the adapter for Dapr leaves them: settled, with an event, deleted, and with a limit.
async fn leave_records(dapr: &DaprStateStore) {
    for id in ["settled", "carries", "deleted", "left"] {
        let create = put(id, &json!({"id": id}), WriteMode::Create).event(event(id));
        dapr.commit(create).await.unwrap();
        if id == "settled" {
            settle_all(dapr).await;
            dapr.flush().await.unwrap();
        }
    }
    let tombstone = Some(Duration::from_secs(1_000));
    let delete = async |id: &str, tombstone| {
        let delete = deletion(DeleteMode::Any, tombstone);
        dapr.delete(&task(id), delete).await.unwrap();
    };
    delete("deleted", tombstone).await;
    delete("left", None).await;
    let limited = PutOptions {
        mode: WriteMode::Create,
        ttl: Some(Duration::from_secs(1_000)),
    };
    dapr.put(&task("limited"), "l".into(), limited)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_becomes_a_string_with_its_events_in_the_outbox_and_its_limit_kept() {
    let stack = Stack::start().await;
    let (redis, dapr) = (stack.redis().await, stack.dapr().await);
    let (direct, converter) = (redis.state_store(), redis.converter());
    leave_records(&dapr).await;
    let mut before = pending(&dapr).await;
    for (id, expected) in [
        ("carries", Converted::Done),
        ("settled", Converted::Done),
        ("deleted", Converted::Done),
        ("left", Converted::Missing),
        ("limited", Converted::Done),
    ] {
        let converted = converter.convert(&task(id), RedisLayout::Legacy).await;
        assert_eq!(converted.unwrap(), expected, "{id}");
    }
    let text = async |id: &str| {
        stack
            .ask::<Option<String>>(&["GET", &format!("task:{id}")])
            .await
    };
    assert_eq!(
        text("carries").await.as_deref(),
        Some(r#"{"id":"carries"}"#)
    );
    assert_eq!(
        text("settled").await.as_deref(),
        Some(r#"{"id":"settled"}"#)
    );
    assert_eq!(text("deleted").await, None);
    assert_eq!(text("limited").await.as_deref(), Some("l"));
    for key in ["task:limited", "task-api:tombstone:task:deleted"] {
        let left: i64 = stack.ask(&["PTTL", key]).await;
        assert!((900_000..=1_000_000).contains(&left), "{key}: {left} ms");
    }
    // What waited waits, at one of the two.
    before.sort_unstable();
    // What was written a moment ago is listed without a look at its record.
    let after = until("each waits once", async || {
        let mut after = [pending(&direct).await, pending(&dapr).await].concat();
        after.sort_unstable();
        (after == before).then_some(after)
    })
    .await;
    assert!(after.contains(&"carries".to_owned()) && !after.contains(&"settled".to_owned()));

    for id in ["carries", "limited", "deleted"] {
        let back = converter.convert(&task(id), RedisLayout::Dapr).await;
        assert_eq!(back.unwrap(), Converted::Done, "{id}");
    }
    assert_eq!(
        value(&dapr, "carries").await,
        Some(json!({"id": "carries"}))
    );
    is_conflict(write(&dapr, "deleted", json!({}), WriteMode::Create).await);
    assert_eq!(
        dapr.get(&task("limited")).await.unwrap().unwrap().value,
        "l"
    );
    let left: i64 = stack.ask(&["PTTL", &name("limited")]).await;
    assert!((900_000..=1_000_000).contains(&left), "{left} ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_write_is_one_command_and_one_over_waiting_events_a_few() {
    let stack = Stack::start().await;
    let (direct, dapr) = (stack.direct().await, stack.dapr().await);
    let commands = async || {
        let text: String = stack.ask(&["INFO", "commandstats"]).await;
        let scripts = text
            .lines()
            .find(|line| line.starts_with("cmdstat_evalsha:"));
        let calls = scripts.and_then(|line| line.split(['=', ',']).nth(1));
        calls.map_or(0, |calls| calls.parse::<u64>().unwrap())
    };
    let begin = commands().await;
    let create = put("1", &json!({}), WriteMode::Create).event(event("ours"));
    direct.commit(create).await.unwrap();
    let ours = current(&direct, "1").await;
    write(&direct, "1", json!({}), ours).await.unwrap();
    assert_eq!(commands().await, begin + 2);
    let its = put("1", &json!({}), current(&dapr, "1").await).event(event("its"));
    dapr.commit(its).await.unwrap();
    let begin = commands().await;
    let ours = current(&direct, "1").await;
    write(&direct, "1", json!({}), ours).await.unwrap();
    assert_eq!(commands().await, begin + 2);
}
