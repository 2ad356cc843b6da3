//! The state store port: records under keys, with conditional writes and pending events.

use std::fmt::{self, Debug};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{CapabilitySet, ErrorKind, Event, PortError, StateCapability};

/// Largest value that a store takes, in bytes.
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;

/// Longest key id, in bytes.
pub const MAX_KEY_BYTES: usize = 512;

/// A namespace of keys, for example `task`. Each adapter renders it in its own layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(&'static str);

impl Kind {
    /// The tasks of the Task API.
    pub const TASK: Self = Self("task");
    /// The marks of events that a consumer has finished.
    pub const SEEN: Self = Self("seen");

    /// A namespace of a caller's own, in lower-case letters.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    /// The namespace as text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

/// Where a value is stored: a kind, and an id of 1 to [`MAX_KEY_BYTES`] bytes within it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The namespace.
    pub kind: Kind,
    /// The id within the namespace.
    pub id: Box<str>,
}

impl Key {
    /// Names a value.
    #[must_use]
    pub fn new(kind: Kind, id: impl Into<Box<str>>) -> Self {
        Self {
            kind,
            id: id.into(),
        }
    }

    /// Refuses a key or a value beyond the port's limits.
    ///
    /// # Errors
    /// `Invalid`, with the limit and the size.
    pub fn check_limits(
        &self,
        value: &[u8],
        backend: &'static str,
        operation: &'static str,
    ) -> Result<(), PortError> {
        let invalid = |what: String| {
            Err(PortError::new(ErrorKind::Invalid, backend, operation).context(what))
        };
        if self.id.is_empty() || self.id.len() > MAX_KEY_BYTES {
            return invalid(format!(
                "a key id has 1 to {MAX_KEY_BYTES} bytes, this one has {}",
                self.id.len()
            ));
        }
        if value.len() > MAX_VALUE_BYTES {
            return invalid(format!(
                "a value of {} bytes exceeds the limit of {MAX_VALUE_BYTES} bytes",
                value.len()
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.0, self.id)
    }
}

/// A store's own version of a value. Opaque: compare it, and hand it back, nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ETag(Box<str>);

impl ETag {
    /// Wraps what the backend calls the version.
    #[must_use]
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The version as the backend wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A value and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The bytes, as they were put.
    pub value: Bytes,
    /// Their version.
    pub etag: ETag,
}

/// When a put takes effect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum WriteMode {
    /// Always.
    #[default]
    Overwrite,
    /// Only if the key has no value and no tombstone.
    Create,
    /// Only if the value still has this version.
    Match(ETag),
}

/// How a value is put.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PutOptions {
    /// When the put takes effect.
    pub mode: WriteMode,
    /// How long the value lives; `None` is for ever, also if the replaced value had a limit.
    pub ttl: Option<Duration>,
}

/// When a deletion takes effect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DeleteMode {
    /// Always; deleting a missing key succeeds.
    #[default]
    Any,
    /// Only if the value still has this version.
    Match(ETag),
}

/// How a value is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteOptions {
    /// When the deletion takes effect.
    pub mode: DeleteMode,
    /// How long the key refuses to be created again; `None` is not at all.
    pub tombstone: Option<Duration>,
}

/// One write of a [`Commit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Puts a value.
    Put {
        /// Where.
        key: Key,
        /// What.
        value: Bytes,
        /// How.
        options: PutOptions,
    },
    /// Deletes a value.
    Delete {
        /// Where.
        key: Key,
        /// How.
        options: DeleteOptions,
    },
}

impl Write {
    /// The key that is written.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } => key,
        }
    }
}

/// Writes and pending events that take effect together or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Commit {
    /// The writes, applied in this order; at most 64.
    pub writes: Vec<Write>,
    /// The events to be published because of them, in this order; at most 64.
    pub events: Vec<Event>,
}

impl Commit {
    /// Most writes, and most events, of one commit.
    pub const MAX_ITEMS: usize = 64;

    /// A commit of one write.
    #[must_use]
    pub fn of(write: Write) -> Self {
        Self {
            writes: vec![write],
            events: Vec::new(),
        }
    }

    /// Adds an event that the writes cause.
    #[must_use]
    pub fn event(mut self, event: Event) -> Self {
        self.events.push(event);
        self
    }

    /// Refuses what is beyond the port's limits or the backend's capabilities.
    ///
    /// # Errors
    /// `Invalid` with the limit and the size; `Unsupported` with the capability.
    pub fn check(
        &self,
        capabilities: CapabilitySet<StateCapability>,
        backend: &'static str,
    ) -> Result<(), PortError> {
        const OPERATION: &str = "commit";
        let items = self.writes.len().max(self.events.len());
        if items > Self::MAX_ITEMS {
            return Err(
                PortError::new(ErrorKind::Invalid, backend, OPERATION).context(format!(
                    "a commit has at most {} writes and events, this one has {items}",
                    Self::MAX_ITEMS
                )),
            );
        }
        if self.writes.len() > 1 {
            capabilities.require(StateCapability::Transactions, backend, OPERATION)?;
        }
        if !self.events.is_empty() {
            capabilities.require(StateCapability::Outbox, backend, OPERATION)?;
        }
        for write in &self.writes {
            let value = match write {
                Write::Put { value, .. } => value.as_ref(),
                Write::Delete { .. } => &[],
            };
            write.key().check_limits(value, backend, OPERATION)?;
        }
        self.events
            .iter()
            .try_for_each(|event| event.check_limits(backend, OPERATION))
    }
}

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
/// - **S1** `get` MUST return the bytes that the last successful write put, unchanged, be they empty
///   or not text. (`get_returns_the_bytes_that_were_put`)
/// - **S2** A key without a value MUST read as `None`. (`a_missing_key_reads_as_none`)
/// - **S3** Kinds MUST NOT share keys, nor may one key be part of another.
///   (`keys_that_look_alike_are_different`)
/// - **S4** `get_many` MUST answer in the order of its keys, one answer a key, and may repeat keys.
///   (`get_many_answers_in_the_order_of_its_keys`)
/// - **S5** A key or a value beyond [`MAX_KEY_BYTES`] or [`MAX_VALUE_BYTES`] MUST be refused as
///   `Invalid`, and the largest allowed one stored. (`limits_are_refused_and_the_largest_is_stored`)
/// - **S6** Deleting without a condition MUST succeed whether or not the key has a value.
///   (`a_deletion_removes_and_may_be_repeated`)
///
/// With `conditional writes`:
/// - **S7** Every successful write MUST give the key a new [`ETag`], and `get` the same one as the
///   write. (`every_write_gives_a_new_etag`)
/// - **S8** `Create` MUST be refused as `Conflict` while the key has a value.
///   (`create_refuses_an_existing_key`)
/// - **S9** `Match` MUST be refused as `Conflict` unless the value has exactly that version, also for
///   a missing key, for puts and for deletions. (`match_refuses_a_stale_etag`)
/// - **S10** An `ETag` MUST NOT come back for the same key, not even after a deletion and a new
///   creation. (`an_etag_never_comes_back`)
/// - **S11** A refused write MUST change nothing. (`a_refused_write_changes_nothing`)
/// - **S12** Of writers racing with one `ETag`, or to create one key, exactly one MUST win.
///   (`racing_creates_have_one_winner`, `racing_updates_lose_nothing`)
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
/// - **S17** `pending` MUST list events in commit order and start after the given one.
///   (`pending_events_keep_the_order_of_commits`)
/// - **S18** `settle` MUST remove exactly the named events and MAY be repeated.
///   (`settled_events_are_gone_and_settling_repeats`)
///
/// With `scan`:
/// - **S19** A scan MUST return each key of the kind that exists throughout it at least once, nothing
///   of another kind, and end. (`a_scan_finds_every_key_of_its_kind`,
///   `a_scan_survives_writes_in_its_way`)
///
/// With `durable`:
/// - **S20** An acknowledged write and its pending events MUST be there after the backend was closed
///   and opened again. (`acknowledged_writes_survive_a_restart`)
///
/// Always:
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
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait StateStore: Debug + Send + Sync + 'static {
    /// What this backend can do. It does not change while the adapter lives.
    fn capabilities(&self) -> CapabilitySet<StateCapability>;

    /// Reads the value of a key.
    async fn get(&self, key: &Key) -> Result<Option<Stored>, PortError>;

    /// Reads the values of several keys, not as one snapshot.
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, PortError>;

    /// Writes a value and answers its new version.
    async fn put(&self, key: &Key, value: Bytes, options: PutOptions) -> Result<ETag, PortError>;

    /// Removes a value.
    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<(), PortError>;

    /// Applies writes and records their pending events in one atomic step.
    ///
    /// One write without events needs no capability beyond those of the write itself.
    async fn commit(&self, commit: Commit) -> Result<(), PortError>;

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
}
