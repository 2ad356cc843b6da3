//! Where a group stands in a topic, and where a new one begins.
//!
//! Every commit of ours carries a mark, and the first one names all partitions at once. So a group with
//! a mark is ours, and it begins with the oldest event in a partition that it has not committed: that
//! one was added later, and everything in it was published after the group had subscribed.
//!
//! A group of ours whose topic was deleted has no positions any more. By its note, see `membership.rs`, it
//! is known again and begins with the oldest event everywhere.
//!
//! A group without a mark belongs to somebody else, who committed what it had read. We take it over as it
//! stands, and where it stands nowhere we begin as a new group does: its oldest events are history. Where we
//! begin at one that has stopped ([`Predecessor::Stopped`]), only what is older than its last event is; nothing
//! is where that event is beyond retention.
//!
//! Positions are committed before anybody joins the group, for all partitions in one step. The brokers
//! accept that of a group without members only, so nobody who has joined is moved. Where the group has
//! members already, on other topics or of somebody else, each member of ours commits all of them when it
//! has joined.
//!
//! A position that is not one of the log, or beyond its end, is given up for the log's beginning: events
//! may come again, and none is passed over. Members look for that when partitions are assigned, and every
//! [`LOOK_EVERY`] while they have them; what they commit meanwhile carries the proof of the last look.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use task_core::ports::{Group, StartAt, Subscription};

use super::client::{self, Voice};
use super::error::Failure;
use super::event_bus::Brokers;
use super::log::LogReader;
use super::member::{Commit, GroupConsumer, list};
use super::membership::Membership;
use super::offsets::{MARK, MAX_METADATA_BYTES, Offsets};
use super::partitions::{Claims, warn_of_another_log};
use super::topics::Partitions;
use super::witness::{Look, Verdict};
use super::{KafkaConfig, Predecessor};

/// How much older than what a group has finished last an event may be that came after it, as the clocks of
/// publishers differ; in milliseconds.
const TOLERANCE_MS: i64 = 300_000;

/// Time between two looks at the logs that a member reads.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(10);

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
    group: String,
    membership: Membership,
}

impl Search {
    pub(super) fn new(brokers: &Brokers, subscription: &Subscription) -> Self {
        let topic = subscription.topic.as_str();
        Self {
            membership: Membership {
                topic: topic.to_owned(),
                dead_letter: subscription.dead_letter.to_string(),
                limit: brokers.config.request_timeout,
            },
            config: brokers.config.clone(),
            voice: brokers.voice().clone(),
            topic: topic.to_owned(),
            group: subscription.group.to_string(),
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
        let start = match self.membership.is_noted(consumer) {
            true => {
                let (topic, group) = (&self.topic, &self.group);
                tracing::warn!(
                    topic,
                    group,
                    "positions are gone, the topic is read from its beginning"
                );
                &StartAt::Beginning
            }
            false => start,
        };
        let begin = self.begin(&all, &committed.positions, start)?;
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
        let Committed {
            positions,
            mut ours,
        } = self.committed(consumer, &all)?;
        let mut new = begin.clone();
        new.retain(|partition, _| !positions.contains_key(partition));
        let is_added =
            |partition: &&i32| !positions.contains_key(*partition) && !new.contains_key(*partition);
        let added: Vec<i32> = partitions.iter().filter(is_added).copied().collect();
        if !added.is_empty() {
            new.extend(self.read(|log| log.beginnings(&added))?);
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
        self.membership.note_down(consumer);
        for partition in self.begin_in_other_logs(&mut given)? {
            ours.remove(&partition);
        }
        Ok((given, ours))
    }

    /// Looks for what partitions say of their logs.
    pub(super) fn look(&self, claims: &Claims) -> Result<BTreeMap<i32, Look>, Failure> {
        let claims = claims.iter();
        let proofs = claims.map(|(&partition, (_, claim))| (partition, claim.proof));
        let proofs = proofs.collect();
        self.read(|log| log.look(&proofs))
    }

    /// Moves positions that are not of their logs to the beginnings of these; answers which.
    fn begin_in_other_logs(&self, positions: &mut Positions) -> Result<Vec<i32>, Failure> {
        let claims = positions.iter();
        let claims = claims.map(|(&partition, offsets)| (partition, (0, offsets.claim())));
        let mut moved = Vec::new();
        for (partition, log) in self.look(&claims.collect())? {
            let Some(offsets) = positions.get_mut(&partition) else {
                continue;
            };
            match offsets.claim().holds(&log) {
                Verdict::Same => continue,
                Verdict::Unknown | Verdict::Other => {}
            }
            warn_of_another_log(&self.topic, partition, offsets.committable(), log.low);
            *offsets = Offsets::beginning_at(log.low);
            moved.push(partition);
        }
        Ok(moved)
    }

    /// Asks about the logs, with a client that remembers nothing of an older one.
    fn read<T>(&self, ask: impl FnOnce(&LogReader) -> Result<T, Failure>) -> Result<T, Failure> {
        let log = LogReader::new(&self.config, &self.voice, &self.group, &self.topic)?;
        ask(&log)
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
    fn begin(&self, all: &[i32], known: &Positions, start: &StartAt) -> Result<Positions, Failure> {
        let other = match start {
            StartAt::Beginning | StartAt::End => Committed::default(),
            StartAt::Group(other) => self.of_group(other, all)?,
        };
        let begins_first = *start == StartAt::Beginning || other.is_ours();
        let mut positions = other.positions;
        let is_new = |partition: &&i32| {
            !known.contains_key(*partition) && !positions.contains_key(*partition)
        };
        let new: Vec<i32> = all.iter().filter(is_new).copied().collect();
        if !new.is_empty() {
            let begin = self.read(|log| {
                if begins_first {
                    return log.beginnings(&new);
                }
                match self.config.predecessor {
                    Predecessor::Any => log.ends(&new),
                    Predecessor::Stopped => match log.last_before(&positions)? {
                        Some(time_ms) => log.since(&new, time_ms - TOLERANCE_MS),
                        // Nobody knows when it stopped: rather history than a gap.
                        None => log.beginnings(&new),
                    },
                }
            });
            positions.extend(begin?);
        }
        positions.retain(|partition, _| !known.contains_key(partition));
        Ok(positions)
    }

    /// Where another group stands; what it has finished stays so, and its failures begin to count anew.
    fn of_group(&self, other: &Group, all: &[i32]) -> Result<Committed, Failure> {
        let reader: BaseConsumer<Voice> = client::consumer(&self.config, other.as_str())
            .create_with_context(self.voice.clone())
            .map_err(Failure::Client)?;
        let mut committed = self.committed(&reader, all)?;
        if self.config.predecessor == Predecessor::Stopped {
            self.refuse_unless_stopped(&reader, other, &committed)?;
        }
        for offsets in committed.positions.values_mut() {
            offsets.forget_deliveries();
        }
        Ok(committed)
    }

    fn refuse_unless_stopped(
        &self,
        reader: &BaseConsumer<Voice>,
        other: &Group,
        committed: &Committed,
    ) -> Result<(), Failure> {
        let group = other.to_string();
        if committed.positions.is_empty() {
            let topic = self.topic.clone();
            return Err(Failure::NoPosition { group, topic });
        }
        let found = reader.fetch_group_list(Some(&group), self.limit());
        let found = found.map_err(Failure::Request)?;
        let members = found.groups().iter().map(|group| group.members().len());
        match members.sum() {
            0 => Ok(()),
            members => Err(Failure::HasMembers { group, members }),
        }
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
