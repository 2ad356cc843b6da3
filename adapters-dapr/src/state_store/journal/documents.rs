//! The journal's documents in the component.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use task_core::ports::{ErrorKind, Key, Kind, Outcome, PortError};

use crate::error::{BACKEND, Failure};
use crate::state_store::calls::{Calls, Found, Life, SENTINEL, When, is_refusal};
use crate::state_store::decision::Noted;
use crate::state_store::names::name_of;
use crate::state_store::probe::Abilities;

const OPERATION: &str = "journal";

/// Most attempts to change a document that others change as well.
const MOST_ATTEMPTS: usize = 32;

/// How long the head of a closed journal stays: while it does, the events of records that name it are known to be
/// settled. Later ones are published once more, when their record is changed.
const CLOSED_FOR: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Documents of which a version is remembered that cannot be read.
const MOST_TOLD: usize = 1_024;

/// A document that is not what this adapter writes: somebody else has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Garbled;

/// Which replicas there are.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Replicas {
    pub(super) replicas: Vec<Box<str>>,
}

impl Replicas {
    pub(super) fn has(&self, id: &str) -> bool {
        self.replicas.iter().any(|one| **one == *id)
    }

    pub(super) fn add(&mut self, id: &str) {
        if !self.has(id) {
            self.replicas.push(id.into());
        }
    }
}

/// Where the notes of a replica are.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) beat: u64,
    /// First segment that may hold notes.
    pub(super) first: u64,
    /// Last one.
    pub(super) last: u64,
    /// Nothing is noted under this name any more.
    pub(super) is_closed: bool,
}

/// Notes of one segment.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Segment {
    /// All notes with lesser numbers are saved, or settled.
    pub(super) through: u64,
    pub(super) notes: Vec<Saved>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) number: u64,
    pub(super) record: Box<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) etag: Noted,
    /// The note that the event had before it was moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) moved_from: Option<Box<str>>,
}

/// Notes that others have settled, as ranges of numbers with both ends.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(super) struct Done {
    pub(super) ranges: Vec<(u64, u64)>,
}

impl Done {
    pub(super) fn has(&self, number: u64) -> bool {
        let after = self.ranges.partition_point(|(start, _)| *start <= number);
        let before = after.checked_sub(1).map(|at| self.ranges[at]);
        before.is_some_and(|(_, end)| number <= end)
    }

    pub(super) fn add(&mut self, numbers: &[u64]) {
        self.ranges.extend(numbers.iter().map(|one| (*one, *one)));
        self.ranges.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(self.ranges.len());
        for &(start, end) in &self.ranges {
            match merged.last_mut() {
                Some(last) if start <= last.1.saturating_add(1) => last.1 = last.1.max(end),
                Some(_) | None => merged.push((start, end)),
            }
        }
        self.ranges = merged;
    }
}

/// What a read of several keys finds under one of them.
pub(super) type Item = Result<Found, Failure>;

/// A document, and what Dapr calls its version.
pub(super) type Versioned<T> = Option<(Result<T, Garbled>, Box<str>)>;

#[derive(Debug)]
pub(super) struct Documents {
    calls: Calls,
    abilities: Abilities,
    told: Mutex<HashSet<(Box<str>, Box<str>)>>,
}

impl Documents {
    pub(super) fn new(calls: &Calls, abilities: Abilities) -> Self {
        Self {
            calls: calls.clone(),
            abilities,
            told: Mutex::default(),
        }
    }

    pub(super) fn replicas() -> String {
        name("replicas")
    }

    pub(super) fn head(replica: &str) -> String {
        name(replica)
    }

    pub(super) fn done(replica: &str) -> String {
        name(&format!("{replica}/done"))
    }

    pub(super) fn segment(replica: &str, number: u64) -> String {
        name(&format!("{replica}/{number}"))
    }

    pub(super) async fn get<T: DeserializeOwned + Send>(
        &self,
        name: &str,
    ) -> Result<Versioned<T>, PortError> {
        let found = self.get_many(&[name.to_owned()]).await?;
        Ok(found.first().and_then(|found| self.read(name, found)))
    }

    /// Reads a document; `None` if there is none. What cannot be read is told once for each of its versions.
    pub(super) fn read<T: DeserializeOwned>(&self, name: &str, found: &Item) -> Versioned<T> {
        let (value, etag) = match found {
            Ok(found) => {
                let value = serde_json::from_slice(&found.data);
                // Where it cannot be read, not what stands there.
                let place = |error: serde_json::Error| {
                    format!("line {} column {}", error.line(), error.column())
                };
                (value.map_err(place), found.etag.clone()?)
            }
            Err(failure) => (Err(failure.to_string()), SENTINEL.into()),
        };
        let value = value.map_err(|reason| {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.len() >= MOST_TOLD {
                told.clear();
            }
            if told.insert((name.into(), etag.clone())) {
                tracing::error!(
                    name, version = %etag, reason,
                    "a document of the journal of pending events cannot be read and is set aside"
                );
            }
            Garbled
        });
        Some((value, etag))
    }

    pub(super) async fn get_many(&self, names: &[String]) -> Result<Vec<Item>, PortError> {
        let found = self.calls.get_many(names).await;
        found.map_err(|failure| failure.into_port(OPERATION))
    }

    /// The versions of documents, read together.
    pub(super) async fn versions(&self, names: &[String]) -> Result<Vec<Noted>, PortError> {
        let found = self.get_many(names).await?;
        let version = |found: Item| found.ok().and_then(|found| found.etag);
        Ok(found.into_iter().map(version).collect())
    }

    /// Saves a document that nobody else writes, over its version.
    ///
    /// That refuses for good what of an earlier save is still under way, in the sidecar or behind it.
    pub(super) async fn save<T: Serialize + Sync>(
        &self,
        name: &str,
        value: &T,
        mut version: Noted,
    ) -> Result<(), PortError> {
        for _ in 0..MOST_ATTEMPTS {
            if self.replace(name, value, version.as_deref()).await? {
                return Ok(());
            }
            // An earlier save has landed, or this one twice.
            let versions = self.versions(&[name.to_owned()]).await?;
            version = versions.into_iter().next().flatten();
        }
        Err(crowded(name))
    }

    /// Saves a document unless somebody else has changed it: then it answers false.
    pub(super) async fn replace<T: Serialize + Sync>(
        &self,
        name: &str,
        value: &T,
        noted: Option<&str>,
    ) -> Result<bool, PortError> {
        self.put(name, value, noted, Life::Same).await
    }

    /// The same, and lets the document end by itself: until then it tells that the journal was closed.
    pub(super) async fn end<T: Serialize + Sync>(
        &self,
        name: &str,
        value: &T,
        noted: &str,
    ) -> Result<bool, PortError> {
        let life = Life::of(CLOSED_FOR);
        self.put(name, value, Some(noted), life).await
    }

    async fn put<T: Serialize + Sync>(
        &self,
        name: &str,
        value: &T,
        noted: Option<&str>,
        life: Life,
    ) -> Result<bool, PortError> {
        let text = serde_json::to_vec(value).expect("numbers and texts are JSON");
        let text = Bytes::from(text);
        let when = noted.map_or(When::Missing, When::Match);
        let creation = self.abilities.creation;
        let saved = self.calls.save(name, &text, when, creation, life);
        match saved.await {
            Ok(()) => Ok(true),
            Err(failure) if is_refusal(&failure, self.abilities.creation) => Ok(false),
            Err(failure) => Err(failure.into_port(OPERATION)),
        }
    }

    /// Changes a document that others change as well; one that cannot be read is begun anew, which publishes again
    /// what was settled there.
    pub(super) async fn change<T: Serialize + DeserializeOwned + Default + Send + Sync>(
        &self,
        name: &str,
        mut change: impl FnMut(&mut T) + Send,
    ) -> Result<(), PortError> {
        for _ in 0..MOST_ATTEMPTS {
            let (mut value, etag) = match self.get::<T>(name).await? {
                Some((Ok(value), etag)) => (value, Some(etag)),
                Some((Err(Garbled), etag)) => (T::default(), Some(etag)),
                None => (T::default(), None),
            };
            change(&mut value);
            if self.replace(name, &value, etag.as_deref()).await? {
                return Ok(());
            }
        }
        Err(crowded(name))
    }

    pub(super) async fn add_done(
        &self,
        replica: &str,
        numbers: &[u64],
    ) -> Result<usize, PortError> {
        let add = |done: &mut Done| done.add(numbers);
        self.change(&Self::done(replica), add).await?;
        Ok(numbers.len())
    }

    /// Removes documents; what stays behind takes place and harms nobody.
    pub(super) async fn remove(&self, names: &[String]) {
        for name in names {
            if let Err(failure) = self.calls.remove(name).await {
                let error = failure.into_port(OPERATION);
                let unknown = error.outcome() == Outcome::Unknown;
                tracing::debug!(%error, unknown, name, "a document of the journal stays");
            }
        }
    }
}

fn crowded(name: &str) -> PortError {
    PortError::new(ErrorKind::Unavailable, BACKEND, OPERATION)
        .context(format!("{name} is changed by too many at once"))
}

fn name(id: &str) -> String {
    name_of(&Key::new(Kind::new("journal"), id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_follow_each_other_are_one_range() {
        let mut done = Done::default();
        for numbers in [&[5, 3][..], &[4], &[9, 9], &[0]] {
            done.add(numbers);
        }
        assert_eq!(done.ranges, [(0, 0), (3, 5), (9, 9)]);
        let there: Vec<u64> = (0..12).filter(|number| done.has(*number)).collect();
        assert_eq!(there, [0, 3, 4, 5, 9]);
    }
}
