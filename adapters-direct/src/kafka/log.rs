//! Looks single records up in the logs of a topic, beside the member that reads them.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::Instant;

use super::KafkaConfig;
use super::client::{self, Voice};
use super::error::{Failure, is_outage};
use super::offsets::Offsets;
use super::positions::Positions;
use super::witness::{Look, Proof, Witness};

/// Reads a topic without being a member of a group. Everything blocks.
pub(super) struct LogReader {
    consumer: BaseConsumer<Voice>,
    topic: String,
    limit: Duration,
}

impl LogReader {
    pub(super) fn new(
        config: &KafkaConfig,
        voice: &Voice,
        group: &str,
        topic: &str,
    ) -> Result<Self, Failure> {
        let consumer = client::log_reader(config, group)
            .create_with_context(voice.clone())
            .map_err(Failure::Client)?;
        Ok(Self {
            consumer,
            topic: topic.to_owned(),
            limit: config.request_timeout,
        })
    }

    /// Looks for what these proofs name. A partition that is no more has an empty log.
    pub(super) fn look(
        &self,
        proofs: &BTreeMap<i32, Proof>,
    ) -> Result<BTreeMap<i32, Look>, Failure> {
        let count = self.partitions()?;
        let (mut looks, mut named) = (BTreeMap::new(), BTreeMap::new());
        for (&partition, proof) in proofs {
            let (low, end) = match partition < count {
                true => self.watermarks(partition)?,
                false => (0, 0),
            };
            if let Proof::Record(witness) = proof
                && (low..end).contains(&witness.offset)
            {
                named.insert(partition, witness.offset);
            }
            let (there, oldest) = (None, None);
            let look = Look {
                low,
                end,
                there,
                oldest,
            };
            looks.insert(partition, look);
        }
        let there = self.records(&named)?;
        named.retain(|partition, offset| {
            let there = there.get(partition);
            there.is_none_or(|there| there.offset != *offset)
        });
        for (partition, offset) in &mut named {
            *offset = looks.get(partition).map_or(0, |look| look.low);
        }
        let oldest = self.records(&named)?;
        for (partition, look) in &mut looks {
            look.there = there.get(partition).copied();
            look.oldest = oldest.get(partition).copied();
        }
        Ok(looks)
    }

    /// Positions at the beginnings of logs.
    pub(super) fn beginnings(&self, partitions: &[i32]) -> Result<Positions, Failure> {
        let beginning = |&partition: &i32| {
            let (low, _) = self.watermarks(partition)?;
            Ok((partition, Offsets::beginning_at(low)))
        };
        partitions.iter().map(beginning).collect()
    }

    /// Positions at the ends of logs.
    pub(super) fn ends(&self, partitions: &[i32]) -> Result<Positions, Failure> {
        let end = |&partition: &i32| Ok((partition, self.watermarks(partition)?.1));
        let ends: Result<_, Failure> = partitions.iter().map(end).collect();
        self.at(&ends?)
    }

    /// Positions before the first record that is as young as this, or at the ends of logs.
    pub(super) fn since(&self, partitions: &[i32], time_ms: i64) -> Result<Positions, Failure> {
        let found = self.offsets_since(partitions, time_ms);
        let found = found.map_err(Failure::Request)?;
        let mut offsets = BTreeMap::new();
        for element in found.elements() {
            element.error().map_err(Failure::Request)?;
            let partition = element.partition();
            let offset = match element.offset().to_raw() {
                Some(offset) if offset >= 0 => offset,
                Some(_) | None => self.watermarks(partition)?.1,
            };
            offsets.insert(partition, offset);
        }
        self.at(&offsets)
    }

    fn offsets_since(&self, partitions: &[i32], time_ms: i64) -> KafkaResult<TopicPartitionList> {
        let mut asked = TopicPartitionList::with_capacity(partitions.len());
        for &partition in partitions {
            // What is negative has another meaning.
            let time = Offset::Offset(time_ms.max(0));
            asked.add_partition_offset(&self.topic, partition, time)?;
        }
        self.consumer.offsets_for_times(asked, self.limit)
    }

    /// When the youngest of the records was published that lie right before these positions.
    pub(super) fn last_before(&self, positions: &Positions) -> Result<Option<i64>, Failure> {
        let before =
            |(&partition, offsets): (&i32, &Offsets)| (partition, offsets.committable() - 1);
        let mut before: BTreeMap<i32, i64> = positions.iter().map(before).collect();
        before.retain(|_, offset| *offset >= 0);
        let found = self.records(&before)?;
        let found = found
            .iter()
            .filter(|(partition, record)| before[partition] == record.offset);
        Ok(found.map(|(_, record)| record.time_ms).max())
    }

    /// Positions at these offsets, each with a record of its log.
    fn at(&self, offsets: &BTreeMap<i32, i64>) -> Result<Positions, Failure> {
        let (mut last, mut first) = (BTreeMap::new(), BTreeMap::new());
        for (&partition, &offset) in offsets {
            let (low, _) = self.watermarks(partition)?;
            if low < offset {
                last.insert(partition, offset - 1);
                first.insert(partition, low);
            }
        }
        let mut known = self.records(&last)?;
        // The last offset may be no record's but a transaction's.
        first.retain(|partition, _| !known.contains_key(partition));
        known.extend(self.records(&first)?);
        let position = |(&partition, &offset)| {
            let known = known.get(&partition).copied();
            let proof = known.map_or(Proof::Beginning, Proof::Record);
            (partition, Offsets::starting_at(offset, proof))
        };
        Ok(offsets.iter().map(position).collect())
    }

    fn partitions(&self) -> Result<i32, Failure> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), self.limit);
        let metadata = metadata.map_err(Failure::Request)?;
        let topic = metadata.topics().first();
        let error = topic.and_then(|topic| topic.error());
        let (count, code) = match (topic, error) {
            (Some(topic), None) => (topic.partitions().len(), None),
            (_, Some(error)) => (0, Some(RDKafkaErrorCode::from(error))),
            (None, None) => (0, Some(RDKafkaErrorCode::UnknownTopicOrPartition)),
        };
        match code {
            None => Ok(i32::try_from(count).unwrap_or(i32::MAX)),
            Some(code) => Err(Failure::Topic {
                topic: self.topic.clone(),
                code,
            }),
        }
    }

    /// The oldest offset that may be read, and the one that comes next.
    fn watermarks(&self, partition: i32) -> Result<(i64, i64), Failure> {
        let ends = self
            .consumer
            .fetch_watermarks(&self.topic, partition, self.limit);
        ends.map_err(Failure::Request)
    }

    /// The first record at each of these offsets or behind it.
    fn records(&self, offsets: &BTreeMap<i32, i64>) -> Result<BTreeMap<i32, Witness>, Failure> {
        if offsets.is_empty() {
            return Ok(BTreeMap::new());
        }
        let found = self.assign(offsets).and_then(|()| self.read(offsets));
        let done = self.consumer.unassign();
        let found = found.map_err(Failure::Request)?;
        done.map_err(Failure::Request)?;
        Ok(found)
    }

    fn assign(&self, offsets: &BTreeMap<i32, i64>) -> KafkaResult<()> {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (&partition, &offset) in offsets {
            list.add_partition_offset(&self.topic, partition, Offset::Offset(offset))?;
        }
        self.consumer.assign(&list)
    }

    fn read(&self, offsets: &BTreeMap<i32, i64>) -> KafkaResult<BTreeMap<i32, Witness>> {
        let until = Instant::now() + self.limit;
        let mut found = BTreeMap::new();
        let mut missing: Vec<i32> = offsets.keys().copied().collect();
        while !missing.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            let partition = match self.consumer.poll(left) {
                Some(Ok(message)) => {
                    let partition = message.partition();
                    found
                        .entry(partition)
                        .or_insert_with(|| Witness::of(&message));
                    partition
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => partition,
                Some(Err(error)) if is_outage(&error) && !left.is_zero() => continue,
                Some(Err(error)) => return Err(error),
                None => {
                    let code = RDKafkaErrorCode::OperationTimedOut;
                    return Err(KafkaError::MessageConsumption(code));
                }
            };
            missing.retain(|&other| other != partition);
        }
        Ok(found)
    }
}
