//! Events that the bus has accepted and that are to be settled.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::PAUSES;
use crate::ports::PendingId;

/// Accepted events that are settled at once, whatever else goes on.
const BATCH: usize = 64;

/// How long an accepted event waits for others to be settled with it, while publications run.
const LINGER: Duration = Duration::from_millis(5);

/// The accepted events. They are forgotten once they are settled, for then no page names them
/// ([S17](crate::ports::StateStore)).
#[derive(Debug, Default)]
pub(super) struct Finished {
    accepted: HashSet<PendingId>,
    /// When they are settled, whatever else goes on.
    due: Option<Instant>,
    failures: u32,
    /// Events in the settlement under way. Nothing is read meanwhile, so they need not be known.
    settling: usize,
}

impl Finished {
    /// Keeps an event until it is settled.
    pub(super) fn accept(&mut self, id: PendingId, now: Instant) {
        self.due.get_or_insert(now + LINGER);
        self.accepted.insert(id);
    }

    /// Says whether an event was accepted.
    pub(super) fn knows(&self, id: &PendingId) -> bool {
        self.accepted.contains(id)
    }

    /// The events to settle now; `hurry` does not wait for more of them.
    pub(super) fn batch(&mut self, now: Instant, hurry: bool) -> Option<Vec<PendingId>> {
        let is_enough = self.failures == 0 && (hurry || self.accepted.len() >= BATCH);
        let is_due = self.due.is_some_and(|due| due <= now);
        if !is_due && !is_enough || self.accepted.is_empty() {
            return None;
        }
        self.due = None;
        let batch: Vec<PendingId> = self.accepted.drain().collect();
        self.settling = batch.len();
        Some(batch)
    }

    /// Ends a settlement.
    pub(super) fn settled(&mut self) {
        self.settling = 0;
        self.failures = 0;
    }

    /// Ends a settlement that failed: it is tried again after a pause.
    pub(super) fn not_settled(&mut self, batch: Vec<PendingId>, now: Instant) {
        self.settling = 0;
        self.failures = self.failures.saturating_add(1);
        self.due = Some(now + PAUSES.pause_after(self.failures));
        self.accepted.extend(batch);
    }

    /// Ends the pause after a failure.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.due = self.due.map(|_| now);
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
        self.due
    }
}
