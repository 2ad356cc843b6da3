//! That a group has read a topic, noted where a deletion of that topic does not reach.
//!
//! Brokers forget all positions in a topic that is deleted. A group whose positions are gone looks like a
//! new one, which may begin at the end, behind what was published while nobody ran. So the group commits
//! a note in its dead-letter topic: the metadata of partition 0 name the topics that it reads. The offset
//! means nothing; a tool that shows the group's lag counts the dead letters since it was written.
//!
//! A group that may not read its dead-letter topic has no note, and begins as a new one after a deletion.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::KafkaResult;

use super::member::{Commit, GroupConsumer, list};
use super::offsets::MAX_METADATA_BYTES;

/// What a note begins with. It is no position of ours, should the group read that topic as well.
const NOTE: &str = "t1-reads:";

/// Where a group keeps its note.
#[derive(Debug, Clone)]
pub(super) struct Membership {
    pub(super) topic: String,
    pub(super) dead_letter: String,
    /// Longest time of one question.
    pub(super) limit: Duration,
}

impl Membership {
    /// Whether the group has read the topic, as far as it could note that.
    pub(super) fn is_noted(&self, consumer: &GroupConsumer) -> bool {
        let note = self.note(consumer).unwrap_or_else(|error| {
            tracing::debug!(%error, topic = self.topic, "a group's note cannot be read");
            None
        });
        note.is_some_and(|topics| self.is_in(&topics))
    }

    /// Notes that the group reads the topic, unless that is noted; without the right to, it is not.
    pub(super) fn note_down(&self, consumer: &GroupConsumer) {
        let noted = self.note(consumer).and_then(|topics| {
            let topics = topics.unwrap_or_default();
            match self.is_in(&topics) {
                true => Ok(()),
                false => self.write(consumer, &topics),
            }
        });
        if let Err(error) = noted {
            tracing::debug!(%error, topic = self.topic, "what a group reads is not noted");
        }
    }

    fn is_in(&self, topics: &str) -> bool {
        topics.split(',').any(|topic| topic == self.topic)
    }

    fn write(&self, consumer: &GroupConsumer, topics: &str) -> KafkaResult<()> {
        let separator = if topics.is_empty() { "" } else { "," };
        let note = format!("{NOTE}{topics}{separator}{}", self.topic);
        if note.len() > MAX_METADATA_BYTES {
            return Ok(());
        }
        let (_, end) = consumer.fetch_watermarks(&self.dead_letter, 0, self.limit)?;
        let commit = Commit::from([(0, (end, note))]);
        consumer.commit(&list(&self.dead_letter, &commit)?, CommitMode::Sync)
    }

    /// The topics of the note, if there is one.
    fn note(&self, consumer: &GroupConsumer) -> KafkaResult<Option<String>> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&self.dead_letter, 0);
        let found = consumer.committed_offsets(asked, self.limit)?;
        let elements = found.elements();
        let Some(element) = elements.first() else {
            return Ok(None);
        };
        element.error()?;
        Ok(element.metadata().strip_prefix(NOTE).map(str::to_owned))
    }
}
