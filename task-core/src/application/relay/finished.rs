//! Events that the bus has accepted: which are to be settled, and which were a moment ago.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::ports::{PendingId, Redelivery};

/// Accepted events that are settled at once, whatever else goes on.
const BATCH: usize = 64;

/// How long an accepted event waits for others to be settled with it, while publications run.
const LINGER: Duration = Duration::from_millis(5);

/// Settled events that are remembered, twice: a page that was listed before may still name them.
const REMEMBERED: usize = 4096;

/// Pauses after a settlement that failed.
const PAUSES: Redelivery = Redelivery {
    max_deliveries: u32::MAX,
    first_pause: Duration::from_millis(100),
    longest_pause: Duration::from_secs(5),
};

/// The accepted events.
#[derive(Debug, Default)]
pub(super) struct Finished {
    accepted: HashSet<PendingId>,
    /// When the first of them was accepted, or when settling is tried again.
    since: Option<Instant>,
    retry_at: Option<Instant>,
    failures: u32,
    /// Events in the settlement under way.
    settling: usize,
    young: HashSet<PendingId>,
    old: HashSet<PendingId>,
}

impl Finished {
    /// Keeps an event until it is settled.
    pub(super) fn accept(&mut self, id: PendingId, now: Instant) {
        self.since.get_or_insert(now);
        self.accepted.insert(id);
    }

    /// Says whether an event was accepted, as far as that is remembered.
    ///
    /// Nothing is read while a settlement is under way, so its events need not be found.
    pub(super) fn knows(&self, id: &PendingId) -> bool {
        self.accepted.contains(id) || self.young.contains(id) || self.old.contains(id)
    }

    /// The events to settle now; `hurry` does not wait for more of them.
    pub(super) fn batch(&mut self, now: Instant, hurry: bool) -> Option<Vec<PendingId>> {
        let is_due = match self.retry_at {
            Some(retry_at) => retry_at <= now,
            None => {
                let waited = self.since.is_some_and(|since| since + LINGER <= now);
                hurry || waited || self.accepted.len() >= BATCH
            }
        };
        if !is_due || self.accepted.is_empty() {
            return None;
        }
        self.since = None;
        let batch: Vec<PendingId> = self.accepted.drain().collect();
        self.settling = batch.len();
        Some(batch)
    }

    /// Ends a settlement: its events are remembered for a while.
    pub(super) fn settled(&mut self, batch: Vec<PendingId>) {
        self.settling = 0;
        self.failures = 0;
        self.retry_at = None;
        if self.young.len() >= REMEMBERED {
            self.age();
        }
        self.young.extend(batch);
    }

    /// Ends a settlement that failed: it is tried again after a pause.
    pub(super) fn not_settled(&mut self, batch: Vec<PendingId>, now: Instant) {
        self.settling = 0;
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now + PAUSES.pause_after(self.failures));
        self.since.get_or_insert(now);
        self.accepted.extend(batch);
    }

    /// Forgets the older half of what is settled, and makes the other one older.
    pub(super) fn age(&mut self) {
        std::mem::swap(&mut self.young, &mut self.old);
        self.young.clear();
    }

    /// Ends the pause after a failure.
    pub(super) fn hurry(&mut self) {
        self.retry_at = None;
    }

    /// Says whether the last settlement failed.
    pub(super) fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// Events that are accepted and not settled.
    pub(super) fn unsettled(&self) -> usize {
        self.accepted.len() + self.settling
    }

    /// When something is to be settled, whatever else goes on.
    pub(super) fn due(&self) -> Option<Instant> {
        let since = self.since?;
        Some(self.retry_at.unwrap_or(since + LINGER))
    }
}
