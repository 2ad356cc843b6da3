//! A bus whose groups each have a sidecar of their own, as on Dapr they must.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use adapters_dapr::{DaprEventBus, EventBusOptions, NewGroups};
use async_trait::async_trait;
use task_core::background::Background;
use task_core::ports::{
    Answer, BusCapability, CapabilitySet, Delivery, ErrorKind, Event, EventBus, EventHandler,
    Group, PortError, Subscription, Topic,
};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::{plainly, start};
use crate::conformance::Failure;
use crate::conformance::event_bus::EventBusBackend;
use crate::process::dapr::{Component, Sidecar, SidecarOptions};
use crate::process::{KafkaBroker, RedisServer};
use crate::trials::NotKept;

/// Cases that a component of Dapr cannot keep whatever an adapter does: row, case, and why.
///
/// Each is shown to fail, so that no reason outlives its case.
pub const NOT_KEPT: &[NotKept] = &[
    (
        "dapr_redis",
        "a_new_group_starts_where_it_is_told",
        "a group begins at the oldest event, whatever it is told",
    ),
    (
        "dapr_kafka",
        "a_new_group_starts_where_it_is_told",
        "a component has one place where its groups begin",
    ),
    (
        "dapr_kafka",
        "a_failing_event_does_not_block_other_keys",
        PARTITION,
    ),
    (
        "dapr_kafka",
        "a_slow_handler_call_does_not_hold_back_other_keys",
        PARTITION,
    ),
    (
        "dapr_in_memory",
        "a_new_group_starts_where_it_is_told",
        VOLATILE,
    ),
    (
        "dapr_in_memory",
        "a_group_goes_on_where_it_stopped",
        VOLATILE,
    ),
    (
        "dapr_in_memory",
        "a_stopped_subscription_is_quiet",
        VOLATILE,
    ),
    (
        "dapr_in_memory",
        "every_group_receives_every_event_unchanged",
        ONE_GROUP,
    ),
    (
        "dapr_in_memory",
        "subscribers_of_one_group_share_or_conflict",
        ONE_GROUP,
    ),
];

const PARTITION: &str = "a sidecar hands out one event of a partition at a time";

const ONE_GROUP: &str = "a sidecar has one group, and the memory one sidecar";

const VOLATILE: &str = "events that nobody listens to are gone";

/// What carries the events behind the sidecars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broker {
    /// Redis streams, a database for each case.
    Redis,
    /// Kafka, topics of its own for each case.
    Kafka,
    /// The memory of one sidecar, which has one group.
    InMemory,
}

/// Sidecars on one broker.
#[derive(Debug)]
pub struct DaprEventBuses {
    broker: Broker,
    prefix: String,
    grouped: Mutex<Option<Arc<Grouped>>>,
}

impl DaprEventBuses {
    /// A backend without topics and groups.
    #[must_use]
    pub fn fresh(broker: Broker) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let case = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            broker,
            prefix: format!("case-{case}-"),
            grouped: Mutex::default(),
        }
    }
}

#[async_trait]
impl EventBusBackend for DaprEventBuses {
    async fn open(&self) -> Result<Arc<dyn EventBus>, Failure> {
        let component = component(self.broker, &self.prefix).await?;
        let first = member(self.broker, &self.prefix, "g", &component).await?;
        let grouped = Arc::new(Grouped {
            broker: self.broker,
            prefix: self.prefix.clone(),
            component,
            publisher: first.bus.clone(),
            members: Mutex::new(HashMap::from([("g".to_owned(), first)])),
        });
        *self.grouped.lock().await = Some(Arc::clone(&grouped));
        Ok(grouped)
    }

    async fn reopen(&self, bus: Arc<dyn EventBus>) -> Result<Arc<dyn EventBus>, Failure> {
        Ok(bus)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(15)
    }

    async fn close(&self) {
        self.grouped.lock().await.take();
    }
}

async fn component(broker: Broker, prefix: &str) -> Result<Component, Failure> {
    let runtime = Handle::current();
    let prefix = prefix.to_owned();
    let prepare = move || match broker {
        Broker::Redis => {
            let server = runtime.block_on(RedisServer::shared());
            Component::redis_pubsub("pubsub", &server.next_database_url())
                .with("concurrency", "32")
                .with("processingTimeout", "2000")
                .with("redeliverInterval", "500")
        }
        Broker::Kafka => {
            let broker = runtime.block_on(KafkaBroker::shared());
            for topic in ["tasks", "tasks.dead", "tasks.shadow"] {
                runtime.block_on(broker.create_topic(&format!("{prefix}{topic}"), 3));
            }
            Component::kafka_pubsub("pubsub", broker)
        }
        Broker::InMemory => Component::in_memory_pubsub("pubsub"),
    };
    Ok(spawn_blocking(prepare).await?)
}

/// A sidecar and the bus on it.
#[derive(Debug)]
struct Member {
    bus: DaprEventBus,
    #[expect(dead_code, reason = "it lives as long as its bus")]
    sidecar: Sidecar,
}

async fn member(
    broker: Broker,
    prefix: &str,
    group: &str,
    component: &Component,
) -> Result<Member, Failure> {
    let app_id = match broker {
        Broker::Kafka => format!("{prefix}{group}"),
        Broker::Redis | Broker::InMemory => group.to_owned(),
    };
    let sidecar = start(SidecarOptions::of(&app_id, [component])).await?;
    let options = EventBusOptions {
        new_groups: Some(NewGroups::Exist),
        ..EventBusOptions::default()
    };
    let bus = DaprEventBus::open(&plainly(&sidecar)?, options).await?;
    Ok(Member { bus, sidecar })
}

/// The buses of a case's groups as one.
#[derive(Debug)]
struct Grouped {
    broker: Broker,
    prefix: String,
    component: Component,
    publisher: DaprEventBus,
    members: Mutex<HashMap<String, Member>>,
}

impl Grouped {
    fn topic(&self, topic: &Topic) -> Topic {
        match self.broker {
            Broker::Kafka => Topic::new(format!("{}{topic}", self.prefix)),
            Broker::Redis | Broker::InMemory => topic.clone(),
        }
    }

    async fn bus(&self, group: &Group) -> Result<DaprEventBus, PortError> {
        if self.broker == Broker::InMemory {
            return Ok(self.publisher.clone());
        }
        let mut members = self.members.lock().await;
        let name = group.as_str().to_owned();
        if let Some(member) = members.get(&name) {
            return Ok(member.bus.clone());
        }
        let member = member(self.broker, &self.prefix, &name, &self.component).await;
        let member = member.map_err(|failure| {
            PortError::new(ErrorKind::Unexpected, "tests", "start").context(failure.to_string())
        })?;
        let bus = member.bus.clone();
        members.insert(name, member);
        Ok(bus)
    }
}

/// Gives a handler the topic's name without the prefix.
#[derive(Debug)]
struct Renaming {
    handler: Arc<dyn EventHandler>,
    prefix: String,
}

#[async_trait]
impl EventHandler for Renaming {
    async fn handle(&self, delivery: &Delivery) -> Answer {
        let name = delivery.topic.as_str();
        let delivery = Delivery {
            topic: Topic::new(name.strip_prefix(&self.prefix).unwrap_or(name)),
            ..delivery.clone()
        };
        self.handler.handle(&delivery).await
    }
}

#[async_trait]
impl EventBus for Grouped {
    fn capabilities(&self) -> CapabilitySet<BusCapability> {
        self.publisher.capabilities()
    }

    async fn publish(&self, event: &Event) -> Result<(), PortError> {
        let event = Event {
            topic: self.topic(&event.topic),
            ..event.clone()
        };
        self.publisher.publish(&event).await
    }

    async fn subscribe(
        &self,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        let bus = self.bus(&subscription.group).await?;
        let subscription = Subscription {
            topic: self.topic(&subscription.topic),
            dead_letter: self.topic(&subscription.dead_letter),
            group: Group::new(bus.group()),
            ..subscription
        };
        let prefix = self.prefix.clone();
        let handler = Arc::new(Renaming { handler, prefix });
        bus.subscribe(subscription, handler).await
    }

    async fn check(&self) -> Result<(), PortError> {
        self.publisher.check().await
    }
}
