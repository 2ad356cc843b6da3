//! Which records to look at for pending events, found after a crash.
//!
//! Before a record is written with an event, a note of it is saved: its id, the record's name, and the version
//! that the write is based on. So whatever happens in between, a later look at the record tells whether
//! the write took effect: the record carries the id, or has moved on without it, or both are still
//! possible. Notes of concurrent writes share one save.
//!
//! Each replica has documents of its own, and writes them without asking anybody:
//!
//! | document | holds | written by |
//! | --- | --- | --- |
//! | `journal-replicas` | the replicas there are | everybody, with its ETag |
//! | `journal-{replica}` | first and last segment, a beat | its replica, and who closes it; with its ETag |
//! | `journal-{replica}/{n}` | notes of segment `n` that are not settled | its replica alone; with its ETag |
//! | `journal-{replica}/done` | notes that another replica has settled | everybody, with its ETag |
//!
//! That others settle in a document of its own has a reason: Dapr does not tell the ETag of a write, so a
//! segment that others change as well would cost its replica a read before each save.
//!
//! A replica whose journal is empty and that has not given a sign of life for a while is closed by whoever
//! notices, and begins anew under another name if it lives. It notices in time: it renews its beat long
//! before, by its own clock, or trusts no note that it has saved.
//!
//! Every document is saved over the version that was read of it, or only if it is missing. So whatever was not
//! answered, and arrives when nobody waits for it any more, changes nothing that was saved later.
//!
//! A document that cannot be read was written by somebody else. It is told and set aside, and all others go on: a
//! list of names or of settled notes is begun anew, a head or a segment is written over by its replica at its next beat.
//! A replica that records name, or that was seen before, is written down again if its journal is open.
//!
//! An event in a record is settled only if a journal says so: by the notes that are done, by segments that were read, or
//! by its end, which is told for a year. Of every other one nothing is known, and it is published with the next one of
//! its record, before it. That it was published is then noted among what is done, whatever became of its journal.
//!
//! What nobody can heal: notes of a replica that is gone, where its head or segment cannot be read or is missing, or its
//! name stands in no list and nobody lives who knew it. Dapr finds no key but by its name, so their events wait until
//! their records are changed.

mod documents;
mod index;
mod look;
mod replica;
mod save;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use task_core::ports::{Clock, Entropy, ErrorKind, Event, PortError};
use tokio::time::Instant;

use self::documents::{Documents, Done};
use self::index::Index;
pub(super) use self::index::{Entry, Op, Stage};
use self::look::Watched;
use self::replica::Me;
use self::save::Saver;
use super::StateStoreOptions;
use super::calls::Calls;
use super::decision::Noted;
use super::probe::Abilities;
use crate::error::BACKEND;

/// Most notes of one replica that are not settled.
const MOST_NOTES: usize = 131_072;

/// Notes of one segment.
const SEGMENT: u64 = 256;

/// A replica without notes is closed when its beat has stood still for this many times its usual pause; it saves
/// no note when it has stood still for one.
const BEATS_UNTIL_CLOSED: u32 = 4;

/// Operations that are remembered of which no look has told, and closed journals.
const MOST_REMEMBERED: usize = 16_384;

/// The journal of this replica, and what it knows of the others'.
#[derive(Debug)]
pub(super) struct Journal {
    documents: Documents,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    beat_every: Duration,
    state: Mutex<State>,
    saver: tokio::sync::Mutex<Saver>,
    looking: tokio::sync::Mutex<()>,
}

/// What is changed without waiting.
#[derive(Debug, Default)]
struct State {
    index: Index,
    /// What this replica is called, from before anybody else can read it.
    name: Option<Arc<str>>,
    me: Option<Me>,
    /// What the last look saw of the others.
    watched: HashMap<Arc<str>, Watched>,
    /// What others have settled for them, as far as their journals still say so.
    done: HashMap<Arc<str>, Done>,
    looked: Option<Instant>,
    /// Replicas whose journals were seen to be closed.
    closed: HashSet<Arc<str>>,
    /// Operations that records name and no look has told of, and since when.
    met: HashMap<Op, Instant>,
    /// Replicas of which the last look could not read where their notes are.
    illegible: HashSet<Arc<str>>,
}

/// What is known of an event that a record carries and no note names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// A journal says so.
    Settled,
    /// No journal tells.
    Unproven,
    /// It may be newer than the last look.
    Unknown,
}

/// Notes of one write, saved; what became of it is told before it is dropped, or is not known.
#[derive(Debug)]
pub(super) struct Note<'a> {
    journal: &'a Journal,
    replica: Arc<str>,
    numbers: std::ops::Range<u64>,
}

impl Journal {
    pub(super) fn new(calls: &Calls, abilities: Abilities, options: &StateStoreOptions) -> Self {
        Self {
            documents: Documents::new(calls, abilities),
            clock: Arc::clone(&options.clock),
            entropy: Arc::clone(&options.entropy),
            beat_every: options.beat_every,
            state: Mutex::default(),
            saver: tokio::sync::Mutex::default(),
            looking: tokio::sync::Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Saves notes of events that a write is about to carry, with the notes of those that another record carries.
    ///
    /// # Errors
    /// `Throttled` beyond the limit of notes; otherwise as a put. The record was not written.
    pub(super) async fn note(
        &self,
        name: &str,
        noted: &Noted,
        origins: &[Option<Op>],
        operation: &'static str,
    ) -> Result<Note<'_>, PortError> {
        let note = loop {
            if let Some(note) = self.begin(name, noted, origins, operation)? {
                break note;
            }
            let mut saver = self.saver.lock().await;
            let renewed = self.renew(&mut saver).await;
            renewed.map_err(|error| unnoted(error, operation))?;
        };
        let saved = self.save_up_to(&note.replica, note.numbers.end).await;
        let saved = match saved {
            Ok(()) => self.is_still_open(&note.replica).await,
            Err(error) => Err(error),
        };
        match saved {
            Ok(()) => Ok(note),
            Err(error) => {
                note.refused();
                Err(unnoted(error, operation))
            }
        }
    }

    /// Takes numbers; `None` while this replica has no name that is surely its own.
    fn begin(
        &self,
        name: &str,
        noted: &Noted,
        origins: &[Option<Op>],
        operation: &'static str,
    ) -> Result<Option<Note<'_>>, PortError> {
        let mut state = self.state();
        let State { index, me, .. } = &mut *state;
        let Some(me) = me.as_mut().filter(|me| self.is_fresh(me)) else {
            return Ok(None);
        };
        if index.own() + origins.len() > MOST_NOTES {
            return Err(
                PortError::new(ErrorKind::Throttled, BACKEND, operation).context(format!(
                    "{} events of this replica wait to be published, the limit is {MOST_NOTES}",
                    index.own()
                )),
            );
        }
        let start = me.next;
        let name: Arc<str> = name.into();
        for origin in origins {
            let op = Op::new(&me.id, me.next);
            index.add_own(op.clone(), &name, noted);
            index.moves(&op, origin.clone());
            me.next += 1;
        }
        Ok(Some(Note {
            journal: self,
            replica: Arc::clone(&me.id),
            numbers: start..me.next,
        }))
    }

    /// The entries from a place on, at most so many, without those whose write is under way.
    pub(super) fn from(&self, start: u64, most: usize) -> Vec<(u64, Entry)> {
        let state = self.state();
        let entries = state.index.from(start);
        let ready = entries.filter(|(_, entry)| entry.stage != Stage::InFlight);
        let taken = ready.take(most);
        taken
            .map(|(place, entry)| (*place, entry.as_of_now()))
            .collect()
    }

    /// The entry of an operation, if it is not settled as far as is known here.
    pub(super) fn entry(&self, op: &Op) -> Option<(u64, Entry)> {
        let state = self.state();
        let (place, entry) = state.index.get(op)?;
        Some((place, entry.clone()))
    }

    /// What the event that a record calls so is listed as.
    pub(super) fn shown(&self, op: Op) -> Op {
        let state = self.state();
        let entry = state.index.get(&op).map(|(_, entry)| entry);
        let shown = entry.and_then(|entry| state.index.stand_in(entry));
        shown.map_or(op, |entry| entry.op.clone())
    }

    /// Adds the other notes of moved events.
    pub(super) fn with_twins(&self, ops: Vec<Op>) -> Vec<Op> {
        let state = self.state();
        let twins = ops.iter().filter_map(|op| state.index.twin_of(op));
        let twins: Vec<Op> = twins.filter(|op| !ops.contains(op)).cloned().collect();
        [ops, twins].concat()
    }

    /// Says whether an event was moved, so that its write took effect.
    pub(super) fn has_copy(&self, op: &Op) -> bool {
        self.state().index.copy_of(op).is_some()
    }

    /// Says whether an event is in a record of its own.
    pub(super) fn is_moved(&self, op: &Op) -> bool {
        let state = self.state();
        let copy = state.index.copy_of(op).and_then(|op| state.index.get(op));
        copy.is_some_and(|(_, copy)| copy.stage == Stage::Landed)
    }

    /// Says whether an operation is one of this replica.
    pub(super) fn is_own(&self, op: &Op) -> bool {
        let state = self.state();
        state.me.as_ref().is_some_and(|me| me.id == op.replica)
    }

    /// What is known of an operation without a note.
    pub(super) fn standing(&self, op: &Op) -> Standing {
        let mut state = self.state();
        if state.proves(op) {
            state.met.remove(op);
            return Standing::Settled;
        }
        if state.is_illegible(op) {
            return Standing::Unproven;
        }
        if state.met.len() >= MOST_REMEMBERED {
            state.met.clear();
        }
        let now = Instant::now();
        let met = *state.met.entry(op.clone()).or_insert(now);
        match state.looked.is_some_and(|looked| looked > met) {
            true => Standing::Unproven,
            false => Standing::Unknown,
        }
    }

    /// The record of this event is about to be written again: from now on it is read.
    pub(super) fn let_go(&self, op: &Op) {
        self.state().index.let_go(op);
    }

    /// The note of an event that its record carries no more because it was moved, with its new place.
    pub(super) fn follow(&self, op: &Op) -> Option<Entry> {
        self.state().index.follow(op)
    }

    /// Notes whether a record was seen to carry an event under its own note.
    pub(super) fn seen(&self, op: &Op, is_seen: bool) {
        self.state().index.seen(op, is_seen);
    }

    /// Notes that an event was listed, so that later ones of its record may be.
    pub(super) fn listed(&self, op: &Op) {
        self.state().index.listed(op);
    }

    /// Notes that a record gets another form once its events are settled.
    pub(super) fn rests(&self, op: &Op) {
        self.state().index.rests(op);
    }

    /// Removes notes, those of others for their replicas too.
    pub(super) async fn remove(&self, ops: &[Op]) -> Result<(), PortError> {
        let mut others: HashMap<Arc<str>, Vec<u64>> = HashMap::new();
        for op in ops {
            if self.is_own(op) {
                self.state().remove_own(op);
            } else {
                let replica = Arc::clone(&op.replica);
                others.entry(replica).or_default().push(op.number);
            }
        }
        for (replica, numbers) in others {
            let done = self.documents.add_done(&replica, &numbers).await?;
            tracing::trace!(%replica, done, "notes of another replica are done");
            let mut state = self.state();
            let known = state.done.entry(Arc::clone(&replica)).or_default();
            known.add(&numbers);
            for number in numbers {
                state.index.remove(&Op::new(&replica, number));
            }
        }
        Ok(())
    }
}

impl State {
    /// Says whether what was read of the journals proves that an operation without a note is settled.
    fn proves(&self, op: &Op) -> bool {
        let replica = &op.replica;
        let is_own = self.me.as_ref().is_some_and(|me| me.id == *replica);
        let done = self.done.get(replica);
        let is_passed = |watched: &Watched| {
            op.number < watched.through && !watched.garbled.contains(&(op.number / SEGMENT))
        };
        is_own
            || self.closed.contains(replica)
            || done.is_some_and(|done| done.has(op.number))
            || self.watched.get(replica).is_some_and(is_passed)
    }

    /// Says whether the note of another replica's operation cannot be read, so that only its record tells of it.
    fn is_illegible(&self, op: &Op) -> bool {
        let watched = self.watched.get(&op.replica);
        let is_garbled =
            watched.is_some_and(|watched| watched.garbled.contains(&(op.number / SEGMENT)));
        is_garbled || self.illegible.contains(&op.replica)
    }

    /// A journal has ended, so that all of it is settled.
    fn is_over(&mut self, replica: &Arc<str>) {
        if self.closed.len() >= MOST_REMEMBERED {
            self.closed.clear();
        }
        self.closed.insert(Arc::clone(replica));
        self.watched.remove(replica);
        for op in self.index.of(replica) {
            self.index.remove(&op);
        }
    }

    fn remove_own(&mut self, op: &Op) {
        if self.index.remove(op).is_some()
            && let Some(me) = &mut self.me
        {
            me.touch(op.number);
        }
    }
}

impl Note<'_> {
    /// What the write calls its events.
    pub(super) fn ops(&self) -> impl DoubleEndedIterator<Item = Box<str>> {
        let op = |number| Op::new(&self.replica, number).to_string().into();
        self.numbers.clone().map(op)
    }

    fn each(&self) -> impl Iterator<Item = Op> {
        let numbers = self.numbers.clone();
        numbers.map(|number| Op::new(&self.replica, number))
    }

    /// Does what the next note needs and would have to wait for, while this one's record is written.
    pub(super) async fn prepare_next(&self) {
        self.journal.prepare().await;
    }

    /// The write took effect; `lone` is its event if the record is a value that carries no other.
    pub(super) fn landed(self, lone: Option<&Event>) {
        let mut state = self.journal.state();
        for op in self.each() {
            state.index.reach(&op, Stage::Landed);
            if let Some(event) = lone {
                state.index.hold(&op, event);
            }
            state.index.moved(&op);
        }
    }

    /// The write did not take effect and never will.
    pub(super) fn refused(self) {
        let mut state = self.journal.state();
        for op in self.each() {
            state.remove_own(&op);
        }
    }

    /// Says whether others have settled or dropped it already.
    pub(super) fn is_gone(&self) -> bool {
        let state = self.journal.state();
        self.each().all(|op| state.index.get(&op).is_none())
    }
}

impl Drop for Note<'_> {
    /// What was not told is found out later.
    fn drop(&mut self) {
        let mut state = self.journal.state();
        for op in self.each() {
            state.index.open(&op);
        }
    }
}

/// The error of a write that did not happen because its note could not be saved.
fn unnoted(error: PortError, operation: &'static str) -> PortError {
    PortError::new(error.kind(), BACKEND, operation)
        .context("the event could not be noted before the record")
        .retry(error.retryable())
        .caused_by(error)
}
