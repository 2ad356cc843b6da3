//! The events that wait on the old side before it is given up.
//!
//! Before `rampdown` an event lies on the old side alone, and after that on both. So what waited there at any moment in
//! `rampdown` has to be published, and what comes later need not: the outbox of a service that works is never empty.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::sides::Sides;
use crate::ports::{PendingId, PortError};

/// Events on one page.
const PAGE: usize = 1_000;

/// Most events that are waited for: where there are more, nobody publishes them, or not in time.
const MOST: usize = 10_000;

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What has become of the events that waited at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Waiting {
    /// How many there were.
    pub(super) found: usize,
    /// How many of them still wait.
    pub(super) left: usize,
}

impl Sides {
    /// Waits until the events are published that wait on the old side now, whatever comes meanwhile.
    ///
    /// # Errors
    /// As the old side.
    pub(super) async fn await_old_events(&self, limit: Duration) -> Result<Waiting, PortError> {
        let began = Instant::now();
        let mut left = self.old_events().await?;
        let found = left.len();
        while !left.is_empty() && found < MOST && began.elapsed() < limit {
            sleep(LOOK_EVERY).await;
            let now = self.old_events().await?;
            left.retain(|event| now.contains(event));
        }
        let left = left.len();
        Ok(Waiting { found, left })
    }

    async fn old_events(&self) -> Result<HashSet<PendingId>, PortError> {
        let mut events = HashSet::new();
        let mut after = None;
        while events.len() < MOST {
            let page = self.old.pending(after, PAGE).await?;
            let Some(last) = page.last() else {
                break;
            };
            after = Some(last.id.clone());
            events.extend(page.into_iter().map(|pending| pending.id));
        }
        Ok(events)
    }
}
