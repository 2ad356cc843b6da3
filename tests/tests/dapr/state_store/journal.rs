//! What the journal keeps, whoever reads it and whoever dies.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adapters_dapr::DaprStateStore;
use async_trait::async_trait;
use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use task_core::application::{Outbox, Relay};
use task_core::background::Background;
use task_core::domain::Timestamp;
use task_core::ports::{
    BusCapability, CapabilitySet, Clock, DeleteMode, DeleteOptions, ErrorKind, Event, EventBus,
    EventHandler, Outcome, PortError, StateStore, Subscription, SystemClock, SystemEntropy,
    WriteMode,
};
use task_tests::wait::until;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::{Stack, etag, event, pending, put, settle_all, task, value};

impl Stack {
    /// What a client of the sidecar reads under a key; empty is missing.
    pub(super) async fn raw(&self, name: &str) -> String {
        let path = format!("/v1.0/state/statestore/{name}");
        self.sidecar.send("GET", &path, &[], "").await.text()
    }

    /// Does to the first journal what whoever closes it does first, and answers its name.
    async fn close_by_hand(&self) -> String {
        let registry: Value = serde_json::from_str(&self.raw("journal-replicas").await).unwrap();
        let name = registry["replicas"][0].as_str().unwrap();
        let head = json!({"beat": 9, "first": 0, "last": 0, "is_closed": true});
        let body = json!([{"key": format!("journal-{name}"), "value": head}]).to_string();
        let path = "/v1.0/state/statestore";
        let saved = self.sidecar.send("POST", path, &[], &body).await;
        assert_eq!(saved.status, 204);
        name.to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_events_of_a_replica_stay_while_it_reads_the_journals_of_others() {
    const REPLICAS: usize = 60;
    const WRITES: usize = 8;
    let stack = Stack::start().await;
    for replica in 0..REPLICAS {
        let store = stack.open().await;
        let is_over = AtomicBool::new(false);
        let writing = async {
            let writes = (0..WRITES).map(async |write| {
                let name = format!("{replica}-{write}");
                let create = put(&name, &json!({}), WriteMode::Create);
                store.commit(create.event(event(&name))).await.unwrap();
                name
            });
            let names = join_all(writes).await;
            is_over.store(true, Ordering::Relaxed);
            names
        };
        let looking = async {
            while !is_over.load(Ordering::Relaxed) {
                store.pending(None, 1).await.unwrap();
            }
        };
        let (mut written, ()) = join(writing, looking).await;
        let mut found = pending(&store).await;
        written.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, written);
        settle_all(&store).await;
        store.flush().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whenever_a_deletion_dies_its_events_are_there_and_nobody_sees_a_grave() {
    let stack = Stack::start().await;
    let (mut deleted, mut kept) = (0, 0);
    for step in 1..1_000 {
        let dying = stack.open().await;
        let id = step.to_string();
        let create = put(&id, &json!({"step": step}), WriteMode::Create).event(event(&id));
        dying.commit(create).await.unwrap();
        let options = DeleteOptions {
            mode: DeleteMode::Match(etag(&dying, &id).await),
            tombstone: Some(Duration::from_secs(60)),
        };
        // It takes one to some milliseconds, in three calls.
        let lives = Duration::from_micros(step % 50 * 100);
        let answered = timeout(lives, dying.delete(&task(&id), options)).await;
        drop(dying);
        let left = stack.raw(&format!("task-{id}")).await;
        let is_there = serde_json::from_str::<Value>(&left).is_ok();
        assert!(left.is_empty() || is_there, "{left:?}");
        assert!(
            answered.is_err() || left.is_empty(),
            "{id} was acknowledged"
        );
        let other = stack.open().await;
        assert!(pending(&other).await.contains(&id), "the event of {id}");
        match value(&other, &id).await {
            Some(_) => kept += 1,
            None => deleted += 1,
        }
        settle_all(&other).await;
        assert_eq!(pending(&other).await, [""; 0]);
        other.flush().await.unwrap();
        if deleted > 9 && kept > 9 && step > 50 {
            return;
        }
    }
    panic!("{deleted} deleted, {kept} not: no moment was met");
}

/// A bus that takes events, or does not.
#[derive(Debug, Default)]
struct Log {
    takes: AtomicBool,
    asked: AtomicBool,
    taken: Mutex<Vec<String>>,
}

#[async_trait]
impl EventBus for Log {
    fn capabilities(&self) -> CapabilitySet<BusCapability> {
        CapabilitySet::of(&[])
    }

    async fn publish(&self, event: &Event) -> Result<(), PortError> {
        self.asked.store(true, Ordering::Relaxed);
        if !self.takes.load(Ordering::Relaxed) {
            return Err(PortError::new(ErrorKind::Unavailable, "log", "publish"));
        }
        let name = String::from_utf8(event.payload.to_vec()).unwrap();
        self.taken.lock().unwrap().push(name);
        Ok(())
    }

    async fn subscribe(
        &self,
        _: Subscription,
        _: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        Err(PortError::new(ErrorKind::Unsupported, "log", "subscribe"))
    }

    async fn check(&self) -> Result<(), PortError> {
        Ok(())
    }
}

fn relay(store: impl StateStore + 'static, bus: &Arc<Log>) -> Background {
    let store = Arc::new(store);
    let outbox = Arc::new(Outbox::new(Arc::clone(&store) as _).unwrap());
    let bus: Arc<dyn EventBus> = Arc::<Log>::clone(bus);
    let clock = Arc::new(SystemClock);
    let relay = Relay::shared(outbox, bus, store, "relay-dapr", clock, &SystemEntropy);
    relay.unwrap().start()
}

#[test]
fn a_relay_publishes_what_a_dead_replica_left_once_and_in_order() {
    const EVENTS: usize = 40;
    let living = Runtime::new().unwrap();
    let dying = Runtime::new().unwrap();
    let stack = living.block_on(Stack::start());
    let (deaf, log) = (Arc::new(Log::default()), Arc::new(Log::default()));
    log.takes.store(true, Ordering::Relaxed);
    let names: Vec<String> = (0..EVENTS).map(|number| format!("{number:02}")).collect();
    let of_dead = dying.block_on(async {
        let store = stack.open().await;
        let relay = relay(store.clone(), &deaf);
        for (number, name) in names.iter().enumerate() {
            let id = (number % 4).to_string();
            let commit = put(&id, &json!({}), WriteMode::Overwrite);
            store.commit(commit.event(event(name))).await.unwrap();
        }
        // It holds the lease, and has events in hand.
        until("the relay works", async || {
            deaf.asked.load(Ordering::Relaxed).then_some(())
        })
        .await;
        relay
    });
    // All of its tasks end where they wait, as with the process.
    dying.shutdown_background();
    living.block_on(async {
        let store = stack.open().await;
        let relay = relay(store.clone(), &log);
        until("nothing is pending", async || {
            let is_all = log.taken.lock().unwrap().len() >= EVENTS;
            (is_all && pending(&store).await.is_empty()).then_some(())
        })
        .await;
        relay.stop().await;
    });
    drop(of_dead);
    // They have one key.
    assert_eq!(*log.taken.lock().unwrap(), names);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_journal_was_closed_saves_no_note_there() {
    const BEAT: Duration = Duration::from_millis(100);
    let stack = Stack::start().await;
    let store = stack.open_with(|options| options.beat_every = BEAT).await;
    let commit = |id: &str| put(id, &json!({}), WriteMode::Create).event(event(id));
    store.commit(commit("1")).await.unwrap();
    let name = stack.close_by_hand().await;
    let mut number = 1;
    let error = until("its beat is due", async || {
        number += 1;
        store.commit(commit(&number.to_string())).await.err()
    })
    .await;
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Unavailable, Outcome::NotApplied),
        "{error}"
    );
    store.commit(commit("last")).await.unwrap();
    let head: Value = serde_json::from_str(&stack.raw(&format!("journal-{name}")).await).unwrap();
    assert_eq!(head["is_closed"], true);
}

/// The clock of a machine that was suspended for some seconds, which other clocks do not count.
#[derive(Debug, Default)]
struct Suspended(AtomicU64);

impl Clock for Suspended {
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn uptime(&self) -> Duration {
        let suspended = Duration::from_secs(self.0.load(Ordering::Relaxed));
        SystemClock.uptime() + suspended
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_suspended_trusts_no_note_in_a_closed_journal() {
    let stack = Stack::start().await;
    let clock = Arc::new(Suspended::default());
    let shared: Arc<dyn Clock> = Arc::<Suspended>::clone(&clock);
    let store = stack.open_with(|options| options.clock = shared).await;
    let commit = |id: &str| put(id, &json!({}), WriteMode::Create).event(event(id));
    store.commit(commit("1")).await.unwrap();
    stack.close_by_hand().await;
    clock.0.store(3600, Ordering::Relaxed);
    let error = store.commit(commit("2")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Unavailable, Outcome::NotApplied),
        "{error}"
    );
    store.commit(commit("2")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_not_known_yet_holds_back_the_later_ones_of_its_record() {
    let stack = Stack::start().await;
    let (ours, theirs) = (stack.open().await, stack.open().await);
    let first = put("first", &json!({}), WriteMode::Create).event(event("first"));
    ours.commit(first).await.unwrap();
    let mut was_held_back = false;
    for round in 0..100 {
        let id = format!("task-{round}");
        let commit = |name: &str| {
            let value = json!({ "name": name });
            put(&id, &value, WriteMode::Overwrite).event(event(name))
        };
        // The journals are read now, and not again within the next tenth of a second.
        let page = ours.pending(None, 1).await.unwrap();
        theirs.commit(commit("theirs")).await.unwrap();
        ours.commit(commit("ours")).await.unwrap();
        let after = page.into_iter().next().map(|found| found.id);
        let page = ours.pending(after, 1_000).await.unwrap();
        let of_task = page
            .iter()
            .map(|found| &found.event.payload)
            .filter(|name| *name != "first");
        let of_task: Vec<&[u8]> = of_task.map(|name| &name[..]).collect();
        was_held_back |= of_task.is_empty();
        assert!(
            of_task.is_empty() || of_task == [&b"theirs"[..], b"ours"],
            "{of_task:?}"
        );
        let all = ours.pending(None, 1_000).await.unwrap();
        let done = all
            .into_iter()
            .filter(|found| found.event.payload != "first");
        let done: Vec<_> = done.map(|found| found.id).collect();
        assert_eq!(done.len(), 2);
        ours.settle(&done).await.unwrap();
        if was_held_back && round >= 5 {
            return;
        }
    }
    panic!("the journals were read each time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_goes_on_gives_each_records_events_in_the_order_of_their_commits() {
    const RECORDS: usize = 16;
    const COMMITS: usize = 30;
    let stack = Stack::start().await;
    let store = stack.open().await;
    let is_over = AtomicBool::new(false);
    let writing = async {
        join_all((0..RECORDS).map(async |record| {
            for commit in 0..COMMITS {
                let id = format!("task-{record}");
                let name = format!("{record:02}-{commit:02}");
                let commit = put(&id, &json!({ "name": name }), WriteMode::Overwrite);
                store.commit(commit.event(event(&name))).await.unwrap();
            }
        }))
        .await;
        is_over.store(true, Ordering::Relaxed);
    };
    // As the relay's tail does it: what was under way when it went by must not come after what follows it.
    let listing = async {
        let (mut after, mut names) = (None, Vec::new());
        loop {
            let was_over = is_over.load(Ordering::Relaxed);
            let page = store.pending(after.clone(), 100).await.unwrap();
            if was_over && page.is_empty() {
                return names;
            }
            after = page.last().map(|found| found.id.clone()).or(after);
            let texts = page.iter().map(|found| found.event.payload.to_vec());
            names.extend(texts.map(|text| String::from_utf8(text).unwrap()));
        }
    };
    let ((), names) = join(writing, listing).await;
    let mut seen = HashSet::new();
    for name in names {
        let (record, commit) = name.split_once('-').unwrap();
        let before = commit.parse::<usize>().unwrap().checked_sub(1);
        let before = before.map(|before| format!("{record}-{before:02}"));
        let is_next = before.is_none_or(|before| seen.contains(&before));
        assert!(is_next, "{name} came before the one before it");
        seen.insert(name);
    }
}

/// Returns when this is the only pending event; where an unknown replica is named it takes a second look.
async fn listed(store: &DaprStateStore, name: &str) {
    until("it is listed", async || {
        let found = pending(store).await;
        assert!(found.iter().all(|one| *one == *name), "{found:?}");
        (!found.is_empty()).then_some(())
    })
    .await;
}

/// A beat that is over soon.
const SHORT: Duration = Duration::from_millis(150);

impl Stack {
    /// Returns when nobody has a journal any more.
    async fn closed(&self, by: &DaprStateStore) {
        until("every journal is closed", async || {
            assert_eq!(pending(by).await, [""; 0]);
            self.raw("journal-replicas")
                .await
                .contains("[]")
                .then_some(())
        })
        .await;
        // Who has closed it knows it until its next look.
        assert_eq!(pending(by).await, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_closed_journal_had_settled_is_not_published_by_a_deletion() {
    let stack = Stack::start().await;
    let first = stack.open_with(|options| options.beat_every = SHORT).await;
    let create = put("1", &json!({}), WriteMode::Create).event(event("created"));
    first.commit(create).await.unwrap();
    settle_all(&first).await;
    first.flush().await.unwrap();
    drop(first);
    let other = stack.open_with(|options| options.beat_every = SHORT).await;
    stack.closed(&other).await;
    let options = DeleteOptions {
        mode: DeleteMode::Match(etag(&other, "1").await),
        tombstone: Some(Duration::from_secs(60)),
    };
    other.delete(&task("1"), options).await.unwrap();
    assert_eq!(pending(&other).await, [""; 0]);
    assert_eq!(pending(&stack.open().await).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_closed_journals_do_not_fill_a_record() {
    // As many as are kept without a look, and some more.
    const REPLICAS: usize = 12;
    let stack = Stack::start().await;
    let other = stack.open_with(|options| options.beat_every = SHORT).await;
    let write = async |store: &DaprStateStore, name: &str| {
        let commit = put("1", &json!({}), WriteMode::Overwrite).event(event(name));
        store.commit(commit).await.unwrap();
        listed(store, name).await;
        settle_all(store).await;
        store.flush().await.unwrap();
    };
    for replica in 0..REPLICAS {
        let store = stack.open_with(|options| options.beat_every = SHORT).await;
        write(&store, &replica.to_string()).await;
        drop(store);
        stack.closed(&other).await;
    }
    let record = stack.raw("task-1").await;
    let carried = record.matches("\"op\"").count();
    assert!(carried <= 9, "{carried} of {REPLICAS} events: {record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_pending_of_somebody_else_stays_theirs_and_is_never_published() {
    let stack = Stack::start().await;
    let store = stack.open().await;
    let forged =
        json!([{"op": "nobody.1", "topic": "task-events", "key": "k", "data": "invented"}]);
    for (id, theirs, is_kept) in [
        ("text", json!("mine"), true),
        ("null", json!(null), true),
        ("empty", json!([]), true),
        ("forged", forged, false),
    ] {
        let record = json!({"id": id, "_pending": theirs});
        let body = json!([{"key": format!("task-{id}"), "value": record}]).to_string();
        let path = "/v1.0/state/statestore";
        let saved = stack.sidecar.send("POST", path, &[], &body).await;
        assert_eq!(saved.status, 204);
        let expected = match is_kept {
            true => record,
            false => json!({"id": id}),
        };
        let found = value(&store, id).await.unwrap();
        assert_eq!(found, expected);
        let mode = WriteMode::Match(etag(&store, id).await);
        let change = put(id, &found, mode).event(event(id));
        store.commit(change).await.unwrap();
        assert_eq!(value(&store, id).await, Some(expected), "{id}");
        listed(&stack.open().await, id).await;
        let options = DeleteOptions {
            mode: DeleteMode::Match(etag(&store, id).await),
            tombstone: Some(Duration::from_secs(60)),
        };
        store.delete(&task(id), options).await.unwrap();
        assert_eq!(pending(&store).await, [id]);
        settle_all(&store).await;
        store.flush().await.unwrap();
    }
}
