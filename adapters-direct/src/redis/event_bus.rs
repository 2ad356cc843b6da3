//! The event bus on streams, in the format of Dapr's `pubsub.redis`.
//!
//! A topic is a stream of its name, a group is a consumer group of its name: for a service on Dapr that
//! is its app id. A publisher or subscriber of ours works beside Dapr's on the same stream, also within
//! one group, and beside any other client that keeps to the two fields, see [`entry`].
//!
//! # What a group is promised
//! Its subscribers compete: each event goes to one of them. **Events of one key are therefore not in
//! order across subscribers**, as they are not with Dapr, and `OrderedPerKey` is not declared. Within one
//! subscriber they are handled one at a time and in order, as far as it reads them in order: what it
//! takes over from another one comes when it comes. With a single subscriber in the group, order is lost
//! only by a crash or by Dapr taking over.
//!
//! An event is unfinished from the read until it is acknowledged, and Redis keeps that in the group's
//! pending list, with the number of deliveries. A subscriber that stops gives back what it has not
//! finished; what a crashed one had is taken over when it was idle for
//! [`take_over_after`](StreamConfig::take_over_after). The pause before a retry
//! is kept by whoever takes over: what is given back says by its idle time how long it is to wait, and what
//! was left behind has waited for its idle time. An event that was read and not yet handled counts as delivered if
//! its subscriber crashes.
//!
//! A new group that begins beside another one is given what that one has not finished, and nothing that
//! it has.
//!
//! # Data loss of the server
//! Events are as durable as the server's append-only file. If a group or its stream is gone (`FLUSHALL`,
//! a restart without a file), the group is made again after the last entry that this process has read,
//! and at the beginning of a stream that is new; that is logged as an error. What is in hand then is
//! remembered by this process alone. Redis 6.2 or newer.
//!
//! *Source:* <https://redis.io/docs/latest/develop/data-types/streams/>, components-contrib 1.16 to 1.18,
//! `pubsub/redis/redis.go`.

mod config;
mod consumer;
mod entry;
mod reader;
mod subscription;

use std::sync::Arc;

use async_trait::async_trait;
use redis::cmd;
use task_core::background::Background;
use task_core::ports::{
    BusCapability, CapabilitySet, Entropy, Event, EventBus, EventHandler, PortError, Subscription,
};

use super::check;
use super::connection::Connection;
use super::error::{BACKEND, Effect, Failure};

pub use config::{StreamConfig, Trimming};
pub(super) use entry::EntryId;
use subscription::Subscriber;

/// An [`EventBus`] on Redis streams: durable, with dead letters and competing consumers.
///
/// Events of one key are in order only within one subscriber; `OrderedPerKey` is not declared.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use adapters_direct::redis::{Redis, RedisConfig, RedisLayout, StreamConfig};
/// use task_core::ports::{Event, EventBus, Topic};
///
/// let config = RedisConfig::new("redis://127.0.0.1:6379", RedisLayout::Dapr);
/// let bus = Redis::open(&config).await?.event_bus(StreamConfig::default());
/// let event = Event {
///     topic: Topic::new("task-events"),
///     key: "t-1".into(),
///     payload: "{}".into(),
/// };
/// bus.publish(&event).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct RedisEventBus {
    connection: Arc<Connection>,
    config: StreamConfig,
    entropy: Arc<dyn Entropy>,
}

impl RedisEventBus {
    pub(super) fn new(
        connection: Arc<Connection>,
        config: StreamConfig,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self {
            connection,
            config,
            entropy,
        }
    }

    async fn append(&self, event: &Event) -> Result<(), Failure> {
        let mut append = cmd("XADD");
        append.arg(event.topic.as_str());
        if let Trimming::Longest { events } = self.config.trimming {
            append.arg("MAXLEN").arg("~").arg(events);
        }
        append
            .arg("*")
            .arg(&entry::fields(&event.key, &event.payload));
        self.connection.command(&append, Effect::Write).await?;
        Ok(())
    }
}

#[async_trait]
impl EventBus for RedisEventBus {
    fn capabilities(&self) -> CapabilitySet<BusCapability> {
        CapabilitySet::of(&[
            BusCapability::DeadLetter,
            BusCapability::Durable,
            BusCapability::CompetingConsumers,
        ])
    }

    async fn publish(&self, event: &Event) -> Result<(), PortError> {
        event.check_limits(BACKEND, "publish")?;
        let appended = self.append(event).await;
        appended.map_err(|error| error.into_port("publish"))
    }

    async fn subscribe(
        &self,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        let connection = Arc::clone(&self.connection);
        let joined = Subscriber::join(connection, self.config, subscription, &*self.entropy).await;
        let subscriber = joined.map_err(|error| error.into_port("subscribe"))?;
        Ok(Background::spawn("redis subscription", |stop| {
            subscriber.run(handler, stop)
        }))
    }

    /// Asks whether the server answers and takes writes.
    async fn check(&self) -> Result<(), PortError> {
        let checked = check::takes_writes(&self.connection).await;
        checked.map_err(|error| error.into_port("check"))
    }
}
