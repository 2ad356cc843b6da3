//! Publishes pending events, at least once, in order per key.
//!
//! One loop gives out jobs and waits for whichever ends first: up to 64 publications, one read or
//! settlement, one look at the lease. What to do next is decided by plain state without I/O:
//!
//! - `hand`: the events in hand, one chain a key, of which the first is published. A key that fails
//!   keeps its first event and a pause of its own (100 ms, doubling to 5 s); the rest of it is let go
//!   and read again later. So failing keys never fill the hand: it holds at most 1,024 events of keys
//!   that work, and the first events of at most 1,024 keys that fail. Of further failing keys nothing
//!   is kept; they are tried each time a sweep comes by them.
//! - `reading`: a sweep from the beginning of the outbox to its end, and the tail for what is new. The
//!   sweep goes past whatever is blocked. Which keys it has passed over is kept in a set of constant
//!   size, so that none of their later events is taken before the earlier ones. It reads as fast as
//!   the hand empties, but at most 10 pages a second while its pages give nothing or the bus takes
//!   nothing (64 keys have failed and none was taken), and 50 while all they give is of full keys. Before
//!   a full key it waits up to 2 s, and it begins again when it gives nothing while a key asks for it.
//! - `finished`: what the bus has accepted, settled in batches while publications go on. An event is
//!   remembered until its settlement is a while ago, because a page may name it again.
//! - `right`: how long the lease of a shared outbox is held at least. Without it nothing is read or
//!   published, and when it is lost everything is let go but what is under way.
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

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use self::plan::{Done, Goal, Job, Plan};
use self::reading::PAGE;
use self::right::{LEASE_LENGTH, Right};
use super::{Lease, Outbox};
use crate::background::{Background, Stop};
use crate::ports::{Entropy, EventBus, PortError};

/// How often it looks without being woken: for events whose process died before it could wake us.
const POLL: Duration = Duration::from_secs(1);

/// How often it looks in an outbox that other replicas fill as well, and at the lease of another one.
const SHARED_POLL: Duration = Duration::from_millis(100);

/// How long it goes on publishing when it is stopped.
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
        let lease = None;
        Self { outbox, bus, lease }
    }

    /// One of several relays of a shared outbox; it works while it holds the lease of this name.
    ///
    /// Relays of the same outbox name the same lease. Where two adapters have an outbox each and keep their records in
    /// one store, as while a service moves between them, each has a lease of its own: both relays have to work.
    ///
    /// # Errors
    /// `Unsupported` when the store has no conditional writes.
    pub fn shared(
        outbox: Arc<Outbox>,
        bus: Arc<dyn EventBus>,
        lease: &str,
        entropy: &dyn Entropy,
    ) -> Result<Self, PortError> {
        let store = Arc::clone(outbox.shared_store());
        let lease = Lease::new(store, lease, LEASE_LENGTH, entropy)?;
        let lease = Some(Mutex::new(lease));
        Ok(Self { outbox, bus, lease })
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
        if let Some(lease) = self.lease
            && let Err(error) = lease.into_inner().release().await
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
        let (poll, right) = match &self.lease {
            None => (POLL, None),
            Some(_) => (SHARED_POLL, Some(Right::new(SHARED_POLL, now))),
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
                    plan.notice();
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
            Job::Publish(event) => {
                let result = self.bus.publish(&event).await;
                Done::Published(event, result)
            }
            Job::Read(reader, after) => Done::Read(reader, store.pending(after, PAGE).await),
            Job::Settle(batch) => {
                let result = store.settle(&batch).await;
                Done::Settled(batch, result)
            }
        }
    }

    async fn hold(&self) -> Result<bool, PortError> {
        match &self.lease {
            None => Ok(true),
            Some(lease) => lease.lock().await.hold().await,
        }
    }
}

async fn raised(stop: Option<Stop>) {
    match stop {
        Some(mut stop) => stop.raised().await,
        None => pending().await,
    }
}
