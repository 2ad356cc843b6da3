//! One subscriber of a group: reads, lets the dispatcher deliver, and stores what became of it.
//!
//! An entry is in our hands from the read until its answer is stored. Every [`look`](Subscriber::look)
//! refreshes the idle time of those in hand, so that nobody takes them over, and takes over what others
//! have left behind. Answers are stored in groups: what has ended since the last write is one command.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use task_core::background::Stop;
use task_core::dispatch::{Dispatcher, Handled};
use task_core::ports::{Delivery, Entropy, ErrorKind, EventHandler, PortError, Subscription};
use tokio::task::consume_budget;
use tokio::time::{Instant, sleep, timeout_at};

use super::super::connection::Connection;
use super::super::error::Failure;
use super::config::{StreamConfig, Trimming};
use super::consumer::{Burial, Consumer, Letter, Pending, Scan, is_refusal};
use super::entry::{Entry, EntryId};
use super::reader::Reader;
use crate::trouble::Trouble;

/// Deliveries that run or could run before it reads no further, for each call that may run at once.
///
/// What one subscriber has read ahead, no other one of the group can handle.
const READ_AHEAD: usize = 2;

/// Unfinished events of one subscriber; beyond that it reads no further.
///
/// They are reached only behind failures, or behind calls that do not end.
const MAX_IN_HAND: usize = 10_000;

/// Bytes of unfinished events of one subscriber; beyond that it reads no further.
const MAX_BYTES_IN_HAND: usize = 32 * 1024 * 1024;

/// Answers that are stored at once.
const MAX_STORED: usize = 1024;

/// Looks within the idle time after which others take over.
const LOOKS: u32 = 6;

/// Pause after the server refused to store answers, or could not.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

/// A running subscription.
pub(super) struct Subscriber {
    connection: Arc<Connection>,
    consumer: Consumer,
    subscription: Subscription,
    config: StreamConfig,
    reader: Reader,
    /// The last entry that the group was given, as far as we know.
    read_to: EntryId,
    in_hand: HashMap<EntryId, InHand>,
    bytes_in_hand: usize,
    answers: Answers,
    /// Pending entries to be taken before anything new is read: they are older.
    scans: VecDeque<Scan>,
    next_look: Instant,
    trouble: Trouble,
    untidy: Trouble,
}

#[derive(Debug, Clone, Copy)]
struct InHand {
    /// Those so far that count.
    deliveries: u32,
    /// When it is delivered again, or was to be delivered.
    due: Instant,
    bytes: usize,
}

/// What the server does not know yet.
#[derive(Debug, Default)]
struct Answers {
    done: Vec<EntryId>,
    again: Vec<(EntryId, Option<u32>)>,
    dead: Vec<Letter>,
}

impl Answers {
    fn len(&self) -> usize {
        self.done.len() + self.again.len() + self.dead.len()
    }
}

impl Subscriber {
    /// Fixes the group's position.
    pub(super) async fn join(
        connection: Arc<Connection>,
        config: StreamConfig,
        subscription: Subscription,
        entropy: &dyn Entropy,
    ) -> Result<Self, Failure> {
        let consumer = Consumer::new(Arc::clone(&connection), &subscription, entropy);
        Ok(Self {
            read_to: consumer.join(&subscription.start).await?,
            connection,
            consumer,
            subscription,
            config,
            reader: Reader::default(),
            in_hand: HashMap::new(),
            bytes_in_hand: 0,
            answers: Answers::default(),
            // A group that begins beside another one is given what that has not finished.
            scans: VecDeque::from([scan(Pending::Own)]),
            next_look: Instant::now(),
            trouble: Trouble::default(),
            untidy: Trouble::default(),
        })
    }

    pub(super) async fn run(mut self, handler: Arc<dyn EventHandler>, mut stop: Stop) {
        let mut dispatcher = Dispatcher::new(handler, &self.subscription);
        while !stop.is_raised() {
            if let Err(failure) = self.look(&mut dispatcher).await {
                self.recover(failure).await;
            }
            let room = self.room(&dispatcher);
            if room > 0 && self.scans.is_empty() {
                self.reader.begin(&self.connection, &self.consumer, room);
            }
            self.work(&mut dispatcher, &mut stop).await;
            self.store_until_done(&mut dispatcher, &mut stop).await;
            self.relieved();
        }
        self.end(dispatcher, stop).await;
    }

    /// How many entries it may take in hand.
    fn room(&self, dispatcher: &Dispatcher<EntryId>) -> usize {
        if self.bytes_in_hand >= MAX_BYTES_IN_HAND {
            return 0;
        }
        let ahead = READ_AHEAD * self.subscription.concurrency.max(1);
        ahead
            .saturating_sub(dispatcher.at_work())
            .min(MAX_IN_HAND.saturating_sub(self.in_hand.len()))
    }

    /// Waits until something has happened, and notes all that has.
    async fn work(&mut self, dispatcher: &mut Dispatcher<EntryId>, stop: &mut Stop) {
        let mut read = None;
        let reader = &mut self.reader;
        let woken = timeout_at(self.next_look, async { read = Some(reader.ended().await) });
        let handled = stop.or(dispatcher.next_or(woken)).await.flatten();
        if let Some(handled) = handled {
            self.note(handled);
        }
        match read {
            Some(Ok(entries)) => {
                let now = Instant::now();
                let entries = entries.into_iter().map(|entry| (entry, 0, now));
                self.deliver(dispatcher, entries);
            }
            Some(Err(error)) => {
                // The server may have given us entries all the same.
                self.scans.retain(|scan| scan.pending != Pending::Own);
                self.scans.push_front(scan(Pending::Own));
                self.recover(error).await;
            }
            None => {}
        }
        while self.answers.len() < MAX_STORED
            && let Some(handled) = dispatcher.try_next()
        {
            self.note(handled);
            // Calls that end at once would otherwise keep a worker from everything else.
            consume_budget().await;
        }
    }

    /// Takes entries in hand.
    fn deliver(
        &mut self,
        dispatcher: &mut Dispatcher<EntryId>,
        entries: impl Iterator<Item = (Entry, u32, Instant)>,
    ) {
        for (Entry { id, key, payload }, deliveries, due) in entries {
            self.read_to = self.read_to.max(id);
            if self.in_hand.contains_key(&id) {
                // A group that was made again gives what it gave before.
                continue;
            }
            let bytes = payload.len() + key.len();
            self.bytes_in_hand += bytes;
            let in_hand = InHand {
                deliveries,
                due,
                bytes,
            };
            self.in_hand.insert(id, in_hand);
            let delivery = Delivery {
                topic: self.subscription.topic.clone(),
                key,
                payload,
                attempt: deliveries.saturating_add(1),
            };
            dispatcher.offer_at(due, id, delivery);
        }
    }

    fn note(&mut self, handled: Handled<EntryId>) {
        match handled {
            Handled::Done { place } => self.answers.done.push(place),
            Handled::Dead {
                place,
                delivery,
                reason,
            } => self.answers.dead.push(Letter {
                id: place,
                delivery,
                reason,
                burial: Burial::First,
            }),
            Handled::Again {
                place,
                deliveries,
                due,
            } => {
                if let Some(in_hand) = self.in_hand.get_mut(&place) {
                    in_hand.deliveries = deliveries;
                    in_hand.due = due;
                }
                self.answers.again.push((place, Some(deliveries)));
            }
        }
    }

    /// Stores answers, however often that fails: those that are forgotten would be asked for again.
    ///
    /// Calls that run go on meanwhile. When it is stopped, it gives up after one more failure.
    async fn store_until_done(&mut self, dispatcher: &mut Dispatcher<EntryId>, stop: &mut Stop) {
        while let Err(error) = self.store(dispatcher).await {
            self.recover(error).await;
            if stop.or(sleep(PAUSE_AFTER_ERROR)).await.is_none() {
                tracing::warn!(group = %self.subscription.group, "some events come again");
                return;
            }
        }
    }

    /// Stores answers; what is stored is forgotten here, so that a repetition goes on from there.
    async fn store(&mut self, dispatcher: &mut Dispatcher<EntryId>) -> Result<(), Failure> {
        while let Some(mut letter) = self.answers.dead.pop() {
            let id = letter.id;
            if let Err(failure) = self.consumer.bury(&letter).await {
                letter.burial = Burial::Repeated;
                self.answers.dead.push(letter);
                return Err(failure);
            }
            self.let_go(id);
        }
        self.consumer.acknowledge(&self.answers.done).await?;
        for id in std::mem::take(&mut self.answers.done) {
            self.let_go(id);
        }
        let gone = self
            .consumer
            .keep(self.answers.again.iter().copied())
            .await?;
        self.answers.again.clear();
        self.forget(dispatcher, &gone);
        Ok(())
    }

    fn let_go(&mut self, id: EntryId) {
        if let Some(in_hand) = self.in_hand.remove(&id) {
            self.bytes_in_hand -= in_hand.bytes;
        }
    }

    /// Looks after what is in hand, if it is time, and takes what others have left behind.
    async fn look(&mut self, dispatcher: &mut Dispatcher<EntryId>) -> Result<(), Failure> {
        if Instant::now() >= self.next_look {
            let take_over_after = self.take_over_after();
            self.next_look = Instant::now() + take_over_after / LOOKS;
            self.hold(dispatcher).await?;
            let idle = Pending::Idle(take_over_after);
            if self.scans.iter().all(|scan| scan.pending != idle) {
                self.scans.push_back(scan(idle));
            }
            let tidied = self.tidy().await;
            self.tell_of_tidying(tidied);
        }
        self.take(dispatcher).await
    }

    /// Takes pending entries, as far as there is room.
    async fn take(&mut self, dispatcher: &mut Dispatcher<EntryId>) -> Result<(), Failure> {
        while let Some(scan) = self.scans.front().copied() {
            let room = self.room(dispatcher);
            if room == 0 {
                break;
            }
            let is_in_hand = |id: &EntryId| self.in_hand.contains_key(id);
            let (taken, rest) = self.consumer.take(scan, room, is_in_hand).await?;
            if !taken.is_empty() {
                let group = &self.subscription.group;
                tracing::info!(%group, count = taken.len(), "unfinished events taken over");
            }
            let now = Instant::now();
            let redelivery = self.subscription.redelivery;
            let taken = taken.into_iter().map(|(entry, past)| {
                let left = match scan.pending {
                    Pending::Idle(_) => past.pause_left(&redelivery),
                    // Nobody has been asked yet.
                    Pending::Own => Duration::ZERO,
                };
                (entry, past.deliveries, now + left)
            });
            self.deliver(dispatcher, taken);
            match rest {
                Some(rest) => self.scans[0] = rest,
                None => drop(self.scans.pop_front()),
            }
        }
        Ok(())
    }

    /// Removes what nobody needs any more; nothing depends on it.
    async fn tidy(&mut self) -> Result<(), Failure> {
        self.consumer.remove_others(self.take_over_after()).await?;
        match self.config.trimming {
            Trimming::Finished { keep } => self.consumer.trim(keep).await,
            Trimming::Off | Trimming::Longest { .. } => Ok(()),
        }
    }

    fn take_over_after(&self) -> Duration {
        let shortest = StreamConfig::SHORTEST_TAKE_OVER;
        self.config.take_over_after.max(shortest)
    }

    /// Keeps others from taking what is in hand, and lets go what they have taken.
    async fn hold(&mut self, dispatcher: &mut Dispatcher<EntryId>) -> Result<(), Failure> {
        let in_hand: Vec<_> = self.in_hand.keys().map(|id| (*id, None)).collect();
        let gone = self.consumer.keep(in_hand.into_iter()).await?;
        self.forget(dispatcher, &gone);
        Ok(())
    }

    fn forget(&mut self, dispatcher: &mut Dispatcher<EntryId>, gone: &[EntryId]) {
        if gone.is_empty() {
            return;
        }
        tracing::warn!(
            group = %self.subscription.group, count = gone.len(), "events were taken over by another"
        );
        for id in gone {
            self.let_go(*id);
        }
        dispatcher.forget(|id| gone.contains(id));
    }

    /// Does what can be done after an error; the next look tries again.
    async fn recover(&mut self, failure: Failure) {
        let group = self.subscription.group.clone();
        if is_refusal(&failure, "NOGROUP") {
            tracing::error!(
                %group, stream = %self.subscription.topic, after = %self.read_to,
                "the server has lost the group or its stream; the group is made again"
            );
            match self.consumer.restore(self.read_to).await {
                Ok(()) => return,
                Err(failure) => self.warn(failure),
            }
        } else {
            self.warn(failure);
        }
        self.next_look = self.next_look.min(Instant::now() + PAUSE_AFTER_ERROR);
    }

    fn warn(&self, failure: Failure) {
        self.hindered(&failure.into_port("receive"));
    }

    /// Says what keeps the subscription from its work, once in a while.
    fn hindered(&self, error: &PortError) {
        let (topic, group) = (&self.subscription.topic, &self.subscription.group);
        match self.trouble.failed(Instant::now()) {
            Some(unsaid) => {
                tracing::warn!(%error, %topic, %group, unsaid, "subscription waits and tries again");
            }
            None => tracing::debug!(%error, %topic, %group, "subscription waits"),
        }
    }

    /// Says so when nothing has failed any more for longer than the pauses between attempts.
    fn relieved(&self) {
        if let Some(lasted) = self.trouble.over(Instant::now(), 2 * PAUSE_AFTER_ERROR) {
            let (topic, group) = (&self.subscription.topic, &self.subscription.group);
            let lasted_ms = lasted.as_millis();
            tracing::info!(%topic, %group, lasted_ms, "subscription goes on");
        }
    }

    /// Nothing depends on tidying: what only that is refused is an episode of its own.
    fn tell_of_tidying(&self, tidied: Result<(), Failure>) {
        let Err(failure) = tidied else {
            self.untidy.over(Instant::now(), Duration::ZERO);
            return;
        };
        let error = failure.into_port("tidy");
        if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) {
            self.hindered(&error);
        } else if let Some(unsaid) = self.untidy.failed(Instant::now()) {
            let (topic, group) = (&self.subscription.topic, &self.subscription.group);
            tracing::warn!(%error, %topic, %group, unsaid, "stream is not tidied");
        }
    }

    /// Waits for the calls that run, stores their answers and gives everything else back.
    async fn end(mut self, mut dispatcher: Dispatcher<EntryId>, mut stop: Stop) {
        dispatcher.stop();
        loop {
            match timeout_at(self.next_look, dispatcher.next()).await {
                Ok(Some(handled)) => self.note(handled),
                Ok(None) => break,
                Err(_) => {
                    self.next_look = Instant::now() + self.take_over_after() / LOOKS;
                    if let Err(error) = self.hold(&mut dispatcher).await {
                        self.warn(error);
                    }
                }
            }
        }
        self.store_until_done(&mut dispatcher, &mut stop).await;
        let unseen = self.reader.last().await;
        if let Err(failure) = self.give_back(&unseen).await {
            self.warn(failure);
        }
    }

    /// Lets the group's next subscriber have what is unfinished at once, with the deliveries so far.
    async fn give_back(&mut self, unseen: &[Entry]) -> Result<(), Failure> {
        let now = Instant::now();
        let in_hand = self.in_hand.iter().map(|(id, in_hand)| {
            let left = in_hand.due.saturating_duration_since(now);
            (*id, left, in_hand.deliveries)
        });
        let unseen = unseen.iter().map(|entry| (entry.id, Duration::ZERO, 0));
        let given_back: Vec<_> = in_hand.chain(unseen).collect();
        self.consumer.give_back(given_back.into_iter()).await?;
        self.consumer.leave().await
    }
}

/// The way from the oldest one.
fn scan(pending: Pending) -> Scan {
    Scan {
        pending,
        after: None,
    }
}
