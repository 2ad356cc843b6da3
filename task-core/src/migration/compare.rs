//! Compares what reads find on both sides, beside the requests.
//!
//! Only a difference that cannot be the way of a copy counts. The old side is read, then the mark, then the
//! new side, then the old side again: without a mark the new side had, when it was read, at least what the first read
//! found, and if the second one finds the same, nothing more. So a side that merely lags is never taken for a wrong one.
//! Two such looks, a pause apart, have to agree.

use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::gone::is_left;
use super::marker::{DIRTY, mark_of};
use super::sides::{BACKEND, Sides};
use super::{Disagreement, Finding, Stage};
use crate::background::{Background, Stop};
use crate::memory::lock;
use crate::ports::{ErrorKind, Key, Kind, PortError, Stored};

/// Of so many reads one is compared, unless it is set otherwise.
const ONE_OF: NonZeroU64 = NonZeroU64::new(10).expect("ten");

/// Most records that wait to be compared; further ones are passed over, and counted.
const MOST_WAITING: usize = 256;

/// Records that are compared at once.
const AT_ONCE: usize = 4;

/// Pauses before further looks at a record whose sides differ.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// Longest time for one look.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// Most mismatches that are kept for people.
const MOST_EXAMPLES: usize = 20;

/// A record that the new side has wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// The kind of the record.
    pub kind: &'static str,
    /// Its id.
    pub id: Box<str>,
    /// What is wrong.
    pub finding: Finding,
}

/// The records that wait to be compared, and those that were found wrong.
#[derive(Debug)]
pub(super) struct ReadComparison {
    sides: Arc<Sides>,
    one_of: AtomicU64,
    reads: AtomicU64,
    waiting: Mutex<BTreeSet<Key>>,
    arrived: Notify,
    examples: Mutex<VecDeque<Mismatch>>,
}

impl ReadComparison {
    pub(super) fn new(sides: Arc<Sides>) -> Self {
        Self {
            sides,
            one_of: AtomicU64::new(ONE_OF.get()),
            reads: AtomicU64::new(0),
            waiting: Mutex::default(),
            arrived: Notify::new(),
            examples: Mutex::default(),
        }
    }

    /// Compares one of so many reads from now on.
    pub(super) fn sample(&self, one_of: NonZeroU64) {
        self.one_of.store(one_of.get(), Ordering::Relaxed);
    }

    /// A record was read; it does not wait.
    pub(super) fn offer(&self, stage: Stage, key: &Key) {
        if !matches!(stage, Stage::Shadow | Stage::Live) {
            return;
        }
        let reads = self.reads.fetch_add(1, Ordering::Relaxed);
        if !reads.is_multiple_of(self.one_of.load(Ordering::Relaxed)) {
            return;
        }
        let mut waiting = lock(&self.waiting);
        if waiting.len() < MOST_WAITING {
            waiting.insert(key.clone());
            self.arrived.notify_one();
        } else if !waiting.contains(key) {
            self.sides.recorder.found(stage, Finding::Skipped);
        }
    }

    /// The latest mismatches, the last one last.
    pub(super) fn mismatches(&self) -> Vec<Mismatch> {
        lock(&self.examples).iter().cloned().collect()
    }

    pub(super) fn start(comparison: &Arc<Self>) -> Background {
        let comparison = Arc::clone(comparison);
        Background::spawn("comparison of reads", |stop| async move {
            join_all((0..AT_ONCE).map(|_| comparison.run(stop.clone()))).await;
        })
    }

    async fn run(&self, mut stop: Stop) {
        while !stop.is_raised() {
            let next = lock(&self.waiting).pop_first();
            match next {
                Some(key) => {
                    stop.or(self.compare(&key)).await;
                }
                None => {
                    stop.or(self.arrived.notified()).await;
                }
            }
        }
    }

    /// Looks until both sides agree, or twice at the same difference.
    async fn compare(&self, key: &Key) {
        let mut last = None;
        let mut latest = None;
        for pause in [Duration::ZERO].into_iter().chain(PAUSES) {
            sleep(pause).await;
            let Some((stage, finding)) = self.look(key).await else {
                return;
            };
            latest = Some(stage);
            let is_settled = match finding {
                Finding::Equal | Finding::Failed => true,
                Finding::Unsettled => false,
                Finding::Different
                | Finding::Stale
                | Finding::Missing
                | Finding::Extra
                | Finding::Ahead
                | Finding::Skipped => last == Some((stage, finding)),
            };
            if is_settled {
                return self.tell(key, stage, finding);
            }
            last = Some((stage, finding));
        }
        if let Some(stage) = latest {
            self.tell(key, stage, Finding::Unsettled);
        }
    }

    fn tell(&self, key: &Key, stage: Stage, finding: Finding) {
        self.sides.recorder.found(stage, finding);
        if !finding.is_wrong() {
            return;
        }
        tracing::warn!(%key, ?finding, %stage, "the new side does not hold what the old one does");
        let mut examples = lock(&self.examples);
        if examples.len() >= MOST_EXAMPLES {
            examples.pop_front();
        }
        examples.push_back(Mismatch {
            kind: key.kind.as_str(),
            id: key.id.clone(),
            finding,
        });
    }

    /// One look, and the stage it was made by; `None` where nothing is compared.
    async fn look(&self, key: &Key) -> Option<(Stage, Finding)> {
        let pin = self.sides.member.pin().ok()?;
        let stage = pin.stage_of(key);
        if !matches!(stage, Stage::Shadow | Stage::Live) {
            return None;
        }
        let looking = timeout(LOOK_LIMIT, self.sides.compare(key)).await;
        let limit = || Err(PortError::new(ErrorKind::Timeout, BACKEND, "compare"));
        match looking.unwrap_or_else(|_| limit()) {
            // What was found after the lease may be of a time when the sides had changed places.
            Ok(_) if !pin.holds() => None,
            Ok(finding) => Some((stage, finding)),
            Err(error) => {
                tracing::debug!(%error, %key, "not compared");
                Some((stage, Finding::Failed))
            }
        }
    }
}

impl Sides {
    async fn compare(&self, key: &Key) -> Result<Finding, PortError> {
        let old = self.old.get(key).await?;
        let new = self.new.get(key).await?;
        if judge(key.kind, old.as_ref(), new.as_ref()) == Finding::Equal {
            return Ok(Finding::Equal);
        }
        if self.old.get(&mark_of(DIRTY, key)).await?.is_some() {
            return Ok(Finding::Unsettled);
        }
        let new = self.new.get(key).await?;
        let again = self.old.get(key).await?;
        if again != old {
            return Ok(Finding::Unsettled);
        }
        Ok(judge(key.kind, old.as_ref(), new.as_ref()))
    }
}

/// What the new side holds, measured by the old one, if nothing is on its way.
fn judge(kind: Kind, old: Option<&Stored>, new: Option<&Stored>) -> Finding {
    let old = old.map(|old| &*old.value);
    // What a deletion leaves there is no record.
    let new = new.map(|new| &*new.value).filter(|new| !is_left(new));
    match Disagreement::of(old, new) {
        None => Finding::Equal,
        // They end by themselves, on each side at its own time.
        Some(Disagreement::Missing | Disagreement::Extra) if kind == Kind::SEEN => Finding::Equal,
        Some(Disagreement::Missing) => Finding::Missing,
        Some(Disagreement::Extra) => Finding::Extra,
        Some(Disagreement::Different) => Finding::Different,
        Some(Disagreement::Stale) => Finding::Stale,
        Some(Disagreement::Ahead) => Finding::Ahead,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::ETag;

    fn stored(value: &'static str) -> Stored {
        Stored {
            value: value.into(),
            etag: ETag::new("1"),
        }
    }

    #[test]
    fn the_same_json_is_equal_however_it_is_written() {
        let (old, new) = (
            stored(r#"{"a":1,"b":[]}"#),
            stored(r#"{ "b": [], "a": 1 }"#),
        );
        assert_eq!(judge(Kind::TASK, Some(&old), Some(&new)), Finding::Equal);
        let new = stored(r#"{"a":1,"b":{}}"#);
        assert_eq!(
            judge(Kind::TASK, Some(&old), Some(&new)),
            Finding::Different
        );
    }

    #[test]
    fn a_mark_that_ended_on_one_side_is_no_mismatch() {
        let one = stored(r#"{"a":1}"#);
        assert_eq!(judge(Kind::SEEN, None, Some(&one)), Finding::Equal);
        assert_eq!(judge(Kind::SEEN, Some(&one), None), Finding::Equal);
        assert_eq!(judge(Kind::TASK, None, Some(&one)), Finding::Extra);
        assert_eq!(judge(Kind::TASK, Some(&one), None), Finding::Missing);
    }
}
