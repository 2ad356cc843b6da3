//! One member's way through a topic.
//!
//! ```text
//!  partitions ──► Message ──► Dispatcher ──► handler ──► Done  ──► finished ──► commit
//!   (paused while             (order, retries)      └──► Dead  ──► dead-letter topic ──┘
//!    too much is in hand)
//! ```
//!
//! What is finished is committed five times a second and whenever partitions are given up. Between
//! two commits a crash repeats what was finished since. The deliveries of a failing event are
//! committed with it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use rdkafka::error::KafkaError;
use task_core::background::Stop;
use task_core::dispatch::{Dispatcher, Handled};
use task_core::ports::{EventHandler, StartAt, Subscription};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::burial::Letter;
use super::error::{Failure, is_outage, is_shut_out, port_error};
use super::event_bus::Brokers;
use super::member::{Event, Flow, Member};
use super::message::{InHand, Message};
use super::partitions::{Partitions, Place};
use super::positions::{LOOK_EVERY, Positions, Search, Standing};
use super::rebalance::Looked;
use super::{KafkaConfig, blocking};
use crate::trouble::Trouble;

/// Unfinished events of one member; beyond that it reads no more.
const MAX_IN_HAND: usize = 10_000;

/// Bytes of unfinished events of one member; beyond that it reads no more.
const MAX_BYTES_IN_HAND: usize = 32 * 1024 * 1024;

/// Messages read, and answers settled, before anything else has its turn.
const AT_ONCE: usize = 256;

/// Time between two commits.
const COMMIT_EVERY: Duration = Duration::from_millis(200);

/// Pause after the brokers refused something that is tried again.
pub(super) const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

/// Pause before a group without coordinator is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// A running subscription.
pub(super) struct Subscriber {
    pub(super) brokers: Arc<Brokers>,
    pub(super) subscription: Subscription,
    pub(super) member: Member,
    pub(super) partitions: Partitions,
    pub(super) search: Search,
    /// The look at the logs that is under way.
    pub(super) looks: JoinSet<Looked>,
    pub(super) dispatcher: Dispatcher<InHand>,
    /// Dead letters on their way.
    pub(super) burials: JoinSet<Place>,
    /// Whether dead letters are refused.
    unwritten: Arc<Trouble>,
    /// Whether something else than an outage keeps us from our work.
    trouble: Trouble,
    pub(super) flow: Flow,
    /// What the group wants, noticed while something else had to be finished.
    pub(super) pending: Option<Event>,
    /// Where partitions begin that the group has not committed.
    pub(super) begin: Positions,
    /// Told when the position of a new group is fixed, or why it never will be.
    pub(super) joined: Option<oneshot::Sender<Result<(), Failure>>>,
}

/// What comes true once a new group's position cannot be moved any more; `None` for a known one.
pub(super) type Joined = Option<oneshot::Receiver<Result<(), Failure>>>;

impl Subscriber {
    /// Finds the group's position, fixes a new one's, and begins to join.
    pub(super) async fn join(
        brokers: Arc<Brokers>,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<(Self, Joined), Failure> {
        let topic = subscription.topic.as_str();
        brokers
            .topics
            .ensure(subscription.dead_letter.as_str())
            .await?;
        let group = subscription.group.as_str();
        let member = Member::new(&brokers.config, brokers.voice(), group, topic)?;
        let partitions = brokers.topics.partitions(topic).await?;
        let search = Search::new(&brokers, &subscription);
        let standing = settle(&member, &search, partitions, &subscription.start).await?;
        member.join()?;
        let (begin, joined, waits) = match standing {
            Standing::Known => (Positions::new(), None, None),
            Standing::New(begin) => {
                let (joined, waits) = oneshot::channel();
                (begin, Some(joined), Some(waits))
            }
        };
        let subscriber = Self {
            dispatcher: Dispatcher::new(handler, &subscription),
            partitions: Partitions::of(topic),
            brokers,
            subscription,
            member,
            search,
            looks: JoinSet::new(),
            burials: JoinSet::new(),
            unwritten: Arc::default(),
            trouble: Trouble::default(),
            flow: Flow::Flowing,
            pending: None,
            begin,
            joined,
        };
        Ok((subscriber, waits))
    }

    pub(super) fn config(&self) -> &KafkaConfig {
        &self.brokers.config
    }

    pub(super) async fn run(mut self, mut stop: Stop) {
        let mut commits = interval(COMMIT_EVERY);
        commits.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.is_raised() {
            if let Some(event) = self.pending.take() {
                self.answer(event, &mut stop).await;
            }
            if self.partitions.begins_anew()
                && let Err(failure) = self.begin_anew().await
            {
                self.hindered(failure);
            }
            tokio::select! {
                () = stop.raised() => break,
                message = Message::receive(&self.member.consumer) => self.read(message),
                Some(event) = self.member.events.recv() => self.note(event),
                Some(handled) = self.dispatcher.next() => self.settle(handled),
                Some(buried) = self.burials.join_next() => self.buried(buried),
                Some(looked) = self.looks.join_next() => self.looked(looked),
                _ = commits.tick() => {
                    self.commit();
                    self.relieved();
                }
                _ = looks.tick() => self.look(),
            }
            self.read_ahead();
            self.settle_ahead();
            self.adjust_flow();
        }
        self.leave().await;
    }

    /// Takes a message in hand.
    pub(super) fn read(&mut self, message: Result<Message, KafkaError>) {
        let message = match message {
            Ok(message) => message,
            Err(error) => return self.hindered(Failure::Request(error)),
        };
        let (partition, witness) = (message.partition, message.witness);
        let taken = self.partitions.take(partition, witness, message.bytes());
        let Some((place, deliveries)) = taken else {
            return;
        };
        let topic = &self.subscription.topic;
        match message.into_delivery(topic, deliveries.saturating_add(1)) {
            Some((delivery, origin)) => {
                self.dispatcher.offer(InHand { place, origin }, delivery);
            }
            None => {
                let offset = witness.offset;
                tracing::info!(%topic, partition, offset, "tombstone passed over");
                self.partitions.finish(&place);
            }
        }
    }

    /// Reads what has arrived, without waiting.
    fn read_ahead(&mut self) {
        for _ in 0..AT_ONCE {
            if self.pending.is_some() || self.in_hand().is_full() {
                return;
            }
            match Message::receive(&self.member.consumer).now_or_never() {
                Some(message) => self.read(message),
                None => return,
            }
        }
    }

    /// Settles calls that have ended, without waiting.
    fn settle_ahead(&mut self) {
        for _ in 0..AT_ONCE {
            match self.dispatcher.try_next() {
                Some(handled) => self.settle(handled),
                None => return,
            }
        }
    }

    /// Notes what became of a delivery.
    pub(super) fn settle(&mut self, handled: Handled<InHand>) {
        match handled {
            Handled::Done { place } => self.partitions.finish(&place.place),
            Handled::Again {
                place, deliveries, ..
            } => {
                self.partitions.delivered(&place.place, deliveries);
                // A call that ran beyond the release of its partition is not repeated here.
                if self.partitions.is_gone(&place.place) {
                    self.forget_gone();
                }
            }
            // Whoever has the partition now buries it.
            Handled::Dead { place, .. } if self.partitions.is_gone(&place.place) => {}
            Handled::Dead {
                place,
                delivery,
                reason,
            } => {
                let letter = Letter {
                    topic: self.subscription.dead_letter.clone(),
                    delivery,
                    origin: place.origin,
                    place: place.place,
                    reason,
                };
                let (brokers, unwritten) = (Arc::clone(&self.brokers), Arc::clone(&self.unwritten));
                self.burials.spawn(letter.bury(brokers, unwritten));
            }
        }
    }

    /// Forgets what waits and is not ours any more.
    pub(super) fn forget_gone(&mut self) {
        let partitions = &self.partitions;
        self.dispatcher
            .forget(|in_hand| partitions.is_gone(&in_hand.place));
    }

    /// A dead letter is in its topic; one that was given up comes again.
    pub(super) fn buried(&mut self, buried: Result<Place, JoinError>) {
        if let Ok(place) = buried {
            self.partitions.finish(&place);
        }
    }

    /// Says what keeps the group from its work: one line for an outage of all, another for its own trouble.
    pub(super) fn hindered(&mut self, failure: Failure) {
        if let Failure::Request(error) = &failure
            && is_outage(error)
        {
            return self.brokers.voice().unreachable(error);
        }
        if let Some(joined) = self.joined.take_if(|_| is_shut_out(&failure)) {
            // Nobody waits any more if the subscriber was stopped meanwhile.
            let _ = joined.send(Err(failure.clone()));
        }
        let (topic, group) = (&self.subscription.topic, &self.subscription.group);
        let error = port_error("receive", failure);
        match self.trouble.failed(Instant::now()) {
            Some(unsaid) => tracing::warn!(%error, %topic, %group, unsaid, "kafka group waits"),
            None => tracing::debug!(%error, %topic, %group, "kafka group waits"),
        }
    }

    /// Says so when nothing keeps the group from its work any more.
    fn relieved(&self) {
        if let Some(lasted) = self.trouble.over(Instant::now(), 2 * PAUSE_AFTER_ERROR) {
            let (topic, group) = (&self.subscription.topic, &self.subscription.group);
            let lasted_ms = lasted.as_millis();
            tracing::info!(%topic, %group, lasted_ms, "kafka group goes on");
        }
    }

    fn in_hand(&self) -> InHandTotal {
        InHandTotal {
            events: self.dispatcher.in_hand() + self.burials.len(),
            bytes: self.partitions.bytes(),
        }
    }

    /// Stops reading while too much is in hand. The queue is polled all the same: a member that
    /// does not ask is thrown out of its group.
    fn adjust_flow(&mut self) {
        let in_hand = self.in_hand();
        let flow = in_hand.flow(self.flow);
        if flow != self.flow {
            tracing::debug!(?flow, ?in_hand, group = %self.subscription.group, "reading");
            self.member.flow(flow, self.partitions.numbers());
            self.flow = flow;
        }
    }
}

/// Unfinished events of one member.
#[derive(Debug, Clone, Copy)]
struct InHandTotal {
    events: usize,
    bytes: usize,
}

impl InHandTotal {
    fn is_full(self) -> bool {
        self.events >= MAX_IN_HAND || self.bytes >= MAX_BYTES_IN_HAND
    }

    /// Whether to read now. Reading again fetches again, so it waits until there is room for much.
    fn flow(self, flow: Flow) -> Flow {
        let has_room = self.events <= MAX_IN_HAND / 2 && self.bytes <= MAX_BYTES_IN_HAND / 2;
        match flow {
            Flow::Flowing if self.is_full() => Flow::Paused,
            Flow::Paused if has_room => Flow::Flowing,
            Flow::Flowing | Flow::Paused => flow,
        }
    }
}

/// Finds the group's position; a group whose coordinator is not there yet is asked again.
async fn settle(
    member: &Member,
    search: &Search,
    partitions: i32,
    start: &StartAt,
) -> Result<Standing, Failure> {
    let tries = async {
        loop {
            let (search, start) = (search.clone(), start.clone());
            let consumer = Arc::clone(&member.consumer);
            match blocking(move || search.settle(&consumer, partitions, &start)).await? {
                Err(Failure::Request(error)) if is_passing(&error) => sleep(ASK_AGAIN).await,
                done => return done,
            }
        }
    };
    let settled = tokio::time::timeout(search.limit(), tries).await;
    settled.unwrap_or_else(|_| {
        let code = rdkafka::error::RDKafkaErrorCode::OperationTimedOut;
        Err(Failure::Request(KafkaError::OffsetFetch(code)))
    })
}

fn is_passing(error: &KafkaError) -> bool {
    use rdkafka::error::RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::WaitingForCoordinator
                | Code::CoordinatorLoadInProgress
                | Code::CoordinatorNotAvailable
                | Code::NotCoordinator
                | Code::LeaderNotAvailable
                | Code::NotLeaderForPartition
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_stops_at_either_limit_and_goes_on_with_half_of_both() {
        use Flow::{Flowing, Paused};
        const BYTES: usize = MAX_BYTES_IN_HAND;
        for (flow, events, bytes, expected) in [
            (Flowing, 9_999, BYTES - 1, Flowing),
            (Flowing, 10_000, 0, Paused),
            (Flowing, 0, BYTES, Paused),
            (Paused, 5_001, 0, Paused),
            (Paused, 0, BYTES / 2 + 1, Paused),
            (Paused, 5_000, BYTES / 2, Flowing),
        ] {
            let in_hand = InHandTotal { events, bytes };
            assert_eq!(in_hand.flow(flow), expected, "{flow:?} with {in_hand:?}");
        }
    }
}
