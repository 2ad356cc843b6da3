//! Long work that outlives its worker: a record on the old side says how far it is.
//!
//! Commands change the record, and so does the worker, both by compare-and-set. What a worker found and how
//! far it came are written in one step, so that nothing is counted twice after a kill.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::control::KIND;
use super::{Difference, Share};
use crate::domain::Timestamp;
use crate::ports::{ErrorKind, Key, Kind, PortError};

/// How the record is written today.
const FORMAT: u32 = 1;

/// Most keys that failed and are kept to be tried again.
pub(super) const MOST_LEFT: usize = 256;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    /// Copies every record of the old side that the new one lacks.
    Backfill,
    /// Compares the sides.
    Verify,
}

impl JobKind {
    /// The word of commands and reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backfill => "backfill",
            Self::Verify => "verify",
        }
    }
}

/// Whether a job is worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// By whoever holds its lease.
    Running,
    /// It waits for `resume`.
    Paused,
    /// Everything was looked at.
    Done,
    /// Somebody ended it.
    Aborted,
    /// It cannot go on; the reason is in the record. `resume` tries again.
    Failed,
}

impl JobState {
    /// The word of reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Aborted => "aborted",
            Self::Failed => "failed",
        }
    }
}

/// Which part of its work a job is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It counts the old side's records.
    Counting,
    /// It goes through the old side's records.
    Old,
    /// It goes through the new side's records, to find those that the old one has not.
    New,
    /// It tries the keys again that failed.
    Retrying,
}

impl Phase {
    /// The word of reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counting => "counting",
            Self::Old => "old",
            Self::New => "new",
            Self::Retrying => "retrying",
        }
    }
}

/// How much of everything a verify looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// All of it.
    Full,
    /// A random part, another one each time.
    Sample(Share),
}

/// What a verify does about what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fix {
    /// It says so.
    #[default]
    Nothing,
    /// It copies from the side that accepts writes.
    Mismatches,
    /// The same, and where the other side has a later change of a task, that one is kept on both.
    MismatchesAndAhead,
}

/// How fast a job may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pacing {
    /// Most records a second; `None` is as fast as the stores can.
    #[serde(default)]
    pub keys_per_s: Option<u32>,
    /// Records that are worked on at once, 1 to 256.
    #[serde(default = "usual_concurrency")]
    pub concurrency: u16,
}

fn usual_concurrency() -> u16 {
    16
}

impl Default for Pacing {
    /// As fast as the stores can with 16 records at once.
    fn default() -> Self {
        Self {
            keys_per_s: None,
            concurrency: usual_concurrency(),
        }
    }
}

/// What a job found, in records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Both sides held the same.
    pub equal: u64,
    /// A backfill has copied it.
    pub copied: u64,
    /// A mark says that the other side follows soon; no mismatch.
    pub behind: u64,
    /// The following side lacked it.
    pub missing: u64,
    /// The side that accepts writes had none, the following side did.
    pub extra: u64,
    /// Both were of one version and not of one content.
    pub different: u64,
    /// The following side was of an earlier version, and no mark said so.
    pub stale: u64,
    /// The following side was of a later version than the one that accepts writes.
    pub ahead: u64,
    /// Mismatches that were repaired.
    pub repaired: u64,
    /// The stage compares or copies nothing.
    pub skipped: u64,
    /// Could not be read or written, also when tried again.
    pub failed: u64,
}

impl Counts {
    /// What should not be.
    #[must_use]
    pub fn mismatches(&self) -> u64 {
        self.missing + self.extra + self.different + self.stale + self.ahead
    }

    pub(super) fn add(&mut self, more: &Self) {
        let Self {
            equal,
            copied,
            behind,
            missing,
            extra,
            different,
            stale,
            ahead,
            repaired,
            skipped,
            failed,
        } = more;
        self.equal += equal;
        self.copied += copied;
        self.behind += behind;
        self.missing += missing;
        self.extra += extra;
        self.different += different;
        self.stale += stale;
        self.ahead += ahead;
        self.repaired += repaired;
        self.skipped += skipped;
        self.failed += failed;
    }
}

/// A record that could not be worked on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Its kind and id.
    pub key: String,
    /// Why, as the side said last.
    pub error: String,
}

impl Left {
    /// Longest error that is kept, in characters.
    const MOST: usize = 200;

    pub(super) fn new(key: &Key, error: &PortError) -> Self {
        Self {
            key: key.to_string(),
            error: error.to_string().chars().take(Self::MOST).collect(),
        }
    }

    pub(super) fn key(&self, kinds: &[Kind]) -> Option<Key> {
        let (kind, id) = self.key.split_once('/')?;
        let kind = kinds.iter().find(|known| known.as_str() == kind)?;
        Some(Key::new(*kind, id))
    }
}

/// Where a job is in its walk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) phase: Phase,
    /// Index of the kind that is scanned.
    pub(super) kind: usize,
    /// Where the next page of it begins.
    pub(super) from: Option<String>,
    /// The server that this means something to.
    pub(super) server: Option<String>,
}

impl Place {
    pub(super) fn first(phase: Phase) -> Self {
        Self {
            phase,
            kind: 0,
            from: None,
            server: None,
        }
    }
}

/// The record of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Job {
    format: u32,
    /// Distinguishes it from others of its kind.
    pub(super) id: String,
    pub(super) kind: JobKind,
    /// The generation of the control record when it began.
    pub(super) generation: u32,
    pub(super) state: JobState,
    pub(super) reason: Option<String>,
    pub(super) pacing: Pacing,
    pub(super) scope: Scope,
    pub(super) fix: Fix,
    pub(super) place: Place,
    /// How many records there were when they were counted.
    pub(super) total: u64,
    /// How many were looked at in this phase and those before.
    pub(super) done: u64,
    pub(super) counts: Counts,
    pub(super) left: Vec<Left>,
    /// How often those that failed were tried again.
    pub(super) rounds: u32,
    /// The replica that works on it.
    pub(super) runner: Option<String>,
    /// Rises whenever the runner writes.
    pub(super) sequence: u64,
    pub(super) keys_per_s: f64,
    pub(super) throttled: Option<String>,
    pub(super) started_us: i64,
    pub(super) ended_us: Option<i64>,
    /// Pages of differences that belong to it.
    pub(super) pages: u32,
    /// Differences on these pages.
    pub(super) shown: u32,
}

impl Job {
    pub(super) fn begin(kind: JobKind, id: String, generation: u32, now: Timestamp) -> Self {
        Self {
            format: FORMAT,
            id,
            kind,
            generation,
            state: JobState::Running,
            reason: None,
            pacing: Pacing::default(),
            scope: Scope::Full,
            fix: Fix::Nothing,
            place: Place::first(Phase::Counting),
            total: 0,
            done: 0,
            counts: Counts::default(),
            left: Vec::new(),
            rounds: 0,
            runner: None,
            sequence: 0,
            keys_per_s: 0.0,
            throttled: None,
            started_us: now.unix_micros(),
            ended_us: None,
            pages: 0,
            shown: 0,
        }
    }

    pub(super) fn key(kind: JobKind) -> Key {
        Key::new(KIND, format!("job/{}", kind.as_str()))
    }

    /// Where the last verify of everything is that ended.
    pub(super) fn full_key() -> Key {
        Key::new(KIND, "job/verify/full")
    }

    /// Where a page of what a verify found is.
    pub(super) fn page_key(page: u32) -> Key {
        Key::new(KIND, format!("job/verify/differences/{page}"))
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, PortError> {
        let corrupt =
            |why: String| PortError::new(ErrorKind::Corrupt, "migration", "job").context(why);
        let job: Self =
            serde_json::from_slice(value).map_err(|error| corrupt(error.to_string()))?;
        match job.format {
            FORMAT => Ok(job),
            found => Err(corrupt(format!(
                "the job has format {found}, and this version knows {FORMAT}"
            ))),
        }
    }

    pub(super) fn encode(&self) -> Bytes {
        let json = serde_json::to_vec(self);
        json.expect("text and numbers are JSON").into()
    }

    /// Whether `start` would disturb it.
    pub(super) fn is_active(&self) -> bool {
        matches!(self.state, JobState::Running | JobState::Paused)
    }

    /// Whether a verify looked at everything and found nothing wrong.
    pub(super) fn is_clean(&self) -> bool {
        self.state == JobState::Done && self.counts.mismatches() == 0 && self.counts.failed == 0
    }

    pub(super) fn end(&mut self, state: JobState, reason: Option<String>, now: Timestamp) {
        self.state = state;
        self.reason = reason;
        self.throttled = None;
        self.keys_per_s = 0.0;
        self.ended_us = Some(now.unix_micros());
    }
}

/// A page of differences as it is stored.
pub(super) fn encode_page(page: &[Difference]) -> Bytes {
    let json = serde_json::to_vec(page);
    json.expect("text and numbers are JSON").into()
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Distinguishes it from others of its kind.
    pub id: String,
    /// What it does.
    pub kind: JobKind,
    /// Whether it is worked on.
    pub state: JobState,
    /// Why it failed or was aborted.
    pub reason: Option<String>,
    /// Which part of its work it is at.
    pub phase: Phase,
    /// The generation that it belongs to.
    pub generation: u32,
    /// How much a verify looks at.
    pub scope: Scope,
    /// What a verify does about what it finds.
    pub fix: Fix,
    /// How fast it may go.
    pub pacing: Pacing,
    /// Records looked at, of `total`.
    pub done: u64,
    /// Records there were when they were counted; 0 until then. Both sides' for a verify that looks for extra ones.
    pub total: u64,
    /// The share of both, 100 when the job is done.
    pub percent: f64,
    /// Records a second in the last ten seconds.
    pub keys_per_s: f64,
    /// Time that is left at this rate, in seconds; `None` if it cannot be told.
    pub eta_s: Option<u64>,
    /// Why it is not faster: the rate that is set, a side that does not answer, a pause.
    pub throttled: Option<String>,
    /// What was found.
    pub counts: Counts,
    /// Whether a verify found nothing wrong; `None` before its end.
    pub clean: Option<bool>,
    /// What a verify cannot see on these backends, for people.
    pub not_checked: Vec<String>,
    /// Records that could not be worked on, at most 256.
    pub left: Vec<Left>,
    /// The replica that works on it.
    pub runner: Option<String>,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// When it ended, RFC 3339.
    pub ended_at: Option<String>,
}

impl Job {
    /// What is told of it.
    pub(super) fn status(&self, not_checked: Vec<String>) -> JobStatus {
        let time = |micros| Timestamp::from_unix_micros(micros).to_string();
        let rest = self.total.saturating_sub(self.done);
        let is_timed = self.state == JobState::Running
            && self.keys_per_s > 0.0
            && self.place.phase != Phase::Counting;
        JobStatus {
            id: self.id.clone(),
            kind: self.kind,
            state: self.state,
            reason: self.reason.clone(),
            phase: self.place.phase,
            generation: self.generation,
            scope: self.scope,
            fix: self.fix,
            pacing: self.pacing,
            done: self.done,
            total: self.total,
            percent: self.percent(),
            keys_per_s: self.keys_per_s,
            eta_s: is_timed.then(|| (rest as f64 / self.keys_per_s).ceil() as u64),
            throttled: match self.state {
                JobState::Paused => Some("paused".to_owned()),
                JobState::Running => self.throttled.clone(),
                JobState::Done | JobState::Aborted | JobState::Failed => None,
            },
            counts: self.counts,
            clean: (self.kind == JobKind::Verify && self.ended_us.is_some())
                .then(|| self.is_clean()),
            not_checked,
            left: self.left.clone(),
            runner: self.runner.clone(),
            started_at: time(self.started_us),
            ended_at: self.ended_us.map(time),
        }
    }

    fn percent(&self) -> f64 {
        match (self.state, self.total) {
            (JobState::Done, _) => 100.0,
            (_, 0) => 0.0,
            // Records that came after the count are beyond it.
            (_, total) => (self.done as f64 / total as f64 * 100.0).min(99.99),
        }
    }
}
