//! A replica's part in the move: what it has adopted, what it still works on, how long it may.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use uuid::Builder;

use super::{Control, Stage};
use crate::application::Terms;
use crate::background::{Background, Stop};
use crate::memory::lock;
use crate::ports::{
    Clock, DeleteOptions, Entropy, ErrorKind, Key, Kind, PortError, PutOptions, Retry, StateStore,
};

const BACKEND: &str = "migration";

/// Where replicas are known, on the old side.
pub(super) const REPLICAS: Kind = Kind::listed("replica");

/// How a replica takes part.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct MemberOptions {
    /// How long a replica may work without a sign of life; others wait twice as long.
    pub lease: Duration,
    /// Time between two looks at the control record, each with a sign of life.
    pub beat_every: Duration,
}

impl Default for MemberOptions {
    /// A lease of 5 s, a beat each 200 ms.
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(5),
            beat_every: Duration::from_millis(200),
        }
    }
}

/// This process among the replicas of the service.
///
/// A request [`pin`](Self::pin)s the epoch that it begins with and works by that one to its end. The
/// replica tells the others what it has adopted and the oldest epoch that is still pinned. Who may be
/// in which epoch is decided by that alone, and a replica that cannot tell starts nothing.
pub struct Member {
    old: Arc<dyn StateStore>,
    clock: Arc<dyn Clock>,
    id: Box<str>,
    options: MemberOptions,
    control: watch::Sender<Option<Arc<Control>>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Until when work may start and be answered, by the clock's uptime: it runs while a machine is suspended.
    until: Option<Duration>,
    /// How often a lease began when none was there. What was pinned under an earlier one is not answered.
    leases: u64,
    beat: u64,
    /// Requests by the epoch they began with.
    pinned: BTreeMap<u64, usize>,
}

/// What a replica says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// The epoch by which it starts requests.
    pub adopted: u64,
    /// The oldest epoch by which a request of it still works.
    pub oldest: u64,
    /// Rises with every sign of life.
    pub beat: u64,
}

impl Beat {
    /// Reads a record.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    fn encode(&self) -> Bytes {
        let json = serde_json::to_vec(self);
        json.expect("numbers are JSON").into()
    }
}

impl Member {
    /// A replica that has not joined yet.
    #[must_use]
    pub fn new(
        old: Arc<dyn StateStore>,
        options: MemberOptions,
        clock: Arc<dyn Clock>,
        entropy: &dyn Entropy,
    ) -> Self {
        let mut random = [0; 16];
        entropy.fill(&mut random);
        Self {
            old,
            clock,
            id: Builder::from_random_bytes(random)
                .into_uuid()
                .to_string()
                .into(),
            options,
            control: watch::Sender::new(None),
            state: Mutex::default(),
        }
    }

    /// The name by which others know this replica.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The control record that is adopted now, to look at: whoever acts by it has to [`pin`](Self::pin) it.
    pub(super) fn control(&self) -> Option<Arc<Control>> {
        self.control.borrow().clone()
    }

    /// Begins a request with what is adopted now.
    ///
    /// # Errors
    /// `Unavailable` and not made, while nothing is adopted or the lease is over.
    pub fn pin(self: &Arc<Self>) -> Result<Pin, PortError> {
        // Under the lock, so that no sign of life says of an epoch that is adopted here that nobody works by it.
        let mut state = lock(&self.state);
        let Some(control) = self.control.borrow().clone() else {
            return Err(
                self.refusal("there is no control record; run `task-server migration init`")
            );
        };
        if !self.is_ahead(&state) {
            return Err(self.refusal("this replica's lease is over"));
        }
        *state.pinned.entry(control.epoch).or_default() += 1;
        Ok(Pin {
            member: Arc::clone(self),
            control,
            lease: state.leases,
        })
    }

    /// Waits until another control record is adopted than this one.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn adopted_after(&self, epoch: u64) {
        let is_other = |control: &Option<Arc<Control>>| {
            control
                .as_ref()
                .is_some_and(|control| control.epoch > epoch)
        };
        // The sender is ours and lives as long as this borrow.
        let _ = self.control.subscribe().wait_for(is_other).await;
    }

    /// Gives a sign of life, looks at the control record, and adopts it.
    ///
    /// In this order: whoever moves the stages sees this replica before it reads what they are, and one that was forgotten
    /// while it slept has no lease by what it saw before (`a_replica_that_slept_behind_its_look_does_not_work_by_what_it_saw`).
    ///
    /// # Errors
    /// As the old side; `Corrupt` for a record that cannot be read, or that is missing or older than the one known. The
    /// lease then runs out.
    ///
    /// # Cancel safety
    /// Cancel safe: what was sent and not heard of does not lengthen the lease.
    pub async fn beat(&self) -> Result<(), PortError> {
        let sent = self.clock.uptime();
        let known = self.known();
        self.send(known).await?;
        let found = self.old.get(&Control::key()).await?;
        let found = found.map(|stored| Control::decode(&stored.value));
        let found = found.transpose().map_err(|error| {
            PortError::new(ErrorKind::Corrupt, BACKEND, "adopt").caused_by(error)
        })?;
        let epoch = self.adopt(found)?;
        self.extend(sent);
        if epoch > known {
            // Others wait for this.
            self.send(epoch).await?;
        }
        Ok(())
    }

    /// The epoch that is adopted, 0 for none.
    fn known(&self) -> u64 {
        let control = self.control.borrow();
        control.as_ref().map_or(0, |known| known.epoch)
    }

    /// Begins or lengthens the lease, which counts from a moment before the sign of life.
    fn extend(&self, sent: Duration) {
        let mut state = lock(&self.state);
        let goes_on = state.until.is_some_and(|until| sent < until);
        state.leases += u64::from(!goes_on);
        state.until = Some(sent + self.options.lease);
    }

    fn adopt(&self, found: Option<Control>) -> Result<u64, PortError> {
        let known = self.known();
        let Some(found) = found else {
            if known == 0 {
                return Ok(0);
            }
            return Err(lost(&format!("it is missing, and was at epoch {known}")));
        };
        if found.epoch < known {
            let text = format!("it is at epoch {}, and was at {known}", found.epoch);
            return Err(lost(&text));
        }
        let epoch = found.epoch;
        let _no_pin_meanwhile = lock(&self.state);
        self.control.send_if_modified(|control| {
            let is_news = epoch > known;
            if is_news {
                *control = Some(Arc::new(found));
            }
            is_news
        });
        Ok(epoch)
    }

    async fn send(&self, adopted: u64) -> Result<(), PortError> {
        let beat = {
            let mut state = lock(&self.state);
            state.beat += 1;
            Beat {
                adopted,
                oldest: state.pinned.keys().next().copied().unwrap_or(adopted),
                beat: state.beat,
            }
        };
        let options = PutOptions::default();
        self.old.put(&self.key(), beat.encode(), options).await?;
        Ok(())
    }

    /// Beats until it is stopped, and leaves.
    pub fn start(self: &Arc<Self>) -> Background {
        let member = Arc::clone(self);
        Background::spawn("migration member", move |stop| member.run(stop))
    }

    async fn run(self: Arc<Self>, mut stop: Stop) {
        while !stop.is_raised() {
            let next = Instant::now() + self.options.beat_every;
            match stop.or(self.beat()).await {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::warn!(%error, "no sign of life of this replica"),
                None => break,
            }
            stop.or(sleep_until(next)).await;
        }
        if let Err(error) = self.leave().await {
            tracing::debug!(%error, "the replica is forgotten when its lease is over");
        }
    }

    /// Starts nothing any more, and is not waited for.
    ///
    /// # Errors
    /// As the old side; the replica is then waited for until its lease is over.
    pub async fn leave(&self) -> Result<(), PortError> {
        lock(&self.state).until = None;
        let is_idle = lock(&self.state).pinned.is_empty();
        match is_idle {
            true => self.old.delete(&self.key(), DeleteOptions::default()).await,
            // Whoever waits for it has to wait for its requests too.
            false => Ok(()),
        }
    }

    fn is_ahead(&self, state: &State) -> bool {
        state.until.is_some_and(|until| self.clock.uptime() < until)
    }

    fn key(&self) -> Key {
        Key::new(REPLICAS, &*self.id)
    }

    fn refusal(&self, why: &str) -> PortError {
        PortError::new(ErrorKind::Unavailable, BACKEND, "pin")
            .context(why)
            .retry(Retry::After(self.options.beat_every))
            .not_made()
    }
}

impl Terms for Member {
    fn term(&self) -> u32 {
        let control = self.control.borrow();
        control.as_ref().map_or(0, |control| control.term)
    }
}

fn lost(why: &str) -> PortError {
    PortError::new(ErrorKind::Corrupt, BACKEND, "adopt").context(format!(
        "the control record has been lost: {why}; nothing is written"
    ))
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("id", &self.id)
            .field("control", &*self.control.borrow())
            .finish_non_exhaustive()
    }
}

/// A request's epoch. While it lives, stages move at most one step on.
#[derive(Debug)]
#[must_use]
pub struct Pin {
    member: Arc<Member>,
    control: Arc<Control>,
    /// The lease that it began under.
    lease: u64,
}

impl Pin {
    /// The control record that the request works by.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The stage of a record for this request.
    #[must_use]
    pub fn stage_of(&self, key: &Key) -> Stage {
        self.control.stage_of(key)
    }

    /// Says whether the request may still be answered: what happened since it began was within one lease.
    ///
    /// Behind a lease that was over for a while nobody has waited for the request, and everything may have moved.
    #[must_use]
    pub fn holds(&self) -> bool {
        let state = lock(&self.member.state);
        self.lease == state.leases && self.member.is_ahead(&state)
    }

    /// Refuses to go on when the lease is over.
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn check(&self) -> Result<(), PortError> {
        match self.holds() {
            true => Ok(()),
            false => Err(PortError::new(ErrorKind::Unavailable, BACKEND, "pin")
                .context("this replica's lease ended during the request")),
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = lock(&self.member.state);
        let epoch = self.control.epoch;
        if let Some(count) = state.pinned.get_mut(&epoch) {
            *count -= 1;
            if *count == 0 {
                state.pinned.remove(&epoch);
            }
        }
    }
}
