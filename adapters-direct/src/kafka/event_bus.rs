//! The event bus in Kafka.

use std::sync::Arc;

use async_trait::async_trait;
use task_core::background::Background;
use task_core::ports::{
    BusCapability, CapabilitySet, Event, EventBus, EventHandler, PortError, Subscription,
};
use tokio::time::timeout;

use super::client::Voice;
use super::error::{BACKEND, Failure, forbids_topic, port_error};
use super::look::Looks;
use super::producer::{Producer, Record};
use super::subscription::Subscriber;
use super::topics::Topics;
use super::{KafkaConfig, Mechanism, Transport};

/// An [`EventBus`] in Kafka. A clone shares its producer; each subscription is a member of its own.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use adapters_direct::kafka::{KafkaConfig, KafkaEventBus};
/// use task_core::ports::{BusCapability, EventBus};
/// let bus = KafkaEventBus::open(KafkaConfig::new("localhost:9092")).unwrap();
/// assert!(bus.capabilities().has(BusCapability::CompetingConsumers));
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct KafkaEventBus {
    brokers: Arc<Brokers>,
}

/// What publishing and dead letters share.
#[derive(Debug)]
pub(super) struct Brokers {
    pub(super) config: KafkaConfig,
    pub(super) topics: Topics,
    producer: Arc<Producer>,
    looks: Looks,
    /// Written to by a dead letter that was refused, so that it shares no batch with another.
    pub(super) burials: tokio::sync::RwLock<()>,
}

impl Brokers {
    /// What all clients of the bus say.
    pub(super) fn voice(&self) -> &Voice {
        self.producer.voice()
    }

    /// Looks at the brokers, once for all who ask at the same time.
    async fn check(self: &Arc<Self>) -> Result<(), Failure> {
        let look = || {
            let brokers = Arc::clone(self);
            async move { brokers.topics.check().await }
        };
        self.looks.share(look).await
    }

    /// Sends a record to a topic that exists. One that is refused is looked for again next time:
    /// librdkafka would go on refusing by itself until it looks, five minutes later.
    pub(super) async fn send(&self, record: Record<'_>) -> Result<(), Failure> {
        self.topics.ensure(record.topic).await?;
        let topic = record.topic;
        let sent = self.producer.send(record).await;
        if let Err(Failure::Delivery { source, .. } | Failure::Enqueue(source)) = &sent
            && forbids_topic(source)
        {
            self.topics.forget(topic);
        }
        sent
    }
}

impl KafkaEventBus {
    #[cfg(test)]
    pub(super) fn brokers(&self) -> Arc<Brokers> {
        Arc::clone(&self.brokers)
    }

    /// Prepares the producer. Brokers are sought in the background; none need be there.
    ///
    /// Dropping the last clone discards what is not acknowledged, and blocks for up to 0.6 s.
    ///
    /// # Errors
    /// `Invalid`, with every setting that cannot be used.
    pub fn open(config: KafkaConfig) -> Result<Self, PortError> {
        let failed = |failure| port_error("open", failure);
        config.check().map_err(Failure::Config).map_err(failed)?;
        let in_the_clear = config.sasl.as_ref().is_some_and(|sasl| {
            sasl.mechanism == Mechanism::Plain && config.transport == Transport::Plaintext
        });
        if in_the_clear {
            tracing::warn!("the kafka password travels in the clear");
        }
        let producer = Arc::new(Producer::new(&config).map_err(failed)?);
        Ok(Self {
            brokers: Arc::new(Brokers {
                topics: Topics::new(&config, Arc::clone(&producer)),
                producer,
                config,
                looks: Looks::default(),
                burials: tokio::sync::RwLock::default(),
            }),
        })
    }
}

#[async_trait]
impl EventBus for KafkaEventBus {
    fn capabilities(&self) -> CapabilitySet<BusCapability> {
        CapabilitySet::of(&[
            BusCapability::OrderedPerKey,
            BusCapability::DeadLetter,
            BusCapability::Durable,
            BusCapability::CompetingConsumers,
        ])
    }

    /// Sends once; an empty key goes to a random partition.
    ///
    /// # Cancel safety
    /// A dropped call may have published the event.
    async fn publish(&self, event: &Event) -> Result<(), PortError> {
        event.check_limits(BACKEND, "publish")?;
        let key = event.key.as_bytes();
        let record = Record {
            topic: event.topic.as_str(),
            key: (!key.is_empty()).then_some(key),
            payload: &event.payload,
            headers: None,
        };
        let sent = self.brokers.send(record).await;
        sent.map_err(|failure| port_error("publish", failure))
    }

    /// Joins the group. For a group that the topic has not seen, it returns once the group has
    /// assigned partitions; a known group's position is fixed, so that one is joined behind the call.
    async fn subscribe(
        &self,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        let failed = |failure| port_error("subscribe", failure);
        let group = subscription.group.to_string();
        let brokers = Arc::clone(&self.brokers);
        let (subscriber, joined) = Subscriber::join(brokers, subscription, handler)
            .await
            .map_err(failed)?;
        let running = Background::spawn("kafka subscription", |stop| subscriber.run(stop));
        let Some(joined) = joined else {
            return Ok(running);
        };
        let config = &self.brokers.config;
        // A crashed member holds up everybody until its session has ended.
        let limit = config.session_timeout + config.request_timeout;
        let failure = match timeout(limit, joined).await {
            Ok(Ok(Ok(()))) => return Ok(running),
            Ok(Ok(Err(failure))) => failure,
            Ok(Err(_)) | Err(_) => Failure::NotJoined { group, limit },
        };
        running.stop().await;
        Err(failed(failure))
    }

    async fn check(&self) -> Result<(), PortError> {
        let checked = self.brokers.check().await;
        checked.map_err(|failure| port_error("check", failure))
    }
}
