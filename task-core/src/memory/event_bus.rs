//! An event bus in memory.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::lock;
use crate::background::{Background, Stop};
use crate::dispatch::{Dispatched, dispatch};
use crate::ports::{
    Answer, BusCapability, CapabilitySet, Delivery, ErrorKind, Event, EventBus, EventHandler,
    Group, PortError, StartAt, Subscription, Topic,
};

const BACKEND: &str = "memory";

/// Events of one topic that a new group can still begin with.
const MAX_HISTORY: usize = 10_000;

/// Events that wait for one group before publishing is refused.
const MAX_WAITING: usize = 100_000;

/// Deliveries handled before their answers are applied.
const BATCH: usize = 256;

/// An [`EventBus`] that lives and dies with the process. A clone shares its events.
#[derive(Clone, Default)]
pub struct MemoryEventBus {
    shared: Arc<Shared>,
}

impl fmt::Debug for MemoryEventBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.shared.state);
        f.debug_struct("MemoryEventBus")
            .field("topics", &state.history.len())
            .field("groups", &state.groups.len())
            .finish()
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    published: Notify,
}

#[derive(Default)]
struct State {
    history: HashMap<Topic, VecDeque<Event>>,
    groups: HashMap<(Topic, Group), Waiting>,
    last_place: u64,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<WaitingEvent>,
    subscribed: bool,
}

#[derive(Clone)]
struct WaitingEvent {
    place: u64,
    event: Event,
    deliveries: u32,
    due: Instant,
}

impl MemoryEventBus {
    /// A bus without events.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl State {
    fn publish(&mut self, event: &Event) -> Result<(), PortError> {
        let full = self.groups.iter().any(|((topic, _), waiting)| {
            *topic == event.topic && waiting.events.len() >= MAX_WAITING
        });
        if full {
            return Err(
                PortError::new(ErrorKind::Throttled, BACKEND, "publish").context(format!(
                    "{} has {MAX_WAITING} events waiting, which is the limit",
                    event.topic
                )),
            );
        }
        self.last_place += 1;
        let place = self.last_place;
        for ((topic, _), waiting) in &mut self.groups {
            if *topic == event.topic {
                waiting
                    .events
                    .push_back(WaitingEvent::new(place, event.clone()));
            }
        }
        let history = self.history.entry(event.topic.clone()).or_default();
        history.push_back(event.clone());
        if history.len() > MAX_HISTORY {
            history.pop_front();
        }
        Ok(())
    }

    fn events_from(&self, topic: &Topic, start: &StartAt) -> VecDeque<WaitingEvent> {
        match start {
            StartAt::End => VecDeque::new(),
            StartAt::Beginning => {
                let history = self.history.get(topic).into_iter().flatten();
                history
                    .map(|event| WaitingEvent::new(0, event.clone()))
                    .collect()
            }
            StartAt::Group(other) => match self.groups.get(&(topic.clone(), other.clone())) {
                Some(waiting) => waiting
                    .events
                    .iter()
                    .map(|waiting| WaitingEvent::new(waiting.place, waiting.event.clone()))
                    .collect(),
                None => VecDeque::new(),
            },
        }
    }

    fn join(&mut self, subscription: &Subscription) -> Result<(), PortError> {
        let key = (subscription.topic.clone(), subscription.group.clone());
        if !self.groups.contains_key(&key) {
            let mut events = self.events_from(&subscription.topic, &subscription.start);
            for waiting in &mut events {
                self.last_place += 1;
                waiting.place = self.last_place;
            }
            self.groups.insert(
                key.clone(),
                Waiting {
                    events,
                    subscribed: false,
                },
            );
        }
        let waiting = self.groups.entry(key).or_default();
        if waiting.subscribed {
            return Err(
                PortError::new(ErrorKind::Conflict, BACKEND, "subscribe").context(format!(
                    "group {} is subscribed to {} already",
                    subscription.group, subscription.topic
                )),
            );
        }
        waiting.subscribed = true;
        Ok(())
    }
}

impl WaitingEvent {
    fn new(place: u64, event: Event) -> Self {
        Self {
            place,
            event,
            deliveries: 0,
            due: Instant::now(),
        }
    }

    fn delivery(&self) -> Delivery {
        Delivery {
            topic: self.event.topic.clone(),
            key: self.event.key.clone(),
            payload: self.event.payload.clone(),
            attempt: self.deliveries + 1,
        }
    }
}

/// One running subscription; leaves the group when it ends, however it ends.
struct Member {
    shared: Arc<Shared>,
    subscription: Subscription,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.with_waiting(|waiting| waiting.subscribed = false);
    }
}

impl Member {
    fn with_waiting<T>(&self, read: impl FnOnce(&mut Waiting) -> T) -> T {
        let mut state = lock(&self.shared.state);
        let key = (
            self.subscription.topic.clone(),
            self.subscription.group.clone(),
        );
        read(state.groups.entry(key).or_default())
    }

    async fn run(self, handler: Arc<dyn EventHandler>, mut stop: Stop) {
        while !stop.is_raised() {
            // Registered before looking, so that an event published in between wakes us.
            let published = self.shared.published.notified();
            let (due, next) = self.due(Instant::now());
            if due.is_empty() {
                let wait = async {
                    match next {
                        // Falling due is the time-out of the wait; both ways we look again.
                        Some(next) => drop(tokio::time::timeout_at(next, published).await),
                        None => published.await,
                    }
                };
                stop.or(wait).await;
                continue;
            }
            let batch: Vec<Delivery> = due.iter().map(WaitingEvent::delivery).collect();
            let results = dispatch(&*handler, &batch, self.subscription.concurrency, &stop).await;
            self.settle(&due, &results);
        }
    }

    /// Events to deliver now, and when the next one falls due.
    fn due(&self, now: Instant) -> (Vec<WaitingEvent>, Option<Instant>) {
        self.with_waiting(|waiting| {
            let mut held: HashSet<&str> = HashSet::new();
            let mut due = Vec::new();
            let mut next: Option<Instant> = None;
            for event in &waiting.events {
                let key = &*event.event.key;
                if held.contains(key) {
                    continue;
                }
                if event.due > now {
                    next = Some(next.map_or(event.due, |next| next.min(event.due)));
                    if !key.is_empty() {
                        held.insert(key);
                    }
                } else if due.len() < BATCH {
                    due.push(event.clone());
                }
            }
            (due, next)
        })
    }

    fn settle(&self, due: &[WaitingEvent], results: &[Dispatched]) {
        let redelivery = &self.subscription.redelivery;
        let mut done = HashSet::new();
        let mut again = HashMap::new();
        for (waiting, result) in due.iter().zip(results) {
            let deliveries = waiting.deliveries + 1;
            match result {
                Dispatched::HeldBack => {}
                Dispatched::Answered(Answer::Ack) => {
                    done.insert(waiting.place);
                }
                Dispatched::Answered(Answer::Retry) if deliveries < redelivery.max_deliveries => {
                    let due = Instant::now() + redelivery.pause_after(deliveries);
                    again.insert(waiting.place, (deliveries, due));
                }
                Dispatched::Answered(Answer::Retry | Answer::Drop) => {
                    if self.bury(&waiting.event) {
                        done.insert(waiting.place);
                    } else {
                        let due = Instant::now() + redelivery.pause_after(deliveries);
                        again.insert(waiting.place, (deliveries, due));
                    }
                }
            }
        }
        self.with_waiting(|waiting| {
            waiting.events.retain(|event| !done.contains(&event.place));
            for event in &mut waiting.events {
                if let Some((deliveries, due)) = again.get(&event.place) {
                    event.deliveries = *deliveries;
                    event.due = *due;
                }
            }
        });
    }

    /// Moves an event to the dead-letter topic; if that is full, the event stays where it is.
    fn bury(&self, event: &Event) -> bool {
        let dead = Event {
            topic: self.subscription.dead_letter.clone(),
            ..event.clone()
        };
        let buried = lock(&self.shared.state).publish(&dead);
        if let Err(error) = &buried {
            tracing::warn!(%error, "dead letter delivered again");
        }
        self.shared.published.notify_waiters();
        buried.is_ok()
    }
}

#[async_trait]
impl EventBus for MemoryEventBus {
    fn capabilities(&self) -> CapabilitySet<BusCapability> {
        CapabilitySet::of(&[BusCapability::OrderedPerKey, BusCapability::DeadLetter])
    }

    async fn publish(&self, event: &Event) -> Result<(), PortError> {
        event.check_limits(BACKEND, "publish")?;
        lock(&self.shared.state).publish(event)?;
        self.shared.published.notify_waiters();
        Ok(())
    }

    async fn subscribe(
        &self,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        lock(&self.shared.state).join(&subscription)?;
        let member = Member {
            shared: Arc::clone(&self.shared),
            subscription,
        };
        Ok(Background::spawn("memory subscription", |stop| {
            member.run(handler, stop)
        }))
    }

    async fn check(&self) -> Result<(), PortError> {
        Ok(())
    }
}
