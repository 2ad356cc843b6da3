//! Saves the notes of this replica: one save at a time, and all who wait share the next.
//!
//! A save that was not answered may still arrive, long after later ones. So each is based on the version before it,
//! which refuses all that were. Dapr does not tell the version of what was written: it is read while the records of
//! the notes are written, or before the next save if that does not wait for it.

use std::sync::Arc;
use std::time::Duration;

use task_core::ports::{ErrorKind, PortError};
use tokio::time::Instant;

use super::documents::{Documents, Done, Garbled, Head, Saved, Segment};
use super::index::Op;
use super::replica::{CLOSED, contended};
use super::{Journal, SEGMENT};
use crate::error::BACKEND;
use crate::state_store::decision::Noted;

/// How long a settled note may stay in its document, and how often those of others are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// Who holds it saves.
#[derive(Debug, Default)]
pub(super) struct Saver {
    /// Notes with lesser numbers were part of a save that failed, if they are not saved.
    failed: Option<(Arc<str>, u64, ErrorKind)>,
    tidied: Option<Instant>,
    /// The version of the document that is saved next, if it was read.
    known: Option<(String, Noted)>,
}

/// What one save writes.
struct Plan {
    id: Arc<str>,
    end: u64,
    head: Head,
    has_new_segment: bool,
    segments: Vec<(u64, Segment)>,
}

impl Journal {
    /// Returns when this replica's notes with lesser numbers are saved.
    pub(super) async fn save_up_to(&self, id: &Arc<str>, end: u64) -> Result<(), PortError> {
        let mut saver = self.saver.lock().await;
        if self.is_saved(id, end) {
            return Ok(());
        }
        if let Some((replica, failed, kind)) = &saver.failed
            && replica == id
            && end <= *failed
        {
            return Err(PortError::new(*kind, BACKEND, "journal")
                .context("the save that it was a part of has failed"));
        }
        self.renew(&mut saver).await?;
        let Some(plan) = self.plan(id) else {
            return Err(contended(CLOSED));
        };
        let through = plan.end;
        let saved = self.save(&mut saver, plan).await;
        saver.failed = match &saved {
            Ok(()) => None,
            Err(error) => Some((Arc::clone(id), through, error.kind())),
        };
        saved?;
        self.tidy(&mut saver).await;
        Ok(())
    }

    fn is_saved(&self, id: &Arc<str>, end: u64) -> bool {
        let state = self.state();
        let me = state.me.as_ref().filter(|me| me.id == *id);
        me.is_some_and(|me| end <= me.saved)
    }

    /// What has to be written so that every note so far is saved.
    fn plan(&self, id: &Arc<str>) -> Option<Plan> {
        let state = self.state();
        let me = state.me.as_ref().filter(|me| me.id == *id)?;
        let last = me.next.saturating_sub(1) / SEGMENT;
        let first = state
            .index
            .first_own()
            .map_or(last, |first| first / SEGMENT);
        let segments = me.saved / SEGMENT..=last;
        Some(Plan {
            id: Arc::clone(id),
            end: me.next,
            head: Head {
                first,
                last,
                ..me.head
            },
            has_new_segment: last > me.head.last,
            segments: segments
                .map(|number| (number, state.segment(number, me.next)))
                .collect(),
        })
    }

    async fn save(&self, saver: &mut Saver, plan: Plan) -> Result<(), PortError> {
        if plan.has_new_segment {
            let before = self.state().me.as_ref().map(|me| me.head.first);
            self.beat(&plan.id, plan.head).await?;
            let gone = before.unwrap_or(plan.head.first)..plan.head.first;
            let gone: Vec<String> = gone
                .map(|number| Documents::segment(&plan.id, number))
                .collect();
            self.documents.remove(&gone).await;
        }
        let saved = self.save_segments(saver, &plan.id, &plan.segments);
        saved.await?;
        let mut state = self.state();
        if let Some(me) = state.me.as_mut().filter(|me| me.id == plan.id) {
            me.saved = me.saved.max(plan.end);
        }
        Ok(())
    }

    async fn save_segments(
        &self,
        saver: &mut Saver,
        id: &str,
        segments: &[(u64, Segment)],
    ) -> Result<(), PortError> {
        let names = segments.iter();
        let names = names.map(|(number, _)| Documents::segment(id, *number));
        let names: Vec<String> = names.collect();
        let versions = match (saver.known.take(), &*names) {
            (_, []) => return Ok(()),
            (Some((known, version)), [only]) if known == *only => vec![version],
            (Some(_) | None, _) => self.documents.versions(&names).await?,
        };
        for ((name, version), (_, segment)) in names.iter().zip(versions).zip(segments) {
            self.documents.save(name, segment, version).await?;
        }
        Ok(())
    }

    /// Reads the version that the next save will be based on, unless somebody saves already.
    pub(in crate::state_store) async fn prepare(&self) {
        let Ok(mut saver) = self.saver.try_lock() else {
            return;
        };
        let name = {
            let state = self.state();
            let me = state.me.as_ref();
            me.map(|me| Documents::segment(&me.id, me.saved / SEGMENT))
        };
        let Some(name) = name else {
            return;
        };
        if saver
            .known
            .as_ref()
            .is_some_and(|(known, _)| *known == name)
        {
            return;
        }
        let names = [name];
        if let Ok(versions) = self.documents.versions(&names).await {
            saver.known = names.into_iter().zip(versions).next();
        }
    }

    /// Brings the documents up to what is settled, if that was not done a moment ago.
    pub(in crate::state_store) async fn tidy_if_stale(&self) {
        let is_stale = {
            let state = self.state();
            let since = state.me.as_ref().and_then(|me| me.stale_since);
            since.is_some_and(|since| since.elapsed() >= TIDY_EVERY)
        };
        if is_stale {
            let mut saver = self.saver.lock().await;
            self.tidy(&mut saver).await;
        }
    }

    /// Brings the documents up to what is settled.
    pub(in crate::state_store) async fn flush(&self) -> Result<(), PortError> {
        let mut saver = self.saver.lock().await;
        self.try_tidy(&mut saver).await
    }

    async fn tidy(&self, saver: &mut Saver) {
        let now = Instant::now();
        if saver.tidied.is_some_and(|last| now - last < TIDY_EVERY) {
            return;
        }
        saver.tidied = Some(now);
        // What is not tidied is published twice after a crash, and nothing else.
        if let Err(error) = self.try_tidy(saver).await {
            tracing::debug!(%error, "settled notes stay in the journal for now");
        }
    }

    /// Writes those segments again that somebody else has removed or written over.
    pub(super) async fn stay_noted(&self, saver: &mut Saver, id: &Arc<str>) {
        if let Err(error) = self.note_again(saver, id).await {
            tracing::debug!(%error, "segments of this replica cannot be looked after now");
        }
    }

    async fn note_again(&self, saver: &mut Saver, id: &Arc<str>) -> Result<(), PortError> {
        let saved: Vec<u64> = {
            let state = self.state();
            let me = state.me.as_ref().filter(|me| me.id == *id);
            let saved = me.filter(|me| me.saved > 0).map(|me| {
                let last = (me.saved - 1) / SEGMENT;
                me.head.first..=last
            });
            saved.into_iter().flatten().collect()
        };
        let names = saved.iter();
        let names: Vec<String> = names.map(|one| Documents::segment(id, *one)).collect();
        let found = self.documents.get_many(&names).await?;
        let found = names.iter().zip(&found);
        let read = found.map(|(name, found)| self.documents.read::<Segment>(name, found));
        let bad = saved.iter().zip(read).filter_map(|(number, read)| {
            let is_whole = matches!(read, Some((Ok(_), _)));
            (!is_whole).then_some(*number)
        });
        let bad: Vec<u64> = bad.collect();
        if bad.is_empty() {
            return Ok(());
        }
        if let Some(me) = self.state().me.as_mut().filter(|me| me.id == *id) {
            me.stale.extend(bad);
        }
        self.try_tidy(saver).await
    }

    async fn try_tidy(&self, saver: &mut Saver) -> Result<(), PortError> {
        let Some(id) = self.state().me.as_ref().map(|me| Arc::clone(&me.id)) else {
            return Ok(());
        };
        let name = Documents::done(&id);
        let done = self.documents.get::<Done>(&name).await?;
        if let Some((Ok(done), _)) = &done {
            self.settled_by_others(&id, done);
        }
        let stale = self.stale_segments(&id);
        if let Err(error) = self.save_segments(saver, &id, &stale).await {
            let mut state = self.state();
            if let Some(me) = state.me.as_mut().filter(|me| me.id == id) {
                me.stale.extend(stale.iter().map(|(number, _)| *number));
            }
            return Err(error);
        }
        // Only now that no segment holds them any more.
        let is_nothing =
            |done: &Result<Done, Garbled>| matches!(done, Ok(done) if done.ranges.is_empty());
        if let Some((done, etag)) = done.filter(|(done, _)| !is_nothing(done)) {
            let count = done.map_or(0, |done| done.ranges.len());
            let none = Done::default();
            let replaced = self.documents.replace(&name, &none, Some(&etag)).await?;
            tracing::trace!(count, replaced, "ranges of settled notes were taken over");
        }
        Ok(())
    }

    fn settled_by_others(&self, id: &Arc<str>, done: &Done) {
        let mut state = self.state();
        for &(start, end) in &done.ranges {
            let numbers = start..end.saturating_add(1);
            let ops: Vec<Op> = state
                .index
                .own_in(numbers)
                .map(|one| one.op.clone())
                .collect();
            for op in ops.iter().filter(|op| op.replica == *id) {
                state.remove_own(op);
            }
            // Also those that were dropped here and never settled.
            if let Some(me) = &mut state.me {
                let last = me.next / SEGMENT;
                me.stale.extend(start / SEGMENT..=(end / SEGMENT).min(last));
            }
        }
    }

    /// Takes the segments that hold settled notes, as they should be.
    fn stale_segments(&self, id: &Arc<str>) -> Vec<(u64, Segment)> {
        let mut state = self.state();
        let Some(me) = state.me.as_mut().filter(|me| me.id == *id) else {
            return Vec::new();
        };
        me.stale_since = None;
        let (stale, end, first) = (std::mem::take(&mut me.stale), me.saved, me.head.first);
        let stale = stale.into_iter().filter(|number| *number >= first);
        stale
            .map(|number| (number, state.segment(number, end)))
            .collect()
    }
}

impl super::State {
    /// A segment as it has to be saved when all notes before `through` are.
    fn segment(&self, number: u64, through: u64) -> Segment {
        let start = number * SEGMENT;
        let end = (start + SEGMENT).min(through);
        let notes = self.index.own_in(start..end.max(start));
        let notes = notes.map(|entry| Saved {
            number: entry.op.number,
            record: (*entry.name).into(),
            etag: entry.noted.clone(),
            moved_from: entry.moved_from.as_ref().map(|op| op.to_string().into()),
        });
        Segment {
            through: end,
            notes: notes.collect(),
        }
    }
}
