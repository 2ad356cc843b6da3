//! One member of a consumer group: librdkafka's consumer, with its callbacks as events.
//!
//! librdkafka would have a rebalance done inside its callback, which runs wherever the queue is
//! polled and must not wait. Here the callback only says what is wanted: whoever owns the member
//! finishes what is running, commits, and then calls [`Member::assign`] or [`Member::unassign`].
//! Until then the group waits, and the queue is polled as ever. A commit is an event as well: it
//! blocks until the brokers have answered, so it runs on a thread that may.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::KafkaConfig;
use super::client::{self, Voice};
use super::error::Failure;
use super::offsets::Offsets;

/// Events that wait: one rebalance and one commit are under way at most.
const MAX_EVENTS: usize = 64;

/// What the group wants, or has done.
#[derive(Debug)]
pub(super) enum Event {
    /// These partitions are ours; answer with [`Member::assign`].
    Assigned(Vec<i32>),
    /// No partition is ours any more; answer with [`Member::unassign`].
    Revoked(Loss),
    /// A commit has ended, for each partition.
    Committed(Vec<(i32, Result<(), RDKafkaErrorCode>)>),
}

/// Whether the group still waits for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// It waits until we let go.
    Orderly,
    /// It has given our partitions to others: there is nothing to commit any more.
    Involuntary,
}

/// The consumer with its callbacks.
pub(super) type GroupConsumer = StreamConsumer<Callbacks>;

/// A consumer that may be a member of its group.
pub(super) struct Member {
    pub(super) consumer: Arc<GroupConsumer>,
    pub(super) events: mpsc::Receiver<Event>,
    results: mpsc::Sender<Event>,
    topic: String,
}

/// Offset and metadata to commit, by partition.
pub(super) type Commit = BTreeMap<i32, (i64, String)>;

impl Member {
    /// A consumer of a group that has not joined it.
    pub(super) fn new(
        config: &KafkaConfig,
        voice: &Voice,
        group: &str,
        topic: &str,
    ) -> Result<Self, Failure> {
        let (sender, events) = mpsc::channel(MAX_EVENTS);
        let callbacks = Callbacks {
            events: sender.clone(),
            closing: AtomicBool::new(false),
            voice: voice.clone(),
        };
        let consumer = client::consumer(config, group)
            .create_with_context(callbacks)
            .map_err(Failure::Client)?;
        Ok(Self {
            consumer: Arc::new(consumer),
            events,
            results: sender,
            topic: topic.to_owned(),
        })
    }

    /// Begins to be a member.
    pub(super) fn join(&self) -> Result<(), Failure> {
        self.consumer
            .subscribe(&[&self.topic])
            .map_err(Failure::Request)
    }

    /// Takes the partitions, from these offsets on.
    pub(super) fn assign<'a>(
        &self,
        offsets: impl Iterator<Item = (i32, &'a Offsets)>,
    ) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for (partition, offsets) in offsets {
            let offset = Offset::Offset(offsets.committable());
            list.add_partition_offset(&self.topic, partition, offset)?;
        }
        self.consumer.assign(&list)
    }

    /// Lets all partitions go.
    pub(super) fn unassign(&self) {
        if let Err(error) = self.consumer.unassign() {
            tracing::warn!(%error, topic = self.topic, "partitions are not released");
        }
    }

    /// Begins a commit; [`Event::Committed`] says how it ended.
    pub(super) fn commit(&self, commit: &Commit) {
        let (consumer, results) = (Arc::clone(&self.consumer), self.results.clone());
        let (topic, commit) = (self.topic.clone(), commit.clone());
        spawn_blocking(move || {
            let committed = Event::Committed(commit_each(&consumer, &topic, commit));
            // Nobody waits any more once the member is gone.
            let _ = results.blocking_send(committed);
        });
    }

    /// Stops or resumes reading of these partitions.
    pub(super) fn flow(&self, flow: Flow, partitions: impl Iterator<Item = i32>) {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.topic, partition);
        }
        let done = match flow {
            Flow::Paused => self.consumer.pause(&list),
            Flow::Flowing => self.consumer.resume(&list),
        };
        if let Err(error) = done {
            tracing::warn!(%error, topic = self.topic, ?flow, "flow is not changed");
        }
    }
}

/// Whether events are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Flowing,
    Paused,
}

impl Drop for Member {
    fn drop(&mut self) {
        // Closing polls until the group has let us go; nobody is left to answer a rebalance then.
        let callbacks = self.consumer.context();
        callbacks.closing.store(true, Ordering::SeqCst);
        self.unassign();
    }
}

/// Commits and waits. librdkafka tells of a request only whether all of it has failed, so those have
/// one together whose metadata are equally long: the brokers refuse them all for that, or none.
fn commit_each(
    consumer: &GroupConsumer,
    topic: &str,
    commit: Commit,
) -> Vec<(i32, Result<(), RDKafkaErrorCode>)> {
    let mut by_length: BTreeMap<usize, Commit> = BTreeMap::new();
    for (partition, (offset, metadata)) in commit {
        let part = by_length.entry(metadata.len()).or_default();
        part.insert(partition, (offset, metadata));
    }
    let mut results = Vec::new();
    for part in by_length.into_values() {
        let done = list(topic, &part).and_then(|list| consumer.commit(&list, CommitMode::Sync));
        let done = done.map_err(|error| {
            let code = error.rdkafka_error_code();
            code.unwrap_or(RDKafkaErrorCode::Fail)
        });
        results.extend(part.keys().map(|&partition| (partition, done)));
    }
    results
}

/// A commit as librdkafka takes it.
pub(super) fn list(topic: &str, commit: &Commit) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(commit.len());
    for (&partition, (offset, metadata)) in commit {
        let mut element = list.add_partition(topic, partition);
        element.set_offset(Offset::Offset(*offset))?;
        if !metadata.is_empty() {
            element.set_metadata(metadata);
        }
    }
    Ok(list)
}

/// Turns librdkafka's callbacks into events.
pub(super) struct Callbacks {
    events: mpsc::Sender<Event>,
    closing: AtomicBool,
    voice: Voice,
}

impl Callbacks {
    fn tell(&self, event: Event) {
        // Full or without a receiver is the same: the owner has stopped listening.
        if let Err(error) = self.events.try_send(event) {
            tracing::debug!(%error, "nobody listens to the consumer");
        }
    }
}

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.voice.say(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        self.voice.stats(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The same error comes by the queue, where it is logged.
        tracing::debug!(%error, reason, "kafka consumer");
    }
}

impl ConsumerContext for Callbacks {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        if self.closing.load(Ordering::SeqCst) {
            if let Err(error) = consumer.unassign() {
                tracing::warn!(%error, "partitions are not released");
            }
            return;
        }
        let is_assigned = RDKafkaErrorCode::from(code) == RDKafkaErrorCode::AssignPartitions;
        self.tell(if is_assigned {
            let elements = partitions.elements();
            Event::Assigned(elements.iter().map(|element| element.partition()).collect())
        } else if consumer.assignment_lost() {
            Event::Revoked(Loss::Involuntary)
        } else {
            Event::Revoked(Loss::Orderly)
        });
    }
}
