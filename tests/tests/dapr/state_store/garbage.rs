//! Documents of the journal that somebody else has written over.

use std::time::Duration;

use adapters_dapr::DaprStateStore;
use serde_json::{Value, json};
use task_core::ports::{Commit, DeleteOptions, Outcome, StateStore, WriteMode};
use task_tests::wait::until;

use super::{Stack, event, pending, put, settle_all, task, value};

/// A beat that is over soon, and not while a busy machine saves a note.
const SHORT: Duration = Duration::from_secs(1);

const REGISTRY: &str = "replicas";

impl Stack {
    async fn open_shortly(&self) -> DaprStateStore {
        self.open_with(|options| options.beat_every = SHORT).await
    }

    /// Writes what no adapter writes over a document of the journal.
    async fn garble(&self, document: &str) {
        self.forge(document, "{\"replicas\": [7").await;
    }

    /// Writes this over a document of the journal.
    async fn forge(&self, document: &str, text: &str) {
        let key = key_of(document);
        let was_there = self.redis.command(&["HEXISTS", &key, "data"]).await;
        assert_eq!(was_there, redis::Value::Int(1), "{key}");
        self.redis.command(&["HSET", &key, "data", text]).await;
        self.redis.command(&["HINCRBY", &key, "version", "1"]).await;
    }

    /// The replicas, if they can be read.
    async fn replicas(&self) -> Option<Vec<String>> {
        let read: Value = serde_json::from_str(&self.raw("journal-replicas").await).ok()?;
        serde_json::from_value(read["replicas"].clone()).ok()
    }

    /// The name of a replica that has just written its first note.
    async fn newest(&self) -> String {
        self.replicas().await.unwrap().pop().unwrap()
    }
}

/// What Redis calls a document of the journal.
fn key_of(document: &str) -> String {
    format!("task-api||journal-{document}")
}

async fn create(store: &DaprStateStore, id: &str) {
    let create = put(id, &json!({ "id": id }), WriteMode::Create).event(event(id));
    commit(store, create).await;
}

/// A replica whose beat has come late says that nothing was changed, and may be asked again.
async fn commit(store: &DaprStateStore, commit: Commit) {
    until("the change is noted in time", async || {
        let answer = store.commit(commit.clone()).await;
        let outcome = answer.map_err(|error| error.outcome());
        assert_ne!(outcome, Err(Outcome::Unknown));
        outcome.ok()
    })
    .await;
}

/// Waits until exactly these events are pending.
async fn listed(store: &DaprStateStore, names: &[&str]) {
    until(&format!("{names:?} are listed"), async || {
        let mut found = pending(store).await;
        found.sort_unstable();
        (found == names).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_that_cannot_be_read_hold_back_nobody_and_their_events_stay_in_their_records() {
    for document in ["/0", ""] {
        hold_back_nobody(document).await;
    }
}

/// The segment, or the head that says which segments there are.
async fn hold_back_nobody(document: &str) {
    let stack = Stack::start().await;
    let dead = stack.open_shortly().await;
    create(&dead, "1").await;
    let name = stack.newest().await;
    drop(dead);
    let empty = stack.open_shortly().await;
    create(&empty, "2").await;
    let closed = stack.newest().await;
    let found = empty.pending(None, 10).await.unwrap();
    let own = found.into_iter().find(|one| one.event.payload == "2");
    empty.settle(&[own.unwrap().id]).await.unwrap();
    empty.flush().await.unwrap();
    drop(empty);
    stack.garble(&format!("{name}{document}")).await;

    let other = stack.open_shortly().await;
    create(&other, "3").await;
    listed(&other, &["3"]).await;
    settle_all(&other).await;
    until("the journal that can be read is closed", async || {
        listed(&other, &[]).await;
        let open = stack.replicas().await?;
        (!open.contains(&closed)).then_some(())
    })
    .await;
    assert!(stack.replicas().await.unwrap().contains(&name));
    assert_eq!(value(&other, "1").await, Some(json!({"id": "1"})));

    let later = put("1", &json!({"id": "later"}), WriteMode::Overwrite);
    commit(&other, later.event(event("later"))).await;
    assert_eq!(pending(&other).await, ["1", "later"], "in their order");
    settle_all(&other).await;
    assert_eq!(pending(&other).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lives_writes_over_what_somebody_has_done_to_its_documents() {
    let stack = Stack::start().await;
    let (live, known) = (stack.open_shortly().await, stack.open_shortly().await);
    create(&live, "1").await;
    let name = stack.newest().await;
    listed(&known, &["1"]).await;
    for document in [format!("{name}/0"), name.clone()] {
        stack.garble(&document).await;
    }
    // What was read before is still known, and nothing keeps a new one from working.
    assert_eq!(pending(&known).await, ["1"]);
    let new = stack.open_shortly().await;
    create(&new, "2").await;
    listed(&new, &["2"]).await;
    let mut writes = 0;
    until("both know all notes", async || {
        writes += 1;
        let id = format!("live-{writes}");
        create(&live, &id).await;
        let all = ["1", "2", &id].map(str::to_owned);
        let has_all = |found: Vec<String>| all.iter().all(|one| found.contains(one));
        (has_all(pending(&new).await) && has_all(pending(&known).await)).then_some(())
    })
    .await;
    // So does who settles for it.
    let done = format!("{name}/done");
    settle_all(&new).await;
    create(&live, "last").await;
    listed(&new, &["last"]).await;
    stack.garble(&done).await;
    until("what was settled before is settled again", async || {
        settle_all(&new).await;
        pending(&new).await.is_empty().then_some(())
    })
    .await;
    for store in [&live, &new] {
        store.flush().await.unwrap();
    }
    listed(&stack.open_shortly().await, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_replicas_that_cannot_be_read_is_begun_anew_by_those_who_live() {
    let stack = Stack::start().await;
    let (first, second) = (stack.open_shortly().await, stack.open_shortly().await);
    let dead = stack.open_shortly().await;
    for (store, id) in [(&first, "1"), (&second, "2"), (&dead, "3")] {
        create(store, id).await;
    }
    drop(dead);
    let all = stack.replicas().await.unwrap();
    listed(&second, &["1", "2", "3"]).await;
    stack.garble(REGISTRY).await;
    // Whoever has seen it knows what was in it.
    let mut found = pending(&second).await;
    found.sort_unstable();
    assert_eq!(found, ["1", "2", "3"]);
    let mut anew = stack.replicas().await.unwrap();
    anew.sort_unstable();
    let mut expected = all.clone();
    expected.sort_unstable();
    assert_eq!(anew, expected);

    // Who has not seen it hears of those who live, and of what they know.
    stack.garble(REGISTRY).await;
    let new = stack.open_shortly().await;
    assert_eq!(pending(&new).await, [""; 0]);
    create(&new, "4").await;
    let mut writes = 0;
    until("each has written its name down", async || {
        writes += 1;
        let id = format!("first-{writes}");
        create(&first, &id).await;
        pending(&second).await;
        let found = pending(&new).await;
        let all = ["1", "2", "3", "4", &id].map(str::to_owned);
        all.iter().all(|one| found.contains(one)).then_some(())
    })
    .await;
}

/// What somebody else does to the documents of a replica that is gone.
#[derive(Debug, Clone, Copy)]
enum Harm {
    ListGarbled,
    ListEmptied,
    ListRemoved,
    HeadForged,
    HeadRemoved,
    ListAndHeadRemoved,
    SegmentRemoved,
}

impl Harm {
    const ALL: [Self; 7] = [
        Self::ListGarbled,
        Self::ListEmptied,
        Self::ListRemoved,
        Self::HeadForged,
        Self::HeadRemoved,
        Self::ListAndHeadRemoved,
        Self::SegmentRemoved,
    ];

    async fn do_to(self, stack: &Stack, name: &str) {
        let remove = async |document: &str| {
            let removed = stack.redis.command(&["DEL", &key_of(document)]).await;
            assert_eq!(removed, redis::Value::Int(1), "{document}");
        };
        match self {
            Self::ListGarbled => stack.garble(REGISTRY).await,
            Self::ListEmptied => stack.forge(REGISTRY, r#"{"replicas":[]}"#).await,
            Self::ListRemoved => remove(REGISTRY).await,
            Self::HeadForged => {
                let head = json!({"beat": 0, "first": 9, "last": 9, "is_closed": false});
                stack.forge(name, &head.to_string()).await;
            }
            Self::HeadRemoved => remove(name).await,
            Self::ListAndHeadRemoved => {
                remove(REGISTRY).await;
                remove(name).await;
            }
            Self::SegmentRemoved => {
                let head = json!({"beat": 1, "first": 0, "last": 1, "is_closed": false});
                stack.forge(name, &head.to_string()).await;
                remove(&format!("{name}/0")).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_which_no_journal_tells_comes_once_with_the_next_change_of_its_record() {
    for harm in Harm::ALL {
        let stack = Stack::start().await;
        let dead = stack.open_shortly().await;
        create(&dead, "1").await;
        let name = stack.newest().await;
        drop(dead);
        harm.do_to(&stack, &name).await;
        let new = stack.open_shortly().await;
        create(&new, "2").await;
        until("others go on", async || {
            pending(&new).await.contains(&"2".to_owned()).then_some(())
        })
        .await;
        let later = put("1", &json!({"id": "later"}), WriteMode::Overwrite);
        commit(&new, later.event(event("later"))).await;
        let found = until("the later event is listed", async || {
            let found = pending(&new).await;
            let of_task = found.into_iter().filter(|one| one != "2");
            let of_task: Vec<String> = of_task.collect();
            of_task.contains(&"later".to_owned()).then_some(of_task)
        })
        .await;
        assert_eq!(found, ["1", "later"], "{harm:?}: in their order");
        settle_all(&new).await;
        for store in [&new, &stack.open_shortly().await] {
            let last = put("1", &json!({"id": "last"}), WriteMode::Overwrite);
            commit(store, last.event(event("last"))).await;
            until("the last event is listed", async || {
                let found = pending(store).await;
                let is_new = |one: &String| one == "last";
                assert!(found.iter().all(is_new), "{harm:?}: {found:?}");
                (!found.is_empty()).then_some(())
            })
            .await;
            settle_all(store).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_replicas_that_was_removed_is_begun_anew_by_who_knows_them() {
    let stack = Stack::start().await;
    let (live, known) = (stack.open().await, stack.open().await);
    create(&live, "1").await;
    create(&known, "2").await;
    listed(&known, &["1", "2"]).await;
    let mut all = stack.replicas().await.unwrap();
    let removed = stack.redis.command(&["DEL", &key_of(REGISTRY)]).await;
    assert_eq!(removed, redis::Value::Int(1));
    for _ in 0..3 {
        assert_eq!(pending(&known).await.len(), 2);
    }
    let mut anew = stack.replicas().await.unwrap();
    all.sort_unstable();
    anew.sort_unstable();
    assert_eq!(anew, all);
}

/// What takes the place of a key that no component can read as one of ours.
#[derive(Debug, Clone, Copy)]
enum Strange {
    Unversioned,
    OtherType,
}

impl Strange {
    async fn take_place_of(self, stack: &Stack, key: &str) {
        let words: &[&str] = match self {
            Self::Unversioned => &["HSET", key, "data", "{}"],
            Self::OtherType => &["SET", key, "{}"],
        };
        stack.redis.command(&["DEL", key]).await;
        stack.redis.command(words).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_cannot_be_read_at_all_stops_no_other_events() {
    for strange in [Strange::Unversioned, Strange::OtherType] {
        for document in ["/0", "", "/done", "task", "list"] {
            let stack = Stack::start().await;
            let dead = stack.open_shortly().await;
            create(&dead, "1").await;
            let name = stack.newest().await;
            drop(dead);
            let key = match document {
                "task" => "task-api||task-1".to_owned(),
                "list" => key_of(REGISTRY),
                of_replica => key_of(&format!("{name}{of_replica}")),
            };
            let other = stack.open_shortly().await;
            create(&other, "2").await;
            strange.take_place_of(&stack, &key).await;
            for store in [&other, &stack.open_shortly().await] {
                create(store, "3").await;
                until("the others are listed", async || {
                    let found = store.pending(None, 10).await;
                    let found = found.unwrap_or_else(|error| panic!("{strange:?} {key}: {error}"));
                    let mut found = found.iter().map(|one| &one.event.payload);
                    found.any(|one| one == "3").then_some(())
                })
                .await;
                settle_all(store).await;
                store
                    .delete(&task("3"), DeleteOptions::default())
                    .await
                    .unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_only_says_it_is_there_writes_over_what_somebody_has_done() {
    let stack = Stack::start().await;
    let live = stack.open_shortly().await;
    create(&live, "1").await;
    let name = stack.newest().await;
    for document in [format!("{name}/0"), name] {
        stack.garble(&document).await;
        let new = stack.open_shortly().await;
        create(&new, "2").await;
        until("its event is found", async || {
            live.check().await.unwrap();
            pending(&new).await.contains(&"1".to_owned()).then_some(())
        })
        .await;
        new.delete(&task("2"), DeleteOptions::default())
            .await
            .unwrap();
    }
}
