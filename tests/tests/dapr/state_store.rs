//! The state store on real sidecars: foreign readers, deaths at every moment, outages.

mod garbage;
mod journal;
mod late;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adapters_dapr::{DaprStateStore, Events, StateStoreOptions};
use bytes::Bytes;
use serde_json::{Value, json};
use task_core::ports::{
    Commit, DeleteMode, DeleteOptions, ETag, ErrorKind, Event, Key, Kind, Outcome, PendingId,
    PortError, PutOptions, StateStore, Topic, Write, WriteMode,
};
use task_tests::backends::dapr::connect;
use task_tests::process::dapr::Component;
use task_tests::process::redis::{AppendOnly, RedisOptions};
use task_tests::process::{Python, RedisServer, Sidecar, SidecarOptions};
use task_tests::wait::until;

/// A Redis that loses nothing, and a sidecar on it.
pub(super) struct Stack {
    pub(super) sidecar: Sidecar,
    pub(super) redis: RedisServer,
}

impl Stack {
    pub(super) async fn start() -> Self {
        let options = RedisOptions {
            append_only: AppendOnly::Always,
            ..RedisOptions::default()
        };
        let redis = RedisServer::start_with(options).await;
        let component = Component::redis_state("statestore", &redis.url());
        let sidecar = Sidecar::start(SidecarOptions::of("task-api", [component])).await;
        Self { sidecar, redis }
    }

    async fn open(&self) -> DaprStateStore {
        self.open_with(|_| {}).await
    }

    async fn open_with(&self, change: impl FnOnce(&mut StateStoreOptions)) -> DaprStateStore {
        let sidecar = connect(&self.sidecar, &[], adapters_dapr::SidecarOptions::default());
        let mut options = StateStoreOptions::default();
        options.events = Events::Kept;
        change(&mut options);
        let store = DaprStateStore::open(&sidecar.unwrap(), options).await;
        store.unwrap()
    }

    async fn python(&self, arguments: &[&str]) -> String {
        let ports = [self.sidecar.http_port(), self.sidecar.grpc_port()];
        let ports = ports.map(|port| port.to_string());
        let arguments = [&[&*ports[0], &*ports[1]], arguments].concat();
        let python = Python::with_dapr().await;
        python.run("dapr_state.py", &arguments).await
    }

    /// What the Python service reads.
    async fn seen(&self, id: &str) -> Value {
        let line = self.python(&["get", id]).await;
        let mut answer: Value = serde_json::from_str(&line).unwrap();
        answer["task"].take()
    }
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

async fn etag(store: &DaprStateStore, id: &str) -> ETag {
    store.get(&task(id)).await.unwrap().unwrap().etag
}

async fn value(store: &DaprStateStore, id: &str) -> Option<Value> {
    let stored = store.get(&task(id)).await.unwrap()?;
    Some(serde_json::from_slice(&stored.value).unwrap())
}

/// The names of all pending events, in pages.
async fn pending(store: &DaprStateStore) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut after: Option<PendingId> = None;
    loop {
        let page = store.pending(after, 50).await.unwrap();
        let Some(last) = page.last() else {
            return names;
        };
        after = Some(last.id.clone());
        for found in page {
            let name = String::from_utf8(found.event.payload.to_vec()).unwrap();
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
}

async fn settle_all(store: &DaprStateStore) {
    let all = store.pending(None, 1_000).await.unwrap();
    let ids: Vec<PendingId> = all.into_iter().map(|found| found.id).collect();
    store.settle(&ids).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_service_and_we_work_on_the_same_tasks() {
    let stack = Stack::start().await;
    let store = stack.open().await;
    let ours = json!({"id": "1", "title": "ours"});
    let create = put("1", &ours, WriteMode::Create).event(event("created"));
    store.commit(create).await.unwrap();
    let seen = stack.seen("1").await;
    assert_eq!(
        (&seen["title"], &seen["_pending"][0]["data"]),
        (&json!("ours"), &json!("created"))
    );

    // It writes all that it has read, in its own spelling, over the version that it has read.
    let stale = etag(&store, "1").await;
    stack.python(&["update", "1", "title=theirs"]).await;
    assert_eq!(
        value(&store, "1").await,
        Some(json!({"id": "1", "title": "theirs"}))
    );
    assert_eq!(pending(&store).await, ["created"]);
    let late = store.commit(put("1", &ours, WriteMode::Match(stale))).await;
    assert!(late.unwrap_err().is_conflict());
    settle_all(&store).await;

    let current = WriteMode::Match(etag(&store, "1").await);
    store.commit(put("1", &ours, current)).await.unwrap();
    assert_eq!(
        stack.seen("1").await,
        ours,
        "what is settled is gone with the next write"
    );
    let options = DeleteOptions {
        mode: DeleteMode::Match(etag(&store, "1").await),
        tombstone: Some(Duration::from_secs(60)),
    };
    store.delete(&task("1"), options).await.unwrap();
    assert_eq!(stack.seen("1").await, Value::Null);

    let theirs = r#"{"id": "2", "title": "theirs"}"#;
    stack.python(&["save", theirs]).await;
    let stored = store.get(&task("2")).await.unwrap().unwrap();
    assert_eq!(stored.value, theirs);
    stack.python(&["delete", "2"]).await;
    assert_eq!(value(&store, "2").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_was_deleted_while_its_event_waits_is_missing_to_all_at_once() {
    let stack = Stack::start().await;
    let store = stack.open().await;
    let create = put("1", &json!({"id": "1"}), WriteMode::Create).event(event("created"));
    store.commit(create).await.unwrap();
    let options = DeleteOptions {
        mode: DeleteMode::Match(etag(&store, "1").await),
        tombstone: Some(Duration::from_secs(60)),
    };
    store.delete(&task("1"), options).await.unwrap();
    assert_eq!(value(&store, "1").await, None);
    assert_eq!(stack.seen("1").await, Value::Null);
    assert_eq!(pending(&store).await, ["created"]);
    let other = stack.open().await;
    assert_eq!(pending(&other).await, ["created"]);
    settle_all(&other).await;
    assert_eq!(pending(&other).await, [""; 0]);
    assert_eq!(stack.seen("1").await, Value::Null);
    let again = put("1", &json!({"id": "1"}), WriteMode::Create);
    assert!(other.commit(again).await.unwrap_err().is_conflict());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_comes_too_late_moves_no_event_a_second_time() {
    let stack = Stack::start().await;
    let store = stack.open().await;
    let create = put("1", &json!({"id": "1"}), WriteMode::Create).event(event("created"));
    store.commit(create).await.unwrap();
    let options = DeleteOptions {
        mode: DeleteMode::Match(etag(&store, "1").await),
        tombstone: Some(Duration::from_secs(60)),
    };
    store.delete(&task("1"), options.clone()).await.unwrap();
    let late = store.delete(&task("1"), options).await;
    assert!(late.unwrap_err().is_conflict());
    assert_eq!(pending(&store).await, ["created"]);
    settle_all(&store).await;
    assert_eq!(pending(&store).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_just_written_is_listed_without_a_read_of_its_record() {
    let stack = Stack::start().await;
    let store = stack.open().await;
    let create = put("1", &json!({"id": "1"}), WriteMode::Create).event(event("created"));
    store.commit(create).await.unwrap();
    // Only who reads the record would see that it is gone.
    stack.redis.command(&["DEL", "task-api||task-1"]).await;
    assert_eq!(pending(&store).await, ["created"]);
    settle_all(&store).await;
    assert_eq!(pending(&store).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_right_after_it_was_written_ends_after_its_limit() {
    let stack = Stack::start().await;
    let store = stack.open().await;
    let create = put("1", &json!({"id": "1"}), WriteMode::Create).event(event("created"));
    store.commit(create).await.unwrap();
    let options = DeleteOptions {
        mode: DeleteMode::Match(etag(&store, "1").await),
        tombstone: Some(Duration::from_secs(60)),
    };
    store.delete(&task("1"), options).await.unwrap();
    let ends = async |key: &str| {
        let left = stack.redis.command(&["TTL", key]).await;
        assert!(
            matches!(left, redis::Value::Int(1..=300)),
            "{key} stays for ever: {left:?}"
        );
    };
    ends("task-api||task-1").await;
    assert_eq!(pending(&store).await, ["created"]);
    settle_all(&store).await;
    let moved = stack.redis.command(&["KEYS", "*moved*"]).await;
    let moved: Vec<String> = redis::from_redis_value(moved).unwrap();
    assert_eq!(moved.len(), 1, "{moved:?}");
    ends(&moved[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_a_replica_that_died_are_found_by_another() {
    let stack = Stack::start().await;
    let dying = stack.open().await;
    let mut expected = Vec::new();
    // More than one segment, and several events of one record.
    for number in 0..300 {
        let id = (number % 100).to_string();
        let name = format!("{number:03}");
        let commit = put(&id, &json!({"n": number}), WriteMode::Overwrite);
        dying.commit(commit.event(event(&name))).await.unwrap();
        expected.push(name);
    }
    // Nothing of it is told to anybody.
    drop(dying);
    let other = stack.open().await;
    let mut found = pending(&other).await;
    let of_one: Vec<String> = found
        .iter()
        .filter(|name| name.ends_with("07"))
        .cloned()
        .collect();
    assert_eq!(
        of_one,
        ["007", "107", "207"],
        "in the order of their commits"
    );
    found.sort_unstable();
    assert_eq!(found, expected);
    settle_all(&other).await;
    assert_eq!(pending(&other).await, [""; 0]);
    assert_eq!(
        pending(&stack.open().await).await,
        [""; 0],
        "for all of them"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_write_one_record_keep_its_events_in_order() {
    const STEPS: usize = 12;
    let stack = Stack::start().await;
    let replicas = [stack.open().await, stack.open().await, stack.open().await];
    let mut expected = Vec::new();
    for step in 0..STEPS {
        let name = format!("{step:02}");
        let commit = put("1", &json!({"step": step}), WriteMode::Overwrite);
        let replica = &replicas[step % replicas.len()];
        replica.commit(commit.event(event(&name))).await.unwrap();
        expected.push(name);
    }
    for replica in &replicas {
        assert_eq!(pending(replica).await, expected);
    }
    // One of them publishes and settles for all; a live owner hears of it.
    settle_all(&replicas[1]).await;
    replicas[1].flush().await.unwrap();
    for (number, replica) in replicas.iter().enumerate() {
        let mut ticks = 0;
        until("the others know what is settled", async || {
            ticks += 1;
            let id = format!("tick-{number}-{ticks}");
            let tick = put(&id, &json!({}), WriteMode::Create).event(event("tick"));
            replica.commit(tick).await.unwrap();
            let mut found = pending(replica).await;
            found.dedup();
            (found == ["tick"]).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whenever_a_writer_dies_its_record_and_its_event_are_both_there_or_both_not() {
    let stack = Stack::start().await;
    let (mut whole, mut absent) = (0, 0);
    for step in 1..1_000 {
        let dying = stack.open().await;
        let warm = put("warm", &json!({}), WriteMode::Overwrite).event(event("warm"));
        dying.commit(warm).await.unwrap();
        let id = step.to_string();
        let commit = put(&id, &json!({"step": step}), WriteMode::Create).event(event(&id));
        // A commit takes one to some milliseconds.
        let lives = Duration::from_micros(step % 50 * 100);
        let answered = tokio::time::timeout(lives, dying.commit(commit)).await;
        drop(dying);
        let other = stack.open().await;
        // What was on its way may still arrive.
        until("both or none", async || {
            let has_event = pending(&other).await.contains(&id);
            let has_value = value(&other, &id).await.is_some();
            (has_event == has_value).then_some(())
        })
        .await;
        match value(&other, &id).await {
            Some(_) => whole += 1,
            None => absent += 1,
        }
        assert!(
            answered.is_err() || value(&other, &id).await.is_some(),
            "{id} was acknowledged"
        );
        settle_all(&other).await;
        other.flush().await.unwrap();
        if whole > 9 && absent > 9 && step > 50 {
            return;
        }
    }
    panic!("{whole} whole, {absent} absent: no moment was met");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_lands_after_its_answer_was_lost_keeps_its_event() {
    let stack = Stack::start().await;
    let store = stack.open().await;
    store
        .commit(put("1", &json!({"v": 1}), WriteMode::Create).event(event("1")))
        .await
        .unwrap();
    let noted = etag(&store, "1").await;
    stack.redis.pause();
    let unknown = |error: &PortError| error.outcome() == Outcome::Unknown && !error.is_conflict();
    let matching = PutOptions {
        mode: WriteMode::Match(noted.clone()),
        ttl: None,
    };
    let late = store
        .put(&task("1"), Bytes::from_static(b"{\"v\":2}"), matching)
        .await;
    let error = late.unwrap_err();
    assert!(unknown(&error), "{error}");
    assert!(store.check().await.is_err(), "readiness sees the outage");
    stack.redis.resume();
    until("it has landed", async || {
        (value(&store, "1").await? == json!({"v": 2})).then_some(())
    })
    .await;
    store.check().await.unwrap();
    assert_eq!(
        pending(&store).await,
        ["1"],
        "also what the late write found pending"
    );
}

/// What became of the writes of a case.
#[derive(Default)]
struct Ledger {
    done: Mutex<Vec<String>>,
    refused: Mutex<Vec<String>>,
    unknown: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl Ledger {
    fn note(&self, id: String, result: Result<(), PortError>) {
        let list = match result {
            Ok(()) => &self.done,
            Err(error) if error.outcome() == Outcome::Unknown => &self.unknown,
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::Conflict, "{error}");
                &self.refused
            }
        };
        list.lock().unwrap().push(id);
    }

    fn failed(&self) -> usize {
        self.refused.lock().unwrap().len() + self.unknown.lock().unwrap().len()
    }

    fn done(&self) -> usize {
        self.done.lock().unwrap().len()
    }

    /// Creates tasks with an event each until the case is over.
    async fn fill(&self, writer: usize, store: &DaprStateStore) {
        for number in 0.. {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let id = format!("{writer}-{number}");
            let create = put(&id, &json!({"id": id}), WriteMode::Create).event(event(&id));
            self.note(id, store.commit(create).await.map(drop));
        }
    }

    /// Compares what was answered with what is there.
    async fn compare(&self, store: &DaprStateStore) {
        let found = pending(store).await;
        let copy = |list: &Mutex<Vec<String>>| list.lock().unwrap().clone();
        for id in &copy(&self.done) {
            assert!(value(store, id).await.is_some(), "{id} was acknowledged");
            assert!(found.contains(id), "the event of {id} is lost");
        }
        for id in &copy(&self.refused) {
            assert_eq!(value(store, id).await, None, "{id} was refused");
            assert!(!found.contains(id), "{id} has an event and was refused");
        }
        for id in &copy(&self.unknown) {
            let is_there = value(store, id).await.is_some();
            assert_eq!(found.contains(id), is_there, "{id} and its event");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_redis_loses_nothing_and_invents_nothing() {
    let mut stack = Stack::start().await;
    let store = stack.open().await;
    let ledger = Arc::new(Ledger::default());
    let writers = (0..8).map(|writer| {
        let (ledger, store) = (Arc::clone(&ledger), store.clone());
        tokio::spawn(async move { ledger.fill(writer, &store).await })
    });
    let writers: Vec<_> = writers.collect();
    let written = |least| {
        let ledger = Arc::clone(&ledger);
        async move {
            until("enough is written", async || {
                (ledger.done() > least).then_some(())
            })
            .await
        }
    };
    written(50).await;
    stack.redis.kill();
    let failed = async || (ledger.failed() >= 8).then_some(());
    until("all of them have failed", failed).await;
    stack.redis.restart().await;
    written(ledger.done() + 50).await;
    ledger.is_over.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    ledger.compare(&store).await;
    ledger.compare(&stack.open().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_is_killed_loses_nothing_that_was_acknowledged() {
    let mut stack = Stack::start().await;
    let store = stack.open().await;
    let create = put("1", &json!({"v": 1}), WriteMode::Create).event(event("1"));
    store.commit(create).await.unwrap();
    let noted = etag(&store, "1").await;
    stack.sidecar.kill();
    let change = put("1", &json!({"v": 2}), WriteMode::Match(noted.clone())).event(event("2"));
    let error = store.commit(change.clone()).await.unwrap_err();
    assert!(!error.is_conflict(), "{error}");
    stack.sidecar.restart().await;
    until("it connects again", async || store.check().await.ok()).await;
    assert_eq!(pending(&store).await, ["1"]);
    store.commit(change).await.unwrap();
    assert_eq!(pending(&store).await, ["1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_from_before_a_deletion_changes_nothing_afterwards() {
    let stack = Stack::start().await;
    let store = stack.open().await;
    for number in 0..3 {
        store
            .commit(put("1", &json!({"v": number}), WriteMode::Overwrite))
            .await
            .unwrap();
    }
    let stale = etag(&store, "1").await;
    store
        .delete(&task("1"), DeleteOptions::default())
        .await
        .unwrap();
    let late = put("1", &json!({"v": "late"}), WriteMode::Match(stale.clone()));
    assert!(store.commit(late.clone()).await.unwrap_err().is_conflict());
    assert_eq!(value(&store, "1").await, None);
    for mode in [
        WriteMode::Create,
        WriteMode::Overwrite,
        WriteMode::Overwrite,
    ] {
        store
            .commit(put("1", &json!({"v": "new"}), mode))
            .await
            .unwrap();
        assert!(store.commit(late.clone()).await.unwrap_err().is_conflict());
    }
    assert_eq!(value(&store, "1").await, Some(json!({"v": "new"})));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_of_a_silent_replica_is_closed_and_it_goes_on_under_another_name() {
    const BEAT: Duration = Duration::from_millis(400);
    let stack = Stack::start().await;
    let silent = stack.open_with(|options| options.beat_every = BEAT).await;
    let other = stack.open_with(|options| options.beat_every = BEAT).await;
    let commit = |id: &str| put(id, &json!({}), WriteMode::Create).event(event(id));
    silent.commit(commit("1")).await.unwrap();
    assert_eq!(pending(&other).await, ["1"]);
    settle_all(&other).await;
    let registry = "/v1.0/state/statestore/journal-replicas";
    until("it is closed", async || {
        assert_eq!(pending(&other).await, [""; 0]);
        let answer = stack.sidecar.send("GET", registry, &[], "").await;
        let replicas: Value = serde_json::from_slice(&answer.body).unwrap();
        replicas["replicas"]
            .as_array()
            .unwrap()
            .is_empty()
            .then_some(())
    })
    .await;
    let error = silent.commit(commit("2")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Unavailable, Outcome::NotApplied)
    );
    assert_eq!(value(&other, "2").await, None);
    silent.commit(commit("2")).await.unwrap();
    assert_eq!(pending(&other).await, ["2"]);
}
