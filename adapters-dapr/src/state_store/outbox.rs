//! The pending events: found through the journal, read from their records.
//!
//! # How a change and its event stay together
//! A component writes one key at a time, so the event travels inside its record, and finding the record again is what
//! the journal is for. A change takes three steps, and the relay two more:
//!
//! 1. A *note* is saved in this replica's journal: an id, the record's name, the version that the write is based on.
//! 2. The record is written over that version, with the event under the note's id among what is pending in it.
//! 3. The caller is answered.
//! 4. The relay lists the event: the note names the record, and the record carries the id.
//! 5. When the bus has taken the event the note is removed, in this replica's journal at its next save, at most about
//!    a second later, in another's by a document beside it. The record keeps the event until it is next written.
//!
//! Whoever dies, any replica reads the journals and finds out what became of a note by looking at the record:
//!
//! | death | what is found | what follows |
//! | --- | --- | --- |
//! | before 1 | nothing | the change did not happen |
//! | between 1 and 2 | a record that has moved on without the id | the note is dropped: no event without a change |
//! | the same, or 2 is under way | a record that is still as noted | it waits: the write may land; after 90 s the record is written as it is over the noted version, so that it never does, and the note is dropped |
//! | between 2 and 5 | a record that carries the id | the event is published |
//! | during 5, before the journal is saved | the same | the event is published again, under its own id |
//!
//! What arrives late, after its sender has given it up or died, changes none of that: a record and every document of the
//! journal are written over the version that was read of them. A journal is closed only when all of its notes are gone,
//! so an event that names one which is closed is settled, whoever wrote it into the record. One of which no journal tells
//! counts as pending: it is published once more rather than passed over.
//!
//! So a refused change never has an event, and an acknowledged one has it at least once. A change whose answer was
//! lost is judged in the same way before the caller is told anything; see [`super::decision`].
//!
//! A deletion leaves an empty value, which carries nothing. Before it is written the pending events are *moved*, by
//! steps 1 and 2, to a record that only this adapter reads. They are committed already, so a death between the move and
//! the deletion leaves them in both records, and they are published from either or both. Where the replica that deletes
//! is not the one that relays, both may happen without a death, too.
//!
//! A replica may read of itself as of another one only if its name is not its own any more. So it has its name before
//! it is written down for others, and reads the names of all before it asks for its own.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use task_core::carried::CarriedEvent;
use task_core::ports::{ErrorKind, Event, PendingEvent, PendingId, PortError};

use super::calls::Calls;
use super::decision::Fate;
use super::journal::{Entry, Journal, Op, Stage, Standing};
use super::probe::Abilities;
use super::record::Record;
use super::write::{Attempt, Base, Change};
use super::{Shared, StateStoreOptions};
use crate::error::BACKEND;

/// Notes whose records are read at once.
const MOST_NOTES: usize = 100;

/// How often the other replicas' journals are read, unless a listing begins.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Events in a record of which it is worth to find out whether they are settled.
pub(super) const MANY: usize = 8;

/// Records whose events are remembered between a read and the write that is based on it, twice.
const MOST_REMEMBERED: usize = 512;

/// Most bytes of events that are remembered of one record.
const MOST_BYTES: usize = 16 * 1024;

/// Events that are committed and not settled.
#[derive(Debug)]
pub(super) struct Outbox {
    pub(super) journal: Journal,
    refuse_after: Duration,
    remembered: Mutex<Remembered>,
}

type Events = HashMap<(Box<str>, Box<str>), Vec<CarriedEvent>>;

/// Two generations: when the young one is full, it becomes the old one.
#[derive(Debug, Default)]
struct Remembered {
    young: Events,
    old: Events,
}

/// Where a listing goes on: behind this event, which was listed at this note's place.
struct Cursor {
    place: u64,
    op: Op,
}

/// The part of a listing that one call answers.
struct Listing<'a> {
    outbox: &'a Outbox,
    limit: usize,
    events: Vec<PendingEvent>,
    listed: HashSet<Op>,
    /// Notes of writes that did not take effect.
    dropped: Vec<Op>,
    /// Notes of writes that were under way for too long.
    overdue: Vec<Entry>,
}

impl Outbox {
    pub(super) fn new(calls: &Calls, abilities: Abilities, options: &StateStoreOptions) -> Self {
        Self {
            journal: Journal::new(calls, abilities, options),
            refuse_after: options.refuse_after,
            remembered: Mutex::default(),
        }
    }

    /// Remembers what a record carries, for a write over this version.
    pub(super) fn remember(&self, name: &str, etag: &str, events: Vec<CarriedEvent>) {
        let bytes: usize = events.iter().map(|one| one.event.payload.len()).sum();
        if bytes > MOST_BYTES {
            return;
        }
        let mut remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if remembered.young.len() >= MOST_REMEMBERED {
            remembered.old = std::mem::take(&mut remembered.young);
        }
        remembered.young.insert((name.into(), etag.into()), events);
    }

    pub(super) fn recall(&self, name: &str, etag: &str) -> Option<Vec<CarriedEvent>> {
        let key = (name.into(), etag.into());
        let mut remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let young = remembered.young.remove(&key);
        young.or_else(|| remembered.old.remove(&key))
    }

    /// The events of a record that a write has to keep. Whether those of other replicas are settled is found out
    /// if there are more than so many.
    pub(super) async fn unsettled(
        &self,
        found: &[CarriedEvent],
        many: usize,
        operation: &'static str,
    ) -> Result<Vec<CarriedEvent>, PortError> {
        let is_own = |op: &Op| self.journal.is_own(op);
        let ops = found.iter().map(|event| Op::parse(&event.op));
        let mut ops: Vec<Option<Op>> = ops.collect();
        for op in &mut ops {
            if op
                .as_ref()
                .is_some_and(|op| is_own(op) && self.journal.entry(op).is_none())
            {
                *op = None;
            }
        }
        let others = ops.iter().flatten().filter(|op| !is_own(op)).count();
        if others > many {
            let within = match ops
                .iter()
                .flatten()
                .any(|op| self.is(op, Standing::Unknown))
            {
                true => Duration::ZERO,
                false => LOOK_EVERY,
            };
            let looked = self.journal.look(within).await;
            looked.map_err(|error| {
                PortError::new(error.kind(), BACKEND, operation)
                    .context("the journal of pending events cannot be read")
                    .caused_by(error)
            })?;
            for op in &mut ops {
                op.take_if(|op| self.is(op, Standing::Settled));
            }
        }
        for op in ops.iter().flatten() {
            self.journal.let_go(op);
        }
        let kept = found.iter().zip(&ops).filter(|(_, op)| op.is_some());
        Ok(kept.map(|(event, _)| event.clone()).collect())
    }

    /// Says whether an event has no note, and this is known of it.
    fn is(&self, op: &Op, standing: Standing) -> bool {
        self.journal.entry(op).is_none() && self.journal.standing(op) == standing
    }

    /// Says whether an event was moved out of its record, by whichever replica.
    pub(super) async fn was_moved(&self, op: &str) -> Result<bool, PortError> {
        self.journal.look(Duration::ZERO).await?;
        Ok(Op::parse(op).is_some_and(|op| self.journal.has_copy(&op)))
    }

    /// Lists events after a place.
    pub(super) async fn pending(
        &self,
        store: &Shared,
        after: Option<&PendingId>,
        limit: usize,
    ) -> Result<Vec<PendingEvent>, PortError> {
        let cursor = after.map(|after| Cursor::read(after, "pending"));
        let cursor = cursor.transpose()?;
        let within = cursor.as_ref().map_or(Duration::ZERO, |_| LOOK_EVERY);
        self.journal.look(within).await?;
        self.journal.tidy_if_stale().await;
        let mut listing = Listing {
            outbox: self,
            limit,
            events: Vec::new(),
            listed: HashSet::new(),
            dropped: Vec::new(),
            overdue: Vec::new(),
        };
        let mut next = cursor.as_ref().map_or(0, |cursor| cursor.place);
        while listing.events.len() < limit {
            let notes = self.journal.from(next, MOST_NOTES);
            let Some((last, _)) = notes.last() else {
                break;
            };
            next = last + 1;
            listing.add(store, &notes, cursor.as_ref()).await?;
        }
        listing.refuse_overdue(store).await;
        self.journal.remove(&listing.dropped).await?;
        Ok(listing.events)
    }

    /// Removes events; those that are gone already do not matter.
    pub(super) async fn settle(
        &self,
        store: &Shared,
        events: &[PendingId],
    ) -> Result<(), PortError> {
        let cursors = events.iter().map(|id| Cursor::read(id, "settle"));
        let cursors: Vec<Cursor> = cursors.collect::<Result<_, _>>()?;
        let ops: Vec<Op> = cursors.into_iter().map(|cursor| cursor.op).collect();
        let is_unknown = |op: &Op| !self.journal.is_own(op) && self.journal.entry(op).is_none();
        if ops.iter().any(is_unknown) {
            self.journal.look(LOOK_EVERY).await?;
        }
        let mut ops = self.journal.with_twins(ops);
        ops.retain(|op| !self.is(op, Standing::Settled));
        let entries = ops.iter().filter_map(|op| self.journal.entry(op));
        let resting = entries.filter(|(_, entry)| entry.rests);
        let names: HashSet<Arc<str>> = resting.map(|(_, entry)| entry.name).collect();
        for name in names {
            self.rest(store, &name, &ops).await?;
        }
        self.journal.remove(&ops).await?;
        self.journal.tidy_if_stale().await;
        Ok(())
    }

    /// Gives a record the form that it has without events, unless other ones are pending in it.
    async fn rest(&self, store: &Shared, name: &str, settled: &[Op]) -> Result<(), PortError> {
        let record = store.read(name, "settle").await?;
        let Some(new) = record.at_rest(store.clock.now()) else {
            return Ok(());
        };
        let left = self.unsettled(record.events(), MANY, "settle").await?;
        let is_settled =
            |event: &CarriedEvent| Op::parse(&event.op).is_some_and(|op| settled.contains(&op));
        if !left.iter().all(is_settled) {
            return Ok(());
        }
        let change = Change {
            operation: "settle",
            key: name.to_owned(),
            name: name.to_owned(),
            new,
            events: &[],
        };
        match store.attempt(&change, Base::of(&record), &[]).await? {
            // Whoever changed it has given it another form.
            Attempt::Done | Attempt::Refused(_) => Ok(()),
        }
    }
}

impl Cursor {
    fn read(id: &PendingId, operation: &'static str) -> Result<Self, PortError> {
        let parts = id.as_str().split_once(':');
        let read = parts.and_then(|(place, op)| {
            let place = place.parse().ok()?;
            let op = Op::parse(op)?;
            Some(Self { place, op })
        });
        read.ok_or_else(|| {
            PortError::new(ErrorKind::Invalid, BACKEND, operation)
                .context(format!("{:?} is not a place of this outbox", id.as_str()))
        })
    }
}

impl Listing<'_> {
    async fn add(
        &mut self,
        store: &Shared,
        notes: &[(u64, Entry)],
        cursor: Option<&Cursor>,
    ) -> Result<(), PortError> {
        let unknown = notes.iter().filter(|(_, one)| one.held.is_none());
        let mut names: Vec<String> = unknown.map(|(_, one)| one.name.to_string()).collect();
        names.sort_unstable();
        names.dedup();
        let failed = |failure: crate::error::Failure| failure.into_port("pending");
        let found = store.calls.get_many(&names).await.map_err(failed)?;
        let now = store.clock.now();
        let mut records: HashMap<&str, Record> = HashMap::with_capacity(names.len());
        for (name, found) in names.iter().zip(found) {
            match found.and_then(|found| Record::read(name, found, now)) {
                Ok(record) => drop(records.insert(name, record)),
                Err(failure) => {
                    let error = failure.into_port("pending");
                    tracing::error!(%error, "a record with pending events is passed over");
                }
            }
        }
        for (place, entry) in notes {
            if self.events.len() >= self.limit {
                break;
            }
            let journal = &self.outbox.journal;
            let cursor = cursor.filter(|cursor| cursor.place == *place);
            if let Some(event) = &entry.held {
                journal.seen(&entry.op, true);
                if cursor.is_none() {
                    self.list(*place, &entry.op, event);
                }
                continue;
            }
            let Some(record) = records.get(&*entry.name) else {
                continue;
            };
            if journal.shown(entry.op.clone()) != entry.op {
                continue;
            }
            let strict = store.profile.abilities.keeps.missing_is_refused;
            let followed = match entry.fate(record, strict) {
                Fate::Refused => journal.follow(&entry.op),
                Fate::Done | Fate::Waits => None,
            };
            match followed {
                // It is listed where it was, in the order of the commits.
                Some(moved) => match store.read(&moved.name, "pending").await {
                    Ok(record) => self.add_found(*place, &moved, &record, strict, cursor),
                    Err(error) => {
                        tracing::error!(%error, "a record of moved events is passed over");
                    }
                },
                None => self.add_found(*place, entry, record, strict, cursor),
            }
        }
        Ok(())
    }

    /// Lists the event of a note if the record carries it.
    fn add_found(
        &mut self,
        place: u64,
        entry: &Entry,
        record: &Record,
        strict: bool,
        cursor: Option<&Cursor>,
    ) {
        match entry.fate(record, strict) {
            Fate::Done => {
                self.outbox.journal.seen(&entry.op, true);
                self.add_note(place, entry, record, cursor);
            }
            Fate::Refused => self.drop_note(entry, record),
            Fate::Waits => {
                self.outbox.journal.seen(&entry.op, false);
                if entry.since.elapsed() >= self.outbox.refuse_after {
                    self.overdue.push(entry.clone());
                }
            }
        }
    }

    /// Sees to it that nothing comes of what is overdue any more; what cannot be refused now is later.
    async fn refuse_overdue(&mut self, store: &Shared) {
        for entry in std::mem::take(&mut self.overdue) {
            match store.refuse(&entry).await {
                Ok(Fate::Refused) => self.dropped.push(entry.op),
                Ok(Fate::Done | Fate::Waits) => {}
                Err(error) => {
                    tracing::debug!(%error, op = %entry.op, "an overdue write cannot be refused now");
                    return;
                }
            }
        }
    }

    fn drop_note(&mut self, entry: &Entry, record: &Record) {
        let is_open = self.outbox.journal.entry(&entry.op).is_some();
        // Another replica has moved it, and notes it as its own.
        let is_moved = record.is_empty();
        if entry.stage == Stage::Landed && is_open && !is_moved {
            let (op, record) = (&entry.op, &entry.name);
            tracing::warn!(%op, %record, "a foreign writer has dropped a pending event");
        }
        self.outbox.journal.seen(&entry.op, false);
        self.dropped.push(entry.op.clone());
    }

    /// Adds the event of a note, and before it those that precede it in the record.
    fn add_note(&mut self, place: u64, entry: &Entry, record: &Record, after: Option<&Cursor>) {
        let journal = &self.outbox.journal;
        let mut first = Vec::new();
        let mut is_held_back = false;
        for event in record.events() {
            let Some(op) = Op::parse(&event.op) else {
                continue;
            };
            let op = journal.shown(op);
            if op == entry.op {
                first.push((op, event));
                break;
            }
            match journal.entry(&op) {
                // At an earlier place, unless a listing went by while its write was under way.
                Some((earlier, entry)) if earlier < place && entry.is_listed => {}
                Some(_) => first.push((op, event)),
                None => match journal.standing(&op) {
                    Standing::Settled => {}
                    // Twice rather than never.
                    Standing::Unproven => first.push((op, event)),
                    // The order would be lost. The next look tells.
                    Standing::Unknown => is_held_back = true,
                },
            }
        }
        if is_held_back {
            return;
        }
        if matches!(record, Record::Gone { .. }) {
            journal.rests(&entry.op);
        }
        let skipped = after.and_then(|after| first.iter().position(|(op, _)| *op == after.op));
        let skipped = skipped.map_or(0, |at| at + 1);
        for (op, event) in first.into_iter().skip(skipped) {
            self.list(place, &op, &event.event);
        }
    }

    fn list(&mut self, place: u64, op: &Op, event: &Event) {
        if self.events.len() < self.limit && self.listed.insert(op.clone()) {
            self.outbox.journal.listed(op);
            self.events.push(PendingEvent {
                id: PendingId::new(format!("{place}:{op}")),
                event: event.clone(),
            });
        }
    }
}
