//! The name of this replica, and its sign of life.
//!
//! Others close a journal that has shown no sign of life for a while, so this replica counts the time by
//! [`Clock::uptime`](task_core::ports::Clock::uptime), which runs while the machine is suspended. They count theirs
//! between two looks, by a clock that may stand: that only makes them patient.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use task_core::ports::{ErrorKind, PortError};
use tokio::time::Instant;

use super::documents::{Documents, Garbled, Head, Replicas};
use super::save::Saver;
use super::{BEATS_UNTIL_CLOSED, Journal, SEGMENT, State};
use crate::error::BACKEND;

pub(super) const CLOSED: &str = "the journal was closed by another replica";

/// This replica, as long as it has its name.
#[derive(Debug)]
pub(super) struct Me {
    pub(super) id: Arc<str>,
    /// The next note's number.
    pub(super) next: u64,
    /// Notes with lesser numbers are saved.
    pub(super) saved: u64,
    pub(super) head: Head,
    /// The uptime before the beat was last renewed; `None` if nobody was shown one.
    pub(super) beaten: Option<Duration>,
    /// Segments that hold notes which are settled.
    pub(super) stale: BTreeSet<u64>,
    pub(super) stale_since: Option<Instant>,
}

impl Me {
    /// A note was removed.
    pub(super) fn touch(&mut self, number: u64) {
        self.stale.insert(number / SEGMENT);
        self.stale_since.get_or_insert_with(Instant::now);
    }
}

impl Journal {
    /// Says whether the name is surely this replica's own.
    pub(super) fn is_fresh(&self, me: &Me) -> bool {
        me.beaten
            .is_some_and(|beaten| self.since(beaten) < self.beat_every)
    }

    fn since(&self, uptime: Duration) -> Duration {
        self.clock.uptime().saturating_sub(uptime)
    }

    /// Makes sure that nobody had closed the journal when its notes were saved.
    pub(super) async fn is_still_open(&self, id: &Arc<str>) -> Result<(), PortError> {
        let is_fresh = || {
            let state = self.state();
            let me = state.me.as_ref().filter(|me| me.id == *id);
            me.is_some_and(|me| self.is_fresh(me))
        };
        if is_fresh() {
            return Ok(());
        }
        let mut saver = self.saver.lock().await;
        self.renew(&mut saver).await?;
        match is_fresh() {
            true => Ok(()),
            false => Err(contended(CLOSED)),
        }
    }

    /// Renews the beat if it is due, unless this replica saves anyway.
    pub(in crate::state_store) async fn stay(&self) {
        let Ok(mut saver) = self.saver.try_lock() else {
            return;
        };
        if self.state().me.is_some()
            && let Err(error) = self.renew(&mut saver).await
        {
            tracing::debug!(%error, "the beat cannot be renewed now");
        }
    }

    /// Takes a name, or renews the beat, unless that was done meanwhile.
    pub(super) async fn renew(&self, saver: &mut Saver) -> Result<(), PortError> {
        let known = {
            let state = self.state();
            let me = state.me.as_ref();
            if me.is_some_and(|me| self.is_fresh(me)) {
                return Ok(());
            }
            me.map(|me| (Arc::clone(&me.id), me.head))
        };
        match known {
            None => self.register().await,
            Some((id, head)) => {
                self.beat(&id, head).await?;
                self.stay_registered(&id).await?;
                self.stay_noted(saver, &id).await;
                Ok(())
            }
        }
    }

    /// Writes the name down again, should somebody else have written over all names.
    async fn stay_registered(&self, id: &Arc<str>) -> Result<(), PortError> {
        let name = Documents::replicas();
        let found = self.documents.get::<Replicas>(&name).await?;
        if matches!(found, Some((Ok(registry), _)) if registry.has(id)) {
            return Ok(());
        }
        let add = |registry: &mut Replicas| registry.add(id);
        self.documents.change(&name, add).await
    }

    async fn register(&self) -> Result<(), PortError> {
        let id = self.take_name();
        let beaten = self.clock.uptime();
        let head = Head::default();
        // First the head: whoever finds the name has to find what is behind it. If it is there already, an earlier
        // attempt has landed, and others may know it for a while: then it is not fresh before its first beat.
        let name = Documents::head(&id);
        let is_new = self.documents.replace(&name, &head, None).await?;
        let add = |registry: &mut Replicas| registry.add(&id);
        self.documents.change(&Documents::replicas(), add).await?;
        tracing::debug!(replica = %id, "a journal of pending events was opened");
        self.state().me = Some(Me {
            id,
            next: 0,
            saved: 0,
            head,
            beaten: is_new.then_some(beaten),
            stale: BTreeSet::new(),
            stale_since: None,
        });
        Ok(())
    }

    /// The name that was taken, also if its registration failed.
    fn take_name(&self) -> Arc<str> {
        let mut state = self.state();
        let name = state.name.get_or_insert_with(|| {
            let mut random = [0; 8];
            self.entropy.fill(&mut random);
            format!("{:016x}", u64::from_be_bytes(random)).into()
        });
        Arc::clone(name)
    }

    /// Writes the head of this replica, which renews its beat, unless somebody has closed it.
    pub(super) async fn beat(&self, id: &Arc<str>, head: Head) -> Result<(), PortError> {
        let beaten = self.clock.uptime();
        let name = Documents::head(id);
        let (found, etag) = match self.documents.get::<Head>(&name).await? {
            Some((Ok(found), etag)) if !found.is_closed => (found, etag),
            // What somebody else has written over it is written over, unless it may hide that it was closed.
            Some((Err(Garbled), etag)) if !self.may_be_closed(id) => (head, etag),
            Some(_) | None => return Err(self.lose_name(id)),
        };
        let head = Head {
            beat: found.beat.saturating_add(1),
            ..head
        };
        if !self.documents.replace(&name, &head, Some(&etag)).await? {
            return Err(contended("the head of the journal was changed meanwhile"));
        }
        // In that time it may have been closed and its head have ended, and `state.redis` creates what is missing.
        if self.since(beaten) >= self.beat_every {
            return Err(self.lose_name(id));
        }
        let mut state = self.state();
        if let Some(me) = state.me.as_mut().filter(|me| me.id == *id) {
            me.head = head;
            me.beaten = Some(beaten);
        }
        Ok(())
    }

    fn may_be_closed(&self, id: &Arc<str>) -> bool {
        let state = self.state();
        let me = state.me.as_ref().filter(|me| me.id == *id);
        let beaten = me.and_then(|me| me.beaten);
        beaten.is_none_or(|beaten| self.since(beaten) >= self.beat_every * BEATS_UNTIL_CLOSED)
    }

    /// It was taken for dead; the next note is saved under another name.
    fn lose_name(&self, id: &Arc<str>) -> PortError {
        tracing::warn!(replica = %id, "another replica may have closed this one's journal");
        let mut state = self.state();
        let State {
            index, name, me, ..
        } = &mut *state;
        (*name, *me) = (None, None);
        index.disown();
        contended(CLOSED)
    }
}

pub(super) fn contended(what: &str) -> PortError {
    PortError::new(ErrorKind::Unavailable, BACKEND, "journal").context(what)
}
