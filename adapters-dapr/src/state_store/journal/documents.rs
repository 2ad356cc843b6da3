//! The journal's documents in the component.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use task_core::ports::{ErrorKind, Key, Kind, Outcome, PortError};

use crate::error::{BACKEND, Failure};
use crate::state_store::calls::{Calls, Found, Life, When, is_refusal};
use crate::state_store::decision::Noted;
use crate::state_store::names::name_of;
use crate::state_store::probe::Abilities;
use crate::state_store::record::LEFT_FOR;

const OPERATION: &str = "journal";

/// Most attempts to change a document that others change as well.
const MOST_ATTEMPTS: usize = 32;

/// Which replicas there are.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Replicas {
    pub(super) replicas: Vec<Box<str>>,
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
#[derive(Debug, Default, Serialize, Deserialize)]
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

/// A document, and what Dapr calls its version.
pub(super) type Versioned<T> = Option<(T, Box<str>)>;

#[derive(Debug)]
pub(super) struct Documents {
    calls: Calls,
    abilities: Abilities,
}

impl Documents {
    pub(super) fn new(calls: &Calls, abilities: Abilities) -> Self {
        let calls = calls.clone();
        Self { calls, abilities }
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
        let found = self.calls.get(name).await;
        let read = found.and_then(|found| read(name, &found));
        read.map_err(|failure| failure.into_port(OPERATION))
    }

    pub(super) async fn get_many(&self, names: &[String]) -> Result<Vec<Found>, PortError> {
        let found = self.calls.get_many(names).await;
        found.map_err(|failure| failure.into_port(OPERATION))
    }

    /// The versions of documents, read together.
    pub(super) async fn versions(&self, names: &[String]) -> Result<Vec<Noted>, PortError> {
        let found = self.get_many(names).await?;
        Ok(found.into_iter().map(|found| found.etag).collect())
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
            let found = self.calls.get(name).await;
            let found = found.map_err(|failure| failure.into_port(OPERATION))?;
            version = found.etag;
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

    /// The same, and lets the document end by itself: until then it refuses who has read what was there before.
    pub(super) async fn end<T: Serialize + Sync>(
        &self,
        name: &str,
        value: &T,
        noted: &str,
    ) -> Result<bool, PortError> {
        let life = Life::of(LEFT_FOR);
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

    /// Changes a document that others change as well.
    pub(super) async fn change<T: Serialize + DeserializeOwned + Default + Send + Sync>(
        &self,
        name: &str,
        mut change: impl FnMut(&mut T) + Send,
    ) -> Result<(), PortError> {
        for _ in 0..MOST_ATTEMPTS {
            let (mut value, etag) = match self.get::<T>(name).await? {
                Some((value, etag)) => (value, Some(etag)),
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

/// Reads a document; `None` if there is none.
pub(super) fn read<T: DeserializeOwned>(
    name: &str,
    found: &Found,
) -> Result<Versioned<T>, Failure> {
    let Some(etag) = found.etag.clone() else {
        return Ok(None);
    };
    let value = serde_json::from_slice(&found.data);
    let value = value.map_err(|error| Failure::Corrupt(format!("{name}: {error}")))?;
    Ok(Some((value, etag)))
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
