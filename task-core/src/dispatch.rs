//! Hands deliveries to a handler, one after the other within a key and side by side across keys.
//!
//! Every event bus that delivers by itself uses it, so that order, retries, panics and stopping mean
//! the same on all of them. It knows nothing of positions, storage or dead-letter topics: a bus
//! offers what it has read, and stores what [`Dispatcher::next`] says became of it.
//!
//! A call that has not ended at once runs in a task of its own, so calls go on while the bus is busy
//! storing answers, and a slow one holds back nothing but its key.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, select};
use tokio::task::{JoinSet, consume_budget};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::ports::{Answer, Delivery, DropReason, EventHandler, Redelivery, Subscription};

/// What became of a delivery; `P` is the bus's own place of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handled<P> {
    /// Acknowledged.
    Done {
        /// Its place.
        place: P,
    },
    /// Dropped, or retried at its last allowed delivery: finished once it is a dead letter.
    Dead {
        /// Its place.
        place: P,
        /// The last delivery.
        delivery: Delivery,
        /// Why it is one.
        reason: DeadReason,
    },
    /// Kept in hand and delivered again by itself; a bus that can stores that it is to come.
    Again {
        /// Its place.
        place: P,
        /// Deliveries so far that count.
        deliveries: u32,
        /// When it is delivered again.
        due: Instant,
    },
}

/// Why a delivery is a dead letter, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadReason {
    /// The handler dropped it, for this reason.
    Dropped(DropReason),
    /// The handler wanted it again, and it has had all its deliveries.
    Exhausted,
}

impl fmt::Display for DeadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dropped(reason) => write!(f, "dropped: {reason}"),
            Self::Exhausted => f.write_str("deliveries exhausted"),
        }
    }
}

/// Runs the handler calls of one subscription.
///
/// It holds whatever it is offered: the bus bounds that by [`in_hand`](Self::in_hand).
pub struct Dispatcher<P> {
    handler: Arc<dyn EventHandler>,
    concurrency: usize,
    redelivery: Redelivery,
    running: JoinSet<(InHand<P>, Answer)>,
    /// Those that may begin as soon as a call ends.
    ready: VecDeque<InHand<P>>,
    /// Those that wait for their time, by it; the number keeps equal times apart.
    paused: BTreeMap<(Instant, u64), InHand<P>>,
    pauses: u64,
    /// What waits behind the one delivery of a key that is running, ready or paused.
    behind: HashMap<Box<str>, VecDeque<InHand<P>>>,
    in_hand: usize,
    stopped: bool,
}

struct InHand<P> {
    place: P,
    delivery: Delivery,
    due: Instant,
}

impl<P: Clone + Send + 'static> Dispatcher<P> {
    /// A dispatcher with the subscription's concurrency and redelivery.
    #[must_use]
    pub fn new(handler: Arc<dyn EventHandler>, subscription: &Subscription) -> Self {
        Self {
            handler,
            concurrency: subscription.concurrency.max(1),
            redelivery: subscription.redelivery,
            running: JoinSet::new(),
            ready: VecDeque::new(),
            paused: BTreeMap::new(),
            pauses: 0,
            behind: HashMap::new(),
            in_hand: 0,
            stopped: false,
        }
    }

    /// Takes a delivery in hand, behind those of its key. An empty key has no order.
    ///
    /// Its `attempt` is 1, or one more than the deliveries that were stored for it.
    pub fn offer(&mut self, place: P, delivery: Delivery) {
        self.offer_at(Instant::now(), place, delivery);
    }

    /// As [`offer`](Self::offer), for a delivery that is not due yet and holds back its key till then.
    pub fn offer_at(&mut self, due: Instant, place: P, delivery: Delivery) {
        let in_hand = InHand {
            place,
            delivery,
            due,
        };
        self.in_hand += 1;
        if !in_hand.delivery.key.is_empty() {
            match self.behind.entry(in_hand.delivery.key.clone()) {
                Entry::Occupied(mut queue) => return queue.get_mut().push_back(in_hand),
                Entry::Vacant(queue) => _ = queue.insert(VecDeque::new()),
            }
        }
        self.take_turn(in_hand);
    }

    /// Deliveries that were offered and are not finished.
    #[must_use]
    pub fn in_hand(&self) -> usize {
        self.in_hand
    }

    /// Deliveries that run or could run: those in hand that wait neither for a time nor for their key.
    ///
    /// A bus reads ahead until this is as much as it wants.
    #[must_use]
    pub fn at_work(&self) -> usize {
        self.running.len() + self.ready.len()
    }

    /// Begins what may begin and waits for the next call to end.
    ///
    /// `None` when nothing is in hand, and after [`stop`](Self::stop) when no call runs any more.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Handled<P>> {
        // A handler that always answers at once would otherwise keep a busy bus from ever yielding.
        consume_budget().await;
        loop {
            if let Some(handled) = self.try_next() {
                return Some(handled);
            }
            let due = self.paused.first_key_value().map(|((due, _), _)| *due);
            let due = due.filter(|_| !self.stopped);
            let ended = match (self.running.is_empty(), due) {
                (true, None) => return None,
                (true, Some(due)) => {
                    sleep_until(due).await;
                    None
                }
                (false, None) => self.running.join_next().await,
                (false, Some(due)) => {
                    let ended = timeout_at(due, self.running.join_next()).await;
                    ended.ok().flatten()
                }
            };
            if let Some(Ok((in_hand, answer))) = ended {
                return Some(self.settle(in_hand, answer));
            }
        }
    }

    /// As [`next`](Self::next), but gives up when `other` ends; with nothing in hand it waits for that.
    ///
    /// # Cancel safety
    /// Cancel safe, if `other` is.
    pub async fn next_or(&mut self, other: impl Future + Send) -> Option<Handled<P>> {
        let mut other = pin!(other);
        let handled = match select(pin!(self.next()), other.as_mut()).await {
            Either::Left((handled, _)) => handled,
            Either::Right(_) => return None,
        };
        if handled.is_none() {
            other.await;
        }
        handled
    }

    /// Begins what may begin and answers a call that has ended already, without waiting.
    pub fn try_next(&mut self) -> Option<Handled<P>> {
        // Nothing aborts a call, and it catches its own panic: an error is a runtime that shuts down.
        while let Some(ended) = self.running.try_join_next() {
            if let Ok((in_hand, answer)) = ended {
                return Some(self.settle(in_hand, answer));
            }
        }
        if self.stopped {
            return None;
        }
        let now = Instant::now();
        while let Some(first) = self.paused.first_entry().filter(|e| e.key().0 <= now) {
            self.ready.push_back(first.remove());
        }
        while self.running.len() < self.concurrency
            && let Some(in_hand) = self.ready.pop_front()
        {
            let mut call = Box::pin(call(Arc::clone(&self.handler), in_hand));
            // Most calls of a busy bus end at once, and a task costs more than they do.
            match call.as_mut().now_or_never() {
                Some((in_hand, answer)) => return Some(self.settle(in_hand, answer)),
                None => drop(self.running.spawn(call)),
            }
        }
        None
    }

    /// Lets no further call begin; [`next`](Self::next) still answers those that run.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Forgets those in hand that are not running and whose place belongs to somebody else now.
    ///
    /// A call that runs is answered as ever; a retry that it asks for stays in hand.
    pub fn forget(&mut self, is_gone: impl Fn(&P) -> bool) {
        for queue in self.behind.values_mut() {
            let before = queue.len();
            queue.retain(|in_hand| !is_gone(&in_hand.place));
            self.in_hand -= before - queue.len();
        }
        let ready = std::mem::take(&mut self.ready).into_iter();
        let paused = std::mem::take(&mut self.paused).into_values();
        // Those that were due stay due: taking their turn again sorts both kinds as before.
        for in_hand in ready.chain(paused) {
            match is_gone(&in_hand.place) {
                true => self.release(&in_hand.delivery.key),
                false => self.take_turn(in_hand),
            }
        }
    }

    fn settle(&mut self, mut in_hand: InHand<P>, answer: Answer) -> Handled<P> {
        let Redelivery {
            max_deliveries,
            first_pause,
            longest_pause,
        } = self.redelivery;
        let deliveries = in_hand.delivery.attempt;
        let place = in_hand.place.clone();
        match answer {
            Answer::Ack => {
                self.release(&in_hand.delivery.key);
                Handled::Done { place }
            }
            Answer::Retry if deliveries < max_deliveries => {
                in_hand.delivery.attempt += 1;
                self.again(in_hand, self.redelivery.pause_after(deliveries))
            }
            Answer::Postpone(pause) => {
                let pause = pause.max(first_pause).min(longest_pause);
                self.again(in_hand, pause)
            }
            Answer::Retry => self.dead(in_hand, DeadReason::Exhausted),
            Answer::Drop(reason) => self.dead(in_hand, DeadReason::Dropped(reason)),
        }
    }

    fn dead(&mut self, in_hand: InHand<P>, reason: DeadReason) -> Handled<P> {
        let InHand {
            place, delivery, ..
        } = in_hand;
        self.release(&delivery.key);
        tracing::warn!(
            topic = %delivery.topic, key = %delivery.key, deliveries = delivery.attempt, %reason,
            "event is a dead letter"
        );
        Handled::Dead {
            place,
            delivery,
            reason,
        }
    }

    fn again(&mut self, mut in_hand: InHand<P>, pause: Duration) -> Handled<P> {
        in_hand.due = Instant::now() + pause;
        let handled = Handled::Again {
            place: in_hand.place.clone(),
            deliveries: in_hand.delivery.attempt.saturating_sub(1),
            due: in_hand.due,
        };
        self.pause(in_hand);
        handled
    }

    /// Finishes the first delivery of a key; the next one has its turn.
    fn release(&mut self, key: &str) {
        self.in_hand -= 1;
        let Some(queue) = self.behind.get_mut(key) else {
            return;
        };
        match queue.pop_front() {
            Some(next) => self.take_turn(next),
            None => drop(self.behind.remove(key)),
        }
    }

    fn take_turn(&mut self, in_hand: InHand<P>) {
        if in_hand.due > Instant::now() {
            self.pause(in_hand);
        } else {
            self.ready.push_back(in_hand);
        }
    }

    fn pause(&mut self, in_hand: InHand<P>) {
        self.pauses += 1;
        self.paused.insert((in_hand.due, self.pauses), in_hand);
    }
}

async fn call<P>(handler: Arc<dyn EventHandler>, in_hand: InHand<P>) -> (InHand<P>, Answer) {
    let delivery = &in_hand.delivery;
    let call = AssertUnwindSafe(handler.handle(delivery)).catch_unwind();
    let answer = call.await.unwrap_or_else(|_| {
        tracing::error!(topic = %delivery.topic, key = %delivery.key, "event handler panicked");
        Answer::Retry
    });
    (in_hand, answer)
}

impl<P> fmt::Debug for Dispatcher<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher")
            .field("in_hand", &self.in_hand)
            .field("running", &self.running.len())
            .field("paused", &self.paused.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
