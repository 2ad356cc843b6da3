//! All notes that are known and not settled, in the order in which they became known here.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use task_core::ports::Event;
use tokio::time::Instant;

use crate::state_store::decision::{Fate, Noted, fate};
use crate::state_store::record::Record;

/// Events that are held in memory, at most.
const MOST_HELD: usize = 4_096;

/// For how long: a deletion by another replica is seen only in the record.
const HELD_FOR: Duration = Duration::from_secs(2);

/// What a write calls one of its events: a replica and a number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::state_store) struct Op {
    pub(super) replica: Arc<str>,
    pub(super) number: u64,
}

impl Op {
    pub(super) fn new(replica: &Arc<str>, number: u64) -> Self {
        let replica = Arc::clone(replica);
        Self { replica, number }
    }

    pub(in crate::state_store) fn parse(text: &str) -> Option<Self> {
        let (replica, number) = text.rsplit_once('.')?;
        let number = number.parse().ok()?;
        // As a replica takes its name: what somebody else calls so is no event of ours.
        let is_name =
            u64::from_str_radix(replica, 16).is_ok_and(|id| format!("{id:016x}") == replica);
        let replica = replica.into();
        let op = Self { replica, number };
        (is_name && op.to_string() == text).then_some(op)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.replica, self.number)
    }
}

/// How far the write of a note is known to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::state_store) enum Stage {
    InFlight,
    Landed,
    /// The record tells.
    Open,
}

/// A note.
#[derive(Debug, Clone)]
pub(in crate::state_store) struct Entry {
    pub(in crate::state_store) op: Op,
    /// The record.
    pub(in crate::state_store) name: Arc<str>,
    pub(in crate::state_store) noted: Noted,
    pub(in crate::state_store) stage: Stage,
    /// Since when it is known here.
    pub(in crate::state_store) since: Instant,
    /// The record gets another form once its events are settled.
    pub(in crate::state_store) rests: bool,
    /// What the record calls the event; another note's id once it was moved.
    pub(in crate::state_store) carried_as: Op,
    /// The record was seen to carry it.
    pub(super) is_seen: bool,
    /// It was listed. What was still under way when a listing went by was not.
    pub(in crate::state_store) is_listed: bool,
    /// The note that the event had before it was moved.
    pub(super) moved_from: Option<Op>,
    /// The event, if it is the only one of its record and nobody has to read that to know it.
    pub(in crate::state_store) held: Option<Arc<Event>>,
}

impl Entry {
    /// What became of its write.
    pub(in crate::state_store) fn fate(&self, record: &Record, strict: bool) -> Fate {
        fate(
            &self.noted,
            Some(&self.carried_as.to_string()),
            record,
            strict,
        )
    }

    /// The same for a listing.
    pub(super) fn as_of_now(&self) -> Self {
        let mut entry = self.clone();
        entry.held.take_if(|_| self.since.elapsed() >= HELD_FOR);
        entry
    }
}

/// Places rise and are never given twice.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: BTreeMap<u64, Entry>,
    places: HashMap<Op, u64>,
    /// Where moved events are, by the notes that they had before.
    copies: HashMap<Op, Op>,
    own: BTreeMap<u64, u64>,
    next: u64,
    held: usize,
}

impl Index {
    pub(super) fn add_own(&mut self, op: Op, name: &Arc<str>, noted: &Noted) {
        self.own.insert(op.number, self.next);
        self.add(op, Arc::clone(name), noted.clone(), Stage::InFlight);
    }

    /// Adds a note of another replica, if it is new.
    pub(super) fn add_other(&mut self, op: Op, name: Arc<str>, noted: Noted) {
        if !self.places.contains_key(&op) {
            self.add(op, name, noted, Stage::Open);
        }
    }

    fn add(&mut self, op: Op, name: Arc<str>, noted: Noted, stage: Stage) {
        let place = self.next;
        self.next += 1;
        self.places.insert(op.clone(), place);
        let entry = Entry {
            op: op.clone(),
            name,
            noted,
            stage,
            since: Instant::now(),
            rests: false,
            carried_as: op,
            is_seen: false,
            is_listed: false,
            moved_from: None,
            held: None,
        };
        self.entries.insert(place, entry);
    }

    pub(super) fn remove(&mut self, op: &Op) -> Option<Entry> {
        let place = self.places.remove(op)?;
        if self.own.get(&op.number) == Some(&place) {
            self.own.remove(&op.number);
        }
        let entry = self.entries.remove(&place)?;
        self.held -= usize::from(entry.held.is_some());
        if let Some(from) = &entry.moved_from
            && self.copies.get(from) == Some(op)
        {
            self.copies.remove(from);
        }
        Some(entry)
    }

    /// Holds the only event of a record in memory, if there is room.
    pub(super) fn hold(&mut self, op: &Op, event: &Event) {
        if self.held < MOST_HELD
            && let Some(entry) = self.get_mut(op)
        {
            let before = entry.held.replace(Arc::new(event.clone()));
            self.held += usize::from(before.is_none());
        }
    }

    /// Lets go of an event, so that its record is read.
    pub(super) fn let_go(&mut self, op: &Op) {
        let held = self.get_mut(op).and_then(|entry| entry.held.take());
        self.held -= usize::from(held.is_some());
    }

    pub(super) fn get(&self, op: &Op) -> Option<(u64, &Entry)> {
        let place = *self.places.get(op)?;
        Some((place, self.entries.get(&place)?))
    }

    fn get_mut(&mut self, op: &Op) -> Option<&mut Entry> {
        let place = self.places.get(op)?;
        self.entries.get_mut(place)
    }

    pub(super) fn reach(&mut self, op: &Op, stage: Stage) {
        if let Some(entry) = self.get_mut(op) {
            entry.stage = stage;
        }
    }

    /// Leaves what is under way for a look to find out.
    pub(super) fn open(&mut self, op: &Op) {
        if let Some(entry) = self.get_mut(op)
            && entry.stage == Stage::InFlight
        {
            entry.stage = Stage::Open;
        }
    }

    pub(super) fn seen(&mut self, op: &Op, is_seen: bool) {
        if let Some(entry) = self.get_mut(op) {
            entry.is_seen = is_seen;
        }
    }

    pub(super) fn listed(&mut self, op: &Op) {
        if let Some(entry) = self.get_mut(op) {
            entry.is_listed = true;
        }
    }

    pub(super) fn rests(&mut self, op: &Op) {
        if let Some(entry) = self.get_mut(op) {
            entry.rests = true;
        }
    }

    /// Notes where an event was before.
    pub(super) fn moves(&mut self, op: &Op, from: Option<Op>) {
        if let Some(entry) = self.get_mut(op) {
            entry.moved_from.clone_from(&from);
            self.copies.extend(from.map(|from| (from, op.clone())));
        }
    }

    /// From now on the note that a moved event had before stands for the new one, if it is still there: it is
    /// not another event for whoever has it in hand.
    pub(super) fn moved(&mut self, to: &Op) {
        let Some((_, entry)) = self.get(to) else {
            return;
        };
        let Some(from) = entry.moved_from.clone() else {
            return;
        };
        let name = Arc::clone(&entry.name);
        if let Some(entry) = self.get_mut(&from) {
            entry.name = name;
            entry.noted = None;
            entry.carried_as = to.clone();
        }
    }

    /// The same for whoever learns of it from the journal. `None` if it was not moved, or is followed already.
    pub(super) fn follow(&mut self, op: &Op) -> Option<Entry> {
        let copy = self.copy_of(op)?.clone();
        let (_, entry) = self.get(op)?;
        if entry.carried_as == copy {
            return None;
        }
        self.moved(&copy);
        let (_, entry) = self.get(op)?;
        (entry.carried_as == copy).then(|| entry.clone())
    }

    /// The note that stands for this one, if another one does.
    pub(super) fn stand_in(&self, entry: &Entry) -> Option<&Entry> {
        let (_, before) = self.get(entry.moved_from.as_ref()?)?;
        (before.carried_as == entry.op || before.is_seen).then_some(before)
    }

    /// The note of an event that was moved from this one, if it is known.
    pub(super) fn copy_of(&self, from: &Op) -> Option<&Op> {
        self.copies.get(from)
    }

    /// The other note of an event that was moved.
    pub(super) fn twin_of(&self, op: &Op) -> Option<&Op> {
        let before = || self.get(op)?.1.moved_from.as_ref();
        self.copy_of(op).or_else(before)
    }

    pub(super) fn from(&self, start: u64) -> impl Iterator<Item = (&u64, &Entry)> {
        self.entries.range(start..)
    }

    /// How many notes of this replica there are.
    pub(super) fn own(&self) -> usize {
        self.own.len()
    }

    /// The number of this replica's first note.
    pub(super) fn first_own(&self) -> Option<u64> {
        self.own.keys().next().copied()
    }

    /// This replica's notes with these numbers.
    pub(super) fn own_in(&self, numbers: Range<u64>) -> impl Iterator<Item = &Entry> {
        let places = self.own.range(numbers);
        places.filter_map(|(_, place)| self.entries.get(place))
    }

    /// The notes of another replica.
    pub(super) fn of(&self, replica: &str) -> Vec<Op> {
        let ops = self.places.keys();
        ops.filter(|op| &*op.replica == replica).cloned().collect()
    }

    /// Takes notes for another replica's, as after this one has lost its name.
    pub(super) fn disown(&mut self) {
        self.own.clear();
    }
}
