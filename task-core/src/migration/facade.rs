//! Everything that can be asked of a migration, for a command line and an API.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use uuid::Builder;

use super::answers::shares;
use super::canary::Canary;
use super::guards::Facts;
use super::job::{Job, Scope};
use super::sides::Sides;
use super::subscriber::first_deaf;
use super::waiting::Waiting;
use super::warden::Warden;
use super::worker::Worker;
use super::{
    AuditEntry, Cause, Caution, Control, Coordinator, CoordinatorOptions, Difference, Drained, Fix,
    JobKind, JobState, JobStatus, Marks, MigrationError, MoveError, Pacing, ParallelStateStore,
    Port, PortStage, PortStatus, Refusal, Report, Stage, Status, audit, backfill, jobs,
};
use crate::background::Background;
use crate::ports::{Entropy, StateCapability};

/// Most entries of the audit that one answer has.
const MOST_ENTRIES: usize = 10_000;

/// Longest time for which one call drains marks.
const LONGEST_DRAIN: Duration = Duration::from_secs(60);

/// Longest wait for the events that lie on the old side to be published.
const OUTBOX_WAIT: Duration = Duration::from_secs(1);

/// How a migration is led.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct MigrationOptions {
    /// How long steps wait.
    pub coordinator: CoordinatorOptions,
    /// What steps depend on.
    pub caution: Caution,
    /// The ports that these backends move; the others are said not to.
    pub moves: &'static [Port],
}

impl Default for MigrationOptions {
    /// The state store alone.
    fn default() -> Self {
        Self {
            coordinator: CoordinatorOptions::default(),
            caution: Caution::default(),
            moves: &[Port::State],
        }
    }
}

/// A verify to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyRequest {
    /// How much of everything.
    pub scope: Scope,
    /// What it does about what it finds.
    #[serde(default)]
    pub fix: Fix,
    /// How fast it may go.
    #[serde(default)]
    pub pacing: Pacing,
}

/// Which differences are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DifferencesRequest {
    /// A JSON pointer: only records of which this field, or one within it, is not the same.
    #[serde(default)]
    pub field: Option<String>,
    /// At most so many; `None` is all that are kept.
    #[serde(default)]
    pub limit: Option<usize>,
}

/// What the last verify found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Differences {
    /// The verify; `None` if there was none.
    pub verify: Option<JobStatus>,
    /// Mismatches that it found.
    pub found: u64,
    /// Mismatches that are kept, at most 1,000.
    pub kept: u64,
    /// Those of them that are wanted.
    pub differences: Vec<Difference>,
}

/// The one way to lead a migration.
///
/// Every answer is a value that can be printed and sent. Whatever it starts is a record on the old side and
/// is worked on by one of the replicas whose [`start`](Self::start) runs; this replica may die at any moment.
#[derive(Debug)]
pub struct Migration {
    pub(super) sides: Arc<Sides>,
    entropy: Arc<dyn Entropy>,
    pub(super) options: MigrationOptions,
    coordinator: Mutex<Coordinator>,
    /// Looks at replicas while the other one works.
    watcher: Mutex<Coordinator>,
}

impl Migration {
    /// The migration that a store takes part in.
    #[must_use]
    pub fn new(
        store: &ParallelStateStore,
        entropy: Arc<dyn Entropy>,
        options: MigrationOptions,
    ) -> Self {
        Self {
            sides: Arc::clone(store.sides()),
            entropy,
            options,
            coordinator: Mutex::new(Coordinator::new(store, options.coordinator)),
            watcher: Mutex::new(Coordinator::new(store, options.coordinator)),
        }
    }

    /// Works on jobs in the background when no other replica does, ends a time without writes whose leader
    /// has died, and leaves a new side that has gone back to an earlier state.
    pub fn start(&self) -> Background {
        let (sides, entropy) = (&self.sides, &self.entropy);
        let worker = Worker::new(Arc::clone(sides), Arc::clone(entropy));
        let coordinator = Coordinator::of(Arc::clone(sides), self.options.coordinator);
        let warden = Warden::new(Arc::clone(sides), coordinator);
        let coordinator = Coordinator::of(Arc::clone(sides), self.options.coordinator);
        let canary = Canary::new(Arc::clone(sides), coordinator, Arc::clone(entropy));
        let running = vec![
            Background::spawn("migration jobs", |stop| Arc::new(worker).run(stop)),
            Background::spawn("migration warden", |stop| warden.run(stop)),
            Background::spawn("migration canary", |stop| canary.run(stop)),
        ];
        Background::of("migration", running)
    }

    /// Begins a migration in which everything is `off`.
    ///
    /// # Errors
    /// `Refused` by `not_begun` when there is one; as the old side.
    pub async fn init(&self, cause: Cause) -> Result<Control, MigrationError> {
        let mut coordinator = self.coordinator.lock().await;
        coordinator.because(cause);
        Ok(coordinator.init(&self.name()).await?)
    }

    /// Where everything is, and whether it is safe to go on.
    ///
    /// # Errors
    /// As the old side.
    pub async fn status(&self) -> Result<Status, MigrationError> {
        let facts = match self.facts().await {
            Ok(facts) => facts,
            Err(MigrationError::Refused(refusal)) if refusal.guard == "begun" => {
                return Ok(Status::not_begun());
            }
            Err(error) => return Err(error),
        };
        let ports = self.options.moves.iter().map(|port| {
            let next = next_stage(&facts.control, *port);
            PortStatus {
                port: *port,
                stages: shares(&facts.control, *port),
                next: next.map(|to| facts.readiness(to, &self.options.caution)),
            }
        });
        let ports = ports.collect();
        Ok(Status {
            begun: true,
            epoch: facts.control.epoch,
            term: facts.control.term,
            generation: facts.control.generation,
            ports,
            replicas: facts.replicas,
            marks: facts.marks,
            backfill: facts.backfill.map(|job| self.told(&job)),
            verify: facts.verify.map(|job| self.told(&job)),
            full_verify: facts.full_verify.map(|job| self.told(&job)),
        })
    }

    /// Starts a backfill.
    ///
    /// # Errors
    /// `Refused` by `all_mirrored`, `replicas_adopted`, `one_coordinator` or `no_other_job`; as the old side.
    pub async fn backfill_start(&self, pacing: Pacing) -> Result<JobStatus, MigrationError> {
        let pacing = checked(pacing)?;
        let mut coordinator = self.coordinator.lock().await;
        coordinator.lead().await?;
        let started = backfill::start(&self.sides, &mut coordinator, self.name(), pacing).await;
        coordinator.give_up().await;
        Ok(self.told(&started?))
    }

    /// Starts a verify.
    ///
    /// # Errors
    /// `Refused` by `begun`, `something_mirrored` or `no_other_job`; `Usage`; as the old side.
    pub async fn verify_start(&self, request: VerifyRequest) -> Result<JobStatus, MigrationError> {
        if let Scope::Sample(share) = request.scope
            && share.buckets() == 0
        {
            let text = "a sample is at least 0.01 percent, not 0";
            return Err(MigrationError::Usage(text.to_owned()));
        }
        let control = self.control().await?;
        let state = &control.state;
        if state.are_off() || state.reached(Stage::Complete) == super::Bucket::COUNT {
            let detail = format!("nothing is mirrored: {state}");
            return Err(Refusal::new("something_mirrored", detail).into());
        }
        let now = self.sides.clock.now();
        let mut job = Job::begin(JobKind::Verify, self.name(), control.generation, now);
        job.scope = request.scope;
        job.fix = request.fix;
        job.pacing = checked(request.pacing)?;
        self.sides.start_job(&job).await?;
        Ok(self.told(&job))
    }

    /// How far the last job of a kind is; `None` if there was none.
    ///
    /// # Errors
    /// As the old side.
    pub async fn job(&self, kind: JobKind) -> Result<Option<JobStatus>, MigrationError> {
        let job = self.sides.job(kind).await?;
        Ok(job.map(|(job, _)| self.told(&job)))
    }

    /// Lets a running job wait. Whoever works on it notices within a second.
    ///
    /// # Errors
    /// `Refused` by `job_exists` or `job_active`; as the old side.
    pub async fn pause(&self, kind: JobKind) -> Result<JobStatus, MigrationError> {
        let job = self.sides.edit_job(kind, jobs::pause).await?;
        Ok(self.told(&job))
    }

    /// Lets a paused or failed job go on where it was, at another pace if one is given.
    ///
    /// # Errors
    /// `Refused` by `job_exists` or `job_active`; `Usage`; as the old side.
    pub async fn resume(
        &self,
        kind: JobKind,
        pacing: Option<Pacing>,
    ) -> Result<JobStatus, MigrationError> {
        let pacing = pacing.map(checked).transpose()?;
        let resume = |job: &mut Job| jobs::resume(job, pacing);
        let job = self.sides.edit_job(kind, resume).await?;
        Ok(self.told(&job))
    }

    /// Ends a job for good. What it has copied stays.
    ///
    /// # Errors
    /// `Refused` by `job_exists` or `job_active`; as the old side.
    pub async fn abort(&self, kind: JobKind, cause: Cause) -> Result<JobStatus, MigrationError> {
        let now = self.sides.clock.now();
        let abort = |job: &mut Job| {
            if matches!(job.state, JobState::Done | JobState::Aborted) {
                let detail = format!("the {} is {}", kind.as_str(), job.state.as_str());
                return Err(Refusal::new("job_active", detail));
            }
            let reason = format!("{}: {}", cause.who, cause.why);
            job.end(JobState::Aborted, Some(reason), now);
            Ok(())
        };
        let job = self.sides.edit_job(kind, abort).await?;
        Ok(self.told(&job))
    }

    /// What the last verify found, record by record.
    ///
    /// # Errors
    /// As the old side.
    pub async fn differences(
        &self,
        request: &DifferencesRequest,
    ) -> Result<Differences, MigrationError> {
        let Some((job, _)) = self.sides.job(JobKind::Verify).await? else {
            return Ok(Differences {
                verify: None,
                found: 0,
                kept: 0,
                differences: Vec::new(),
            });
        };
        let all = self.sides.differences(&job).await?;
        let kept = u64::try_from(all.len()).unwrap_or(u64::MAX);
        let wanted = |one: &Difference| {
            let field = request.field.as_ref();
            field.is_none_or(|field| one.touches(field))
        };
        let limit = request.limit.unwrap_or(usize::MAX);
        Ok(Differences {
            found: job.counts.mismatches(),
            kept,
            differences: all.into_iter().filter(wanted).take(limit).collect(),
            verify: Some(self.told(&job)),
        })
    }

    /// The marks that are left, by kind, with the age of the oldest.
    ///
    /// # Errors
    /// As the old side.
    pub async fn repair_status(&self) -> Result<Marks, MigrationError> {
        Ok(self.sides.marks().await?)
    }

    /// Copies what is marked until every mark that is there now is gone, for at most a minute.
    ///
    /// # Errors
    /// As the old side.
    pub async fn repair_drain(&self, limit: Duration) -> Result<Drained, MigrationError> {
        Ok(self.sides.drain(limit.min(LONGEST_DRAIN)).await?)
    }

    /// The changes of the control record, newest first.
    ///
    /// # Errors
    /// `Refused` by `begun`; as the old side.
    pub async fn audit(&self, limit: usize) -> Result<Vec<AuditEntry>, MigrationError> {
        let control = self.control().await?;
        Ok(audit::entries(&*self.sides.old, &control, limit.min(MOST_ENTRIES)).await?)
    }

    /// Everything that there is to say of the move when it is over, or so far.
    ///
    /// # Errors
    /// `Refused` by `begun`; as the old side.
    pub async fn report(&self) -> Result<Report, MigrationError> {
        let audit = self.audit(MOST_ENTRIES).await?;
        let status = self.status().await?;
        let differences = self.differences(&DifferencesRequest::default()).await?;
        let now = self.sides.clock.now();
        Ok(Report::of(status, differences, audit, now))
    }

    pub(super) fn coordinator(&self) -> &Mutex<Coordinator> {
        &self.coordinator
    }

    pub(super) async fn control(&self) -> Result<Control, MigrationError> {
        Ok(self.sides.control().await?)
    }

    pub(super) async fn facts(&self) -> Result<Facts, MigrationError> {
        let control = self.control().await?;
        let replicas = self.watcher.lock().await.replicas().await?;
        let sides = &self.sides;
        let backfill = sides.job(JobKind::Backfill).await?;
        let verify = sides.job(JobKind::Verify).await?;
        Ok(Facts {
            replicas,
            marks: sides.marks().await?,
            backfill: backfill.map(|(job, _)| job),
            verify: verify.map(|(job, _)| job),
            full_verify: sides.full_verify().await?,
            deaf: first_deaf(&*sides.old).await?,
            old_events: match control.state.within(Stage::RampDown) {
                0 => Waiting::default(),
                _ => sides.await_old_events(OUTBOX_WAIT).await?,
            },
            now: sides.clock.now(),
            control,
        })
    }

    fn told(&self, job: &Job) -> JobStatus {
        job.status(match job.kind {
            JobKind::Backfill => Vec::new(),
            JobKind::Verify => self.not_checked(),
        })
    }

    /// What a verify cannot see here.
    fn not_checked(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if !self.sides.new.capabilities().has(StateCapability::Scan) {
            missing.push("extra: the new side cannot list its records".to_owned());
        }
        missing.push("ttl: no side tells for how long a value still lives".to_owned());
        missing
    }

    pub(super) fn name(&self) -> String {
        random_name(&*self.entropy)
    }
}

/// A name that nothing else has.
pub(super) fn random_name(entropy: &dyn Entropy) -> String {
    let mut random = [0; 16];
    entropy.fill(&mut random);
    let name = Builder::from_random_bytes(random).into_uuid();
    name.to_string()
}

impl Sides {
    /// The control record as it is on the old side at this moment.
    pub(super) async fn control(&self) -> Result<Control, MoveError> {
        let found = self.old.get(&Control::key()).await?;
        Ok(Control::decode(&found.ok_or(MoveError::NotBegun)?.value)?)
    }
}

/// The next stage in which somebody stays and that has not everything yet.
pub(super) fn next_stage(control: &Control, port: Port) -> Option<PortStage> {
    let mut ahead = PortStage::all(port).into_iter().skip(1);
    ahead.find(|stage| control.reached(*stage) < super::Bucket::COUNT)
}

fn checked(pacing: Pacing) -> Result<Pacing, MigrationError> {
    let Pacing {
        keys_per_s,
        concurrency,
    } = pacing;
    if keys_per_s == Some(0) {
        let text = "a rate is at least 1 key a second; `pause` stops a job";
        return Err(MigrationError::Usage(text.to_owned()));
    }
    if !(1..=256).contains(&concurrency) {
        let text = format!("1 to 256 records are worked on at once, not {concurrency}");
        return Err(MigrationError::Usage(text));
    }
    Ok(pacing)
}
