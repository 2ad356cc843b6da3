//! Writes, on the side that accepts them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::marker::{DIRTY, Dirty, Intent, Limits, REVERSE, mark_of, name_in_mark, tag_of};
use super::sides::{BACKEND, Look, Sides};
use super::sync::refuse_older;
use super::{Pin, Side, Stage, Synced, gone};
use crate::ports::{
    Commit, DeleteMode, DeleteOptions, ETag, ErrorKind, Event, Key, Kind, Outcome, PortError,
    PutOptions, Retry, Stored, Write, WriteMode,
};

/// Longest wait of a write while nobody may write.
const HANDOFF_WAIT: Duration = Duration::from_secs(2);

/// How often a write is tried against unfinished ones of others.
const MOST_ATTEMPTS: usize = 16;

/// One write and its events.
#[derive(Debug, Clone)]
pub(super) struct Change {
    /// The record, and what becomes of it; `None` for events alone.
    pub(super) write: Option<Write>,
    pub(super) events: Vec<Event>,
}

impl Change {
    pub(super) fn of(write: Write) -> Self {
        Self {
            write: Some(write),
            events: Vec::new(),
        }
    }

    fn key(&self) -> Key {
        match (&self.write, self.events.first()) {
            (Some(write), _) => write.key().clone(),
            (None, event) => {
                let key = event.map_or("", |event| &*event.key);
                Key::new(Kind::TASK, key)
            }
        }
    }

    /// Whether the record must not be there before.
    fn creates(&self) -> bool {
        matches!(&self.write, Some(Write::Put { options, .. }) if options.mode == WriteMode::Create)
    }

    fn deletes_any(&self) -> bool {
        matches!(&self.write, Some(Write::Delete { options, .. }) if options.mode == DeleteMode::Any)
    }

    /// Whether the record must not be created again.
    fn forbids(&self) -> bool {
        matches!(&self.write, Some(Write::Delete { options, .. }) if options.tombstone.is_some())
    }

    /// What the record holds afterwards.
    fn value(&self) -> Option<&Bytes> {
        match &self.write {
            Some(Write::Put { value, .. }) => Some(value),
            Some(Write::Delete { .. }) | None => None,
        }
    }

    fn tag(&self) -> Option<&ETag> {
        match &self.write {
            Some(Write::Put { options, .. }) => match &options.mode {
                WriteMode::Match(tag) => Some(tag),
                WriteMode::Overwrite | WriteMode::Create | WriteMode::Raise => None,
            },
            Some(Write::Delete { options, .. }) => match &options.mode {
                DeleteMode::Match(tag) => Some(tag),
                DeleteMode::Any | DeleteMode::AtMost(_) => None,
            },
            None => None,
        }
    }

    /// The same with a side's own version in place of the content's.
    fn over(&self, etag: Option<ETag>) -> Commit {
        let mut commit = Commit::default();
        commit.events.clone_from(&self.events);
        commit.writes.extend(self.write.clone());
        if let Some(etag) = etag {
            match commit.writes.first_mut() {
                Some(Write::Put { options, .. }) => options.mode = WriteMode::Match(etag),
                Some(Write::Delete { options, .. }) => options.mode = DeleteMode::Match(etag),
                None => {}
            }
        }
        commit
    }
}

/// Whether a write on the old side leaves a mark: one that is followed, and a deletion always.
///
/// While `off` nothing follows. But the new side may have the record, from a replica that is a stage ahead or from before
/// the way back; no backfill comes across what is gone, and not every store can be listed. So the mark of a deletion
/// waits for the next way forward (`a_task_that_is_deleted_while_off_does_not_return`).
fn leaves_mark(stage: Stage, change: &Change) -> bool {
    match change.write {
        Some(Write::Put { .. }) => stage.mirrors_forward(),
        Some(Write::Delete { .. }) => true,
        None => false,
    }
}

impl Sides {
    /// Makes a change where the record's stage says, and answers the content's version.
    ///
    /// # Errors
    /// As the sides. `Unavailable` and not made, while the right to write moves and when the lease is over.
    ///
    /// # Cancel safety
    /// The change is made whole or not at all; one on the new side goes on by itself.
    pub(super) async fn write(self: &Arc<Self>, change: Change) -> Result<Option<ETag>, PortError> {
        let key = change.key();
        let pin = self.pin_for_write(&key).await?;
        let stage = pin.stage_of(&key);
        match stage {
            Stage::RampDown => {
                let sides = Arc::clone(self);
                let work = async move { sides.write_new_then_old(&pin, &key, &change).await };
                match tokio::spawn(work).await {
                    Ok(result) => result,
                    Err(panic) => std::panic::resume_unwind(panic.into_panic()),
                }
            }
            Stage::Complete => settled(&pin, self.write_new(&key, &change).await),
            Stage::Off | Stage::DualWrite | Stage::Shadow | Stage::Live | Stage::Handoff => {
                let written = self.write_old(&pin, stage, &key, &change).await;
                settled(&pin, written)
            }
        }
    }

    /// Waits for a time in which somebody may write.
    async fn pin_for_write(&self, key: &Key) -> Result<Pin, PortError> {
        let wait = async {
            loop {
                let pin = self.member.pin()?;
                if pin.stage_of(key).authority().is_some() {
                    return Ok(pin);
                }
                let epoch = pin.control().epoch;
                drop(pin);
                self.member.adopted_after(epoch).await;
            }
        };
        match tokio::time::timeout(HANDOFF_WAIT, wait).await {
            Ok(pin) => pin,
            Err(_) => Err(PortError::new(ErrorKind::Unavailable, BACKEND, "write")
                .context("the right to write is moving from one side to the other")
                .retry(Retry::After(HANDOFF_WAIT))
                .not_made()),
        }
    }

    /// The old side decides, and notes in the same step that the new one may be behind.
    async fn write_old(
        &self,
        pin: &Pin,
        stage: Stage,
        key: &Key,
        change: &Change,
    ) -> Result<Option<ETag>, PortError> {
        let dirty = leaves_mark(stage, change).then(|| Dirty {
            write: self.name_of_write(),
            at_us: self.clock.now().unix_micros(),
            name: name_in_mark(key),
            limits: Limits::of(change.write.as_ref(), self.clock.now()),
        });
        let with_mark = |commit: Commit| {
            let commit = commit.guard(pin.control().guard());
            let Some(dirty) = &dirty else { return commit };
            commit.write(Write::Put {
                key: mark_of(DIRTY, key),
                value: dirty.encode(),
                options: PutOptions::default(),
            })
        };
        self.write_one(Side::Old, key, change, with_mark).await
    }

    /// Writes on one side, over the content that the caller has seen.
    async fn write_one(
        &self,
        side: Side,
        key: &Key,
        change: &Change,
        complete: impl Fn(Commit) -> Commit + Send + Sync,
    ) -> Result<Option<ETag>, PortError> {
        let mut look = Look::Remember;
        loop {
            let etag = match change.tag() {
                Some(tag) => Some(self.version(side, key, tag, look).await?),
                None => None,
            };
            let is_conditional = etag.is_some();
            let commit = complete(change.over(etag));
            match self.of(side).commit(commit).await {
                // What was remembered may be an older version of the same content.
                Err(error) if error.is_conflict() && is_conditional && look == Look::Remember => {
                    look = Look::Read;
                }
                result => {
                    let etag = result?.into_iter().next().flatten();
                    let value = change.value();
                    return Ok(value.map(|value| self.written(side, key, value, etag)));
                }
            }
        }
    }

    /// Writes on the new side alone.
    async fn write_new(&self, key: &Key, change: &Change) -> Result<Option<ETag>, PortError> {
        let is_left = |found: &Option<Stored>| gone::present(found.as_ref()).is_none();
        if change.deletes_any() && !change.forbids() {
            // What forbids a creation stays.
            let found = self.new.get(key).await?;
            if found.is_some() && is_left(&found) {
                return Ok(None);
            }
        }
        let written = self.write_one(Side::New, key, change, |commit| commit);
        match written.await {
            Err(error) if error.is_conflict() && change.creates() => {
                let found = self.new.get(key).await?;
                if found.is_none() || !is_left(&found) || !gone::allows_birth(found.as_ref()) {
                    return Err(error);
                }
                let etag = found.map(|found| found.etag);
                self.new.commit(change.over(etag)).await?;
                Ok(change.value().map(|value| tag_of(value)))
            }
            written => written,
        }
    }

    /// The new side decides. What is wanted is noted on the old one before, and it follows before the
    /// answer.
    async fn write_new_then_old(
        &self,
        pin: &Pin,
        key: &Key,
        change: &Change,
    ) -> Result<Option<ETag>, PortError> {
        let _alone = self.alone(key).await;
        for _ in 0..MOST_ATTEMPTS {
            let found = self.new.get(key).await?;
            let is_birth = change.value().is_some() && gone::present(found.as_ref()).is_none();
            let commit = self.over_found(key, change, found.as_ref())?;
            let mark = self.intend(pin, key, change, is_birth).await?;
            match self.new.commit(commit).await {
                Ok(_) => {
                    let base = found.as_ref();
                    return self.finish(pin, key, change, &mark, base).await;
                }
                Err(error) if error.outcome() == Outcome::Unknown => return Err(error),
                Err(error) if error.is_conflict() && is_birth => {
                    // Others may have finished it. The old side has it in any case, and must not keep it.
                    self.backward(key)
                        .await
                        .map_err(PortError::unknown_outcome)?;
                    return self.born(pin, key, change, error).await;
                }
                Err(error) => {
                    self.withdraw(key, &mark).await;
                    if !error.is_conflict() {
                        return Err(error);
                    }
                }
            }
        }
        Err(crowded(key))
    }

    /// The commit on the new side over what is there, if the change allows that.
    fn over_found(
        &self,
        key: &Key,
        change: &Change,
        found: Option<&Stored>,
    ) -> Result<Commit, PortError> {
        let present = gone::present(found);
        if change.creates() && present.is_some() {
            return Err(conflict(key, "exists"));
        }
        if let Some(tag) = change.tag()
            && present.is_none_or(|present| tag_of(&present.value) != *tag)
        {
            return Err(conflict(key, "has changed"));
        }
        let limits = Limits::of(change.write.as_ref(), self.clock.now());
        let mut commit = Commit::default();
        commit.events.clone_from(&change.events);
        match &change.write {
            Some(Write::Put { value, options, .. }) => {
                let put = gone::put(key, value.clone(), found, options.ttl);
                commit.writes.push(put);
            }
            Some(Write::Delete { .. }) if present.is_some() || change.forbids() => {
                let abilities = self.new.capabilities();
                commit
                    .writes
                    .push(gone::leave(key, found, limits, abilities));
            }
            Some(Write::Delete { .. }) | None => {}
        }
        Ok(commit)
    }

    /// Says what became of a birth that was refused because something was there.
    async fn born(
        &self,
        pin: &Pin,
        key: &Key,
        change: &Change,
        refusal: PortError,
    ) -> Result<Option<ETag>, PortError> {
        let found = self
            .new
            .get(key)
            .await
            .map_err(PortError::unknown_outcome)?;
        match gone::present(found.as_ref()) {
            Some(present) if Some(&present.value) == change.value() => {
                settled(pin, Ok(Some(tag_of(&present.value))))
            }
            _ => Err(refusal.unknown_outcome()),
        }
    }

    /// Lets the old side follow a write of the new one.
    async fn finish(
        &self,
        pin: &Pin,
        key: &Key,
        change: &Change,
        mark: &Stored,
        base: Option<&Stored>,
    ) -> Result<Option<ETag>, PortError> {
        let answer = change.value().map(|value| tag_of(value));
        let followed = match self.old.get(key).await {
            Ok(old) => match refuse_older(key, base, old.as_ref()) {
                Ok(()) => self.follow_own(pin, key, change, mark, old.as_ref()).await,
                // Who has finished this write has taken the note away in the same step.
                Err(error) => match self.is_noted(key, mark).await {
                    Ok(false) => Err(conflict(key, "has been finished by another")),
                    Ok(true) => Err(error),
                    Err(error) => Err(error),
                },
            },
            Err(error) => Err(error),
        };
        match followed {
            Ok(()) => settled(pin, Ok(answer)),
            // Somebody has finished it, or will; what the new side holds is on the old one then.
            Err(error) if error.is_conflict() => {
                let synced = self.backward(key).await;
                synced.map_err(PortError::unknown_outcome)?;
                settled(pin, Ok(answer))
            }
            Err(error) => Err(error.unknown_outcome()),
        }
    }

    /// Notes what is wanted. What another write has not finished is finished first.
    async fn intend(
        &self,
        pin: &Pin,
        key: &Key,
        change: &Change,
        is_birth: bool,
    ) -> Result<Stored, PortError> {
        let place = mark_of(REVERSE, key);
        let intent = Intent {
            write: self.name_of_write(),
            at_us: self.clock.now().unix_micros(),
            name: name_in_mark(key),
            result: change
                .value()
                .map(|value| tag_of(value).as_str().to_owned()),
            is_birth,
            limits: Limits::of(change.write.as_ref(), self.clock.now()),
            events: change.events.iter().map(Into::into).collect(),
        };
        let value = intent.encode();
        for _ in 0..MOST_ATTEMPTS {
            let note = gone::put(&place, value.clone(), None, None);
            let mut commit = Commit::of(note).guard(pin.control().guard());
            if is_birth {
                // So that others can finish it. And the old side may know of a deletion that forbids it.
                commit.writes.extend(change.write.clone());
            }
            match self.old.commit(commit).await {
                Ok(etags) => {
                    return match etags.into_iter().next().flatten() {
                        Some(etag) => Ok(Stored { value, etag }),
                        None => self.own_mark(&place, &value).await,
                    };
                }
                Err(error) if error.is_conflict() => {
                    if self.backward(key).await? == Synced::Equal && is_birth {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(crowded(key))
    }

    async fn own_mark(&self, place: &Key, value: &Bytes) -> Result<Stored, PortError> {
        match self.old.get(place).await? {
            Some(stored) if stored.value == value => Ok(stored),
            _ => Err(PortError::new(ErrorKind::Throttled, BACKEND, "write")
                .context("another replica has taken this write for an unfinished one")
                .unknown_outcome()),
        }
    }

    async fn follow_own(
        &self,
        pin: &Pin,
        key: &Key,
        change: &Change,
        mark: &Stored,
        old: Option<&Stored>,
    ) -> Result<(), PortError> {
        // Events alone leave the record as it is.
        let old = old.filter(|_| change.write.is_some());
        let value = change.value().cloned();
        let limits = Limits::of(change.write.as_ref(), self.clock.now());
        let commit = self.follow(pin, key, mark, old, value, limits);
        let events = change.events.iter().cloned();
        let commit = events.fold(commit, Commit::event);
        self.old.commit(commit).await.map(drop)
    }

    async fn is_noted(&self, key: &Key, mark: &Stored) -> Result<bool, PortError> {
        let found = self.old.get(&mark_of(REVERSE, key)).await?;
        Ok(found.is_some_and(|found| found.etag == mark.etag))
    }

    /// Removes the note of a write that was refused. Where that fails, the next one finds it.
    async fn withdraw(&self, key: &Key, mark: &Stored) {
        let options = DeleteOptions {
            mode: DeleteMode::Match(mark.etag.clone()),
            tombstone: None,
        };
        let removed = self.old.delete(&mark_of(REVERSE, key), options).await;
        if let Err(error) = removed {
            tracing::debug!(%error, %key, "the note of a refused write stays");
        }
    }
}

fn conflict(key: &Key, why: &str) -> PortError {
    PortError::new(ErrorKind::Conflict, BACKEND, "write").context(format!("{key} {why}"))
}

fn crowded(key: &Key) -> PortError {
    PortError::new(ErrorKind::Throttled, BACKEND, "write").context(format!(
        "{key} has had unfinished writes {MOST_ATTEMPTS} times"
    ))
}

/// An answer that counts: the lease held until after the write.
fn settled<T>(pin: &Pin, written: Result<T, PortError>) -> Result<T, PortError> {
    let answer = written?;
    pin.check().map_err(PortError::unknown_outcome)?;
    Ok(answer)
}
