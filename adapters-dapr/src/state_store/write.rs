//! Writes: what they are based on, what goes with them, and what became of them.

use bytes::Bytes;
use futures_util::future::join;
use task_core::carried::{Carried, CarriedEvent};
use task_core::ports::{
    DeleteMode, DeleteOptions, ETag, ErrorKind, Event, Key, Outcome, PortError, PutOptions, Retry,
    WriteMode,
};

use super::Shared;
use super::calls::{Life, When, is_refusal};
use super::decision::{Fate, Noted, fate};
use super::journal::Note;
use super::names::name_of;
use super::outbox::MANY;
use super::record::{Keeps, New, Record};
use super::version::Version;
use crate::error::{BACKEND, Failure};

/// Most attempts of a write without a condition that has to read first.
const MOST_ATTEMPTS: usize = 64;

/// A write of one key.
#[derive(Debug)]
pub(super) struct Change<'a> {
    pub(super) operation: &'static str,
    pub(super) key: String,
    pub(super) name: String,
    pub(super) new: New,
    pub(super) events: &'a [Event],
}

/// When it takes effect.
#[derive(Debug)]
pub(super) enum Mode {
    Any,
    Create,
    Match(ETag),
}

/// What one attempt is based on.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) noted: Noted,
    /// What is there has a limit, which a value without one must not take over.
    pub(super) may_end: bool,
}

impl Base {
    pub(super) fn of(record: &Record) -> Self {
        Self {
            noted: record.etag().map(Box::from),
            may_end: match record {
                Record::Missing => false,
                Record::Gone { .. } => true,
                Record::There { version, .. } => version.is_limited,
            },
        }
    }
}

/// What became of one attempt.
#[derive(Debug)]
pub(super) enum Attempt {
    Done,
    /// Refused, and what is there instead.
    Refused(Record),
}

impl<'a> Change<'a> {
    pub(super) fn put(
        operation: &'static str,
        key: &Key,
        value: Bytes,
        options: PutOptions,
        events: &'a [Event],
    ) -> (Self, Mode) {
        let mode = match options.mode {
            WriteMode::Create => Mode::Create,
            WriteMode::Match(etag) => Mode::Match(etag),
            // `Raise` was refused before: it needs a capability.
            WriteMode::Overwrite | WriteMode::Raise => Mode::Any,
        };
        let new = New::Value {
            value,
            ttl: options.ttl,
        };
        (Self::new(operation, key, new, events), mode)
    }

    pub(super) fn delete(
        operation: &'static str,
        key: &Key,
        options: DeleteOptions,
        events: &'a [Event],
    ) -> (Self, Mode) {
        let mode = match options.mode {
            DeleteMode::Match(etag) => Mode::Match(etag),
            // `AtMost` was refused before: it needs a capability.
            DeleteMode::Any | DeleteMode::AtMost(_) => Mode::Any,
        };
        let tombstone = options.tombstone;
        let new = New::Deleted { tombstone };
        (Self::new(operation, key, new, events), mode)
    }

    fn new(operation: &'static str, key: &Key, new: New, events: &'a [Event]) -> Self {
        Self {
            operation,
            key: key.to_string(),
            name: name_of(key),
            new,
            events,
        }
    }

    fn conflict(&self, what: &str) -> PortError {
        PortError::new(ErrorKind::Conflict, BACKEND, self.operation)
            .context(format!("{} {what}", self.key))
    }

    /// Says whether a foreign reader must not see more than an empty value from now on.
    fn empties(&self, keeps: Keeps) -> bool {
        let is_burial = matches!(self.new, New::Deleted { tombstone: Some(_) });
        is_burial && self.events.is_empty() && keeps.empty
    }

    fn removes_without_a_trace(&self) -> bool {
        matches!(self.new, New::Deleted { tombstone: None })
    }
}

impl Shared {
    pub(super) async fn write(&self, change: Change<'_>, mode: Mode) -> Result<(), PortError> {
        match mode {
            Mode::Any if self.outbox.is_none() && !change.removes_without_a_trace() => {
                self.overwrite(&change).await
            }
            Mode::Any => self.replace(change).await,
            Mode::Create => self.create(&change).await,
            Mode::Match(etag) => self.replace_version(&change, &etag).await,
        }
    }

    /// One call, whatever is there.
    async fn overwrite(&self, change: &Change<'_>) -> Result<(), PortError> {
        let keeps = self.profile.abilities.keeps;
        let (value, life) = change.new.render(Vec::new(), keeps, self.clock.now());
        let creation = self.profile.abilities.creation;
        let saved = self
            .calls
            .save(&change.name, &value, When::Always, creation, life)
            .await;
        saved.map_err(|failure| failure.into_port(change.operation))
    }

    /// Reads and writes over what was read, so that its events, or its tombstone, stay.
    async fn replace(&self, mut change: Change<'_>) -> Result<(), PortError> {
        let mut record = self.read(&change.name, change.operation).await?;
        for _ in 0..MOST_ATTEMPTS {
            let is_there = matches!(record, Record::There { .. });
            if change.removes_without_a_trace() && !is_there {
                if change.events.is_empty() {
                    return Ok(());
                }
                if let Record::Gone {
                    is_buried: true, ..
                } = record
                {
                    // How long the tombstone was to stay is not known here.
                    let tombstone = Some(std::time::Duration::MAX);
                    change.new = New::Deleted { tombstone };
                }
            }
            match self.attempt_over(&change, &record).await? {
                Attempt::Done => return Ok(()),
                Attempt::Refused(now) => record = now,
            }
        }
        Err(self.crowded(&change))
    }

    async fn create(&self, change: &Change<'_>) -> Result<(), PortError> {
        let mut record = Record::Missing;
        for _ in 0..MOST_ATTEMPTS {
            match self.attempt_over(change, &record).await? {
                Attempt::Done => return Ok(()),
                Attempt::Refused(now) => record = now,
            }
            match record {
                Record::There { .. } => return Err(change.conflict("exists")),
                Record::Gone {
                    is_buried: true, ..
                } => return Err(change.conflict("was deleted")),
                Record::Missing | Record::Gone { .. } => {}
            }
        }
        Err(self.crowded(change))
    }

    async fn replace_version(&self, change: &Change<'_>, etag: &ETag) -> Result<(), PortError> {
        const MOVED: &str = "has another version";
        let version = Version::read(&change.name, etag);
        let version = version.ok_or_else(|| change.conflict(MOVED))?;
        let may_vanish = version.is_limited && !self.profile.abilities.keeps.missing_is_refused;
        let remembered = match &self.outbox {
            Some(outbox) if version.has_events => outbox.recall(&change.name, &version.etag),
            Some(_) | None => None,
        };
        let events = match remembered {
            Some(events) if !may_vanish => events,
            None if !may_vanish && !version.has_events => Vec::new(),
            Some(_) | None => {
                let record = self.read(&change.name, change.operation).await?;
                let is_there = matches!(record, Record::There { .. });
                if !is_there || record.etag() != Some(&version.etag) {
                    return Err(change.conflict(MOVED));
                }
                record.events().to_vec()
            }
        };
        let base = Base {
            noted: Some(version.etag),
            may_end: version.is_limited,
        };
        match self.attempt(change, base, &events).await? {
            Attempt::Done => Ok(()),
            Attempt::Refused(_) => Err(change.conflict(MOVED)),
        }
    }

    async fn attempt_over(
        &self,
        change: &Change<'_>,
        record: &Record,
    ) -> Result<Attempt, PortError> {
        self.attempt(change, Base::of(record), record.events())
            .await
    }

    /// Notes the events, saves the record with them, and finds out what became of it.
    pub(super) async fn attempt(
        &self,
        change: &Change<'_>,
        base: Base,
        found: &[CarriedEvent],
    ) -> Result<Attempt, PortError> {
        let Base { noted, may_end } = base;
        let operation = change.operation;
        let empties = change.empties(self.profile.abilities.keeps);
        let mut events = match &self.outbox {
            Some(outbox) => {
                let many = if empties { 0 } else { MANY };
                outbox.unsettled(found, many, operation).await?
            }
            None => found.to_vec(),
        };
        if let Some(outbox) = self.outbox.as_ref().filter(|_| empties) {
            self.move_events(outbox, &events, operation).await?;
            events.clear();
        }
        let (mut note, mut lone) = (None, None);
        if let Some(outbox) = self.outbox.as_ref().filter(|_| !change.events.is_empty()) {
            check_room(&events, change)?;
            let origins = vec![None; change.events.len()];
            let journal = &outbox.journal;
            let noting = journal.note(&change.name, &noted, &origins, operation);
            let noting = noting.await?;
            lone = match (&change.new, &*events, change.events) {
                (New::Value { ttl: None, .. }, [], [event]) => Some(event),
                _ => None,
            };
            let own = noting.ops().zip(change.events);
            events.extend(own.map(|(op, event)| CarriedEvent {
                op,
                event: event.clone(),
            }));
            note = Some(noting);
        }
        let (value, life) = {
            let keeps = self.profile.abilities.keeps;
            change.new.render(events, keeps, self.clock.now())
        };
        let life = match life {
            Life::Ever if !may_end => Life::Same,
            life @ (Life::Ever | Life::Same | Life::Seconds(_)) => life,
        };
        let when = noted.as_deref().map_or(When::Missing, When::Match);
        let creation = self.profile.abilities.creation;
        let saved = self.calls.save(&change.name, &value, when, creation, life);
        let saved = match &note {
            Some(note) => join(saved, note.prepare_next()).await.0,
            None => saved.await,
        };
        match saved {
            Ok(()) => {
                if let Some(note) = note {
                    note.landed(lone);
                }
                Ok(Attempt::Done)
            }
            Err(failure) => self.judge(change, &noted, note, failure).await,
        }
    }

    /// Finds out what became of a save that was not simply answered.
    async fn judge(
        &self,
        change: &Change<'_>,
        noted: &Noted,
        mut note: Option<Note<'_>>,
        failure: Failure,
    ) -> Result<Attempt, PortError> {
        let is_refusal = is_refusal(&failure, self.profile.abilities.creation);
        let error = failure.into_port(change.operation);
        if error.outcome() != Outcome::Unknown {
            if let Some(note) = note {
                note.refused();
            }
            return Err(error);
        }
        if note.is_none() && !is_refusal {
            return Err(error);
        }
        let Ok(record) = self.read(&change.name, change.operation).await else {
            return Err(error);
        };
        let op = note.as_ref().and_then(|note| note.ops().last());
        if let (Some(op), Some(outbox)) = (&op, &self.outbox)
            && record.is_empty()
        {
            match (outbox.was_moved(op).await, note) {
                // It took effect before the deletion that has emptied the record.
                (Ok(true), note) => {
                    note.into_iter().for_each(|note| note.landed(None));
                    return Ok(Attempt::Done);
                }
                (Ok(false), unmoved) => note = unmoved,
                (Err(_), _) => return Err(error),
            }
        }
        let strict = self.profile.abilities.keeps.missing_is_refused;
        let fate = match fate(noted, op.as_deref(), &record, strict) {
            // What refused it has ended since: its time was over, and the memory of a sidecar sees that
            // only when it is read.
            Fate::Waits if is_refusal && noted.is_none() => Fate::Refused,
            fate @ (Fate::Done | Fate::Refused | Fate::Waits) => fate,
        };
        match (fate, note) {
            (Fate::Done, Some(note)) => {
                note.landed(None);
                Ok(Attempt::Done)
            }
            // Others are done with the note: they have published the event, or seen before that the write was refused.
            (Fate::Refused, Some(note)) if note.is_gone() => Err(error),
            (Fate::Refused, note) if is_refusal => {
                if let Some(note) = note {
                    note.refused();
                }
                Ok(Attempt::Refused(record))
            }
            // It may still land; the journal keeps the note until that is known.
            (Fate::Done | Fate::Refused | Fate::Waits, _) => Err(error),
        }
    }

    fn crowded(&self, change: &Change<'_>) -> PortError {
        PortError::new(ErrorKind::Throttled, BACKEND, change.operation)
            .context(format!(
                "{} was changed by others during each of {MOST_ATTEMPTS} attempts",
                change.key
            ))
            .retry(Retry::Maybe)
    }
}

/// Refuses more events than a record carries.
fn check_room(found: &[CarriedEvent], change: &Change<'_>) -> Result<(), PortError> {
    let own: usize = change.events.iter().map(|event| event.payload.len()).sum();
    let bytes = |carried: &CarriedEvent| carried.event.payload.len();
    let all = own + found.iter().map(bytes).sum::<usize>();
    let count = found.len() + change.events.len();
    if count <= Carried::MAX_EVENTS && all <= Carried::MAX_EVENT_BYTES {
        return Ok(());
    }
    // Those that were there will be published; its own ones alone may be too large for ever.
    let kind = match own <= Carried::MAX_EVENT_BYTES {
        true => ErrorKind::Throttled,
        false => ErrorKind::Invalid,
    };
    Err(
        PortError::new(kind, BACKEND, change.operation).context(format!(
            "a record carries at most {} pending events of {} bytes, {} would have {count} of {all} bytes",
            Carried::MAX_EVENTS,
            Carried::MAX_EVENT_BYTES,
            change.key
        )),
    )
}
