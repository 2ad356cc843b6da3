//! The ways out when a side is lost.
//!
//! In every stage before `complete` whatever was answered is on the old side, and in `rampdown` on the new one too. So nothing
//! is asked of the side that is lost: writes that were begun and not answered are ended as the other one has them.

use bytes::Bytes;

use super::{
    Coordinator, DeleteMode, DeleteOptions, MoveError, PAGE, PutOptions, WriteMode, running_key,
    with_state,
};
use crate::domain::Timestamp;
use crate::migration::marker::{Intent, REVERSE, key_of};
use crate::migration::{Bucket, Control, PortStage, Stage, Unanswered, WaitingFrom, gone};
use crate::ports::{Commit, Key, PortError, Stored, Write};

impl Coordinator {
    /// Lets the old side decide about every record again, and the new one be filled anew.
    ///
    /// What has got further than `shadow` goes back there, and the backfill that counts is another one. It answers the writes
    /// of which nobody knows whether they were made. `None` where another generation counts already: then somebody was
    /// faster.
    ///
    /// # Errors
    /// `Final` where something is complete; as a step. What has moved back until then stays.
    pub(in crate::migration) async fn leave_new(
        &mut self,
        generation: u32,
    ) -> Result<Option<(Control, Vec<Unanswered>)>, MoveError> {
        self.turn.take(self.options.adoption).await?;
        let left = self.left_new(generation).await;
        self.turn.end().await;
        left
    }

    async fn left_new(
        &mut self,
        generation: u32,
    ) -> Result<Option<(Control, Vec<Unanswered>)>, MoveError> {
        let mut control = self.recovered().await?;
        if control.generation != generation {
            return Ok(None);
        }
        if control.state.reached(Stage::Complete) > 0 {
            return Err(MoveError::Final(PortStage::State(Stage::Complete)));
        }
        let mut unanswered = Vec::new();
        if control.state.reached(Stage::RampDown) > 0 {
            let waiting = control.state.with(Stage::RampDown, 0)?;
            let mut waiting = with_state(&control, waiting, Some(WaitingFrom::RampDown));
            waiting.new_is_lost = true;
            control = self.step(&control, waiting).await?;
            match self.end_unanswered(&control).await {
                Ok(ended) => unanswered = ended,
                Err(reason) => {
                    self.take_back(&control).await?;
                    return Err(reason);
                }
            }
        }
        // From `handoff` two stages at once: whoever waits there reads the old side as well.
        let state = control.state.with(Stage::Handoff, 0)?;
        let mut next = with_state(&control, state.with(Stage::Live, 0)?, None);
        next.generation += 1;
        let control = self.step(&control, next).await?;
        Ok(Some((control, unanswered)))
    }

    /// Lets the new side decide alone, by the control record that it has a copy of.
    ///
    /// The old side is another one, empty or restored: it gets the control record, so that replicas follow. Where it has
    /// notes of an earlier time, what was begun by then is answered.
    ///
    /// # Errors
    /// As a step; nothing has moved then.
    pub(in crate::migration) async fn leave_old(
        &mut self,
        copied: &Control,
    ) -> Result<(Control, Vec<Unanswered>), MoveError> {
        self.turn.take(self.options.adoption).await?;
        let left = self.left_old(copied).await;
        self.turn.end().await;
        left
    }

    async fn left_old(&self, copied: &Control) -> Result<(Control, Vec<Unanswered>), MoveError> {
        let state = copied.state.with(Stage::Complete, Bucket::COUNT)?;
        let mut next = with_state(copied, state, None);
        next.term += 1;
        // A service on the old side alone must not take it for its own.
        let running = Bytes::from_static(b"1");
        let overwrite = PutOptions::default();
        self.old()
            .put(&running_key(), running, overwrite.clone())
            .await?;
        self.raise_fence(next.epoch).await?;
        let unanswered = self.begun_by_then().await?;
        let found = self.old().get(&Control::key()).await?;
        let mode = match found {
            Some(stored) => WriteMode::Match(stored.etag),
            None => WriteMode::Create,
        };
        let options = PutOptions { mode, ..overwrite };
        match self.put(Some(copied), &next, options).await {
            Ok(()) => Ok((next, unanswered)),
            Err(error) if error.is_conflict() => Err(MoveError::Overtaken),
            Err(error) => Err(error.into()),
        }
    }

    /// What the notes of a restored old side say, compared with what the new side holds.
    async fn begun_by_then(&self) -> Result<Vec<Unanswered>, PortError> {
        let mut begun = Vec::new();
        let mut from = None;
        loop {
            let page = self.old().scan(REVERSE, from, PAGE).await?;
            for (mark, stored) in &page.entries {
                if let Some(key) = key_of(mark, &stored.value, self.sides.kinds) {
                    let found = self.sides.new.get(&key).await?;
                    let value = gone::present(found.as_ref()).map(|found| &found.value);
                    begun.push(unanswered(&key, Intent::decode(&stored.value), value));
                }
            }
            from = page.next;
            if from.is_none() {
                return Ok(begun);
            }
        }
    }

    /// Ends every write that was begun on the new side and not answered.
    async fn end_unanswered(&mut self, control: &Control) -> Result<Vec<Unanswered>, MoveError> {
        self.await_adoption(control.epoch, self.options.adoption)
            .await?;
        self.raise_fence(control.epoch).await?;
        let mut ended = Vec::new();
        let mut from = None;
        loop {
            let page = self.old().scan(REVERSE, from, PAGE).await?;
            for (mark, stored) in &page.entries {
                if let Some(key) = key_of(mark, &stored.value, self.sides.kinds) {
                    ended.push(self.end_one(control, mark, &key, stored).await?);
                }
                self.turn.keep().await?;
            }
            from = page.next;
            if from.is_none() {
                return Ok(ended);
            }
        }
    }

    /// Removes the note of a write. Where the old side has what was wanted, as with a birth, its events are due.
    async fn end_one(
        &self,
        control: &Control,
        mark: &Key,
        key: &Key,
        stored: &Stored,
    ) -> Result<Unanswered, PortError> {
        let old = self.old().get(key).await?;
        let intent = Intent::decode(&stored.value);
        let value = old.map(|old| old.value);
        let made = intent.as_ref().filter(|one| one.makes(value.as_ref()));
        let ended = Write::Delete {
            key: mark.clone(),
            options: DeleteOptions {
                mode: DeleteMode::Match(stored.etag.clone()),
                tombstone: None,
            },
        };
        let commit = Commit::of(ended).guard(control.guard());
        let events = made.into_iter().flat_map(Intent::events);
        self.old()
            .commit(events.fold(commit, Commit::event))
            .await?;
        Ok(unanswered(key, intent, value.as_ref()))
    }
}

/// What there is to say of a write, by its note and by what the side holds that decides.
fn unanswered(key: &Key, intent: Option<Intent>, value: Option<&Bytes>) -> Unanswered {
    let at = intent.as_ref().map_or(0, |intent| intent.at_us);
    Unanswered {
        key: key.to_string(),
        at: Timestamp::from_unix_micros(at).to_string(),
        deletes: intent.as_ref().is_some_and(|one| one.result.is_none()),
        made: intent.as_ref().is_some_and(|one| one.makes(value)),
        write: intent.map(|intent| intent.write).unwrap_or_default(),
    }
}
