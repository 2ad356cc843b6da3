//! What a step depends on.

use std::time::Duration;

use super::job::{Job, JobState};
use super::waiting::Waiting;
use super::{
    BusStage, Condition, Confirmation, Control, Marks, PortStage, Readiness, ReplicaStatus, Stage,
};
use crate::domain::Timestamp;
use crate::ports::{Group, Topic};

/// How careful steps are.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Caution {
    /// Longest time since the end of a full verify, by the clocks of who ran it and who asks.
    pub verify_within: Duration,
    /// A mark that is older says that the new side does not follow.
    pub oldest_mark: Duration,
    /// The lease of replicas: one that is silent for longer may have died.
    pub lease: Duration,
}

impl Default for Caution {
    /// A verify of the last 24 hours, marks of the last 30 s, leases of 5 s.
    fn default() -> Self {
        Self {
            verify_within: Duration::from_secs(24 * 60 * 60),
            oldest_mark: Duration::from_secs(30),
            lease: Duration::from_secs(5),
        }
    }
}

/// What was found at one moment.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) control: Control,
    pub(super) replicas: Vec<ReplicaStatus>,
    pub(super) marks: Marks,
    pub(super) backfill: Option<Job>,
    pub(super) verify: Option<Job>,
    pub(super) full_verify: Option<Job>,
    /// A group that would miss what is published on the new bus alone.
    pub(super) deaf: Option<(Topic, Group)>,
    /// What has become of the events that waited on the old side.
    pub(super) old_events: Waiting,
    pub(super) now: Timestamp,
}

impl Facts {
    /// What has to hold before more buckets reach a stage.
    pub(super) fn conditions(&self, to: PortStage, caution: &Caution) -> Vec<Condition> {
        let mut conditions = vec![self.adopted(caution), self.alive(caution)];
        match to {
            PortStage::State(to) => conditions.extend(self.conditions_of_state(to, caution)),
            PortStage::Bus(BusStage::Live) => conditions.push(self.subscribers_hear()),
            PortStage::Bus(_) | PortStage::Notifier(_) => {}
        }
        conditions
    }

    fn conditions_of_state(&self, to: Stage, caution: &Caution) -> Vec<Condition> {
        let mut conditions = Vec::new();
        if to >= Stage::Live {
            conditions.push(self.backfill_complete());
            conditions.extend(self.verified(caution));
            conditions.push(self.no_old_mark(caution));
        }
        if to == Stage::Complete {
            let Waiting { found, left } = self.old_events;
            let detail = format!("{left} of {found} events that waited on the old side still do");
            conditions.push(Condition::new("old_events_published", left == 0, detail));
        }
        conditions
    }

    pub(super) fn readiness(&self, to: PortStage, caution: &Caution) -> Readiness {
        let conditions = self.conditions(to, caution);
        let failing = conditions.iter().filter(|condition| !condition.holds);
        let failing: Vec<String> = failing.map(|condition| condition.name.clone()).collect();
        Readiness {
            to: to.as_str().to_owned(),
            safe: failing.is_empty(),
            failing,
            conditions,
            to_confirm: to_confirm(to),
        }
    }

    fn subscribers_hear(&self) -> Condition {
        let detail = match &self.deaf {
            Some((topic, group)) => {
                format!("group {group} does not hear {topic} on the new bus yet")
            }
            None => "every group has a place on the new bus".to_owned(),
        };
        Condition::new("subscribers_hear", self.deaf.is_none(), detail)
    }

    /// The replicas that are not known to be gone.
    fn present(&self, caution: &Caution) -> impl Iterator<Item = &ReplicaStatus> {
        let most = millis(2 * caution.lease);
        let replicas = self.replicas.iter();
        replicas.filter(move |replica| replica.silent_ms < most)
    }

    fn adopted(&self, caution: &Caution) -> Condition {
        let epoch = self.control.epoch;
        let mut behind = self.present(caution);
        let behind = behind.find(|replica| replica.adopted < epoch || replica.oldest < epoch);
        let detail = match behind {
            Some(replica) => format!(
                "replica {} starts requests by epoch {} and works by {}, the present one is {epoch}",
                replica.id, replica.adopted, replica.oldest
            ),
            None => format!(
                "{} replicas are at epoch {epoch}",
                self.present(caution).count()
            ),
        };
        Condition::new("replicas_adopted", behind.is_none(), detail)
    }

    fn alive(&self, caution: &Caution) -> Condition {
        let most = millis(caution.lease);
        let mut silent = self.present(caution);
        let silent = silent.find(|replica| replica.silent_ms > most);
        let detail = match silent {
            Some(replica) => format!(
                "replica {} has been silent for {} ms, its lease is {most} ms",
                replica.id, replica.silent_ms
            ),
            None => format!(
                "{} replicas show signs of life",
                self.present(caution).count()
            ),
        };
        Condition::new("leases_live", silent.is_none(), detail)
    }

    fn backfill_complete(&self) -> Condition {
        let generation = self.control.generation;
        let (holds, detail) = match &self.backfill {
            None => (false, "there was no backfill".to_owned()),
            Some(job) if job.generation != generation => (
                false,
                format!(
                    "the last backfill is of generation {}, the present one is {generation}",
                    job.generation
                ),
            ),
            Some(job) if job.state != JobState::Done => {
                (false, format!("the backfill is {}", job.state.as_str()))
            }
            Some(job) => (true, format!("{} records", job.done)),
        };
        Condition::new("backfill_complete", holds, detail)
    }

    fn verified(&self, caution: &Caution) -> [Condition; 2] {
        const CLEAN: &str = "verify_clean";
        const RECENT: &str = "verify_recent";
        let generation = self.control.generation;
        let full = self.full_verify.as_ref();
        let Some(full) = full.filter(|full| full.generation == generation) else {
            let detail = format!("there was no full verify of generation {generation}");
            return [CLEAN, RECENT].map(|name| Condition::new(name, false, detail.clone()));
        };
        // A later look that found something weighs more.
        let dirty = [Some(full), self.verify.as_ref()].into_iter().flatten();
        let mut dirty = dirty.filter(|job| job.counts.mismatches() + job.counts.failed > 0);
        let dirty = dirty.find(|job| job.started_us >= full.started_us);
        let clean = match dirty {
            Some(job) => format!(
                "verify {} found {} mismatches and could not compare {} records; verify again when they are \
                 repaired",
                job.id,
                job.counts.mismatches(),
                job.counts.failed
            ),
            None => format!("{} records are equal", full.counts.equal),
        };
        // What was `off` then was not compared; what is complete need not be.
        let skipped = full.counts.skipped;
        let is_whole = skipped == 0 || self.control.state.reached(Stage::Complete) > 0;
        let clean = match is_whole {
            true => clean,
            false => format!("{skipped} records were not compared, because nothing mirrored them"),
        };
        let ended = full.ended_us.unwrap_or(full.started_us);
        let age = self.now.unix_micros().saturating_sub(ended);
        let age = Duration::from_micros(age.unsigned_abs());
        let recent = format!(
            "the last full verify ended {} s ago, at most {} s are allowed",
            age.as_secs(),
            caution.verify_within.as_secs()
        );
        [
            Condition::new(CLEAN, dirty.is_none() && is_whole, clean),
            Condition::new(RECENT, age <= caution.verify_within, recent),
        ]
    }

    fn no_old_mark(&self, caution: &Caution) -> Condition {
        let oldest = self.marks.oldest_ms().unwrap_or(0);
        let most = millis(caution.oldest_mark);
        let detail = format!(
            "{} marks, the oldest for {oldest} ms, at most {most} ms are allowed",
            self.marks.total()
        );
        Condition::new("no_old_mark", oldest <= most, detail)
    }
}

/// What only a person can know of a stage.
pub(super) fn to_confirm(to: PortStage) -> Vec<Confirmation> {
    match to {
        PortStage::State(Stage::Live) => vec![Confirmation::NoForeignWriters],
        to if to.is_final() => vec![Confirmation::NoWayBack],
        PortStage::State(_) | PortStage::Bus(_) | PortStage::Notifier(_) => Vec::new(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
