//! Kafka under test: one broker a test process, topics and groups of its own for each case.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use adapters_direct::kafka::{KafkaConfig, KafkaEventBus, MissingTopics};
use async_trait::async_trait;
use task_core::background::Background;
use task_core::ports::{
    Answer, BusCapability, CapabilitySet, Delivery, Event, EventBus, EventHandler, Group,
    PortError, StartAt, Subscription, Topic,
};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use crate::conformance::Failure;
use crate::conformance::event_bus::EventBusBackend;
use crate::process::KafkaBroker;

/// Partitions of a topic: two keys may be apart or together.
const PARTITIONS: u16 = 3;

/// A bus on the broker of this process.
#[derive(Debug)]
pub struct KafkaEventBuses {
    names: Names,
}

impl KafkaEventBuses {
    /// A backend without topics and groups.
    #[must_use]
    pub fn fresh() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let case = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("case-{case}.");
        Self {
            names: Names(prefix.into()),
        }
    }

    async fn bus(&self) -> Result<Arc<dyn EventBus>, Failure> {
        // Starting a broker is no future that could move between threads.
        let runtime = Handle::current();
        let start = move || runtime.block_on(KafkaBroker::shared());
        let broker = spawn_blocking(start).await?;
        let bus = KafkaEventBus::open(config(broker))?;
        Ok(Arc::new(Apart {
            bus,
            names: self.names.clone(),
        }))
    }
}

/// A configuration for a broker of the tests: topics appear, and a lost member is noticed soon.
#[must_use]
pub(super) fn config(broker: &KafkaBroker) -> KafkaConfig {
    let mut config = KafkaConfig::new(broker.bootstrap());
    config.missing_topics = MissingTopics::Create {
        partitions: PARTITIONS,
        replication: 1,
    };
    config.session_timeout = Duration::from_secs(6);
    config
}

#[async_trait]
impl EventBusBackend for KafkaEventBuses {
    async fn open(&self) -> Result<Arc<dyn EventBus>, Failure> {
        self.bus().await
    }

    async fn reopen(&self, bus: Arc<dyn EventBus>) -> Result<Arc<dyn EventBus>, Failure> {
        drop(bus);
        self.bus().await
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(20)
    }

    async fn close(&self) {}
}

/// What the suite's names are called on the broker that all cases share.
#[derive(Debug, Clone)]
struct Names(Arc<str>);

impl Names {
    fn topic(&self, topic: &Topic) -> Topic {
        Topic::new(format!("{}{topic}", self.0))
    }

    fn group(&self, group: &Group) -> Group {
        Group::new(format!("{}{group}", self.0))
    }

    fn original(&self, topic: &Topic) -> Topic {
        let name = topic.as_str();
        Topic::new(name.strip_prefix(&*self.0).unwrap_or(name))
    }
}

/// The bus under test, with other names.
#[derive(Debug)]
struct Apart {
    bus: KafkaEventBus,
    names: Names,
}

#[derive(Debug)]
struct Renaming {
    handler: Arc<dyn EventHandler>,
    names: Names,
}

#[async_trait]
impl EventHandler for Renaming {
    async fn handle(&self, delivery: &Delivery) -> Answer {
        let delivery = Delivery {
            topic: self.names.original(&delivery.topic),
            ..delivery.clone()
        };
        self.handler.handle(&delivery).await
    }
}

#[async_trait]
impl EventBus for Apart {
    fn capabilities(&self) -> CapabilitySet<BusCapability> {
        self.bus.capabilities()
    }

    async fn publish(&self, event: &Event) -> Result<(), PortError> {
        let event = Event {
            topic: self.names.topic(&event.topic),
            ..event.clone()
        };
        self.bus.publish(&event).await
    }

    async fn subscribe(
        &self,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        let names = &self.names;
        let subscription = Subscription {
            topic: names.topic(&subscription.topic),
            group: names.group(&subscription.group),
            dead_letter: names.topic(&subscription.dead_letter),
            start: match subscription.start {
                StartAt::Group(other) => StartAt::Group(names.group(&other)),
                StartAt::End | StartAt::Beginning => subscription.start,
            },
            ..subscription
        };
        let names = names.clone();
        let handler = Arc::new(Renaming { handler, names });
        self.bus.subscribe(subscription, handler).await
    }

    async fn check(&self) -> Result<(), PortError> {
        self.bus.check().await
    }
}
