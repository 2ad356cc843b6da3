//! Where a group stands in a topic, and where a new one begins.
//!
//! Every commit of ours carries a mark, and the first one names all partitions at once. So a group with
//! a mark is ours, and it begins with the oldest event in a partition that it has not committed: that
//! one was added later, and everything in it was published after the group had subscribed.
//!
//! A group without a mark belongs to somebody else, who committed what it had read. We take it over as it
//! stands, and where it stands nowhere we begin as a new group does: its oldest events are history.
//!
//! Positions are committed before anybody joins the group, for all partitions in one step. The brokers
//! accept that of a group without members only, so nobody who has joined is moved. Where the group has
//! members already, on other topics or of somebody else, each member of ours commits all of them when it
//! has joined.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use task_core::ports::{Group, StartAt};

use super::KafkaConfig;
use super::client::{self, Voice};
use super::error::Failure;
use super::event_bus::Brokers;
use super::member::{Commit, GroupConsumer, list};
use super::offsets::{MARK, MAX_METADATA_BYTES, Offsets};
use super::topics::Partitions;

/// Offsets of a topic, by partition.
pub(super) type Positions = BTreeMap<i32, Offsets>;

/// What a group has committed.
#[derive(Debug, Default)]
struct Committed {
    positions: Positions,
    /// Those that carry our mark.
    ours: BTreeSet<i32>,
}

impl Committed {
    fn is_ours(&self) -> bool {
        !self.ours.is_empty()
    }
}

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
    voice: Voice,
    topic: String,
}

impl Search {
    pub(super) fn new(brokers: &Brokers, topic: &str) -> Self {
        Self {
            config: brokers.config.clone(),
            voice: brokers.voice().clone(),
            topic: topic.to_owned(),
        }
    }

    /// Longest time of one question.
    pub(super) fn limit(&self) -> Duration {
        self.config.request_timeout
    }

    /// Finds where the group stands, and fixes where one begins that is not ours yet.
    pub(super) fn settle(
        &self,
        consumer: &GroupConsumer,
        partitions: Partitions,
        start: &StartAt,
    ) -> Result<Standing, Failure> {
        let all: Vec<i32> = (0..partitions).collect();
        let committed = self.committed(consumer, &all)?;
        if committed.is_ours() {
            return Ok(Standing::Known);
        }
        let begin = self.begin(consumer, &all, &committed.positions, start)?;
        let standing = |begin: Positions| match begin.is_empty() {
            true => Standing::Known,
            false => Standing::New(begin),
        };
        let foreign = committed.positions;
        match self.commit(consumer, begin.iter().chain(&foreign)) {
            Ok(()) => Ok(standing(begin)),
            // Somebody has joined: to another topic, or to this one after having committed.
            Err(error) if has_members(&error) => {
                let now = self.committed(consumer, &all)?;
                match now.is_ours() {
                    true => Ok(Standing::Known),
                    false => Ok(standing(begin)),
                }
            }
            Err(error) => Err(Failure::Request(error)),
        }
    }

    /// Where a member's partitions begin, and which of them carry our mark. Positions of `begin` that
    /// nobody has committed are committed now, whoever has those partitions.
    pub(super) fn of_member(
        &self,
        consumer: &GroupConsumer,
        partitions: &[i32],
        begin: &Positions,
    ) -> Result<(Positions, BTreeSet<i32>), Failure> {
        let all: BTreeSet<i32> = partitions.iter().chain(begin.keys()).copied().collect();
        let all: Vec<i32> = all.into_iter().collect();
        let Committed { positions, ours } = self.committed(consumer, &all)?;
        let mut new = begin.clone();
        new.retain(|partition, _| !positions.contains_key(partition));
        for &partition in partitions {
            if !positions.contains_key(&partition) && !new.contains_key(&partition) {
                let (oldest, _) = self.ends(consumer, partition)?;
                new.insert(partition, Offsets::starting_at(oldest));
            }
        }
        if !new.is_empty()
            && let Err(error) = self.commit(consumer, new.iter())
        {
            // The group moves on meanwhile; each member commits its own again.
            tracing::debug!(%error, topic = self.topic, "positions are not committed yet");
        }
        let mut given = positions;
        given.extend(new);
        given.retain(|partition, _| partitions.contains(partition));
        Ok((given, ours))
    }

    fn commit<'a>(
        &self,
        consumer: &GroupConsumer,
        positions: impl Iterator<Item = (&'a i32, &'a Offsets)>,
    ) -> KafkaResult<()> {
        let commit: Commit = positions
            .map(|(&partition, offsets)| {
                let metadata = offsets.metadata(MAX_METADATA_BYTES);
                (partition, (offsets.committable(), metadata))
            })
            .collect();
        consumer.commit(&list(&self.topic, &commit)?, CommitMode::Sync)
    }

    /// Where partitions begin that the group has not committed.
    fn begin(
        &self,
        consumer: &GroupConsumer,
        all: &[i32],
        known: &Positions,
        start: &StartAt,
    ) -> Result<Positions, Failure> {
        let other = match start {
            StartAt::Beginning | StartAt::End => Committed::default(),
            StartAt::Group(other) => self.of_group(other, all)?,
        };
        let begins_first = *start == StartAt::Beginning || other.is_ours();
        let mut positions = other.positions;
        positions.retain(|partition, _| !known.contains_key(partition));
        for &partition in all {
            if known.contains_key(&partition) || positions.contains_key(&partition) {
                continue;
            }
            let (first, end) = self.ends(consumer, partition)?;
            let offset = if begins_first { first } else { end };
            positions.insert(partition, Offsets::starting_at(offset));
        }
        Ok(positions)
    }

    /// Where another group stands; what it has finished stays so, and its failures begin to count anew.
    fn of_group(&self, other: &Group, all: &[i32]) -> Result<Committed, Failure> {
        let reader: BaseConsumer<Voice> = client::consumer(&self.config, other.as_str())
            .create_with_context(self.voice.clone())
            .map_err(Failure::Client)?;
        let mut committed = self.committed(&reader, all)?;
        for offsets in committed.positions.values_mut() {
            offsets.forget_deliveries();
        }
        Ok(committed)
    }

    fn committed<C: ConsumerContext, K: Consumer<C>>(
        &self,
        consumer: &K,
        partitions: &[i32],
    ) -> Result<Committed, Failure> {
        let mut committed = Committed::default();
        if partitions.is_empty() {
            return Ok(committed);
        }
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for &partition in partitions {
            list.add_partition(&self.topic, partition);
        }
        let found = consumer
            .committed_offsets(list, self.limit())
            .map_err(Failure::Request)?;
        for element in found.elements() {
            element.error().map_err(Failure::Request)?;
            if let Offset::Offset(offset) = element.offset() {
                let (partition, metadata) = (element.partition(), element.metadata());
                let offsets = Offsets::restore(offset, metadata);
                committed.positions.insert(partition, offsets);
                if metadata.starts_with(MARK) {
                    committed.ours.insert(partition);
                }
            }
        }
        Ok(committed)
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
