//! Publishes pending events, at least once, in order per key.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::Outbox;
use crate::background::{Background, Stop};
use crate::ports::{EventBus, PendingEvent, PendingId, PortError};

/// Pending events read at once.
const PAGE: usize = 256;

/// Publications under way at once, each of another key.
const CONCURRENCY: usize = 64;

/// How often it looks without being woken: for events of a dead process or another replica.
const POLL: Duration = Duration::from_secs(1);

/// Pauses after a pass with failures, doubling.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long the last pass may take when the relay is stopped.
const FLUSH: Duration = Duration::from_secs(5);

/// Moves events from the outbox to the bus.
///
/// An event is settled only after the bus has accepted it, so a crash publishes it twice rather than
/// never. An event that fails holds back the later ones of its key and no others.
#[derive(Debug)]
pub struct Relay {
    outbox: Arc<Outbox>,
    bus: Arc<dyn EventBus>,
}

/// What one pass over the outbox did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RelayReport {
    /// Events that the bus accepted and that are settled.
    pub published: usize,
    /// Events that stay pending.
    pub failed: usize,
}

impl Relay {
    /// A relay between an outbox and a bus.
    #[must_use]
    pub fn new(outbox: Arc<Outbox>, bus: Arc<dyn EventBus>) -> Self {
        Self { outbox, bus }
    }

    /// Runs until it is stopped, and publishes what is then pending before it ends.
    pub fn start(self) -> Background {
        Background::spawn("relay", |stop| self.run(stop))
    }

    async fn run(self, mut stop: Stop) {
        let mut pause = FIRST_PAUSE;
        while !stop.is_raised() {
            let wait = match stop.or(self.pass()).await {
                None => break,
                Some(Ok(RelayReport { failed: 0, .. })) => {
                    pause = FIRST_PAUSE;
                    None
                }
                Some(Ok(report)) => {
                    tracing::warn!(failed = report.failed, "events wait for the bus");
                    Some(pause)
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "pending events cannot be read or settled");
                    Some(pause)
                }
            };
            let rest = async {
                match wait {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => {
                        // The poll is the time-out of the wait; both ways the next pass looks.
                        let _ = tokio::time::timeout(POLL, self.outbox.committed()).await;
                    }
                }
            };
            if stop.or(rest).await.is_none() {
                break;
            }
            if wait.is_some() {
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        match tokio::time::timeout(FLUSH, self.pass()).await {
            Ok(Ok(RelayReport { failed: 0, .. })) => {}
            _ => tracing::warn!("some events stay pending and are published at the next start"),
        }
    }

    /// Publishes what is pending now.
    ///
    /// # Errors
    /// When the store cannot list or settle; failures of the bus are counted in the report.
    ///
    /// # Cancel safety
    /// Events that were published and not yet settled are published again.
    pub async fn pass(&self) -> Result<RelayReport, PortError> {
        let mut report = RelayReport::default();
        let mut failed_keys: HashSet<Box<str>> = HashSet::new();
        let mut after: Option<PendingId> = None;
        loop {
            let page = self.outbox.store().pending(after, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(report);
            };
            after = Some(last.id.clone());
            let is_last = page.len() < PAGE;
            let size = page.len();
            let published = self.publish(page, &mut failed_keys).await;
            if !published.is_empty() {
                self.outbox.store().settle(&published).await?;
            }
            report.published += published.len();
            report.failed += size - published.len();
            // A bus that takes nothing and refuses many keys is down: the rest would fail as well.
            let is_down = published.is_empty() && failed_keys.len() >= CONCURRENCY;
            if is_last || is_down {
                return Ok(report);
            }
        }
    }

    async fn publish(
        &self,
        page: Vec<PendingEvent>,
        failed_keys: &mut HashSet<Box<str>>,
    ) -> Vec<PendingId> {
        let chains = by_key(page, failed_keys);
        let mut results = stream::iter(chains)
            .map(|chain| self.publish_in_order(chain))
            .buffer_unordered(CONCURRENCY);
        let mut published = Vec::new();
        while let Some((mut done, failed)) = results.next().await {
            published.append(&mut done);
            failed_keys.extend(failed);
        }
        published
    }

    /// Publishes one key's events until one fails; answers the published ones and the failed key.
    async fn publish_in_order(
        &self,
        chain: Vec<PendingEvent>,
    ) -> (Vec<PendingId>, Option<Box<str>>) {
        let mut done = Vec::with_capacity(chain.len());
        for pending in chain {
            if let Err(error) = self.bus.publish(&pending.event).await {
                tracing::debug!(%error, key = %pending.event.key, "event not published");
                return (done, Some(pending.event.key));
            }
            done.push(pending.id);
        }
        (done, None)
    }
}

/// Groups events by key, in order, without those whose key has failed already.
fn by_key(page: Vec<PendingEvent>, failed: &HashSet<Box<str>>) -> Vec<Vec<PendingEvent>> {
    let mut chains: Vec<Vec<PendingEvent>> = Vec::new();
    let mut chain_of_key = std::collections::HashMap::new();
    for pending in page {
        if failed.contains(&pending.event.key) {
            continue;
        }
        let chain = *chain_of_key
            .entry(pending.event.key.clone())
            .or_insert_with(|| {
                chains.push(Vec::new());
                chains.len() - 1
            });
        chains[chain].push(pending);
    }
    chains
}
