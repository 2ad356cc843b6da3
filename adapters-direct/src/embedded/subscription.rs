//! One group's way through a topic.
//!
//! A group's position moves past an event as soon as the event is taken in hand. What is not done by
//! then is stored as a retry in the same step, so a failing event holds back its own key and nothing
//! else, and a crash repeats at most one batch.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use task_core::background::Stop;
use task_core::dispatch::{Dispatched, dispatch};
use task_core::ports::{Answer, Delivery, Event, EventHandler, PortError, Subscription};
use tokio::time::Instant;

use super::database::Database;
use super::event_bus::Place;
use super::events::{self, PlacedEvent, Progress};
use super::writer::Urgency;

/// Deliveries handled before their answers are stored.
const BATCH: usize = 256;

/// Unfinished events of one group; beyond that it takes no new ones in hand.
const MAX_UNFINISHED: usize = 10_000;

/// Events taken in hand between two trims of the topic.
const TRIM_EVERY: usize = 4096;

/// How often it looks without being woken: a publisher that gave up waiting wakes nobody.
const POLL: Duration = Duration::from_secs(1);

/// Pause after the file refused to be read or written.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

/// An event in hand.
#[derive(Debug, Clone)]
struct InHand {
    event: PlacedEvent,
    deliveries: u32,
    due: Instant,
}

impl InHand {
    fn new(event: PlacedEvent) -> Self {
        Self {
            event,
            deliveries: 0,
            due: Instant::now(),
        }
    }
}

/// A running subscription.
#[derive(Debug)]
pub(super) struct Subscriber {
    database: Arc<Database>,
    subscription: Subscription,
    position: i64,
    /// Unfinished events at or before the position, by place.
    unfinished: BTreeMap<i64, InHand>,
    since_trim: usize,
    _place: Place,
}

impl Subscriber {
    /// Fixes the group's position and reads what it left unfinished.
    pub(super) async fn join(
        database: Arc<Database>,
        subscription: Subscription,
        place: Place,
    ) -> Result<Self, PortError> {
        let wanted = subscription.clone();
        let position = database
            .write("subscribe", Urgency::Request, move |session| {
                events::join(session, &wanted)
            })
            .await?;
        let wanted = subscription.clone();
        let retries = database
            .read("subscribe", move |connection| {
                events::read_retries(connection, wanted.topic.as_str(), wanted.group.as_str())
            })
            .await?;
        let now = Instant::now();
        let wall = database.clock().now().unix_micros();
        let unfinished = retries.into_iter().map(|retry| {
            let left = u64::try_from(retry.due_at.saturating_sub(wall)).unwrap_or(0);
            // A clock that stepped back must not hold an event for longer than its longest pause.
            let pause = Duration::from_micros(left).min(subscription.redelivery.longest_pause);
            let in_hand = InHand {
                event: retry.event,
                deliveries: retry.deliveries,
                due: now + pause,
            };
            (in_hand.event.place, in_hand)
        });
        Ok(Self {
            position,
            unfinished: unfinished.collect(),
            since_trim: 0,
            database,
            subscription,
            _place: place,
        })
    }

    pub(super) async fn run(mut self, handler: Arc<dyn EventHandler>, mut stop: Stop) {
        let database = Arc::clone(&self.database);
        while !stop.is_raised() {
            // Registered before reading, so that an event published in between wakes us.
            let published = database.published().notified();
            let pause = match self.step(&*handler, &stop).await {
                Ok(true) => continue,
                Ok(false) => self.next_due(),
                Err(error) => {
                    tracing::warn!(%error, group = %self.subscription.group, "subscription waits");
                    Some(Instant::now() + PAUSE_AFTER_ERROR)
                }
            };
            let poll = Instant::now() + POLL;
            let until = pause.map_or(poll, |due| due.min(poll));
            // The time-out is the wait's other end; both ways we look again.
            stop.or(tokio::time::timeout_at(until, published)).await;
        }
    }

    /// Delivers what is due; answers whether anything was.
    async fn step(&mut self, handler: &dyn EventHandler, stop: &Stop) -> Result<bool, PortError> {
        let (mut batch, waiting) = self.due(Instant::now());
        let mut held = Vec::new();
        let mut position = self.position;
        if batch.len() < BATCH && self.unfinished.len() < MAX_UNFINISHED {
            for event in self.read(BATCH - batch.len()).await? {
                position = event.place;
                let in_hand = InHand::new(event);
                if waiting.contains(&in_hand.event.key) {
                    held.push(in_hand);
                } else {
                    batch.push(in_hand);
                }
            }
        }
        if batch.is_empty() && held.is_empty() {
            return Ok(false);
        }
        let deliveries: Vec<Delivery> = batch.iter().map(|event| self.delivery(event)).collect();
        let concurrency = self.subscription.concurrency;
        let results = dispatch(handler, &deliveries, concurrency, stop).await;
        self.settle(batch.into_iter().zip(results), held, position, stop)
            .await?;
        Ok(true)
    }

    /// Stores what became of a batch, then remembers it.
    async fn settle(
        &mut self,
        batch: impl Iterator<Item = (InHand, Dispatched)> + Send,
        held: Vec<InHand>,
        position: i64,
        stop: &Stop,
    ) -> Result<(), PortError> {
        let redelivery = self.subscription.redelivery;
        let mut unfinished = held;
        let mut progress = Progress {
            position,
            ..Progress::default()
        };
        for (mut in_hand, result) in batch {
            let deliveries = in_hand.deliveries + 1;
            match result {
                Dispatched::HeldBack => unfinished.push(in_hand),
                Dispatched::Answered(Answer::Retry) if deliveries < redelivery.max_deliveries => {
                    in_hand.deliveries = deliveries;
                    in_hand.due = Instant::now() + redelivery.pause_after(deliveries);
                    unfinished.push(in_hand);
                }
                Dispatched::Answered(answer) => {
                    progress.done.push(in_hand.event.place);
                    if answer != Answer::Ack {
                        progress.dead.push(self.dead_letter(&in_hand));
                    }
                }
            }
        }
        let wall = self.database.clock().now();
        progress.again = unfinished
            .iter()
            .map(|in_hand| {
                let pause = in_hand.due.saturating_duration_since(Instant::now());
                let due_at = wall.saturating_add(pause).unix_micros();
                (in_hand.event.place, in_hand.deliveries, due_at)
            })
            .collect();
        // Those that were never stored as retries need not be removed from them.
        let finished = progress.done.clone();
        progress
            .done
            .retain(|place| self.unfinished.contains_key(place));
        self.since_trim += finished.len();
        self.store_until_done(progress, stop).await?;
        for place in finished {
            self.unfinished.remove(&place);
        }
        for in_hand in unfinished {
            self.unfinished.insert(in_hand.event.place, in_hand);
        }
        self.position = position;
        Ok(())
    }

    /// Stores progress, however often that fails: answers that are forgotten would be asked for again.
    async fn store_until_done(&mut self, progress: Progress, stop: &Stop) -> Result<(), PortError> {
        let mut stop = stop.clone();
        loop {
            let Err(error) = self.store(progress.clone()).await else {
                return Ok(());
            };
            tracing::warn!(%error, group = %self.subscription.group, "progress is not stored yet");
            let pause = tokio::time::sleep(PAUSE_AFTER_ERROR);
            if stop.or(pause).await.is_none() {
                return Err(error);
            }
        }
    }

    async fn store(&mut self, progress: Progress) -> Result<(), PortError> {
        let trims = self.since_trim >= TRIM_EVERY;
        let has_dead = !progress.dead.is_empty();
        let (topic, group) = (
            self.subscription.topic.clone(),
            self.subscription.group.clone(),
        );
        self.database
            .write("receive", Urgency::Background, move |session| {
                events::store_progress(session, topic.as_str(), group.as_str(), &progress)?;
                if trims {
                    events::trim(session, topic.as_str())?;
                }
                Ok(())
            })
            .await?;
        if trims {
            self.since_trim = 0;
        }
        if has_dead {
            self.database.published().notify_waiters();
        }
        Ok(())
    }

    fn dead_letter(&self, in_hand: &InHand) -> Event {
        Event {
            topic: self.subscription.dead_letter.clone(),
            key: in_hand.event.key.clone(),
            payload: in_hand.event.payload.clone(),
        }
    }

    /// Unfinished events to deliver now, and the keys that must wait.
    fn due(&self, now: Instant) -> (Vec<InHand>, HashSet<Box<str>>) {
        let mut batch = Vec::new();
        let mut waiting = HashSet::new();
        for in_hand in self.unfinished.values() {
            let key = &in_hand.event.key;
            if waiting.contains(key) {
                continue;
            }
            if in_hand.due <= now && batch.len() < BATCH {
                batch.push(in_hand.clone());
            } else if !key.is_empty() {
                waiting.insert(key.clone());
            }
        }
        (batch, waiting)
    }

    /// When the first unfinished event falls due that no earlier one of its key holds back.
    fn next_due(&self) -> Option<Instant> {
        let mut seen = HashSet::new();
        let first_of_key = self
            .unfinished
            .values()
            .filter(|in_hand| in_hand.event.key.is_empty() || seen.insert(&in_hand.event.key));
        first_of_key.map(|in_hand| in_hand.due).min()
    }

    async fn read(&self, limit: usize) -> Result<Vec<PlacedEvent>, PortError> {
        let (topic, after) = (self.subscription.topic.clone(), self.position);
        self.database
            .read("receive", move |connection| {
                events::read(connection, topic.as_str(), after, limit)
            })
            .await
    }

    fn delivery(&self, in_hand: &InHand) -> Delivery {
        Delivery {
            topic: self.subscription.topic.clone(),
            key: in_hand.event.key.clone(),
            payload: in_hand.event.payload.clone(),
            attempt: in_hand.deliveries + 1,
        }
    }
}
