//! The event bus in Kafka.
//!
//! *Messages* are what Dapr's `pubsub.kafka` writes and reads: the envelope, byte for byte, is the
//! value, and the event's key is the message's key. Dapr also copies the metadata of a publication
//! into headers; nobody needs them, and none are written here. A message of somebody else may be
//! anything: its value is delivered as it is, without a key the delivery's key is empty, and a
//! tombstone is passed over. The partition of a key is the one that Dapr chooses, FNV-1a; clients
//! that choose another one break the order of a key while they publish beside this bus.
//!
//! *Publishing* is idempotent and acknowledged by all copies in step. After a delivery time-out the
//! outcome is unknown.
//!
//! *Consuming* commits an event after it is finished, with what is finished behind the committed
//! offset, see `offsets.rs`. When partitions move to another member, running calls end and are
//! committed first, up to [`KafkaConfig::release_timeout`]. A group that has no members and commits
//! nothing for as long as `offsets.retention.minutes` (seven days by default) is forgotten by the
//! brokers, and new when it comes back.
//!
//! Positions of a group are fixed for all partitions when it begins, and carry a mark by which it is known
//! as ours, see `positions.rs`. They belong to one log: where a topic is deleted and made again, the new
//! log is read from its beginning, see `witness.rs` and `membership.rs`. A dead letter says in headers why it is one, see `burial.rs`.
//!
//! *Source:* <https://kafka.apache.org/documentation/>; components-contrib v1.18.4
//! `common/component/kafka/{producer,consumer,partitioner}.go`; librdkafka 2.12 `CONFIGURATION.md`.

mod burial;
mod client;
mod config;
mod error;
mod event_bus;
mod log;
mod look;
mod member;
mod membership;
mod message;
mod offsets;
mod partitions;
mod positions;
mod producer;
mod rebalance;
mod subscription;
#[cfg(test)]
mod tests;
mod topics;
mod witness;

pub use config::{KafkaConfig, Mechanism, MissingTopics, Predecessor, Sasl, Transport};
pub use event_bus::KafkaEventBus;

use error::Failure;

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| {
        tracing::error!(%error, "kafka call failed");
        Failure::Closed
    })
}
