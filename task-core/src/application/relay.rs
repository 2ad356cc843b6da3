//! Publishes pending events, at least once, in order per key.
//!
//! One loop gives out jobs and waits for whichever ends first: publications, one read or settlement, one
//! look at the lease. What to do next is decided by plain state without I/O:
//!
//! - `hand`: the events in hand, one chain a key, of which the first is published. A key that fails
//!   keeps its first event and a pause of its own (100 ms, doubling to 5 s); the rest of it is let go
//!   and read again later. So is a publication that takes unusually long while others are accepted: it
//!   goes on, and takes no place from them. Of more than 1,024 keys that fail the further ones are
//!   forgotten; sweeps take them up again, some at a time.
//! - `reading`: a sweep from the beginning of the outbox to its end, and the tail for what is new. The
//!   sweep goes past whatever is blocked. Which keys it has passed over is kept in a set of constant
//!   size, so that none of their later events is taken before the earlier ones. It reads as fast as
//!   the hand empties, but at most 10 pages a second while its pages give nothing or the bus takes
//!   nothing (64 keys have failed and none was taken), and 200 if a key asks for the next sweep. Before a
//!   full key it waits up to 2 s.
//! - `finished`: what the bus has accepted, settled in batches while publications go on.
//! - `right`: until when the lease of a shared outbox is held. Without it nothing is read or published,
//!   and when it is lost everything is let go.
//!
//! Events of one key come in their order from each page and from page to page; of different keys
//! nothing is assumed.

mod finished;
mod hand;
mod passed;
mod plan;
mod reading;
mod right;

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::Abortable;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use self::hand::Turn;
use self::plan::{Done, Goal, Job, Plan};
use self::reading::PAGE;
use self::right::{LEASE_LENGTH, Right};
use super::{Lease, Outbox};
use crate::background::{Background, Stop};
use crate::ports::{Clock, Entropy, ErrorKind, EventBus, PortError, Redelivery, StateStore};

/// How often it looks without being woken: for events whose process died before it could wake us.
const POLL: Duration = Duration::from_secs(1);

/// How often it looks in an outbox that other replicas fill as well, and at the lease of another one.
const SHARED_POLL: Duration = Duration::from_millis(100);

/// How long it goes on publishing when it is stopped.
const FLUSH: Duration = Duration::from_secs(5);

/// Pauses after a failure: of a key, of reading, and of settling. Nothing spreads them: one relay works
/// on an outbox, and the keys that fall due together share a few places.
const PAUSES: Redelivery = Redelivery {
    max_deliveries: u32::MAX,
    first_pause: Duration::from_millis(100),
    longest_pause: Duration::from_secs(5),
};

/// Moves events from the outbox to the bus.
///
/// An event is settled only after the bus has accepted it, so a crash publishes it twice rather than
/// never. An event that fails holds back the later ones of its key and no others. Where replicas share
/// an outbox, one of them relays for all, so that the order per key holds across them.
#[derive(Debug)]
pub struct Relay {
    outbox: Arc<Outbox>,
    bus: Arc<dyn EventBus>,
    shared: Option<Shared>,
}

/// What decides which of several relays works.
#[derive(Debug)]
struct Shared {
    lease: Mutex<Lease>,
    clock: Arc<dyn Clock>,
}

/// What one pass over the outbox did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RelayReport {
    /// Events that the bus accepted and that are settled.
    pub published: usize,
    /// Events that stay pending.
    pub failed: usize,
}

/// What the loop waits for.
enum Next {
    Done(Done),
    Committed,
    Due,
    Stop,
}

impl Relay {
    /// The relay of an outbox that no other process has.
    #[must_use]
    pub fn new(outbox: Arc<Outbox>, bus: Arc<dyn EventBus>) -> Self {
        let shared = None;
        Self {
            outbox,
            bus,
            shared,
        }
    }

    /// One of several relays of a shared outbox; it works while it holds the lease of this name in that store.
    ///
    /// Relays of the same outbox name the same lease in the same place. Where two adapters have an outbox each and keep their records in
    /// one store, as while a service moves between them, each has a lease of its own: both relays have to work.
    ///
    /// # Errors
    /// `Unsupported` when the store has no conditional writes.
    pub fn shared(
        outbox: Arc<Outbox>,
        bus: Arc<dyn EventBus>,
        leases: Arc<dyn StateStore>,
        lease: &str,
        clock: Arc<dyn Clock>,
        entropy: &dyn Entropy,
    ) -> Result<Self, PortError> {
        let lease = Lease::new(leases, lease, LEASE_LENGTH, Arc::clone(&clock), entropy)?;
        let lease = Mutex::new(lease);
        Ok(Self {
            outbox,
            bus,
            shared: Some(Shared { lease, clock }),
        })
    }

    /// Runs until it is stopped, and publishes what is then pending before it ends, for at most 5 s.
    pub fn start(self) -> Background {
        Background::spawn("relay", |stop| self.run(stop))
    }

    async fn run(self, stop: Stop) {
        let plan = self.work(self.plan(Goal::Run), Some(stop)).await;
        let waiting = plan.waiting();
        if waiting > 0 {
            tracing::warn!(
                waiting,
                "some events stay pending and are published at the next start"
            );
        }
        if let Some(shared) = self.shared
            && let Err(error) = shared.lease.into_inner().release().await
        {
            tracing::debug!(%error, "the relay's lease ends by itself");
        }
    }

    /// Publishes what is pending now; nothing while another replica relays.
    ///
    /// Each key is tried until it fails. For tests, and for those who call it at their own times.
    ///
    /// # Errors
    /// When the store cannot list or settle; failures of the bus are counted in the report.
    ///
    /// # Cancel safety
    /// Events that were published and not yet settled are published again.
    pub async fn pass(&self) -> Result<RelayReport, PortError> {
        self.work(self.plan(Goal::Once), None).await.report()
    }

    fn plan(&self, goal: Goal) -> Plan {
        let now = Instant::now();
        let (poll, right) = match &self.shared {
            None => (POLL, None),
            Some(shared) => {
                let clock = Arc::clone(&shared.clock);
                (SHARED_POLL, Some(Right::new(clock, SHARED_POLL, now)))
            }
        };
        Plan::new(goal, poll, right, now)
    }

    async fn work(&self, mut plan: Plan, stop: Option<Stop>) -> Plan {
        let mut jobs = FuturesUnordered::new();
        let mut committed = pin!(self.outbox.committed());
        let mut raised = pin!(raised(stop).fuse());
        let mut sleep = pin!(sleep_until(Instant::now()));
        loop {
            let now = Instant::now();
            while let Some(job) = plan.next(now) {
                jobs.push(self.perform(job));
            }
            if plan.is_over(now) {
                return plan;
            }
            let due = plan.due(now);
            if let Some(due) = due.filter(|due| *due != sleep.deadline()) {
                sleep.as_mut().reset(due);
            }
            // A bus that always answers at once would otherwise never let others run.
            tokio::task::consume_budget().await;
            let next = poll_fn(|context| {
                if raised.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Next::Stop);
                }
                if committed.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Next::Committed);
                }
                if let Poll::Ready(Some(done)) = jobs.poll_next_unpin(context) {
                    return Poll::Ready(Next::Done(done));
                }
                match due.map(|_| sleep.as_mut().poll(context)) {
                    Some(Poll::Ready(())) => Poll::Ready(Next::Due),
                    Some(Poll::Pending) | None => Poll::Pending,
                }
            });
            match next.await {
                Next::Done(done) => plan.done(done, Instant::now()),
                Next::Committed => {
                    plan.notice(Instant::now());
                    committed.set(self.outbox.committed());
                }
                Next::Stop => plan.stop(Instant::now()),
                Next::Due => {}
            }
        }
    }

    async fn perform(&self, job: Job) -> Done {
        let store = self.outbox.store();
        match job {
            Job::Hold => {
                let asked = Instant::now();
                Done::Held(asked, self.hold().await)
            }
            Job::Publish(turn) => self.publish(turn).await,
            Job::Read(reader, after) => Done::Read(reader, store.pending(after, PAGE).await),
            Job::Settle(batch) => {
                let result = store.settle(&batch).await;
                Done::Settled(batch, result)
            }
        }
    }

    async fn publish(&self, turn: Turn) -> Done {
        let Turn {
            number,
            pending,
            registration,
        } = turn;
        let publication = self.bus.publish(&pending.event);
        let result = Abortable::new(publication, registration).await;
        let given_up = |_| {
            let error = PortError::new(ErrorKind::Timeout, "relay", "publish");
            Err(error
                .context("it was given up for others")
                .unknown_outcome())
        };
        Done::Published(number, pending, result.unwrap_or_else(given_up))
    }

    /// Takes or renews the lease, and answers until when it is held.
    async fn hold(&self) -> Result<Option<Duration>, PortError> {
        let Some(shared) = &self.shared else {
            return Ok(None);
        };
        let mut lease = shared.lease.lock().await;
        lease.hold().await?;
        Ok(lease.until())
    }
}

async fn raised(stop: Option<Stop>) {
    match stop {
        Some(mut stop) => stop.raised().await,
        None => pending().await,
    }
}
