//! The state store on a component of the sidecar.
//!
//! Whatever the component is, one key is one value with an ETag, and no more is asked of it: no transaction, no
//! query, no enumeration. What components do differently is found out when the store is opened.
//!
//! - A deletion leaves an empty value under a limit of time, which every reader takes for a missing one: a
//!   deleted key in `state.redis` would accept every stale writer.
//! - The sidecar answers an outage like a conflict. A write is a conflict only after the record was
//!   read again and has moved on.
//! - A pending event travels inside its record; a journal says which records to look at. See [`outbox`].
//!
//! *Source:* daprd 1.16, `pkg/api/grpc`; components-contrib 1.16, `state/redis`, `state/postgresql/v2`,
//! `state/in-memory`; seen on the real ones.

mod calls;
mod decision;
mod fence;
mod journal;
mod moving;
mod names;
mod outbox;
mod probe;
mod record;
mod version;
mod write;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use task_core::ports::{
    CapabilitySet, Clock, Commit, DeleteOptions, ETag, Entropy, ErrorKind, Key, Kind, Page,
    PendingEvent, PendingId, PortError, PutOptions, StateCapability, StateStore, Stored,
    SystemClock, SystemEntropy, Write,
};

use self::calls::{Calls, NOBODY};
use self::names::name_of;
use self::outbox::Outbox;
use self::probe::Abilities;
use self::record::{Record, is_taken};
use self::write::Change;
use crate::error::BACKEND;
use crate::sidecar::Sidecar;

/// What every component is asked for.
const PLAIN: &[StateCapability] = &[
    StateCapability::ConditionalWrites,
    StateCapability::UniqueVersions,
    StateCapability::Ttl,
    StateCapability::Tombstones,
    StateCapability::Durable,
];

/// The same without an end of the process in mind.
const PLAIN_VOLATILE: &[StateCapability] = &[
    StateCapability::ConditionalWrites,
    StateCapability::UniqueVersions,
    StateCapability::Ttl,
    StateCapability::Tombstones,
];

const OUTBOX: &[StateCapability] = &[
    StateCapability::ConditionalWrites,
    StateCapability::UniqueVersions,
    StateCapability::Ttl,
    StateCapability::Tombstones,
    StateCapability::Outbox,
    StateCapability::Durable,
];

const OUTBOX_VOLATILE: &[StateCapability] = &[
    StateCapability::ConditionalWrites,
    StateCapability::UniqueVersions,
    StateCapability::Ttl,
    StateCapability::Tombstones,
    StateCapability::Outbox,
];

/// The component that keeps everything in the memory of the sidecar.
const VOLATILE: &str = "state.in-memory";

/// What a state store is opened with.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StateStoreOptions {
    /// The time by which values end that carry events.
    pub clock: Arc<dyn Clock>,
    /// The names of replicas and scratch keys.
    pub entropy: Arc<dyn Entropy>,
    /// Whether commits may have events.
    pub events: Events,
    /// How often a replica that keeps events shows that it lives. Its journal is closed by others when it is
    /// empty and that has not happened for four times as long.
    pub beat_every: Duration,
    /// How long a write with events may be under way before whoever lists them refuses it for good.
    pub refuse_after: Duration,
}

/// What a component was found to be able to do, to be kept for a start without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateStoreProfile {
    abilities: Abilities,
    is_volatile: bool,
}

/// Whether commits may have events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Events {
    /// They may not, and the store has no [`StateCapability::Outbox`].
    #[default]
    Refused,
    /// They are kept with their records until they are published.
    Kept,
}

impl Default for StateStoreOptions {
    /// The machine's clock and generator, no events, a beat each minute, 90 s for a write.
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            events: Events::Refused,
            beat_every: Duration::from_secs(60),
            refuse_after: Duration::from_secs(90),
        }
    }
}

/// A [`StateStore`] on the component that the configuration names. A clone shares everything.
///
/// | | calls of the sidecar |
/// | --- | --- |
/// | `get`, `check` | 1 |
/// | `get_many` | 1 for each 100 keys |
/// | `put`, `delete` with `Create` or `Match` | 1 |
/// | `put` with `Overwrite`, `delete` with a tombstone | 1; 2 if events are kept |
/// | `delete` without a condition and tombstone | 2 |
/// | `delete` with a tombstone, if events are pending in the record | 1 more, and a part of two |
/// | `commit` with events | 1, and a part of two that concurrent commits share, one of them beside it |
///
/// A refusal costs one more, for the look that proves it.
///
/// # Limits of Dapr
/// - A key that is really gone, after its limit or by a foreign deletion, is created by a stale `Match` on
///   `state.redis`. Deletions of ours leave something there for 5 minutes; a value with a limit is
///   read again before it is matched, which leaves the time between the two calls.
/// - A limit that a foreign writer has given a value in `state.redis` cannot be seen: a `Match` that puts no limit
///   leaves it. An `Overwrite` removes it.
/// - A write with events that nobody has heard of for 90 s is refused by a write of what is there. Where nothing is, what
///   a deletion leaves does that for 5 minutes; a limit that only the component knows ends with it, except on
///   `state.redis`.
/// - Limits count in whole seconds, rounded up.
/// - Of a write without events whose answer was lost nothing can be told; its outcome is unknown.
/// - A value that has a limit and was written with events, or over some that were pending, is missing after its limit
///   by our clock, and its bytes stay in the component until its next write.
/// - A foreign writer that writes a record without its member `_pending` drops its pending events.
/// - No key can be found but by its name. If a foreign writer removes or garbles the journal of a replica that is gone,
///   its events wait in their records, and each comes with the next change of its record that has an event: never
///   if there is none. So it is with the list of replicas, if none of those who have read it lives. What no journal
///   tells to be settled may be published twice, and is never passed over.
#[derive(Debug, Clone)]
pub struct DaprStateStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    calls: Calls,
    profile: StateStoreProfile,
    capabilities: &'static [StateCapability],
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    outbox: Option<Outbox>,
}

impl DaprStateStore {
    /// Opens the component and finds out what it can do, on a scratch key.
    ///
    /// # Errors
    /// `NotFound` without the component; `Unsupported` if it does not keep what is declared; otherwise as
    /// a put.
    pub async fn open(sidecar: &Sidecar, options: StateStoreOptions) -> Result<Self, PortError> {
        let metadata = sidecar.metadata().await?;
        let component = metadata.needed(&sidecar.config().components.state_store)?;
        let calls = Calls::new(sidecar);
        let abilities = probe::probe(&calls, component, &*options.entropy).await?;
        let profile = StateStoreProfile {
            abilities,
            is_volatile: component.kind == VOLATILE,
        };
        Ok(Self::assembled(calls, profile, options))
    }

    /// A store on a component that was open before, without asking the sidecar: it may be away.
    ///
    /// The component has to be the one that the profile was found of.
    #[must_use]
    pub fn known(
        sidecar: &Sidecar,
        profile: StateStoreProfile,
        options: StateStoreOptions,
    ) -> Self {
        Self::assembled(Calls::new(sidecar), profile, options)
    }

    /// What was found out when the component was opened.
    #[must_use]
    pub fn profile(&self) -> StateStoreProfile {
        self.shared.profile
    }

    fn assembled(calls: Calls, profile: StateStoreProfile, options: StateStoreOptions) -> Self {
        let abilities = profile.abilities;
        let outbox =
            (options.events == Events::Kept).then(|| Outbox::new(&calls, abilities, &options));
        let capabilities = match (&outbox, profile.is_volatile) {
            (None, false) => PLAIN,
            (None, true) => PLAIN_VOLATILE,
            (Some(_), false) => OUTBOX,
            (Some(_), true) => OUTBOX_VOLATILE,
        };
        Self {
            shared: Arc::new(Shared {
                calls,
                profile,
                capabilities,
                clock: options.clock,
                entropy: options.entropy,
                outbox,
            }),
        }
    }

    /// Saves which events are settled, before the process ends.
    ///
    /// That is otherwise done about once a second; what a crash loses of it is published again.
    ///
    /// # Errors
    /// As a put.
    pub async fn flush(&self) -> Result<(), PortError> {
        match &self.shared.outbox {
            Some(outbox) => outbox.journal.flush().await,
            None => Ok(()),
        }
    }

    fn unsupported(&self, needed: StateCapability, operation: &'static str) -> PortError {
        match self.capabilities().require(needed, BACKEND, operation) {
            Err(error) => error,
            Ok(()) => PortError::new(ErrorKind::Unsupported, BACKEND, operation),
        }
    }

    fn outbox(&self, operation: &'static str) -> Result<&Outbox, PortError> {
        let outbox = self.shared.outbox.as_ref();
        outbox.ok_or_else(|| self.unsupported(StateCapability::Outbox, operation))
    }
}

impl Shared {
    async fn read(&self, name: &str, operation: &'static str) -> Result<Record, PortError> {
        let found = self.calls.get(name).await;
        found
            .and_then(|found| Record::read(name, found, self.clock.now()))
            .map_err(|failure| failure.into_port(operation))
    }

    /// What a caller sees of a record.
    fn shown(&self, name: &str, record: Record) -> Option<Stored> {
        let Record::There {
            version,
            value,
            events,
            ..
        } = record
        else {
            return None;
        };
        if let Some(outbox) = self.outbox.as_ref().filter(|_| version.has_events) {
            outbox.remember(name, &version.etag, events);
        }
        let etag = version.to_etag(name);
        Some(Stored { value, etag })
    }
}

/// Refuses what would be taken for a value of ours when it is read.
fn check_value(value: &[u8], operation: &'static str) -> Result<(), PortError> {
    if !is_taken(value) {
        return Ok(());
    }
    Err(PortError::new(ErrorKind::Invalid, BACKEND, operation).context(
        "a value must not be one zero byte, begin like a frame of pending events or carry some in a member _pending",
    ))
}

#[async_trait]
impl StateStore for DaprStateStore {
    fn capabilities(&self) -> CapabilitySet<StateCapability> {
        CapabilitySet::of(self.shared.capabilities)
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, PortError> {
        let name = name_of(key);
        let record = self.shared.read(&name, "get").await?;
        Ok(self.shared.shown(&name, record))
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, PortError> {
        let failed = |failure: crate::error::Failure| failure.into_port("get_many");
        let names: Vec<String> = keys.iter().map(name_of).collect();
        let found = self.shared.calls.get_many(&names).await.map_err(failed)?;
        let now = self.shared.clock.now();
        let records = names.iter().zip(found).map(|(name, found)| {
            let record = found.and_then(|found| Record::read(name, found, now));
            let record = record.map_err(failed)?;
            Ok(self.shared.shown(name, record))
        });
        records.collect()
    }

    /// # Cancel safety
    /// A dropped call takes effect whole or not at all; so for every other write.
    async fn put(
        &self,
        key: &Key,
        value: Bytes,
        options: PutOptions,
    ) -> Result<Option<ETag>, PortError> {
        key.check_with(&value, BACKEND, "put")?;
        options.check(self.capabilities(), BACKEND, "put")?;
        check_value(&value, "put")?;
        let (change, mode) = Change::put("put", key, value, options, &[]);
        self.shared.write(change, mode).await.map(|()| None)
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<(), PortError> {
        key.check(BACKEND, "delete")?;
        options.check(self.capabilities(), BACKEND, "delete")?;
        let (change, mode) = Change::delete("delete", key, options, &[]);
        self.shared.write(change, mode).await
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<Option<ETag>>, PortError> {
        commit.check(self.capabilities(), BACKEND)?;
        let events = &commit.events;
        let Some(write) = commit.writes.into_iter().next() else {
            return match events.is_empty() {
                true => Ok(Vec::new()),
                false => Err(PortError::new(ErrorKind::Unsupported, BACKEND, "commit")
                    .context("an event needs a record to travel in, this commit has no write")),
            };
        };
        let (change, mode) = match write {
            Write::Put {
                key,
                value,
                options,
            } => {
                check_value(&value, "commit")?;
                Change::put("commit", &key, value, options, events)
            }
            Write::Delete { key, options } => Change::delete("commit", &key, options, events),
        };
        self.shared.write(change, mode).await?;
        Ok(vec![None])
    }

    async fn pending(
        &self,
        after: Option<PendingId>,
        limit: usize,
    ) -> Result<Vec<PendingEvent>, PortError> {
        let outbox = self.outbox("pending")?;
        outbox.pending(&self.shared, after.as_ref(), limit).await
    }

    async fn settle(&self, events: &[PendingId]) -> Result<(), PortError> {
        self.outbox("settle")?.settle(&self.shared, events).await
    }

    async fn scan(&self, _: Kind, _: Option<String>, _: usize) -> Result<Page, PortError> {
        Err(self.unsupported(StateCapability::Scan, "scan"))
    }

    /// Reads a key that is not there: the sidecar's own health does not see the component.
    ///
    /// Renews this replica's sign of life if that is due, for one that changes nothing.
    async fn check(&self) -> Result<(), PortError> {
        let found = self.shared.calls.get(NOBODY).await;
        found.map_err(|failure| failure.into_port("check"))?;
        if let Some(outbox) = &self.shared.outbox {
            outbox.journal.stay().await;
        }
        Ok(())
    }

    /// `None`: the sidecar does not tell.
    async fn identity(&self) -> Result<Option<Box<str>>, PortError> {
        Ok(None)
    }
}
