//! Does one operation on the backend and on the model, and compares everything that can be seen.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use task_core::ports::{
    Commit, DeleteMode, DeleteOptions, ETag, ErrorKind, Event, Key, Kind, PendingId, PortError,
    PutOptions, StateCapability, StateStore, Topic, Write, WriteMode,
};

use super::operation::{Change, Condition, KEYS, Operation, WriteOf};
use super::reference::{Reference, Requires, Step, TOMBSTONE_HALVES, TTL_HALVES};
use crate::conformance::state_store::{StateStoreBackend, Time};
use crate::conformance::{Failure, Verdict, ensure, ensure_eq};

/// Runs a sequence on an open backend.
pub(super) async fn drive(
    backend: Arc<dyn StateStoreBackend>,
    operations: &[Operation],
) -> Verdict {
    let store = backend.open().await?;
    let model = Reference::new(store.capabilities());
    let mut driver = Driver {
        backend,
        store,
        model,
        etags: vec![Vec::new(); KEYS],
        places: Vec::new(),
        events: 0,
    };
    for (number, operation) in operations.iter().enumerate() {
        if matches!(operation, Operation::Restart) && driver.has(StateCapability::Durable) {
            driver.store = driver.backend.reopen(driver.store).await?;
        }
        let step = driver.step(operation).await;
        step.map_err(|failure| Failure::new(format!("operation {number}: {failure}")))?;
    }
    Ok(())
}

struct Driver {
    backend: Arc<dyn StateStoreBackend>,
    store: Arc<dyn StateStore>,
    model: Reference,
    /// What each key's versions are called by the store, in the order in which they were seen.
    etags: Vec<Vec<(u64, ETag)>>,
    /// Every event that was ever seen pending: its name and its place.
    places: Vec<(u64, PendingId)>,
    events: u64,
}

impl Driver {
    async fn step(&mut self, operation: &Operation) -> Verdict {
        match operation {
            Operation::One(write) => self.one(*write).await?,
            Operation::Commit { writes, events } => self.commit(writes, *events).await?,
            Operation::Settle { which } => self.settle(*which).await?,
            Operation::Elapse { seconds } => {
                if self.backend.time() == Time::Moved {
                    let time = Duration::from_secs(u64::from(*seconds));
                    self.backend.elapse(time).await;
                    self.model.elapse(*seconds);
                }
            }
            // Done before the step, because it takes the store away.
            Operation::Restart => {}
        }
        self.compare_values().await?;
        self.compare_events().await?;
        self.compare_scan().await
    }

    fn has(&self, capability: StateCapability) -> bool {
        self.store.capabilities().has(capability)
    }

    /// The same write for the model and for the store.
    fn resolve(&self, write: WriteOf) -> (Step, Write) {
        let seen = &self.etags[write.key];
        let version = match write.condition {
            Condition::None | Condition::Absent => None,
            Condition::Latest => seen.last(),
            Condition::First => seen.first(),
        };
        let deletes = matches!(write.change, Change::Delete { .. });
        let requires = match (version, write.condition) {
            (Some((version, _)), _) => Requires::Version(*version),
            (None, Condition::None) => Requires::Nothing,
            (None, _) if deletes => Requires::Nothing,
            (None, _) => Requires::Absent,
        };
        let step = Step {
            key: write.key,
            requires,
            change: write.change,
        };
        let etag = version.map(|(_, etag)| etag.clone());
        (step, write_of(&step, etag, self.backend.time()))
    }

    async fn one(&mut self, write: WriteOf) -> Verdict {
        let (step, write) = self.resolve(write);
        let expected = self.model.commit(&[step], &[]);
        let found = match write {
            Write::Put {
                key,
                value,
                options,
            } => {
                let result = self.store.put(&key, value, options).await;
                if let Ok(Some(etag)) = &result {
                    let stored = self.store.get(&key).await?;
                    let read = stored.map(|stored| stored.etag);
                    ensure_eq!(read.as_ref(), Some(etag), "the version of a put");
                }
                result.map(drop)
            }
            Write::Delete { key, options } => self.store.delete(&key, options).await,
        };
        same_kind(found, expected)
    }

    async fn commit(&mut self, writes: &[WriteOf], events: u8) -> Verdict {
        let resolved: Vec<(Step, Write)> =
            writes.iter().map(|write| self.resolve(*write)).collect();
        let (steps, writes): (Vec<Step>, Vec<Write>) = resolved.into_iter().unzip();
        let first = self.events;
        self.events += u64::from(events);
        let names: Vec<u64> = (first..self.events).collect();
        let mut commit = Commit::default();
        commit.writes = writes;
        commit.events = names.iter().map(|name| event(*name)).collect();
        let expected = self.model.commit(&steps, &names);
        same_kind(self.store.commit(commit).await.map(drop), expected)
    }

    async fn settle(&mut self, which: usize) -> Verdict {
        if !self.places.is_empty() {
            let (name, place) = self.places[which % self.places.len()].clone();
            self.store.settle(&[place]).await?;
            self.model.pending.retain(|pending| *pending != name);
        }
        Ok(())
    }

    async fn compare_values(&mut self) -> Verdict {
        let keys: Vec<Key> = (0..KEYS).map(key).collect();
        let found = self.store.get_many(&keys).await?;
        ensure_eq!(found.len(), KEYS, "the answers of get_many");
        for (number, found) in found.into_iter().enumerate() {
            let single = self.store.get(&key(number)).await?;
            ensure_eq!(single, found, "get and get_many of key {number}");
            let expected = self.model.read(number);
            let value = found.as_ref().map(|stored| stored.value.clone());
            let wanted = expected.map(|(value, _)| bytes_of(value));
            ensure_eq!(value, wanted, "the value of key {number}");
            let (Some(stored), Some((_, version))) = (found, expected) else {
                continue;
            };
            let seen = &mut self.etags[number];
            match seen.iter().position(|(known, _)| *known == version) {
                Some(at) => {
                    ensure!(stored.etag == seen[at].1, "key {number} has a new version");
                    // Where versions are digests, one that comes back is the latest again.
                    let again = seen.remove(at);
                    seen.push(again);
                }
                None => {
                    let new = seen.iter().all(|(_, etag)| *etag != stored.etag);
                    let conditional = self
                        .store
                        .capabilities()
                        .has(StateCapability::ConditionalWrites);
                    ensure!(new || !conditional, "key {number} has an old version");
                    seen.push((version, stored.etag));
                }
            }
        }
        Ok(())
    }

    async fn compare_events(&mut self) -> Verdict {
        if !self.has(StateCapability::Outbox) {
            return Ok(());
        }
        let found = self.store.pending(None, 10_000).await?;
        let payloads: Vec<Event> = found.iter().map(|found| found.event.clone()).collect();
        let names = &self.model.pending;
        let expected: Vec<Event> = names.iter().map(|name| event(*name)).collect();
        ensure_eq!(payloads, expected, "the pending events");
        for (name, found) in names.iter().zip(found) {
            if self.places.iter().all(|(known, _)| known != name) {
                self.places.push((*name, found.id));
            }
        }
        Ok(())
    }

    async fn compare_scan(&self) -> Verdict {
        if !self.has(StateCapability::Scan) {
            return Ok(());
        }
        let mut found = BTreeSet::new();
        let mut from = None;
        for _ in 0..=2 * KEYS {
            let page = self.store.scan(Kind::TASK, from, 2).await?;
            found.extend(page.entries.into_iter().map(|(key, _)| key));
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        ensure!(from.is_none(), "the scan does not end");
        let there = (0..KEYS).filter(|number| self.model.read(*number).is_some());
        let expected: BTreeSet<Key> = there.map(key).collect();
        ensure_eq!(found, expected, "the keys of a scan");
        Ok(())
    }
}

fn write_of(step: &Step, etag: Option<ETag>, time: Time) -> Write {
    let key = key(step.key);
    // To the model no time passes but what it is told, so that on a real clock nothing may end.
    let lasting = |halves: u64| match time {
        Time::Moved => Duration::from_millis(500 * halves),
        Time::Waited => Duration::from_secs(3600),
    };
    match step.change {
        Change::Put { value, expires } => Write::Put {
            key,
            value: bytes_of(value),
            options: PutOptions {
                mode: match (etag, step.requires) {
                    (Some(etag), _) => WriteMode::Match(etag),
                    (None, Requires::Nothing) => WriteMode::Overwrite,
                    (None, Requires::Absent | Requires::Version(_)) => WriteMode::Create,
                },
                ttl: expires.then(|| lasting(TTL_HALVES)),
            },
        },
        Change::Delete { tombstone } => Write::Delete {
            key,
            options: DeleteOptions {
                mode: etag.map_or(DeleteMode::Any, DeleteMode::Match),
                tombstone: tombstone.then(|| lasting(TOMBSTONE_HALVES)),
            },
        },
    }
}

fn same_kind(found: Result<(), PortError>, expected: Result<(), ErrorKind>) -> Verdict {
    let found = found.map_err(|error| error.kind());
    ensure_eq!(found, expected, "the answer");
    Ok(())
}

fn key(number: usize) -> Key {
    Key::new(Kind::TASK, format!("k-{number}"))
}

fn bytes_of(value: u8) -> Bytes {
    Bytes::from(vec![value; usize::from(value)])
}

fn event(name: u64) -> Event {
    Event {
        topic: Topic::new("tasks"),
        key: "k".into(),
        payload: Bytes::from(name.to_string()),
    }
}
