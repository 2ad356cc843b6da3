//! Compares a topic with its copy on the new bus.

mod window;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use self::window::Window;
pub use self::window::{ShadowExample, ShadowFinding, ShadowReport};
use super::{BusStage, Control, Member, Side, shadow_topic};
use crate::application::{IncomingEvent, Lease};
use crate::background::{Background, Stop};
use crate::domain::Timestamp;
use crate::memory::lock;
use crate::ports::{
    Answer, BusCapability, Clock, Delivery, Entropy, EventBus, EventHandler, Group, PortError,
    StateStore, Subscription, Topic,
};

/// The lease of the one replica that compares: two would share the events, and none would see all.
const LEASE: &str = "migration-compare";

/// How long a replica compares without a sign of life; twice that, and another one does.
const LEASE_LENGTH: Duration = Duration::from_secs(5);

/// The group of a comparison on a bus that lets everybody have groups of their own.
pub const COMPARING_GROUP: &str = "migration-compare";

/// A bus, and the group in which its topic is listened to beside those who handle its events.
#[derive(Debug, Clone)]
pub struct Listening {
    /// The bus.
    pub bus: Arc<dyn EventBus>,
    /// The group; on the new side it may be that of the service, which does not hear the copies.
    pub group: Group,
}

/// Time between two looks at the lease, the stages, and what has waited long enough.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long an event has to come to both.
const PATIENCE: Duration = Duration::from_secs(30);

/// From a move of buckets on, how long an event may yet be made by a replica that has not heard of it.
const SETTLING: Duration = Duration::from_secs(10);

/// Who compares, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ShadowStatus {
    /// Whether this replica compares; one of all does.
    pub is_here: bool,
    /// Whether both buses keep the order of a key, so that another order is a defect.
    pub order_is_promised: bool,
    /// What this replica has found.
    pub report: ShadowReport,
}

/// Compares the events of a topic with those of its copy, by id, while buckets are in `shadow`.
///
/// One replica of all does; which one is decided by a lease. Its group takes nothing from any other one. Only events are
/// compared that say of themselves that they happened some time after the last move of buckets. An event says the
/// same on both sides, so each is compared on both or on none, however late it comes.
#[derive(Debug)]
pub struct ShadowComparison {
    old: Listening,
    new: Listening,
    topic: Topic,
    member: Arc<Member>,
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    is_here: bool,
    window: Window,
    /// The record by which is compared, and how young an event has to be.
    control: Option<(Control, Timestamp)>,
}

impl ShadowComparison {
    /// A comparison of a topic of these buses.
    #[must_use]
    pub fn new(
        old: Listening,
        new: Listening,
        topic: Topic,
        member: Arc<Member>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let state = State {
            is_here: false,
            window: Window::new(PATIENCE),
            control: None,
        };
        Self {
            old,
            new,
            topic,
            member,
            clock,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// What was found here so far.
    #[must_use]
    pub fn status(&self) -> ShadowStatus {
        let ordered = BusCapability::OrderedPerKey;
        let sides = [&self.old.bus, &self.new.bus];
        let state = lock(&self.state);
        ShadowStatus {
            is_here: state.is_here,
            order_is_promised: sides.iter().all(|bus| bus.capabilities().has(ordered)),
            report: state.window.report(),
        }
    }

    /// Compares in the background while no other replica does; `records` is the old side's store.
    ///
    /// # Errors
    /// `Unsupported` when the store has no conditional writes.
    pub fn start(
        self: &Arc<Self>,
        records: Arc<dyn StateStore>,
        entropy: &dyn Entropy,
    ) -> Result<Background, PortError> {
        let clock = Arc::clone(&self.clock);
        let lease = Lease::new(records, LEASE, LEASE_LENGTH, clock, entropy)?;
        let comparison = Arc::clone(self);
        Ok(Background::spawn("shadow comparison", |stop| async move {
            comparison.run(lease, stop).await;
        }))
    }

    async fn run(&self, mut lease: Lease, mut stop: Stop) {
        let mut heard = None;
        while !stop.is_raised() {
            let is_ours = match stop.or(lease.hold()).await {
                Some(Ok(is_ours)) => is_ours,
                Some(Err(_)) => lease.is_held(),
                None => break,
            };
            let is_wanted = is_ours && self.adopt();
            match (is_wanted, heard.take()) {
                (true, None) => heard = self.subscribe().await,
                (false, Some(both)) => Background::stop(both).await,
                (_, same) => heard = same,
            }
            self.look(heard.is_some());
            stop.or(sleep(LOOK_EVERY)).await;
        }
        if let Some(both) = heard {
            both.stop().await;
        }
        lock(&self.state).is_here = false;
        if let Err(error) = lease.release().await {
            tracing::debug!(%error, "another replica compares when the lease is over");
        }
    }

    fn look(&self, is_here: bool) {
        let mut state = lock(&self.state);
        state.is_here = is_here;
        state.window.look(Instant::now());
    }

    /// Takes the stages as they are now, and says whether any bucket is in `shadow`.
    fn adopt(&self) -> bool {
        let Ok(pin) = self.member.pin() else {
            return false;
        };
        let control = pin.control();
        let mut state = lock(&self.state);
        let is_news = state
            .control
            .as_ref()
            .is_none_or(|(known, _)| known.bus != control.bus);
        if is_news {
            state.window.forget();
            state.control = Some((control.clone(), self.settled()));
        }
        control.bus.within(BusStage::Shadow) > 0
    }

    /// The least time of an event that no replica makes by an earlier record.
    fn settled(&self) -> Timestamp {
        self.clock.now().saturating_add(SETTLING)
    }

    async fn subscribe(&self) -> Option<Background> {
        // What was missed while nobody listened is not missing.
        {
            let mut state = lock(&self.state);
            state.window.forget();
            if let Some((_, from)) = &mut state.control {
                *from = (*from).max(self.settled());
            }
        }
        let copy = shadow_topic(&self.topic);
        let subscribed = async {
            let new = self.hear(&self.new, copy, Side::New).await?;
            match self.hear(&self.old, self.topic.clone(), Side::Old).await {
                Ok(old) => Ok(Background::of("shadow subscriptions", vec![old, new])),
                Err(error) => {
                    new.stop().await;
                    Err(error)
                }
            }
        };
        let result: Result<_, PortError> = subscribed.await;
        result
            .inspect_err(|error| tracing::debug!(%error, "the shadow topic is not compared now"))
            .ok()
    }

    async fn hear(
        &self,
        Listening { bus, group }: &Listening,
        topic: Topic,
        side: Side,
    ) -> Result<Background, PortError> {
        let listener = Listener {
            side,
            state: Arc::clone(&self.state),
        };
        let subscription = Subscription::new(topic, group.clone());
        bus.subscribe(subscription, Arc::new(listener)).await
    }
}

/// Notes what comes by one of the two topics.
#[derive(Debug)]
struct Listener {
    side: Side,
    state: Arc<Mutex<State>>,
}

#[async_trait]
impl EventHandler for Listener {
    async fn handle(&self, delivery: &Delivery) -> Answer {
        let event = IncomingEvent::parse(&delivery.payload);
        let mut state = lock(&self.state);
        let Some((control, from)) = &state.control else {
            return Answer::Ack;
        };
        let is_in_shadow = control.bus_stage_of(&delivery.key) == BusStage::Shadow;
        match event {
            Ok(event) if is_in_shadow && event.time.is_some_and(|time| time >= *from) => {
                let id = (event.source.into(), event.id.into());
                let now = Instant::now();
                state.window.arrived(self.side, &id, delivery, now);
            }
            Ok(_) => {}
            Err(_) => state.window.unreadable(),
        }
        // Whatever it is, it is for others to handle.
        Answer::Ack
    }
}
