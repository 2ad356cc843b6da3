//! Finds out that the new side has gone back to an earlier state: restored from a backup, or failed over.
//!
//! A counter on the new side rises each second, and the old side remembers the greatest number that the new one has
//! acknowledged. It is read before the counter, so a lesser counter has lost something, and nothing else explains it. Each
//! generation has a counter of its own: what is filled anew begins anew.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::control::{KIND, fence_of};
use super::facade::random_name;
use super::sides::Sides;
use super::{
    Bucket, Cause, Control, Coordinator, JobKind, MigrationError, Pacing, Stage, Unanswered,
    backfill, gone,
};
use crate::background::Stop;
use crate::ports::{Commit, Entropy, Key, PortError, PutOptions, WriteMode};

/// Pause between two steps of the counter.
const SING_EVERY: Duration = Duration::from_secs(1);

/// How the counter of the new side stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Song {
    /// It has risen as far as is known, at least.
    Heard,
    /// It has gone back.
    Lost { known: u64, found: u64 },
}

impl Sides {
    /// Looks at the counter of a generation.
    ///
    /// # Errors
    /// As the sides.
    pub(super) async fn listen(&self, control: &Control) -> Result<Song, PortError> {
        let key = counter(control);
        let known = self.old.get(&key).await?;
        let known = known.map_or(0, |stored| number(&stored.value));
        let found = self.new.get(&key).await?;
        let found = found.map_or(0, |stored| number(&stored.value));
        Ok(match found < known {
            true => Song::Lost { known, found },
            false => Song::Heard,
        })
    }

    /// Lets the counter rise, unless it has gone back.
    async fn sing(&self, control: &Control) -> Result<Song, PortError> {
        let song = self.listen(control).await?;
        if song != Song::Heard {
            return Ok(song);
        }
        let key = counter(control);
        let found = self.new.get(&key).await?;
        let next = found.as_ref().map_or(0, |stored| number(&stored.value)) + 1;
        let value = Bytes::from(next.to_string());
        let put = gone::put(&key, value, found.as_ref(), None);
        match self.new.commit(Commit::of(put)).await {
            // Another replica was faster, or what was found is gone.
            Err(error) if error.is_conflict() => return Ok(song),
            risen => risen?,
        };
        let raise = PutOptions {
            mode: WriteMode::Raise,
            ttl: None,
        };
        self.old.put(&key, fence_of(next), raise).await?;
        Ok(song)
    }
}

/// Not that of another move, which may have gone the other way.
fn counter(control: &Control) -> Key {
    let Control {
        salt, generation, ..
    } = control;
    Key::new(KIND, format!("canary/{salt}/{generation}"))
}

/// What cannot be read has lost its number.
fn number(value: &[u8]) -> u64 {
    let text = std::str::from_utf8(value).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Lets the counter rise, and the old side decide when it goes back.
#[derive(Debug)]
pub(super) struct Canary {
    sides: Arc<Sides>,
    coordinator: Coordinator,
    entropy: Arc<dyn Entropy>,
    /// The generation of which the last look found that something is lost.
    suspected: Option<u32>,
    /// The generation that is to be filled anew.
    unfilled: Option<u32>,
}

impl Canary {
    pub(super) fn new(
        sides: Arc<Sides>,
        coordinator: Coordinator,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self {
            sides,
            coordinator,
            entropy,
            suspected: None,
            unfilled: None,
        }
    }

    pub(super) async fn run(mut self, mut stop: Stop) {
        while !stop.is_raised() {
            // A way back that has begun is finished: nobody may write meanwhile.
            if let Err(error) = self.look().await {
                tracing::debug!(%error, "the new side's counter stands");
            }
            stop.or(sleep(SING_EVERY)).await;
        }
    }

    async fn look(&mut self) -> Result<(), MigrationError> {
        let Ok(pin) = self.sides.member.pin() else {
            return Ok(());
        };
        let control = pin.control().clone();
        // A pin would keep replicas from following.
        drop(pin);
        if !is_filled(&control) {
            return Ok(());
        }
        let generation = control.generation;
        if self.unfilled == Some(generation) {
            self.fill(generation).await?;
        }
        let Song::Lost { known, found } = self.sides.sing(&control).await? else {
            self.suspected = None;
            // It may have been away when the record changed.
            return Ok(self.sides.copy_control(&control).await?);
        };
        // A side may answer an older state for a moment: it has to say so twice.
        if self.suspected.replace(generation) == Some(generation) {
            self.leave(generation, known, found).await;
        }
        Ok(())
    }

    async fn leave(&mut self, generation: u32, known: u64, found: u64) {
        let why = format!("the new side has lost writes: its counter was {known} and is {found}");
        self.coordinator.because(Cause::new("canary", &why));
        match self.coordinator.leave_new(generation).await {
            // Somebody else was faster.
            Ok(None) => {}
            Ok(Some((control, unanswered))) => {
                tracing::error!(why, epoch = control.epoch, "the old side decides again");
                unanswered.iter().for_each(tell);
                self.unfilled = Some(control.generation);
            }
            Err(error) => tracing::error!(why, %error, "the new side could not be left"),
        }
    }

    /// Starts a backfill, as soon as that of the generation before has ended.
    async fn fill(&mut self, generation: u32) -> Result<(), MigrationError> {
        let last = self.sides.job(JobKind::Backfill).await?;
        if last.is_none_or(|(job, _)| job.generation < generation) {
            let id = random_name(&*self.entropy);
            let coordinator = &mut self.coordinator;
            coordinator.lead().await?;
            let started = backfill::start(&self.sides, coordinator, id, Pacing::default()).await;
            coordinator.give_up().await;
            started?;
        }
        self.unfilled = None;
        Ok(())
    }
}

/// Whether there is anything on the new side that may be lost, and an old side that has it too.
fn is_filled(control: &Control) -> bool {
    !control.state.are_off() && control.state.reached(Stage::Complete) < Bucket::COUNT
}

fn tell(write: &Unanswered) {
    let Unanswered { key, made, .. } = write;
    tracing::warn!(key, write = write.write, made, "a write was not answered");
}
