//! One step of a job: a page of records, worked on at its pace.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tokio::time::sleep;

use super::difference::Difference;
use super::gone::is_left;
use super::job::{Counts, Job, JobKind, JobState, Left, MOST_LEFT, Phase, Place, Scope};
use super::pace::Pace;
use super::sides::Sides;
use super::verify::Verified;
use super::{Bucket, Side};
use crate::ports::{Key, PortError, StateCapability};

/// Fewest and most records of one step. What a killed worker repeats is at most one step; with fewer than these
/// it would not catch up with a service that creates records.
const SIZES: (u64, u64) = (8, 256);

/// A step is at most this part of all records, so that less than 1 % is repeated.
const PARTS: u64 = 200;

/// Records that are counted in one step.
const COUNTED: usize = 1_000;

/// How often what failed is tried again at the end.
const MOST_ROUNDS: u32 = 5;

/// The first pause before such a round; each is twice as long as the one before.
const ROUND_EVERY: Duration = Duration::from_millis(200);

/// How a step ended.
#[derive(Debug)]
pub(super) enum Step {
    Found(Box<Found>),
    /// A side does not answer; the step is made again.
    Outage(String),
    /// So many records fail that it makes no sense to go on.
    Fails(String),
    /// The place means nothing to the server that answers now.
    Anew,
}

/// What a step found, to be written together with the place behind it.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) next: Option<Place>,
    pub(super) counted: u64,
    pub(super) looked: u64,
    pub(super) counts: Counts,
    /// What is to be tried again, with what was before.
    pub(super) left: Vec<Left>,
    pub(super) differences: Vec<Difference>,
    pub(super) is_round: bool,
    pub(super) end: Option<(JobState, Option<String>)>,
}

/// A record to be worked on, with what a scan told of it.
type Item = (Key, Option<Bytes>);

/// What became of the records of a step.
#[derive(Debug, Default)]
struct Worked {
    counts: Counts,
    differences: Vec<Difference>,
    left: Vec<Left>,
}

impl Sides {
    /// Makes the next step of a job.
    ///
    /// # Errors
    /// As the side that is listed. What fails for one record is a part of what was found.
    ///
    /// # Cancel safety
    /// What was copied stays; the step is made again by whoever goes on.
    pub(super) async fn step(&self, job: &Job, pace: &Pace) -> Result<Step, PortError> {
        match job.place.phase {
            Phase::Counting | Phase::Old | Phase::New => self.page(job, pace).await,
            Phase::Retrying => self.round(job, pace).await,
        }
    }

    /// Whether a verify looks for records that only the new side has.
    pub(super) fn looks_for_extra(&self, job: &Job) -> bool {
        job.kind == JobKind::Verify && self.new.capabilities().has(StateCapability::Scan)
    }

    async fn page(&self, job: &Job, pace: &Pace) -> Result<Step, PortError> {
        let place = &job.place;
        let side = match place.phase {
            Phase::New => Side::New,
            Phase::Counting | Phase::Old | Phase::Retrying => Side::Old,
        };
        let server = self.of(side).identity().await?.map(String::from);
        if place.server.is_some() && place.server != server {
            return Ok(Step::Anew);
        }
        let Some(kind) = self.kinds.get(place.kind) else {
            return Ok(Step::Anew);
        };
        let limit = size_of_step(job);
        let page = self.of(side).scan(*kind, place.from.clone(), limit).await?;
        let number = u64::try_from(page.entries.len()).unwrap_or(u64::MAX);
        let mut found = Found {
            next: Some(self.next(job, page.next, server)),
            left: job.left.clone(),
            ..Found::default()
        };
        let wanted = page.entries.into_iter();
        let wanted = wanted.filter(|(key, _)| is_in_scope(job, key));
        let items: Vec<Item> = wanted
            .map(|(key, stored)| (key, Some(stored.value)))
            .collect();
        let items = match place.phase {
            Phase::Counting => {
                found.counted = number;
                return Ok(Step::Found(Box::new(found)));
            }
            Phase::New => {
                let all = items.len();
                let only_on_new = self.only_on_new(items).await?;
                // A look at the others is at the rate, too, though it is short.
                for _ in only_on_new.len()..all {
                    pace.wait(job.pacing.keys_per_s).await;
                }
                only_on_new
            }
            Phase::Old | Phase::Retrying => items,
        };
        found.looked = number;
        let mut worked = self.work(job, items, pace).await;
        if !worked.left.is_empty()
            && let Some(why) = self.outage().await
        {
            return Ok(Step::Outage(why));
        }
        found.left.append(&mut worked.left);
        found.take(worked);
        self.make_room(job, &mut found, pace).await
    }

    /// Tries what failed again when there is too much of it.
    async fn make_room(
        &self,
        job: &Job,
        found: &mut Found,
        pace: &Pace,
    ) -> Result<Step, PortError> {
        let mut round = 0;
        while found.left.len() > MOST_LEFT {
            if let Some(why) = self.outage().await {
                return Ok(Step::Outage(why));
            }
            if round == MOST_ROUNDS {
                let last = found.left.last().map_or("", |left| &*left.error);
                return Ok(Step::Fails(format!(
                    "more than {MOST_LEFT} records fail, the last with: {last}"
                )));
            }
            sleep(ROUND_EVERY * 2_u32.pow(round)).await;
            let mut worked = self.work(job, self.items_of(&found.left), pace).await;
            found.left = std::mem::take(&mut worked.left);
            found.take(worked);
            round += 1;
        }
        Ok(Step::Found(Box::new(std::mem::take(found))))
    }

    /// Tries again what failed.
    async fn round(&self, job: &Job, pace: &Pace) -> Result<Step, PortError> {
        let mut found = Found::default();
        let number = job.left.len();
        if number == 0 {
            found.end = Some((JobState::Done, None));
            return Ok(Step::Found(Box::new(found)));
        }
        if job.rounds >= MOST_ROUNDS {
            let reason = format!("{number} records fail, also when tried {MOST_ROUNDS} times");
            found.left.clone_from(&job.left);
            found.counts.failed = u64::try_from(number).unwrap_or(u64::MAX);
            found.end = Some((JobState::Failed, Some(reason)));
            return Ok(Step::Found(Box::new(found)));
        }
        sleep(ROUND_EVERY * 2_u32.pow(job.rounds)).await;
        let mut worked = self.work(job, self.items_of(&job.left), pace).await;
        if !worked.left.is_empty()
            && let Some(why) = self.outage().await
        {
            return Ok(Step::Outage(why));
        }
        found.left = std::mem::take(&mut worked.left);
        found.take(worked);
        found.is_round = true;
        Ok(Step::Found(Box::new(found)))
    }

    /// The records that the old side does not have. The others were compared from there.
    async fn only_on_new(&self, items: Vec<Item>) -> Result<Vec<Item>, PortError> {
        let records = items.into_iter();
        let records = records.filter(|(_, value)| !value.as_deref().is_some_and(is_left));
        let keys: Vec<Key> = records.map(|(key, _)| key).collect();
        let old = self.old.get_many(&keys).await?;
        let pairs = keys.into_iter().zip(old);
        let missing = pairs.filter(|(_, old)| old.is_none());
        Ok(missing.map(|(key, _)| (key, None)).collect())
    }

    fn items_of(&self, left: &[Left]) -> Vec<Item> {
        let keys = left.iter().filter_map(|left| left.key(self.kinds));
        keys.map(|key| (key, None)).collect()
    }

    async fn work(&self, job: &Job, items: Vec<Item>, pace: &Pace) -> Worked {
        let mut calls = Vec::with_capacity(items.len());
        for item in items {
            calls.push(self.work_on(job, item, pace));
        }
        let concurrency = usize::from(job.pacing.concurrency).max(1);
        let mut calls = stream::iter(calls).buffer_unordered(concurrency);
        let mut worked = Worked::default();
        while let Some((key, result)) = calls.next().await {
            match result {
                Ok(verified) => {
                    worked.counts.add(&verified.counts);
                    worked.differences.extend(verified.difference);
                }
                Err(error) => worked.left.push(Left::new(&key, &error)),
            }
        }
        worked
    }

    async fn work_on(
        &self,
        job: &Job,
        (key, value): Item,
        pace: &Pace,
    ) -> (Key, Result<Verified, PortError>) {
        pace.wait(job.pacing.keys_per_s).await;
        let result = match job.kind {
            JobKind::Verify => self.verify_one(&key, value.as_ref(), job.fix).await,
            JobKind::Backfill => self.backfill_one(&key).await.map(|counts| Verified {
                counts,
                difference: None,
            }),
        };
        (key, result)
    }

    /// Why nothing can be copied at all; `None` if it can.
    async fn outage(&self) -> Option<String> {
        if let Err(error) = self.member.pin() {
            return Some(error.to_string());
        }
        for side in [Side::Old, Side::New] {
            if let Err(error) = self.of(side).check().await {
                return Some(format!("the {side} side does not answer: {error}"));
            }
        }
        None
    }

    /// The place behind a page.
    fn next(&self, job: &Job, from: Option<String>, server: Option<String>) -> Place {
        let Place { phase, kind, .. } = job.place;
        let is_last = from.is_none() && kind + 1 >= self.kinds.len();
        if !is_last {
            return Place {
                phase,
                kind: if from.is_some() { kind } else { kind + 1 },
                from,
                server,
            };
        }
        Place::first(match phase {
            Phase::Counting => Phase::Old,
            Phase::Old if self.looks_for_extra(job) => Phase::New,
            Phase::Old | Phase::New | Phase::Retrying => Phase::Retrying,
        })
    }
}

impl Found {
    fn take(&mut self, worked: Worked) {
        self.counts.add(&worked.counts);
        self.differences.extend(worked.differences);
    }
}

/// A sample is another one for each job.
fn is_in_scope(job: &Job, key: &Key) -> bool {
    match job.scope {
        Scope::Full => true,
        Scope::Sample(share) => Bucket::of(&job.id, &key.id).number() < share.buckets(),
    }
}

/// Few enough that a kill repeats little, and that a slow job notices soon what it is told.
fn size_of_step(job: &Job) -> usize {
    if job.place.phase == Phase::Counting {
        return COUNTED;
    }
    let by_total = job.total.max(job.done) / PARTS;
    let by_rate = job
        .pacing
        .keys_per_s
        .map_or(u64::MAX, |rate| u64::from(rate) / 2);
    let size = by_total.clamp(SIZES.0, SIZES.1).min(by_rate).max(1);
    usize::try_from(size).expect("it is small")
}
