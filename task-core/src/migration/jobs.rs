//! The records of jobs, as commands read and change them.

use super::difference::Difference;
use super::job::{Job, JobKind, JobState, MOST_LEFT, Pacing};
use super::sides::Sides;
use super::{MigrationError, Refusal};
use crate::ports::{ETag, ErrorKind, Key, PortError, PutOptions, WriteMode};

/// How often a command is tried against a worker that writes as well.
const MOST_ATTEMPTS: usize = 64;

/// Most differences that are kept of one verify.
pub(super) const MOST_DIFFERENCES: u32 = 1_000;

/// Pages of differences that are read in one call.
const PAGES: usize = 64;

impl Sides {
    /// The job of a kind, with its version.
    ///
    /// # Errors
    /// As the old side; `Corrupt`.
    pub(super) async fn job(&self, kind: JobKind) -> Result<Option<(Job, ETag)>, PortError> {
        let Some(stored) = self.old.get(&Job::key(kind)).await? else {
            return Ok(None);
        };
        Ok(Some((Job::decode(&stored.value)?, stored.etag)))
    }

    /// The last verify of everything that ended.
    ///
    /// # Errors
    /// As the old side; `Corrupt`.
    pub(super) async fn full_verify(&self) -> Result<Option<Job>, PortError> {
        let stored = self.old.get(&Job::full_key()).await?;
        stored.map(|stored| Job::decode(&stored.value)).transpose()
    }

    /// Starts a job in place of one that has ended.
    ///
    /// # Errors
    /// `Refused` while another one of its kind runs or is paused; as the old side.
    pub(super) async fn start_job(&self, job: &Job) -> Result<(), MigrationError> {
        let mode = match self.job(job.kind).await? {
            Some((other, _)) if other.is_active() => return Err(active(&other).into()),
            Some((_, etag)) => WriteMode::Match(etag),
            None => WriteMode::Create,
        };
        let options = PutOptions { mode, ttl: None };
        match self
            .old
            .put(&Job::key(job.kind), job.encode(), options)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) if error.is_conflict() => Err(active(job).into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Changes a job, whatever its worker writes meanwhile.
    ///
    /// # Errors
    /// `Refused` without a job and where the change is; as the old side.
    pub(super) async fn edit_job(
        &self,
        kind: JobKind,
        change: impl Fn(&mut Job) -> Result<(), Refusal> + Send + Sync,
    ) -> Result<Job, MigrationError> {
        for _ in 0..MOST_ATTEMPTS {
            let Some((mut job, etag)) = self.job(kind).await? else {
                let detail = format!("there is no {}", kind.as_str());
                return Err(Refusal::new("job_exists", detail).into());
            };
            change(&mut job)?;
            let options = PutOptions {
                mode: WriteMode::Match(etag),
                ttl: None,
            };
            match self.old.put(&Job::key(kind), job.encode(), options).await {
                Ok(_) => return Ok(job),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let error = PortError::new(ErrorKind::Throttled, "migration", "job");
        let error = error.context(format!("the job changed {MOST_ATTEMPTS} times meanwhile"));
        Err(error.into())
    }

    /// What the last verify found, in the order in which it did.
    ///
    /// # Errors
    /// As the old side; `Corrupt`.
    pub(super) async fn differences(&self, job: &Job) -> Result<Vec<Difference>, PortError> {
        let pages: Vec<Key> = (0..job.pages).map(Job::page_key).collect();
        let mut differences = Vec::new();
        for pages in pages.chunks(PAGES) {
            for stored in self.old.get_many(pages).await?.into_iter().flatten() {
                let page: Vec<Difference> =
                    serde_json::from_slice(&stored.value).map_err(|error| {
                        PortError::new(ErrorKind::Corrupt, "migration", "differences")
                            .caused_by(error)
                    })?;
                differences.extend(page);
            }
        }
        Ok(differences)
    }
}

fn active(job: &Job) -> Refusal {
    let detail = format!(
        "a {} is {} already; pause, resume or abort it",
        job.kind.as_str(),
        job.state.as_str()
    );
    Refusal::new("no_other_job", detail)
}

/// Lets a running job wait.
pub(super) fn pause(job: &mut Job) -> Result<(), Refusal> {
    match job.state {
        JobState::Running => job.state = JobState::Paused,
        JobState::Paused => {}
        JobState::Done | JobState::Aborted | JobState::Failed => return Err(ended(job)),
    }
    job.keys_per_s = 0.0;
    Ok(())
}

/// Lets a paused or failed job go on, at another pace if one is given.
pub(super) fn resume(job: &mut Job, pacing: Option<Pacing>) -> Result<(), Refusal> {
    match job.state {
        JobState::Running | JobState::Paused => {}
        JobState::Failed => {
            debug_assert!(job.left.len() <= MOST_LEFT, "the list is bounded");
            job.counts.failed = 0;
            job.rounds = 0;
            job.ended_us = None;
        }
        JobState::Done | JobState::Aborted => return Err(ended(job)),
    }
    job.state = JobState::Running;
    job.reason = None;
    job.pacing = pacing.unwrap_or(job.pacing);
    Ok(())
}

fn ended(job: &Job) -> Refusal {
    let detail = format!("the {} is {}", job.kind.as_str(), job.state.as_str());
    Refusal::new("job_active", detail)
}
