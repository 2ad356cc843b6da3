//! The one way in which a record gets from one side to the other.
//!
//! Whoever copies reads the target's version first, then the source, and writes only over that version. So
//! of two copies the one that read the source later wins, whatever their order, and a copy that comes
//! too late changes nothing. Backfill, repair, and the mirror of a write are the same function.
//!
//! The lease is looked at after the reads and before the write: then the version that is written over is one
//! of a time when this replica was right about the direction.

use bytes::Bytes;

use super::marker::{DIRTY, Dirty, Intent, Limits, REVERSE, mark_of};
use super::sides::{BACKEND, Sides};
use super::{Pin, Side, Stage, gone};
use crate::application::TaskRecord;
use crate::ports::{Commit, DeleteMode, DeleteOptions, ErrorKind, Key, PortError, Stored, Write};

/// How often a copy is tried against others.
pub(super) const MOST_ATTEMPTS: usize = 16;

/// How a copy ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synced {
    /// Both sides hold the same.
    Equal,
    /// The target was behind, and holds the same now.
    Copied,
    /// The target is ahead of the side that accepts writes, which has lost something.
    Ahead,
    /// The record's stage copies nothing in this direction.
    NotNow,
}

impl Sides {
    /// Makes the new side hold what the old one holds, and removes the mark.
    ///
    /// # Errors
    /// As the sides; the mark then stays.
    ///
    /// # Cancel safety
    /// Leaves the mark.
    pub(super) async fn forward(&self, key: &Key) -> Result<Synced, PortError> {
        let mark = mark_of(DIRTY, key);
        let mut done = Synced::Equal;
        for _ in 0..MOST_ATTEMPTS {
            let pin = self.member.pin()?;
            if !pin.stage_of(key).mirrors_forward() {
                return Ok(Synced::NotNow);
            }
            let found = self.old.get(&mark).await?;
            let copied = match self.copy_forward(&pin, key, found.as_ref()).await {
                Err(error) if error.is_conflict() => continue,
                copied => copied?,
            };
            match copied {
                Synced::Copied => done = Synced::Copied,
                Synced::Equal => {}
                Synced::Ahead | Synced::NotNow => return Ok(copied),
            }
            let Some(found) = found else {
                return Ok(done);
            };
            // Refused if another write has come since the mark was read: then there is more to copy.
            match self.old.delete(&mark, matching(&found)).await {
                Err(error) if error.is_conflict() => {}
                deleted => return deleted.map(|()| done),
            }
        }
        Err(restless(key))
    }

    /// Says whether a write on the new side is not known to be on the old one.
    async fn is_unfinished(&self, key: &Key) -> Result<bool, PortError> {
        Ok(self.old.get(&mark_of(REVERSE, key)).await?.is_some())
    }

    async fn copy_forward(
        &self,
        pin: &Pin,
        key: &Key,
        mark: Option<&Stored>,
    ) -> Result<Synced, PortError> {
        let new = self.new.get(key).await?;
        // Behind that read: a write that is noted later changes the version that was read
        // (`a_deletion_is_not_undone_by_a_copy_that_began_before_it`).
        if pin.stage_of(key) == Stage::Handoff && self.is_unfinished(key).await? {
            return Ok(Synced::NotNow);
        }
        let old = self.old.get(key).await?;
        pin.check()?;
        let dirty = mark.and_then(|mark| Dirty::decode(&mark.value));
        let limits = dirty.map(|dirty| dirty.limits).unwrap_or_default();
        let write = match (old, &new) {
            // With a mark the limit may be another one, which nobody can read.
            (Some(old), Some(new)) if old.value == new.value && mark.is_none() => {
                return Ok(Synced::Equal);
            }
            (Some(old), Some(new)) if is_ahead(&new.value, &old.value) => {
                return Ok(Synced::Ahead);
            }
            (Some(old), new) => {
                let rest = limits.rest(key, self.clock.now());
                gone::put(key, old.value, new.as_ref(), rest)
            }
            (None, None) if mark.is_none() => return Ok(Synced::Equal),
            // What an earlier deletion left looks the same, and a copy that was begun in between may be on its way over
            // it. So it is written anew, which that copy then conflicts with, unless nobody has asked for it
            // (`a_side_that_follows_slowly_or_not_at_all_is_not_wrong`).
            (None, Some(new)) if mark.is_none() && new.value == gone::left_of(limits) => {
                return Ok(Synced::Equal);
            }
            (None, new) => gone::leave(key, new.as_ref(), limits, self.new.capabilities()),
        };
        self.new.commit(Commit::of(write)).await?;
        Ok(Synced::Copied)
    }

    /// Makes the old side hold what the new one holds, and removes the intent of a write that is not known
    /// to be done.
    ///
    /// The new side's version is changed before it is copied: a write that its replica began and did not
    /// finish cannot take effect after that. One that makes a record is finished for it instead, because
    /// nothing is there whose version could be changed; the old side has the content already.
    ///
    /// # Errors
    /// As the sides; the intent then stays.
    pub(super) async fn backward(&self, key: &Key) -> Result<Synced, PortError> {
        let mark = mark_of(REVERSE, key);
        let mut done = Synced::Equal;
        for _ in 0..MOST_ATTEMPTS {
            let pin = self.member.pin()?;
            let follows = matches!(pin.stage_of(key), Stage::RampDown | Stage::Handoff);
            if !follows || pin.control().new_is_lost {
                return Ok(Synced::NotNow);
            }
            let Some(found) = self.old.get(&mark).await? else {
                return Ok(done);
            };
            match self.copy_backward(&pin, key, &found).await {
                Err(error) if error.is_conflict() => {}
                copied => {
                    copied?;
                    done = Synced::Copied;
                }
            }
        }
        Err(restless(key))
    }

    /// One step towards the end of an intent: a birth is finished, or the old side follows.
    async fn copy_backward(&self, pin: &Pin, key: &Key, mark: &Stored) -> Result<(), PortError> {
        let old = self.old.get(key).await?;
        let new = self.new.get(key).await?;
        pin.check()?;
        let intent = Intent::decode(&mark.value);
        let rest = |intent: &Intent| intent.limits.rest(key, self.clock.now());
        if let (Some(intent), Some(old), None) = (&intent, &old, gone::present(new.as_ref()))
            && intent.is_birth
            && intent.makes(Some(&old.value))
        {
            let birth = gone::put(key, old.value.clone(), new.as_ref(), rest(intent));
            // Neither side may be lost with the events.
            let birth = intent.events().fold(Commit::of(birth), Commit::event);
            match self.new.commit(birth).await {
                // Something of the new side's own forbids it, to whoever tries.
                Err(error) if error.is_conflict() && new.is_none() => {
                    if self.new.get(key).await?.is_some() {
                        return Err(error);
                    }
                }
                born => return born.map(drop),
            }
        }
        refuse_older(key, new.as_ref(), old.as_ref())?;
        let value = gone::present(new.as_ref()).map(|new| &new.value);
        // It has taken effect, so its limits are those of the record, and its events are due.
        let intent = intent.filter(|intent| intent.makes(value));
        if let Some(new) = &new {
            let ttl = intent.as_ref().and_then(rest);
            let same = gone::put(key, new.value.clone(), Some(new), ttl);
            self.new.commit(Commit::of(same)).await?;
        }
        // A deletion leaves something there: what is not there at all has ended, as it does here, or was lost.
        let old = old.filter(|_| new.is_some() || intent.is_some());
        let limits = intent.as_ref().map(|intent| intent.limits);
        let limits = limits.unwrap_or_default();
        let commit = self.follow(pin, key, mark, old.as_ref(), value.cloned(), limits);
        let events = intent.iter().flat_map(Intent::events);
        let commit = events.fold(commit, Commit::event);
        self.old.commit(commit).await.map(drop)
    }

    /// The step by which the old side follows and the intent is over.
    pub(super) fn follow(
        &self,
        pin: &Pin,
        key: &Key,
        mark: &Stored,
        old: Option<&Stored>,
        new: Option<Bytes>,
        limits: Limits,
    ) -> Commit {
        let done = Write::Delete {
            key: mark_of(REVERSE, key),
            options: matching(mark),
        };
        let commit = Commit::of(done).guard(pin.control().guard());
        match (old, new) {
            (old, Some(value)) => {
                let rest = limits.rest(key, self.clock.now());
                commit.write(gone::put(key, value, old, rest))
            }
            (Some(old), None) => commit.write(Write::Delete {
                key: key.clone(),
                options: DeleteOptions {
                    tombstone: limits.kept(),
                    ..matching(old)
                },
            }),
            (None, None) if limits.kept().is_some() => commit.write(Write::Delete {
                key: key.clone(),
                options: DeleteOptions {
                    mode: DeleteMode::Any,
                    tombstone: limits.kept(),
                },
            }),
            _ => commit,
        }
    }
}

/// Whether the first of two task records is of a later change.
pub(super) fn is_ahead(first: &[u8], second: &[u8]) -> bool {
    let revision = |value| {
        TaskRecord::decode(value)
            .ok()
            .and_then(|record| record.revision)
    };
    match (revision(first), revision(second)) {
        (Some(first), Some(second)) => first > second,
        _ => false,
    }
}

/// Refuses to let the old side follow a new one that has lost the last writes: what was answered is on the old side.
///
/// # Errors
/// `Corrupt`, and the intent stays.
pub(super) fn refuse_older(
    key: &Key,
    new: Option<&Stored>,
    old: Option<&Stored>,
) -> Result<(), PortError> {
    match (new, old) {
        (Some(new), Some(old)) if is_ahead(&old.value, &new.value) => {
            let error = PortError::new(ErrorKind::Corrupt, BACKEND, "sync");
            Err(error.context(format!("the new side has lost the last change of {key}")))
        }
        _ => Ok(()),
    }
}

pub(super) fn matching(stored: &Stored) -> DeleteOptions {
    DeleteOptions {
        mode: DeleteMode::Match(stored.etag.clone()),
        tombstone: None,
    }
}

pub(super) fn restless(key: &Key) -> PortError {
    PortError::new(ErrorKind::Throttled, BACKEND, "sync").context(format!(
        "{key} changed {MOST_ATTEMPTS} times while it was copied; its mark stays"
    ))
}

/// The direction in which the marks of a kind ask for a copy.
pub(super) fn target_of(mark: &Key) -> Side {
    match mark.kind == REVERSE {
        true => Side::Old,
        false => Side::New,
    }
}
