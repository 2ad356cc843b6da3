//! The cases of the [`StateStore`] port, promises S1 to S25.
//!
//! ```
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! # runtime.block_on(async {
//! use task_tests::backends::MemoryStateStores;
//! use task_tests::conformance::state_store;
//!
//! let case = state_store::case("create_refuses_an_existing_key").unwrap();
//! state_store::run(case, MemoryStateStores::full()).await.unwrap();
//! # });
//! ```

pub mod always;
pub mod commits;
pub mod conditional;
pub mod expiry;
pub mod guards;
pub mod publishing;
pub mod reading;
pub mod refusals;
pub mod scans;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use task_core::ports::StateCapability::{
    ConditionalWrites, Durable, Guards, Outbox, Publishes, Scan, Tombstones, Transactions, Ttl,
    UniqueVersions,
};
use task_core::ports::{
    DeleteMode, DeleteOptions, ETag, Event, EventBus, Key, Kind, PendingEvent, PutOptions,
    StateCapability, StateStore, Stored, Topic, Write, WriteMode,
};

use super::{Failure, Verdict, cases};

/// How an adapter is put under test; one instance serves one case.
#[async_trait]
pub trait StateStoreBackend: Debug + Send + Sync + 'static {
    /// Opens an empty store. The suite calls it once.
    async fn open(&self) -> Result<Arc<dyn StateStore>, Failure>;

    /// Closes the store and opens it again, as after a restart. Only called with `durable`.
    async fn reopen(&self, store: Arc<dyn StateStore>) -> Result<Arc<dyn StateStore>, Failure>;

    /// The bus that belongs to the store. Only called with `publishes`, while the store is open.
    async fn bus(&self) -> Result<Arc<dyn EventBus>, Failure> {
        Err(Failure::new("this store has no bus of its own"))
    }

    /// Lets this much time pass for values and tombstones that expire, and a little more.
    async fn elapse(&self, time: Duration);

    /// Says whether [`elapse`](Self::elapse) moves a clock or waits.
    fn time(&self) -> Time;

    /// Removes everything that [`open`](Self::open) made.
    async fn close(&self);
}

/// What it costs to let time pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// Nothing: the backend's clock is ours to move.
    Moved,
    /// The time itself.
    Waited,
}

/// What a case is given: an empty store, and the backend that it belongs to.
#[derive(Debug)]
pub struct Subject {
    /// The store under test.
    pub store: Arc<dyn StateStore>,
    /// How to restart it, and to let time pass.
    pub backend: Arc<dyn StateStoreBackend>,
}

impl Subject {
    /// Closes the store and opens it again.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn reopen(self) -> Result<Self, Failure> {
        let store = self.backend.reopen(self.store).await?;
        Ok(Self { store, ..self })
    }
}

/// A requirement of the state store port.
pub type Case = super::Case<Subject, StateCapability>;

/// Every case, in the order of the promises; the race over an exact total comes last.
pub const CASES: &[Case] = cases![
    "S1" reading::get_returns_the_bytes_that_were_put [],
    "S2" reading::a_missing_key_reads_as_none [],
    "S3" reading::keys_that_look_alike_are_different [],
    "S4" reading::get_many_answers_in_the_order_of_its_keys [],
    "S5" reading::limits_are_refused_and_the_largest_is_stored [],
    "S6" reading::a_deletion_removes_and_may_be_repeated [],
    "S7" conditional::a_change_gives_a_new_etag [ConditionalWrites],
    "S8" conditional::create_refuses_an_existing_key [ConditionalWrites],
    "S9" conditional::match_refuses_a_stale_etag [ConditionalWrites],
    "S10" conditional::every_write_gives_a_new_etag [ConditionalWrites, UniqueVersions],
    "S10" conditional::an_etag_never_comes_back [ConditionalWrites, UniqueVersions],
    "S11" conditional::a_refused_write_changes_nothing [ConditionalWrites],
    "S13" expiry::an_expired_value_is_missing [Ttl],
    "S13" expiry::a_put_without_ttl_removes_the_ttl [Ttl],
    "S14" expiry::a_tombstone_refuses_a_new_creation [Tombstones, ConditionalWrites],
    "S15" commits::a_commit_is_all_or_nothing [Transactions, ConditionalWrites],
    "S16" commits::events_are_pending_if_and_only_if_committed [Outbox, ConditionalWrites],
    "S17" commits::pending_events_keep_the_order_of_commits [Outbox],
    "S18" commits::settled_events_are_gone_and_settling_repeats [Outbox],
    "S18" commits::a_settled_event_is_not_listed_again [Outbox],
    "S23" publishing::events_are_published_if_and_only_if_committed [Publishes, ConditionalWrites],
    "S24" guards::a_commit_depends_on_its_guards [Guards],
    "S25" guards::a_raised_value_never_falls [Guards],
    "S19" scans::a_scan_finds_every_key_of_its_kind [Scan],
    "S19" scans::a_scan_survives_writes_in_its_way [Scan],
    "S19" scans::a_scan_passes_over_what_has_ended [Scan, Ttl],
    "S20" always::acknowledged_writes_survive_a_restart [Durable],
    "S26" always::the_identity_stays_while_the_server_runs [],
    "S21" refusals::undeclared_state_capabilities_are_refused [],
    "S22" always::a_dropped_write_is_whole_or_absent [],
    "S24" guards::a_raised_fence_stops_racing_commits [Guards],
    "S12" conditional::racing_creates_have_one_winner [ConditionalWrites],
    "S12" conditional::racing_updates_lose_nothing [ConditionalWrites],
];

/// The case of this name.
#[must_use]
pub fn case(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}

/// Runs a case on a fresh backend, or proves that what it needs is refused.
///
/// # Errors
/// The first promise that was not kept. A panic of the adapter is one as well.
pub async fn run(case: &'static Case, backend: Arc<dyn StateStoreBackend>) -> Verdict {
    let owner = Arc::clone(&backend);
    let verdict = tokio::spawn(judge(case, backend)).await;
    owner.close().await;
    verdict?
}

async fn judge(case: &'static Case, backend: Arc<dyn StateStoreBackend>) -> Verdict {
    let store = backend.open().await?;
    let declared = store.capabilities();
    match case.requires.iter().find(|needed| !declared.has(**needed)) {
        Some(missing) => refusals::refuses(&*store, *missing).await,
        None => (case.body)(Subject { store, backend }).await,
    }
}

/// A second kind, whose keys are none of the first one's.
const OTHER: Kind = Kind::new("other");

/// A kind of whose keys a backend may keep a list.
const LISTED: Kind = Kind::listed("listed");

fn key(id: &str) -> Key {
    Key::new(Kind::TASK, id)
}

fn text(value: &str) -> Bytes {
    Bytes::copy_from_slice(value.as_bytes())
}

fn event(name: &str) -> Event {
    Event {
        topic: Topic::new("tasks"),
        key: "t-1".into(),
        payload: text(name),
    }
}

fn overwrite() -> PutOptions {
    PutOptions::default()
}

fn create() -> PutOptions {
    PutOptions {
        mode: WriteMode::Create,
        ttl: None,
    }
}

fn matching(etag: &ETag) -> PutOptions {
    PutOptions {
        mode: WriteMode::Match(etag.clone()),
        ttl: None,
    }
}

fn delete_any() -> DeleteOptions {
    DeleteOptions::default()
}

fn delete_matching(etag: &ETag) -> DeleteOptions {
    DeleteOptions {
        mode: DeleteMode::Match(etag.clone()),
        tombstone: None,
    }
}

fn put_write(id: &str, value: &str, options: PutOptions) -> Write {
    Write::Put {
        key: key(id),
        value: text(value),
        options,
    }
}

/// Reads a value that has to be there.
async fn read(store: &dyn StateStore, key: &Key) -> Result<Stored, Failure> {
    let stored = store.get(key).await?;
    stored.ok_or_else(|| Failure::new(format!("{key} reads as missing")))
}

/// Fails unless a key holds this text, or nothing.
async fn holds(store: &dyn StateStore, id: &str, expected: Option<&str>) -> Verdict {
    let found = store.get(&key(id)).await?.map(|stored| stored.value);
    super::ensure_eq!(found, expected.map(text), "the value of {id}");
    Ok(())
}

/// The payloads of all pending events, read in pages of two.
/// Puts a value and reads the version that it has then, which the answer must not contradict.
async fn put(
    store: &dyn StateStore,
    key: &Key,
    value: &str,
    options: PutOptions,
) -> Result<ETag, Failure> {
    let answered = store.put(key, text(value), options).await?;
    let etag = read(store, key).await?.etag;
    if let Some(answered) = answered {
        super::ensure_eq!(answered, etag, "the version of a put");
    }
    Ok(etag)
}

async fn pending(store: &dyn StateStore) -> Result<Vec<Bytes>, Failure> {
    const MOST_PAGES: usize = 1000;
    let mut found: Vec<PendingEvent> = Vec::new();
    for _ in 0..MOST_PAGES {
        let after = found.last().map(|event| event.id.clone());
        let page = store.pending(after, 2).await?;
        super::ensure!(page.len() <= 2, "pending gave more events than its limit");
        if page.is_empty() {
            return Ok(found.into_iter().map(|found| found.event.payload).collect());
        }
        found.extend(page);
    }
    Err(Failure::new("pending does not end"))
}
