//! Works on jobs, as long as it holds their lease and nobody tells them to stop.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use tokio::time::{Instant, sleep, timeout};

use super::job::{Job, JobKind, JobState, Phase, Place, Scope, encode_page};
use super::jobs::MOST_DIFFERENCES;
use super::pace::{Meter, Pace};
use super::sides::Sides;
use super::walk::{Found, Step};
use crate::application::Lease;
use crate::background::Stop;
use crate::episode::Episode;
use crate::ports::{
    Commit, ETag, Entropy, ErrorKind, Outcome, PortError, PutOptions, Write, WriteMode,
};

/// How long the right to work on a job lasts; another replica waits twice as long.
const LEASE: Duration = Duration::from_secs(5);

/// Pause between two looks for a job.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// During a long step, time between two looks at what the job is told.
const LISTEN_EVERY: Duration = Duration::from_millis(500);

/// The first pause after a side did not answer, and the longest.
const OUTAGE_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How often a step is written against commands.
const MOST_ATTEMPTS: usize = 64;

/// Differences on one page.
const PAGE: usize = 64;

/// The one who works on jobs here.
#[derive(Debug)]
pub(super) struct Worker {
    sides: Arc<Sides>,
    entropy: Arc<dyn Entropy>,
}

/// A job that is worked on.
#[derive(Debug)]
struct Hand {
    job: Job,
    etag: ETag,
    pace: Pace,
    meter: Meter,
}

/// How work ended that was watched.
#[derive(Debug)]
enum Watched<T> {
    Done(T),
    /// The job was told something meanwhile, and the work dropped.
    Told,
    /// The lease is over, and the work dropped.
    Lost,
}

impl Worker {
    pub(super) fn new(sides: Arc<Sides>, entropy: Arc<dyn Entropy>) -> Self {
        Self { sides, entropy }
    }

    pub(super) async fn run(self: Arc<Self>, stop: Stop) {
        let backfill = self.tend(JobKind::Backfill, stop.clone());
        let verify = self.tend(JobKind::Verify, stop);
        join(backfill, verify).await;
    }

    async fn tend(&self, kind: JobKind, mut stop: Stop) {
        let mut lease = None;
        let mut trouble = Episode::default();
        while !stop.is_raised() {
            match stop.or(self.turn(kind, &mut lease)).await {
                Some(Ok(())) => {
                    if let Some(time) = trouble.works(Instant::now()) {
                        tracing::info!(job = kind.as_str(), ?time, "jobs are looked for again");
                    }
                }
                Some(Err(error)) => {
                    if trouble.fails(Instant::now()) {
                        tracing::warn!(%error, job = kind.as_str(), "the job waits");
                    }
                }
                None => break,
            }
            stop.or(sleep(LOOK_EVERY)).await;
        }
        if let Some(lease) = lease {
            release(lease).await;
        }
    }

    /// Works on a job to its end if there is one and nobody else does.
    async fn turn(&self, kind: JobKind, lease: &mut Option<Lease>) -> Result<(), PortError> {
        let found = self.sides.job(kind).await?;
        let Some((job, etag)) = found.filter(|(job, _)| job.state == JobState::Running) else {
            if let Some(lease) = lease.take() {
                release(lease).await;
            }
            return Ok(());
        };
        let lease = match lease {
            Some(lease) => lease,
            none => none.insert(self.lease(kind)?),
        };
        if !lease.hold().await? {
            return Ok(());
        }
        let mut hand = Hand {
            job,
            etag,
            pace: Pace::new(),
            meter: Meter::default(),
        };
        let name = Some(self.sides.member.id().to_owned());
        let claim = |job: &mut Job| job.runner.clone_from(&name);
        if !self.save(&mut hand, &[], claim).await? {
            return Ok(());
        }
        self.work(&mut hand, lease).await
    }

    fn lease(&self, kind: JobKind) -> Result<Lease, PortError> {
        let old = Arc::clone(&self.sides.old);
        let clock = Arc::clone(&self.sides.clock);
        let name = format!("migration-{}", kind.as_str());
        Lease::new(old, &name, LEASE, clock, &*self.entropy)
    }

    async fn work(&self, hand: &mut Hand, lease: &mut Lease) -> Result<(), PortError> {
        let mut pause = OUTAGE_PAUSES.0;
        while hand.job.state == JobState::Running && lease.hold().await? {
            if let Some(reason) = self.obsolete(&hand.job)? {
                let now = self.sides.clock.now();
                let fail = |job: &mut Job| job.end(JobState::Failed, Some(reason.clone()), now);
                self.save(hand, &[], fail).await?;
                return Ok(());
            }
            let step = self.sides.step(&hand.job, &hand.pace);
            let step = match self.watch(&hand.job, &hand.etag, lease, step).await? {
                Watched::Done(step) => step?,
                Watched::Lost => return Ok(()),
                Watched::Told => {
                    if !self.reload(hand).await? {
                        return Ok(());
                    }
                    continue;
                }
            };
            let is_outage = matches!(step, Step::Outage(_));
            if !self.take(hand, step).await? {
                return Ok(());
            }
            match is_outage {
                true => {
                    sleep(pause).await;
                    pause = (2 * pause).min(OUTAGE_PAUSES.1);
                }
                false => pause = OUTAGE_PAUSES.0,
            }
        }
        Ok(())
    }

    /// Why a job makes no sense any more.
    fn obsolete(&self, job: &Job) -> Result<Option<String>, PortError> {
        let generation = self.sides.member.pin()?.control().generation;
        let is_obsolete = job.kind == JobKind::Backfill && job.generation < generation;
        Ok(is_obsolete.then(|| {
            let was = job.generation;
            format!(
                "it is of generation {was}, and the present one is {generation}; start another one"
            )
        }))
    }

    /// Lets work go on while the lease is held and the job is told nothing.
    async fn watch<T>(
        &self,
        job: &Job,
        etag: &ETag,
        lease: &mut Lease,
        work: impl Future<Output = T> + Send,
    ) -> Result<Watched<T>, PortError> {
        let mut work = pin!(work);
        loop {
            if let Ok(done) = timeout(LISTEN_EVERY, &mut work).await {
                return Ok(Watched::Done(done));
            }
            match lease.hold().await {
                Ok(true) => {}
                Err(_) if lease.is_held() => continue,
                Ok(false) => return Ok(Watched::Lost),
                Err(error) => return Err(error),
            }
            let found = self.sides.job(job.kind).await;
            let is_same = found.map(|found| found.is_some_and(|(_, now)| now == *etag));
            // What cannot be read now is read after the step.
            if matches!(is_same, Ok(false)) {
                return Ok(Watched::Told);
            }
        }
    }

    /// Writes what a step found; `false` when the job is somebody else's now.
    async fn take(&self, hand: &mut Hand, step: Step) -> Result<bool, PortError> {
        let now = self.sides.clock.now();
        match step {
            Step::Found(found) => self.take_found(hand, &found).await,
            Step::Outage(why) => {
                let rate = hand.meter.note(hand.job.done);
                let change = |job: &mut Job| {
                    job.throttled = Some(why.clone());
                    job.keys_per_s = rate;
                };
                self.save(hand, &[], change).await
            }
            Step::Fails(why) => {
                let change = |job: &mut Job| job.end(JobState::Failed, Some(why.clone()), now);
                self.save(hand, &[], change).await
            }
            Step::Anew => self.save(hand, &[], begin_anew).await,
        }
    }

    async fn take_found(&self, hand: &mut Hand, found: &Found) -> Result<bool, PortError> {
        let now = self.sides.clock.now();
        let has_new = self.sides.looks_for_extra(&hand.job);
        if hand.job.place.phase == Phase::Counting {
            hand.meter = Meter::default();
        }
        let rate = hand.meter.note(hand.job.done + found.looked);
        let room = MOST_DIFFERENCES.saturating_sub(hand.job.shown);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let shown = &found.differences[..found.differences.len().min(room)];
        let pages: Vec<_> = shown.chunks(PAGE).map(encode_page).collect();
        let first = hand.job.pages;
        let pages: Vec<Write> = (first..)
            .zip(pages)
            .map(|(page, value)| Write::Put {
                key: Job::page_key(page),
                value,
                options: PutOptions::default(),
            })
            .collect();
        let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let change = |job: &mut Job| {
            let was = job.place.phase;
            if let Some(next) = &found.next {
                job.place = next.clone();
            }
            job.total += found.counted;
            if was == Phase::Counting && job.place.phase != was && has_new {
                job.total *= 2;
            }
            job.done += found.looked;
            job.counts.add(&found.counts);
            job.left.clone_from(&found.left);
            job.rounds += u32::from(found.is_round);
            job.pages += number(pages.len());
            job.shown += number(shown.len());
            job.keys_per_s = rate;
            let per_s = job.pacing.keys_per_s;
            job.throttled = per_s.map(|per_s| format!("at most {per_s} keys a second"));
            if let Some((state, reason)) = &found.end
                && job.is_active()
            {
                job.end(*state, reason.clone(), now);
            }
        };
        let is_ours = self.save(hand, &pages, change).await?;
        if found.end.is_some() {
            let (kind, state) = (hand.job.kind.as_str(), hand.job.state.as_str());
            tracing::info!(job = kind, state, done = hand.job.done, "the job has ended");
        }
        Ok(is_ours)
    }

    /// Takes what the job was told; `false` when it is somebody else's now.
    async fn reload(&self, hand: &mut Hand) -> Result<bool, PortError> {
        let found = self.sides.job(hand.job.kind).await?;
        let Some((job, etag)) = found.filter(|(job, _)| is_ours(job, &hand.job)) else {
            return Ok(false);
        };
        (hand.job, hand.etag) = (job, etag);
        Ok(true)
    }

    /// Changes the job, together with what belongs to the change, whatever it is told meanwhile; `false` when
    /// it is somebody else's now.
    async fn save(
        &self,
        hand: &mut Hand,
        pages: &[Write],
        change: impl Fn(&mut Job) + Send + Sync,
    ) -> Result<bool, PortError> {
        for _ in 0..MOST_ATTEMPTS {
            let mut next = hand.job.clone();
            next.sequence += 1;
            change(&mut next);
            match self
                .sides
                .old
                .commit(written(&next, &hand.etag, pages))
                .await
            {
                Ok(etags) => {
                    let etag = etags.into_iter().next().flatten();
                    hand.job = next;
                    return match etag {
                        Some(etag) => {
                            hand.etag = etag;
                            Ok(true)
                        }
                        None => self.reload(hand).await,
                    };
                }
                Err(error) if error.is_conflict() || error.outcome() == Outcome::Unknown => {
                    let found = self.sides.job(next.kind).await?;
                    let ours =
                        |(now, _): &(Job, ETag)| is_ours(now, &next) || is_ours(now, &hand.job);
                    let Some((now, etag)) = found.filter(ours) else {
                        return Ok(false);
                    };
                    // It was written after all, and perhaps told something since.
                    let is_written = now.sequence == next.sequence && now.runner == next.runner;
                    (hand.job, hand.etag) = (now, etag);
                    if is_written {
                        return Ok(true);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let error = PortError::new(ErrorKind::Throttled, "migration", "job");
        Err(error.context(format!("the job changed {MOST_ATTEMPTS} times meanwhile")))
    }
}

/// The step that writes a job, its pages, and for a full verify the place where the last one is kept.
fn written(job: &Job, etag: &ETag, pages: &[Write]) -> Commit {
    let mut commit = Commit::of(Write::Put {
        key: Job::key(job.kind),
        value: job.encode(),
        options: PutOptions {
            mode: WriteMode::Match(etag.clone()),
            ttl: None,
        },
    });
    commit.writes.extend_from_slice(pages);
    let is_full = job.kind == JobKind::Verify && job.scope == Scope::Full;
    if is_full && job.state == JobState::Done {
        commit.writes.push(Write::Put {
            key: Job::full_key(),
            value: job.encode(),
            options: PutOptions::default(),
        });
    }
    commit
}

fn begin_anew(job: &mut Job) {
    job.place = Place::first(Phase::Counting);
    job.total = 0;
    job.done = 0;
    job.counts = super::Counts::default();
    job.left = Vec::new();
    job.rounds = 0;
    job.pages = 0;
    job.shown = 0;
}

fn is_ours(found: &Job, ours: &Job) -> bool {
    found.id == ours.id && found.runner == ours.runner
}

async fn release(mut lease: Lease) {
    if let Err(error) = lease.release().await {
        tracing::debug!(%error, "the lease of a job ends by itself");
    }
}
