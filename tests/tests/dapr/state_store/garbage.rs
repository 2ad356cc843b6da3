//! Documents of the journal that somebody else has written over.

use std::time::Duration;

use adapters_dapr::DaprStateStore;
use serde_json::{Value, json};
use task_core::ports::{Commit, Outcome, StateStore, WriteMode};
use task_tests::wait::until;

use super::{Stack, event, pending, put, settle_all, value};

/// A beat that is over soon, and not while a busy machine saves a note.
const SHORT: Duration = Duration::from_secs(1);

const REGISTRY: &str = "replicas";

impl Stack {
    async fn open_shortly(&self) -> DaprStateStore {
        self.open_with(|options| options.beat_every = SHORT).await
    }

    /// Writes what no adapter writes over a document of the journal.
    async fn garble(&self, document: &str) {
        let key = format!("task-api||journal-{document}");
        let was_there = self.redis.command(&["HEXISTS", &key, "data"]).await;
        assert_eq!(was_there, redis::Value::Int(1), "{key}");
        let words = ["HSET", &key, "data", "{\"replicas\": [7"];
        self.redis.command(&words).await;
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
    settle_all(&empty).await;
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
