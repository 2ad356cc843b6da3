//! One group's way through a topic.
//!
//! Handler calls run as long as they like. What they answer is stored in groups: whatever has ended
//! since the last write is one write. A crash repeats what was not stored yet, and what is stored only
//! as lying behind an event that still holds the position: that of about [`LONGEST_HOLD`] at most.

use std::sync::Arc;
use std::time::Duration;

use task_core::background::Stop;
use task_core::dispatch::{Dispatcher, Handled};
use task_core::ports::{Delivery, EventHandler, PortError, Subscription};
use tokio::task::consume_budget;
use tokio::time::{Instant, timeout};

use super::database::Database;
use super::event_bus::Place;
use super::events::{self, PlacedEvent, Progress, StoredRetry};
use super::ledger::Ledger;
use super::writer::Urgency;

/// Deliveries that run or could run before it reads no further.
const READ_AHEAD: usize = 256;

/// Answers that are stored at once.
const MAX_STORED: usize = 1024;

/// Unfinished events of one group; beyond that it reads no further.
///
/// They are reached only behind failures, or behind calls that do not end: by so many keys at once, or
/// by so many events of one key.
const MAX_IN_HAND: usize = 10_000;

/// How long an unfinished event keeps the position before it, while later ones are finished.
const LONGEST_HOLD: Duration = Duration::from_secs(1);

/// Events finished between two trims of the topic.
const TRIM_EVERY: usize = 4096;

/// How often it looks without being woken: a publisher that gave up waiting wakes nobody.
const POLL: Duration = Duration::from_secs(1);

/// Pause after the file refused to be read or written.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

/// A running subscription.
#[derive(Debug)]
pub(super) struct Subscriber {
    database: Arc<Database>,
    subscription: Subscription,
    ledger: Ledger,
    /// The retries that were stored before this subscription began.
    retries: Vec<StoredRetry>,
    /// The event that holds the position back, and since when.
    held_since: Option<(i64, Instant)>,
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
        let known = retries
            .iter()
            .map(|retry| (retry.event.place, retry.deliveries));
        Ok(Self {
            ledger: Ledger::at(position, known),
            retries,
            held_since: None,
            since_trim: 0,
            database,
            subscription,
            _place: place,
        })
    }

    pub(super) async fn run(mut self, handler: Arc<dyn EventHandler>, mut stop: Stop) {
        let database = Arc::clone(&self.database);
        let mut dispatcher = Dispatcher::new(handler, &self.subscription);
        self.resume(&mut dispatcher);
        while !stop.is_raised() {
            // Registered before reading, so that an event published in between wakes us.
            let published = database.published().notified();
            let ended = self.receive(&mut dispatcher, &stop).await;
            if let Err(error) = &ended {
                tracing::warn!(%error, group = %self.subscription.group, "subscription waits");
            }
            self.let_pass_what_takes_long();
            match self.ledger.take() {
                Some(progress) => self.store_until_done(progress, &mut stop).await,
                None => {
                    // The time-out is the wait's other end; both ways we look again.
                    let woken = timeout(POLL, published);
                    if let Some(Some(handled)) = stop.or(dispatcher.next_or(woken)).await {
                        self.note(handled);
                    }
                }
            }
        }
        dispatcher.stop();
        while let Some(handled) = dispatcher.next().await {
            self.note(handled);
        }
        self.ledger.let_pass();
        if let Some(progress) = self.ledger.take() {
            self.store_until_done(progress, &mut stop).await;
        }
    }

    /// Takes the retries of earlier subscriptions in hand.
    fn resume(&mut self, dispatcher: &mut Dispatcher<i64>) {
        let now = Instant::now();
        let wall = self.database.clock().now().unix_micros();
        for retry in std::mem::take(&mut self.retries) {
            let left = u64::try_from(retry.due_at.saturating_sub(wall)).unwrap_or(0);
            // A clock that stepped back must not hold an event for longer than its longest pause.
            let longest = self.subscription.redelivery.longest_pause;
            let pause = Duration::from_micros(left).min(longest);
            let place = retry.event.place;
            let delivery = self.delivery(retry.event, retry.deliveries);
            dispatcher.offer_at(now + pause, place, delivery);
        }
    }

    /// Reads what there is room for and notes what has ended, until neither is left or it is a lot.
    async fn receive(
        &mut self,
        dispatcher: &mut Dispatcher<i64>,
        stop: &Stop,
    ) -> Result<(), PortError> {
        let mut ended = 0;
        loop {
            let room = READ_AHEAD
                .saturating_sub(dispatcher.at_work())
                .min(MAX_IN_HAND.saturating_sub(dispatcher.in_hand()));
            let events = self.read(room).await?;
            if stop.is_raised() {
                return Ok(());
            }
            let is_last = events.len() < room || room == 0;
            for event in events {
                let place = event.place;
                if self.ledger.read(place) {
                    dispatcher.offer(place, self.delivery(event, 0));
                }
            }
            while let Some(handled) = dispatcher.try_next() {
                self.note(handled);
                ended += 1;
                if ended == MAX_STORED {
                    return Ok(());
                }
                // Calls that end at once would otherwise keep a worker from everything else.
                consume_budget().await;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Enters in the books what became of a delivery.
    fn note(&mut self, handled: Handled<i64>) {
        match handled {
            Handled::Done { place } => {
                self.since_trim += 1;
                self.ledger.finish(place, None);
            }
            Handled::Dead {
                place, delivery, ..
            } => {
                self.since_trim += 1;
                let topic = self.subscription.dead_letter.clone();
                self.ledger.finish(place, Some(delivery.into_event(topic)));
            }
            Handled::Again {
                place,
                deliveries,
                due,
            } => {
                let pause = due.saturating_duration_since(Instant::now());
                let due_at = self.database.clock().now().saturating_add(pause);
                self.ledger.retry(place, deliveries, due_at.unix_micros());
            }
        }
    }

    /// Stops holding the position for events that later ones have overtaken a while ago.
    fn let_pass_what_takes_long(&mut self) {
        let now = Instant::now();
        self.held_since = match (self.ledger.holds_back(), self.held_since) {
            (Some(place), Some((held, since))) if place == held => {
                if now - since < LONGEST_HOLD {
                    return;
                }
                self.ledger.let_pass();
                None
            }
            (Some(place), _) => Some((place, now)),
            (None, _) => None,
        };
    }

    /// Stores progress, however often that fails: answers that are forgotten would be asked for again.
    ///
    /// Calls that run go on meanwhile. When it is stopped, it gives up after one more failure.
    async fn store_until_done(&mut self, progress: Progress, stop: &mut Stop) {
        while let Err(error) = self.store(progress.clone()).await {
            tracing::warn!(%error, group = %self.subscription.group, "progress is not stored yet");
            let pause = tokio::time::sleep(PAUSE_AFTER_ERROR);
            if stop.or(pause).await.is_none() {
                tracing::warn!(group = %self.subscription.group, "some events come again");
                return;
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

    async fn read(&self, limit: usize) -> Result<Vec<PlacedEvent>, PortError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let (topic, after) = (self.subscription.topic.clone(), self.ledger.read_to());
        self.database
            .read("receive", move |connection| {
                events::read(connection, topic.as_str(), after, limit)
            })
            .await
    }

    fn delivery(&self, event: PlacedEvent, deliveries: u32) -> Delivery {
        Delivery {
            topic: self.subscription.topic.clone(),
            key: event.key,
            payload: event.payload,
            attempt: deliveries + 1,
        }
    }
}
