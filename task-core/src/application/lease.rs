//! The right to do something alone, renewed while it is used and taken over when its holder is gone.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Builder;

use crate::ports::{
    DeleteMode, DeleteOptions, ETag, Entropy, Key, Kind, PortError, PutOptions, StateCapability,
    StateStore, Stored, WriteMode,
};

/// A lease in a store that several processes share.
///
/// It is a record with its owner and a count of beats. The holder counts its time from before it sent
/// the last beat; the others wait until the record has not changed for two lengths of their own time.
/// So no two clocks are compared, and a holder that was paused knows that its time is over before
/// anybody takes its place. What it began before may still arrive later: work under a lease has to be
/// harmless when it is done twice.
#[derive(Debug)]
pub struct Lease {
    store: Arc<dyn StateStore>,
    key: Key,
    owner: Box<str>,
    length: Duration,
    held: Option<Held>,
    /// The record of another holder, and since when it has not changed.
    other: Option<(ETag, Instant)>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    /// When the last beat was sent.
    since: Instant,
    beat: u64,
}

/// The record of a lease.
#[derive(Debug, Serialize, Deserialize)]
struct Beat<'a> {
    owner: &'a str,
    beat: u64,
}

impl Lease {
    /// A lease of this name that nobody here holds yet.
    ///
    /// # Errors
    /// `Unsupported` when the store has no conditional writes.
    pub fn new(
        store: Arc<dyn StateStore>,
        name: &str,
        length: Duration,
        entropy: &dyn Entropy,
    ) -> Result<Self, PortError> {
        let capabilities = store.capabilities();
        capabilities.require(StateCapability::ConditionalWrites, "lease", "open")?;
        let mut random = [0; 16];
        entropy.fill(&mut random);
        let owner = Builder::from_random_bytes(random).into_uuid();
        Ok(Self {
            store,
            key: Key::new(Kind::LEASE, name),
            owner: owner.to_string().into(),
            length,
            held: None,
            other: None,
        })
    }

    /// Says whether the lease is held at this moment.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held
            .is_some_and(|held| held.since.elapsed() < self.length)
    }

    /// Takes or renews the lease if that is due, and says whether it is held.
    ///
    /// # Errors
    /// As the store. [`is_held`](Self::is_held) tells whether the lease still has time.
    ///
    /// # Cancel safety
    /// A beat that was sent and not heard of is recognised by the next call.
    pub async fn hold(&mut self) -> Result<bool, PortError> {
        let fresh = |held: Held| held.since.elapsed() < self.length / 3;
        if self.held.is_some_and(fresh) {
            return Ok(true);
        }
        let sent = Instant::now();
        let stored = self.store.get(&self.key).await?;
        let mode = match &stored {
            None => WriteMode::Create,
            Some(stored) if self.may_replace(stored) => WriteMode::Match(stored.etag.clone()),
            Some(_) => {
                self.held = None;
                return Ok(false);
            }
        };
        let beat = stored.as_ref().and_then(beat_of).map_or(1, |beat| beat + 1);
        let options = PutOptions { mode, ttl: None };
        match self.store.put(&self.key, self.record(beat), options).await {
            Ok(_) => {
                self.held = Some(Held { since: sent, beat });
                self.other = None;
                Ok(self.is_held())
            }
            Err(error) if error.is_conflict() => {
                self.held = None;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives the lease up, so that the next one need not wait.
    ///
    /// # Errors
    /// As the store; the lease then ends by itself.
    pub async fn release(mut self) -> Result<(), PortError> {
        let Some(held) = self.held.take() else {
            return Ok(());
        };
        let Some(stored) = self.store.get(&self.key).await? else {
            return Ok(());
        };
        if stored.value != self.record(held.beat) {
            return Ok(());
        }
        let options = DeleteOptions {
            mode: DeleteMode::Match(stored.etag),
            tombstone: None,
        };
        self.store.delete(&self.key, options).await
    }

    /// Ours, or one whose holder has been silent for too long.
    fn may_replace(&mut self, stored: &Stored) -> bool {
        let found = serde_json::from_slice::<Beat<'_>>(&stored.value);
        if found.is_ok_and(|found| found.owner == &*self.owner) {
            return true;
        }
        match &self.other {
            Some((etag, since)) if *etag == stored.etag => since.elapsed() >= 2 * self.length,
            _ => {
                self.other = Some((stored.etag.clone(), Instant::now()));
                false
            }
        }
    }

    fn record(&self, beat: u64) -> Bytes {
        let owner = &*self.owner;
        let json = serde_json::to_vec(&Beat { owner, beat });
        json.expect("text and a number are JSON").into()
    }
}

fn beat_of(stored: &Stored) -> Option<u64> {
    let found = serde_json::from_slice::<Beat<'_>>(&stored.value);
    found.ok().map(|found| found.beat)
}
