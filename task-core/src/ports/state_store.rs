//! The state store port: records under keys, with conditional writes and pending events.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    CapabilitySet, Commit, DeleteOptions, ETag, ErrorKind, Event, Key, Kind, PortError, PutOptions,
    StateCapability, Stored,
};

/// Names one pending event within its store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PendingId(Box<str>);

impl PendingId {
    /// Wraps what the backend calls the event's place.
    #[must_use]
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The place as the backend wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The place as a number, for backends that number their outbox.
    ///
    /// # Errors
    /// `Invalid` for a place that this backend did not give.
    pub fn as_number<N>(
        &self,
        backend: &'static str,
        operation: &'static str,
    ) -> Result<N, PortError>
    where
        N: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
    {
        self.0.parse().map_err(|error: N::Err| {
            PortError::new(ErrorKind::Invalid, backend, operation)
                .context(format!("{:?} is not a place of this outbox", self.as_str()))
                .caused_by(error)
        })
    }
}

/// An event that was committed with a record and is not yet known to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingEvent {
    /// Its place.
    pub id: PendingId,
    /// The event.
    pub event: Event,
}

/// A part of a scan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Keys with their values.
    pub entries: Vec<(Key, Stored)>,
    /// Where the next part begins; `None` after the last one.
    pub next: Option<String>,
}

/// Stores bytes under keys.
///
/// # Contract
/// A method that a backend has not declared in [`capabilities`](Self::capabilities) answers
/// `Unsupported` and does nothing. What is declared keeps all of these promises.
///
/// Reading and writing:
/// - **S1** `get` MUST return the bytes that the last successful write put, unchanged, also if they
///   are no text. (`get_returns_the_bytes_that_were_put`)
/// - **S2** A key without a value MUST read as `None`. (`a_missing_key_reads_as_none`)
/// - **S3** Kinds MUST NOT share keys, nor may one key be part of another.
///   (`keys_that_look_alike_are_different`)
/// - **S4** `get_many` MUST answer in the order of its keys, one answer a key, and may repeat keys.
///   (`get_many_answers_in_the_order_of_its_keys`)
/// - **S5** An empty value, and a key or a value beyond [`MAX_KEY_BYTES`] or [`MAX_VALUE_BYTES`] MUST be refused as
///   `Invalid`, and the largest allowed one stored. (`limits_are_refused_and_the_largest_is_stored`)
/// - **S6** Deleting without a condition MUST succeed whether or not the key has a value.
///   (`a_deletion_removes_and_may_be_repeated`)
///
/// With `conditional writes`:
/// - **S7** A write that changes the value MUST change its [`ETag`], and where `put` or `commit` answers
///   one, `get` MUST answer the same. (`a_change_gives_a_new_etag`)
/// - **S8** `Create` MUST be refused as `Conflict` while the key has a value.
///   (`create_refuses_an_existing_key`)
/// - **S9** `Match` MUST be refused as `Conflict` unless the value has exactly that version, also for
///   a missing key, for puts and for deletions. (`match_refuses_a_stale_etag`)
/// - **S11** A refused write MUST change nothing. (`a_refused_write_changes_nothing`)
/// - **S12** Of writers racing with one `ETag`, or to create one key, exactly one MUST win.
///   (`racing_creates_have_one_winner`, `racing_updates_lose_nothing`)
///
/// With `unique versions`:
/// - **S10** Every successful write MUST give the key an `ETag` that it never had, not even before a
///   deletion. Without the capability a version may come back, with its value or after a deletion.
///   (`every_write_gives_a_new_etag`, `an_etag_never_comes_back`)
///
/// With `ttl`:
/// - **S13** An expired value MUST be missing to every operation; a put without a limit MUST remove
///   an earlier limit. (`an_expired_value_is_missing`, `a_put_without_ttl_removes_the_ttl`)
///
/// With `tombstones`:
/// - **S14** After a deletion with a tombstone the key MUST read as missing and refuse `Create` and
///   `Match` as `Conflict` until the tombstone's time is over. (`a_tombstone_refuses_a_new_creation`)
///
/// With `transactions`:
/// - **S15** A commit MUST take effect whole or not at all, and later writes MUST see earlier ones
///   of the same commit. (`a_commit_is_all_or_nothing`)
///
/// With `outbox`:
/// - **S16** An event MUST be pending exactly if its commit took effect.
///   (`events_are_pending_if_and_only_if_committed`)
/// - **S17** `pending` MUST list every event that stays pending and go on after the given one, until a
///   page is empty. Those of one record MUST come in the order of its commits: what an event follows
///   and is still pending stands before the given one, or before it on its own page. An event MAY be
///   listed again on a later page. (`pending_events_keep_the_order_of_commits`)
/// - **S18** `settle` MUST remove exactly the named events and MAY be repeated. What begins after it has
///   returned MUST NOT list them again, whatever is committed and listed meanwhile; other processes MAY
///   for a while. (`settled_events_are_gone_and_settling_repeats`, `a_settled_event_is_not_listed_again`)
///
/// With `publishes`, which a store has instead of `outbox`:
/// - **S23** A store and the bus that belongs to it MUST bring an event to the bus's groups exactly if
///   its commit took effect, in commit order. (`events_are_published_if_and_only_if_committed`)
///
/// With `guards`:
/// - **S24** A commit MUST be refused as `Fenced`, and change nothing, unless every [`Guard`] holds at
///   the moment it takes effect. (`a_commit_depends_on_its_guards`,
///   `a_raised_fence_stops_racing_commits`)
/// - **S25** [`WriteMode::Raise`] MUST keep the greatest value and [`DeleteMode::AtMost`] MUST spare a
///   greater one, both as one atomic step. (`a_raised_value_never_falls`)
///
/// With `scan`:
/// - **S19** A scan MUST return each key of the kind that exists throughout it at least once, nothing
///   of another kind or without a value, and end. (`a_scan_finds_every_key_of_its_kind`,
///   `a_scan_survives_writes_in_its_way`, `a_scan_passes_over_what_has_ended`)
///
/// With `durable`:
/// - **S20** An acknowledged write and its pending events MUST be there after the backend was closed
///   and opened again. (`acknowledged_writes_survive_a_restart`)
///
/// Always:
/// - **S26** The `identity` MUST stay the same while the server runs.
///   (`the_identity_stays_while_the_server_runs`)
/// - **S21** An undeclared capability MUST be refused as `Unsupported`.
///   (`undeclared_state_capabilities_are_refused`)
/// - **S22** A future that is dropped MUST leave its write done whole or not at all.
///   (`a_dropped_write_is_whole_or_absent`)
///
/// # Errors
/// Every method: `Unavailable`, `Timeout`, `Denied`, `Throttled` as the backend is; `Corrupt` for
/// bytes that are not ours. A write whose effect is not known says so by
/// [`Outcome::Unknown`](super::Outcome::Unknown).
///
/// # Wrappers
/// A wrapper MUST forward every method and denies `clippy::missing_trait_methods`.
///
/// [`MAX_KEY_BYTES`]: super::MAX_KEY_BYTES
/// [`MAX_VALUE_BYTES`]: super::MAX_VALUE_BYTES
/// [`Guard`]: super::Guard
/// [`WriteMode::Raise`]: super::WriteMode::Raise
/// [`DeleteMode::AtMost`]: super::DeleteMode::AtMost
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait StateStore: Debug + Send + Sync + 'static {
    /// What this backend can do. It does not change while the adapter lives.
    fn capabilities(&self) -> CapabilitySet<StateCapability>;

    /// Reads the value of a key.
    async fn get(&self, key: &Key) -> Result<Option<Stored>, PortError>;

    /// Reads the values of several keys, not as one snapshot.
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, PortError>;

    /// Writes a value and answers the version that the key has then, if the backend tells.
    ///
    /// `None` is what a backend answers that would have to read to know.
    async fn put(
        &self,
        key: &Key,
        value: Bytes,
        options: PutOptions,
    ) -> Result<Option<ETag>, PortError>;

    /// Removes a value.
    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<(), PortError>;

    /// Applies writes and records their pending events in one atomic step.
    ///
    /// Answers the version that each write gave its key, as `put` does; `None` for a deletion. One write
    /// without events and guards needs no capability beyond those of the write itself.
    async fn commit(&self, commit: Commit) -> Result<Vec<Option<ETag>>, PortError>;

    /// Lists up to `limit` events that are committed and not settled, after the given place.
    async fn pending(
        &self,
        after: Option<PendingId>,
        limit: usize,
    ) -> Result<Vec<PendingEvent>, PortError>;

    /// Removes events that have been published.
    ///
    /// Losing a settlement in a crash is allowed: the event is then published again.
    async fn settle(&self, events: &[PendingId]) -> Result<(), PortError>;

    /// Reads up to about `limit` keys of a kind, beginning where the last page ended.
    async fn scan(&self, kind: Kind, from: Option<String>, limit: usize)
    -> Result<Page, PortError>;

    /// Says whether the backend can be reached and works.
    async fn check(&self) -> Result<(), PortError>;

    /// Names the server that runs behind the store.
    ///
    /// Another answer means that it was started again or replaced, and may have lost its last writes.
    /// `None` is what a backend answers that cannot tell, or whose writes cannot be lost in this way.
    async fn identity(&self) -> Result<Option<Box<str>>, PortError>;
}
