//! Copies what was there before the first mirrored write.

use super::job::{Counts, Job, JobKind, Pacing};
use super::sides::Sides;
use super::{Bucket, Coordinator, MigrationError, Refusal, Stage, Synced};
use crate::ports::{ErrorKind, Key, PortError};

/// Starts a backfill behind its barrier.
///
/// From here on whoever writes to the old side sets a mark: every bucket is mirrored, every replica works by
/// that, and the old side refuses writes of earlier epochs. So what the backfill does not copy is marked.
///
/// # Errors
/// `Refused` by `all_mirrored`, `replicas_adopted`, `one_coordinator`, `no_other_job`; as the old side.
pub(super) async fn start(
    sides: &Sides,
    coordinator: &mut Coordinator,
    id: String,
    pacing: Pacing,
) -> Result<Job, MigrationError> {
    let control = coordinator.control().await?;
    let mirrored = control.state.reached(Stage::DualWrite);
    if mirrored < Bucket::COUNT {
        let detail = format!(
            "{mirrored} of {} buckets are at dualwrite or behind it; a copy of the others could be outdated \
             by a write that nobody follows",
            Bucket::COUNT
        );
        return Err(Refusal::new("all_mirrored", detail).into());
    }
    if let Some((other, _)) = sides.job(JobKind::Backfill).await?
        && other.is_active()
    {
        let detail = format!("a backfill is {} already", other.state.as_str());
        return Err(Refusal::new("no_other_job", detail).into());
    }
    let control = coordinator.settle_epoch().await?;
    if control.state.reached(Stage::DualWrite) < Bucket::COUNT {
        return Err(super::MoveError::Overtaken.into());
    }
    let now = sides.clock.now();
    let mut job = Job::begin(JobKind::Backfill, id, control.generation, now);
    job.pacing = pacing;
    sides.start_job(&job).await?;
    Ok(job)
}

impl Sides {
    /// Copies one record if the new side lacks it.
    ///
    /// # Errors
    /// As the sides; `Throttled` for a record that waits for the end of a handoff.
    pub(super) async fn backfill_one(&self, key: &Key) -> Result<Counts, PortError> {
        let mut counts = Counts::default();
        match self.forward(key).await? {
            Synced::Copied => counts.copied = 1,
            Synced::Equal => counts.equal = 1,
            Synced::Ahead => counts.ahead = 1,
            Synced::NotNow => match self.member.pin()?.stage_of(key) {
                // Whoever has got so far has been copied, and accepts writes on the new side.
                Stage::RampDown | Stage::Complete => counts.skipped = 1,
                stage @ (Stage::Off
                | Stage::DualWrite
                | Stage::Shadow
                | Stage::Live
                | Stage::Handoff) => {
                    let error = PortError::new(ErrorKind::Throttled, "parallel", "backfill");
                    return Err(error.context(format!("{key} is not copied in {stage}")));
                }
            },
        }
        Ok(counts)
    }
}
