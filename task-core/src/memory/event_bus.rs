//! An event bus in memory.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::lock;
use crate::background::{Background, Stop};
use crate::dispatch::{Dispatcher, Handled};
use crate::ports::{
    BusCapability, CapabilitySet, Delivery, ErrorKind, Event, EventBus, EventHandler, Group,
    PortError, StartAt, Subscription, Topic,
};

const BACKEND: &str = "memory";

/// Events of one topic that a new group can still begin with.
const MAX_HISTORY: usize = 10_000;

/// Events that wait for one group before publishing is refused.
const MAX_WAITING: usize = 100_000;

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
    /// Events that are not finished, by place.
    events: BTreeMap<u64, WaitingEvent>,
    subscribed: bool,
}

struct WaitingEvent {
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
        for ((topic, _), waiting) in &mut self.groups {
            if *topic == event.topic {
                let event = WaitingEvent::new(event.clone());
                waiting.events.insert(self.last_place, event);
            }
        }
        let history = self.history.entry(event.topic.clone()).or_default();
        history.push_back(event.clone());
        if history.len() > MAX_HISTORY {
            history.pop_front();
        }
        Ok(())
    }

    fn events_from(&self, topic: &Topic, start: &StartAt) -> Vec<Event> {
        match start {
            StartAt::End => Vec::new(),
            StartAt::Beginning => {
                let history = self.history.get(topic).into_iter().flatten();
                history.cloned().collect()
            }
            StartAt::Group(other) => {
                let other = self.groups.get(&(topic.clone(), other.clone()));
                let waiting = other.into_iter().flat_map(|other| other.events.values());
                waiting.map(|waiting| waiting.event.clone()).collect()
            }
        }
    }

    fn join(&mut self, subscription: &Subscription) -> Result<(), PortError> {
        let key = (subscription.topic.clone(), subscription.group.clone());
        if !self.groups.contains_key(&key) {
            let mut waiting = Waiting::default();
            for event in self.events_from(&subscription.topic, &subscription.start) {
                self.last_place += 1;
                let event = WaitingEvent::new(event);
                waiting.events.insert(self.last_place, event);
            }
            self.groups.insert(key.clone(), waiting);
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
    fn new(event: Event) -> Self {
        Self {
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
        let mut dispatcher = Dispatcher::new(handler, &self.subscription);
        let mut taken = 0;
        while !stop.is_raised() {
            // Registered before looking, so that an event published in between wakes us.
            let published = self.shared.published.notified();
            taken = self.take(taken, &mut dispatcher);
            let ended = dispatcher.next_or(published);
            if let Some(Some(handled)) = stop.or(ended).await {
                self.settle(handled, &mut dispatcher);
            }
        }
        dispatcher.stop();
        while let Some(handled) = dispatcher.next().await {
            self.settle(handled, &mut dispatcher);
        }
    }

    /// Takes everything after a place in hand, which is no more than may wait; answers the last place.
    fn take(&self, after: u64, dispatcher: &mut Dispatcher<u64>) -> u64 {
        self.with_waiting(|waiting| {
            let mut last = after;
            for (place, waiting) in waiting.events.range(after + 1..) {
                dispatcher.offer_at(waiting.due, *place, waiting.delivery());
                last = *place;
            }
            last
        })
    }

    fn settle(&self, handled: Handled<u64>, dispatcher: &mut Dispatcher<u64>) {
        match handled {
            Handled::Done { place } => self.finish(place),
            Handled::Dead {
                place, delivery, ..
            } if self.bury(&delivery) => self.finish(place),
            Handled::Dead {
                place, delivery, ..
            } => {
                let due = Instant::now() + self.subscription.redelivery.longest_pause;
                dispatcher.offer_at(due, place, delivery);
            }
            Handled::Again {
                place,
                deliveries,
                due,
            } => self.with_waiting(|waiting| {
                if let Some(waiting) = waiting.events.get_mut(&place) {
                    waiting.deliveries = deliveries;
                    waiting.due = due;
                }
            }),
        }
    }

    fn finish(&self, place: u64) {
        self.with_waiting(|waiting| waiting.events.remove(&place));
    }

    /// Moves an event to the dead-letter topic; if that is full, the event stays where it is.
    fn bury(&self, delivery: &Delivery) -> bool {
        let dead = delivery
            .clone()
            .into_event(self.subscription.dead_letter.clone());
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
