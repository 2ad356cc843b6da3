//! Publishes pending events, at least once, in order per key.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use tokio::sync::Mutex;

use super::{Lease, Outbox};
use crate::background::{Background, Stop};
use crate::ports::{Entropy, EventBus, PendingEvent, PendingId, PortError};

/// Pending events read at once.
const PAGE: usize = 256;

/// Publications under way at once, each of another key.
const CONCURRENCY: usize = 64;

/// How often it looks without being woken: for events whose process died before it could wake us.
const POLL: Duration = Duration::from_secs(1);

/// How often it looks in an outbox that other replicas fill as well.
const SHARED_POLL: Duration = Duration::from_millis(100);

/// How long one replica relays for all without a sign of life; twice that, and another one does.
const LEASE_LENGTH: Duration = Duration::from_secs(3);

/// Pauses after a pass with failures, doubling.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long the last pass may take when the relay is stopped.
const FLUSH: Duration = Duration::from_secs(5);

/// Moves events from the outbox to the bus.
///
/// An event is settled only after the bus has accepted it, so a crash publishes it twice rather than
/// never. An event that fails holds back the later ones of its key and no others. Where replicas share
/// an outbox, one of them relays for all, so that the order per key holds across them.
#[derive(Debug)]
pub struct Relay {
    outbox: Arc<Outbox>,
    bus: Arc<dyn EventBus>,
    lease: Option<Mutex<Lease>>,
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
    /// The relay of an outbox that no other process has.
    #[must_use]
    pub fn new(outbox: Arc<Outbox>, bus: Arc<dyn EventBus>) -> Self {
        let lease = None;
        Self { outbox, bus, lease }
    }

    /// One of several relays of a shared outbox; it works while it holds their lease.
    ///
    /// # Errors
    /// `Unsupported` when the store has no conditional writes.
    pub fn shared(
        outbox: Arc<Outbox>,
        bus: Arc<dyn EventBus>,
        entropy: &dyn Entropy,
    ) -> Result<Self, PortError> {
        let store = Arc::clone(outbox.shared_store());
        let lease = Lease::new(store, "relay", LEASE_LENGTH, entropy)?;
        let lease = Some(Mutex::new(lease));
        Ok(Self { outbox, bus, lease })
    }

    /// Runs until it is stopped, and publishes what is then pending before it ends.
    pub fn start(self) -> Background {
        Background::spawn("relay", |stop| self.run(stop))
    }

    async fn run(self, mut stop: Stop) {
        let mut pause = FIRST_PAUSE;
        while let Some(result) = stop.or(self.pass()).await {
            let wait = match result {
                Ok(RelayReport { failed: 0, .. }) => None,
                Ok(report) => {
                    tracing::warn!(failed = report.failed, "events wait for the bus");
                    Some(pause)
                }
                Err(error) => {
                    tracing::warn!(%error, "pending events cannot be read or settled");
                    Some(pause)
                }
            };
            pause = wait.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE));
            let rest = match wait {
                None => stop.or(self.work()).await,
                Some(wait) => stop.or(tokio::time::sleep(wait)).await,
            };
            if rest.is_none() {
                break;
            }
        }
        match tokio::time::timeout(FLUSH, self.pass()).await {
            Ok(Ok(RelayReport { failed: 0, .. })) => {}
            _ => tracing::warn!("some events stay pending and are published at the next start"),
        }
        if let Some(lease) = self.lease
            && let Err(error) = lease.into_inner().release().await
        {
            tracing::debug!(%error, "the relay's lease ends by itself");
        }
    }

    /// Waits for something to do: a commit of our own, or the time to look for those of others.
    async fn work(&self) {
        let poll = match &self.lease {
            None => POLL,
            Some(_) => SHARED_POLL,
        };
        // The poll is the time-out of the wait; both ways the next pass looks.
        let _ = tokio::time::timeout(poll, self.outbox.committed()).await;
    }

    async fn may_publish(&self) -> Result<bool, PortError> {
        match &self.lease {
            None => Ok(true),
            Some(lease) => lease.lock().await.hold().await,
        }
    }

    /// Publishes what is pending now; nothing while another replica relays.
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
        while self.may_publish().await? {
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
        Ok(report)
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
