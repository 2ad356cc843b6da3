//! The right to do something alone, renewed while it is used and taken over when its holder is gone.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Builder;

use crate::ports::{
    Clock, ETag, Entropy, Key, Kind, PortError, PutOptions, StateCapability, StateStore, Stored,
    WriteMode,
};

/// A lease in a store that several processes share.
///
/// It is a record with its owner, a count of beats and a [token](Self::token), which is never deleted. The
/// holder counts its time from before it sent the last beat; the others wait until the record has not
/// changed for two lengths of their own time. Both is [uptime](Clock::uptime), which runs while a machine
/// is suspended. So no two clocks are compared, and a holder that was paused knows that its time is over
/// before anybody takes its place. What it began before may still arrive later: work under a lease has to
/// be harmless when it is done twice, or carries the token to somebody who refuses lesser ones.
#[derive(Debug)]
pub struct Lease {
    store: Arc<dyn StateStore>,
    clock: Arc<dyn Clock>,
    key: Key,
    owner: Box<str>,
    length: Duration,
    held: Option<Held>,
    /// The record of another holder, and since when it has not changed.
    other: Option<(ETag, Duration)>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    /// When the last beat was sent.
    since: Duration,
    beat: u64,
    token: u64,
}

/// The record of a lease; one without an owner is free.
#[derive(Debug, Serialize, Deserialize)]
struct Beat<'a> {
    owner: Option<Cow<'a, str>>,
    beat: u64,
    #[serde(default)]
    token: u64,
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
        clock: Arc<dyn Clock>,
        entropy: &dyn Entropy,
    ) -> Result<Self, PortError> {
        let mut random = [0; 16];
        entropy.fill(&mut random);
        let owner = Builder::from_random_bytes(random).into_uuid();
        Self::of_owner(&owner.to_string(), store, name, length, clock)
    }

    /// The same under a name of its own, which no other lease may have.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of_owner(
        owner: &str,
        store: Arc<dyn StateStore>,
        name: &str,
        length: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, PortError> {
        let capabilities = store.capabilities();
        capabilities.require(StateCapability::ConditionalWrites, "lease", "open")?;
        Ok(Self {
            store,
            clock,
            key: Key::new(Kind::LEASE, name),
            owner: owner.into(),
            length,
            held: None,
            other: None,
        })
    }

    /// Says whether the lease is held at this moment.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.live().is_some()
    }

    /// Until when it is held, by the uptime of the clock; `None` if it is not.
    #[must_use]
    pub fn until(&self) -> Option<Duration> {
        self.live().map(|held| held.since + self.length)
    }

    /// A number that every later holder's exceeds; `None` if the lease is not held.
    ///
    /// It stays the same while the lease is renewed in time. If somebody deletes or damages the record, it
    /// goes on at the milliseconds since 1970, so that it falls only where the wall clock does as well.
    #[must_use]
    pub fn token(&self) -> Option<u64> {
        self.live().map(|held| held.token)
    }

    fn live(&self) -> Option<Held> {
        let now = self.clock.uptime();
        self.held.filter(|held| now < held.since + self.length)
    }

    /// Takes or renews the lease if that is due, and says whether it is held.
    ///
    /// # Errors
    /// As the store. [`is_held`](Self::is_held) tells whether the lease still has time.
    ///
    /// # Cancel safety
    /// A beat that was sent and not heard of is recognised by the next call.
    pub async fn hold(&mut self) -> Result<bool, PortError> {
        let sent = self.clock.uptime();
        let fresh = |held: Held| sent < held.since + self.length / 3;
        if self.held.is_some_and(fresh) {
            return Ok(true);
        }
        let stored = self.store.get(&self.key).await?;
        let mode = match &stored {
            None => WriteMode::Create,
            Some(stored) if self.may_replace(stored) => WriteMode::Match(stored.etag.clone()),
            Some(_) => {
                self.held = None;
                return Ok(false);
            }
        };
        let last = stored.as_ref().and_then(read);
        let last = last.unwrap_or_else(|| self.unread());
        let held = Held {
            since: sent,
            beat: last.beat + 1,
            token: match self.token() {
                Some(token) if token == last.token => token,
                Some(_) | None => last.token + 1,
            },
        };
        match self.write(Some(&self.owner), held, mode).await {
            Ok(()) => {
                self.held = Some(held);
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
    pub async fn release(&mut self) -> Result<(), PortError> {
        let Some(held) = self.held.take() else {
            return Ok(());
        };
        let Some(stored) = self.store.get(&self.key).await? else {
            return Ok(());
        };
        if stored.value != record(Some(&self.owner), held) {
            return Ok(());
        }
        let free = Held {
            beat: held.beat + 1,
            ..held
        };
        let mode = WriteMode::Match(stored.etag);
        match self.write(None, free, mode).await {
            Err(error) if error.is_conflict() => Ok(()),
            written => written,
        }
    }

    /// Free, or ours, or one whose holder has been silent for too long.
    fn may_replace(&mut self, stored: &Stored) -> bool {
        let found = read(stored);
        let is_ours = |owner: Option<Cow<'_, str>>| owner.is_none_or(|owner| *owner == *self.owner);
        if found.is_some_and(|found| is_ours(found.owner)) {
            return true;
        }
        let now = self.clock.uptime();
        match &self.other {
            Some((etag, since)) if *etag == stored.etag => now >= *since + 2 * self.length,
            _ => {
                self.other = Some((stored.etag.clone(), now));
                false
            }
        }
    }

    /// What comes before the first beat, or after a record that cannot be read.
    fn unread(&self) -> Beat<'static> {
        let millis = self.clock.now().unix_micros() / 1000;
        Beat {
            owner: None,
            beat: 0,
            token: u64::try_from(millis).unwrap_or(0),
        }
    }

    async fn write(
        &self,
        owner: Option<&str>,
        held: Held,
        mode: WriteMode,
    ) -> Result<(), PortError> {
        let options = PutOptions { mode, ttl: None };
        let written = self.store.put(&self.key, record(owner, held), options);
        written.await.map(drop)
    }
}

fn record(owner: Option<&str>, held: Held) -> Bytes {
    let json = serde_json::to_vec(&Beat {
        owner: owner.map(Cow::Borrowed),
        beat: held.beat,
        token: held.token,
    });
    json.expect("text and numbers are JSON").into()
}

fn read(stored: &Stored) -> Option<Beat<'_>> {
    serde_json::from_slice(&stored.value).ok()
}
