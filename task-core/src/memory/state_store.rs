//! A state store in a map.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::lock;
use crate::domain::Timestamp;
use crate::ports::{
    CapabilitySet, Clock, Commit, DeleteMode, DeleteOptions, ETag, ErrorKind, Event, Guard, Key,
    Kind, Page, PendingEvent, PendingId, PortError, PutOptions, StateCapability, StateStore,
    Stored, Write, WriteMode,
};

const BACKEND: &str = "memory";

/// Writes between two sweeps of expired entries.
const SWEEP_EVERY: u64 = 1024;

/// A [`StateStore`] that lives and dies with the process.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use std::sync::Arc;
/// use task_core::memory::{ManualClock, MemoryStateStore};
/// use task_core::ports::{Key, Kind, PutOptions, StateStore, WriteMode};
///
/// let store = MemoryStateStore::new(Arc::new(ManualClock::default()));
/// let key = Key::new(Kind::TASK, "t-1");
/// let create = PutOptions { mode: WriteMode::Create, ..PutOptions::default() };
/// let etag = store.put(&key, "one".into(), create.clone()).await.unwrap();
/// assert_eq!(store.get(&key).await.unwrap().map(|stored| stored.etag), etag);
/// assert!(store.put(&key, "two".into(), create).await.unwrap_err().is_conflict());
/// # });
/// ```
#[derive(Debug)]
pub struct MemoryStateStore {
    clock: Arc<dyn Clock>,
    capabilities: CapabilitySet<StateCapability>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<Key, Entry>,
    outbox: BTreeMap<u64, Event>,
    /// Source of versions and of places in the outbox; never reused.
    counter: u64,
}

#[derive(Debug, Clone)]
struct Entry {
    /// `None` is a tombstone.
    value: Option<Bytes>,
    version: u64,
    expires_at: Option<Timestamp>,
}

impl MemoryStateStore {
    /// Everything but durability.
    const CAPABILITIES: CapabilitySet<StateCapability> = CapabilitySet::of(&[
        StateCapability::ConditionalWrites,
        StateCapability::UniqueVersions,
        StateCapability::Ttl,
        StateCapability::Tombstones,
        StateCapability::Transactions,
        StateCapability::Outbox,
        StateCapability::Guards,
        StateCapability::Scan,
    ]);

    /// An empty store whose values expire by this clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::with_capabilities(clock, Self::CAPABILITIES)
    }

    /// An empty store that can do less, to try code against a weaker backend.
    #[must_use]
    pub fn with_capabilities(
        clock: Arc<dyn Clock>,
        capabilities: CapabilitySet<StateCapability>,
    ) -> Self {
        Self {
            clock,
            capabilities,
            state: Mutex::default(),
        }
    }

    fn require(
        &self,
        capability: StateCapability,
        operation: &'static str,
    ) -> Result<(), PortError> {
        self.capabilities.require(capability, BACKEND, operation)
    }
}

impl State {
    fn live(&self, key: &Key, now: Timestamp) -> Option<&Entry> {
        let entry = self.entries.get(key)?;
        let expired = entry.expires_at.is_some_and(|at| at <= now);
        (!expired).then_some(entry)
    }

    fn value(&self, key: &Key, now: Timestamp) -> Option<Stored> {
        let entry = self.live(key, now)?;
        entry.value.clone().map(|value| Stored {
            value,
            etag: ETag::new(entry.version.to_string()),
        })
    }

    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn put(
        &mut self,
        key: &Key,
        value: Bytes,
        options: &PutOptions,
        now: Timestamp,
    ) -> Result<ETag, PortError> {
        let conflict = |context: &str| {
            PortError::new(ErrorKind::Conflict, BACKEND, "put").context(format!("{key}: {context}"))
        };
        match &options.mode {
            WriteMode::Overwrite => {}
            WriteMode::Create => match self.live(key, now) {
                Some(Entry { value: None, .. }) => return Err(conflict("was deleted")),
                Some(_) => return Err(conflict("exists")),
                None => {}
            },
            WriteMode::Match(etag) => {
                if self
                    .value(key, now)
                    .is_none_or(|stored| stored.etag != *etag)
                {
                    return Err(conflict("has another version"));
                }
            }
            WriteMode::Raise => {
                if let Some(stored) = self.value(key, now)
                    && stored.value >= value
                {
                    return Ok(stored.etag);
                }
            }
        }
        let version = self.next();
        let entry = Entry {
            value: Some(value),
            version,
            expires_at: options.ttl.map(|ttl| now.saturating_add(ttl)),
        };
        self.entries.insert(key.clone(), entry);
        if version.is_multiple_of(SWEEP_EVERY) {
            self.entries
                .retain(|_, entry| entry.expires_at.is_none_or(|at| at > now));
        }
        Ok(ETag::new(version.to_string()))
    }

    fn delete(
        &mut self,
        key: &Key,
        options: &DeleteOptions,
        now: Timestamp,
    ) -> Result<(), PortError> {
        let current = self.value(key, now);
        match &options.mode {
            DeleteMode::Match(etag)
                if current.as_ref().is_none_or(|stored| stored.etag != *etag) =>
            {
                return Err(PortError::new(ErrorKind::Conflict, BACKEND, "delete")
                    .context(format!("{key}: has another version")));
            }
            DeleteMode::AtMost(most)
                if current.as_ref().is_some_and(|stored| stored.value > *most) =>
            {
                return Ok(());
            }
            DeleteMode::Any | DeleteMode::Match(_) | DeleteMode::AtMost(_) => {}
        }
        match options.tombstone {
            Some(keep) => self.bury(key, keep, now),
            None if current.is_some() => {
                self.entries.remove(key);
            }
            None => {}
        }
        Ok(())
    }

    fn bury(&mut self, key: &Key, keep: Duration, now: Timestamp) {
        let tombstone = Entry {
            value: None,
            version: self.next(),
            expires_at: Some(now.saturating_add(keep)),
        };
        self.entries.insert(key.clone(), tombstone);
    }

    /// Applies all writes, or restores what the first of them replaced.
    fn apply(&mut self, writes: &[Write], now: Timestamp) -> Result<Vec<Option<ETag>>, PortError> {
        let mut before = Vec::with_capacity(writes.len());
        let mut etags = Vec::with_capacity(writes.len());
        for write in writes {
            before.push((write.key(), self.entries.get(write.key()).cloned()));
            match self.write(write, now) {
                Ok(etag) => etags.push(etag),
                Err(error) => {
                    for (key, entry) in before.into_iter().rev() {
                        match entry {
                            Some(entry) => self.entries.insert(key.clone(), entry),
                            None => self.entries.remove(key),
                        };
                    }
                    return Err(error);
                }
            }
        }
        Ok(etags)
    }

    fn write(&mut self, write: &Write, now: Timestamp) -> Result<Option<ETag>, PortError> {
        match write {
            Write::Put {
                key,
                value,
                options,
            } => self.put(key, value.clone(), options, now).map(Some),
            Write::Delete { key, options } => self.delete(key, options, now).map(|()| None),
        }
    }

    fn check_guard(&self, guard: &Guard, now: Timestamp) -> Result<(), PortError> {
        let found = self.value(&guard.key, now).map(|stored| stored.value);
        if guard.expect.accepts(found.as_deref()) {
            return Ok(());
        }
        Err(guard.refusal(BACKEND))
    }
}

#[async_trait]
impl StateStore for MemoryStateStore {
    fn capabilities(&self) -> CapabilitySet<StateCapability> {
        self.capabilities
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, PortError> {
        Ok(lock(&self.state).value(key, self.clock.now()))
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, PortError> {
        let now = self.clock.now();
        let state = lock(&self.state);
        Ok(keys.iter().map(|key| state.value(key, now)).collect())
    }

    async fn put(
        &self,
        key: &Key,
        value: Bytes,
        options: PutOptions,
    ) -> Result<Option<ETag>, PortError> {
        key.check_with(&value, BACKEND, "put")?;
        options.check(self.capabilities, BACKEND, "put")?;
        let mut state = lock(&self.state);
        state.put(key, value, &options, self.clock.now()).map(Some)
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<(), PortError> {
        key.check(BACKEND, "delete")?;
        options.check(self.capabilities, BACKEND, "delete")?;
        lock(&self.state).delete(key, &options, self.clock.now())
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<Option<ETag>>, PortError> {
        commit.check(self.capabilities, BACKEND)?;
        let now = self.clock.now();
        let mut state = lock(&self.state);
        for guard in &commit.guards {
            state.check_guard(guard, now)?;
        }
        let etags = state.apply(&commit.writes, now)?;
        for event in commit.events {
            let place = state.next();
            state.outbox.insert(place, event);
        }
        Ok(etags)
    }

    async fn pending(
        &self,
        after: Option<PendingId>,
        limit: usize,
    ) -> Result<Vec<PendingEvent>, PortError> {
        self.require(StateCapability::Outbox, "pending")?;
        let after = after.map_or(Ok(0), |id| id.as_number(BACKEND, "pending"))?;
        let state = lock(&self.state);
        let later = state
            .outbox
            .range((Bound::Excluded(after), Bound::Unbounded));
        let pending = later.take(limit).map(|(place, event)| PendingEvent {
            id: PendingId::new(place.to_string()),
            event: event.clone(),
        });
        Ok(pending.collect())
    }

    async fn settle(&self, events: &[PendingId]) -> Result<(), PortError> {
        self.require(StateCapability::Outbox, "settle")?;
        let mut state = lock(&self.state);
        for id in events {
            state.outbox.remove(&id.as_number(BACKEND, "settle")?);
        }
        Ok(())
    }

    async fn scan(
        &self,
        kind: Kind,
        from: Option<String>,
        limit: usize,
    ) -> Result<Page, PortError> {
        self.require(StateCapability::Scan, "scan")?;
        let now = self.clock.now();
        let state = lock(&self.state);
        let start = Bound::Excluded(Key::new(kind, from.unwrap_or_default()));
        let mut page = Page::default();
        for key in state
            .entries
            .range((start, Bound::Unbounded))
            .map(|(key, _)| key)
            .take_while(|key| key.kind == kind)
        {
            if page.entries.len() == limit.max(1) {
                page.next = page.entries.last().map(|(key, _)| key.id.to_string());
                break;
            }
            if let Some(stored) = state.value(key, now) {
                page.entries.push((key.clone(), stored));
            }
        }
        Ok(page)
    }

    async fn check(&self) -> Result<(), PortError> {
        Ok(())
    }

    /// None: the values live and end with the store.
    async fn identity(&self) -> Result<Option<Box<str>>, PortError> {
        Ok(None)
    }
}
