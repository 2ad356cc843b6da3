//! Where a group stands in a topic, and where a new one begins.
//!
//! A group is known as soon as it has committed an offset of any partition of the topic. A known
//! group begins with the oldest event in partitions without one: they were added later, and
//! everything in them was published after it had subscribed.
//!
//! A new group's offsets are committed before anybody joins it, for all partitions in one step.
//! The brokers accept that of a group without members only, so nobody who has joined is moved.
//! Where the group has members already, on other topics, each member commits what it is assigned.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use task_core::ports::{Group, StartAt};

use super::KafkaConfig;
use super::client;
use super::error::Failure;
use super::member::{Commit, GroupConsumer, list};
use super::offsets::{MAX_METADATA_BYTES, Offsets};
use super::topics::Partitions;

/// Offsets of a topic, by partition.
pub(super) type Positions = BTreeMap<i32, Offsets>;

/// Where a group stands before it is joined.
#[derive(Debug)]
pub(super) enum Standing {
    /// It has been here before.
    Known,
    /// It begins here; committed, unless a member has to do it.
    New(Positions),
}

/// One topic as groups go through it. Everything blocks.
#[derive(Debug, Clone)]
pub(super) struct Search {
    config: KafkaConfig,
    topic: String,
}

impl Search {
    pub(super) fn new(config: &KafkaConfig, topic: &str) -> Self {
        Self {
            config: config.clone(),
            topic: topic.to_owned(),
        }
    }

    /// Longest time of one question.
    pub(super) fn limit(&self) -> Duration {
        self.config.request_timeout
    }

    /// Finds where the group stands, and fixes where a new one begins.
    pub(super) fn settle(
        &self,
        consumer: &GroupConsumer,
        partitions: Partitions,
        start: &StartAt,
    ) -> Result<Standing, Failure> {
        let all: Vec<i32> = (0..partitions).collect();
        if !self.committed(consumer, &all)?.is_empty() {
            return Ok(Standing::Known);
        }
        let begin = self.begin(consumer, &all, start)?;
        let commit = begin.iter();
        let commit: Commit = commit
            .map(|(&partition, offsets)| {
                let metadata = offsets.metadata(MAX_METADATA_BYTES);
                (partition, (offsets.committable(), metadata))
            })
            .collect();
        let listed = list(&self.topic, &commit).map_err(Failure::Request)?;
        match consumer.commit(&listed, CommitMode::Sync) {
            Ok(()) => Ok(Standing::New(begin)),
            // Somebody has joined: to another topic, or to this one after having committed.
            Err(error) if has_members(&error) => match self.committed(consumer, &all)?.is_empty() {
                true => Ok(Standing::New(begin)),
                false => Ok(Standing::Known),
            },
            Err(error) => Err(Failure::Request(error)),
        }
    }

    /// Where a member's partitions begin, and which of them the group has committed.
    pub(super) fn of_member(
        &self,
        consumer: &GroupConsumer,
        partitions: &[i32],
        begin: &Positions,
    ) -> Result<(Positions, BTreeSet<i32>), Failure> {
        let mut positions = self.committed(consumer, partitions)?;
        let known = positions.keys().copied().collect();
        for &partition in partitions {
            if positions.contains_key(&partition) {
                continue;
            }
            let offsets = match begin.get(&partition) {
                Some(offsets) => offsets.clone(),
                None => Offsets::starting_at(self.ends(consumer, partition)?.0),
            };
            positions.insert(partition, offsets);
        }
        Ok((positions, known))
    }

    fn begin(
        &self,
        consumer: &GroupConsumer,
        all: &[i32],
        start: &StartAt,
    ) -> Result<Positions, Failure> {
        let inherited = match start {
            StartAt::Beginning | StartAt::End => Positions::new(),
            StartAt::Group(other) => self.of_group(other, all)?,
        };
        let begins_first = *start == StartAt::Beginning || !inherited.is_empty();
        let mut positions = inherited;
        for &partition in all {
            if positions.contains_key(&partition) {
                continue;
            }
            let (first, end) = self.ends(consumer, partition)?;
            let offset = if begins_first { first } else { end };
            positions.insert(partition, Offsets::starting_at(offset));
        }
        Ok(positions)
    }

    /// Where another group stands; what it has finished stays so, and its failures begin to count anew.
    fn of_group(&self, other: &Group, all: &[i32]) -> Result<Positions, Failure> {
        let reader: BaseConsumer<client::Voice> = client::consumer(&self.config, other.as_str())
            .create_with_context(client::Voice::default())
            .map_err(Failure::Client)?;
        let committed = self.committed(&reader, all)?.into_iter();
        Ok(committed
            .map(|(partition, offsets)| (partition, offsets.without_deliveries()))
            .collect())
    }

    fn committed<C: ConsumerContext, K: Consumer<C>>(
        &self,
        consumer: &K,
        partitions: &[i32],
    ) -> Result<Positions, Failure> {
        if partitions.is_empty() {
            return Ok(Positions::new());
        }
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for &partition in partitions {
            list.add_partition(&self.topic, partition);
        }
        let found = consumer
            .committed_offsets(list, self.limit())
            .map_err(Failure::Request)?;
        let mut positions = Positions::new();
        for element in found.elements() {
            element.error().map_err(Failure::Request)?;
            if let Offset::Offset(offset) = element.offset() {
                let offsets = Offsets::restore(offset, element.metadata());
                positions.insert(element.partition(), offsets);
            }
        }
        Ok(positions)
    }

    /// The first offset that still exists, and the one that comes next.
    fn ends(&self, consumer: &GroupConsumer, partition: i32) -> Result<(i64, i64), Failure> {
        let ends = consumer.fetch_watermarks(&self.topic, partition, self.limit());
        ends.map_err(Failure::Request)
    }
}

fn has_members(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownMemberId
                | RDKafkaErrorCode::IllegalGeneration
                | RDKafkaErrorCode::RebalanceInProgress
                | RDKafkaErrorCode::StaleMemberEpoch
        )
    )
}
