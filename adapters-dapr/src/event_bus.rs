//! The event bus on a pub/sub component of the sidecar, whichever it is.
//!
//! # Groups
//! A group is an app id: the sidecar reads every topic as the app that it stands beside. Another group is
//! refused; it needs a sidecar of its own.
//!
//! # Where a group begins
//! That is the component's business, and each has one way only: see [`NewGroups`]. Where a subscription
//! asks for something else, it is refused, unless the operator says that the group exists already.
//!
//! # What comes, and again
//! An event is published raw, so that the bytes in the broker are those of the port, as without Dapr; see
//! `payload.rs`. A subscription is a stream that the service opens, and not a resource: while no service is
//! there, nothing is delivered, fails or becomes a dead letter. The same handlers also take what comes to the
//! [callbacks](crate::callback), for an operator who declares subscriptions.
//!
//! Retries, their pauses and dead letters happen in this process, while the sidecar waits: each event in hand
//! occupies one of the component's workers (`concurrency` of Redis, 10 unless told otherwise) or a partition
//! of Kafka, whose other keys wait. The number of attempts is forgotten with the process, and the event is not.
//! `pubsub.in-memory` keeps nothing for anybody: its events are taken from it at once, and are gone with the
//! process.
//!
//! *Source:* daprd and components-contrib 1.16, `pkg/runtime/subscription`, `pkg/runtime/pubsub/streamer`.

mod intake;
mod payload;
mod publisher;
mod stream;
mod subscription;
mod undertaker;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join;
use serde::{Deserialize, Serialize};
use task_core::background::Background;
use task_core::ports::{
    BusCapability, CapabilitySet, Event, EventBus, EventHandler, PortError, StartAt, Subscription,
};
use tokio::sync::mpsc;

pub(crate) use intake::{Reply, Subscribers};
pub(crate) use payload::MAX_MESSAGE_BYTES;

use crate::error::{BACKEND, Failure};
use crate::sidecar::Sidecar;
use intake::Sharing;
use publisher::Publisher;
use stream::{Open, Source};
use subscription::{Answering, InHand};

/// Deliveries on their way to a subscription; each waits for its answer anyway.
const MAX_ON_THE_WAY: usize = 16;

/// Where a new group of a component begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewGroups {
    /// At the oldest event: `pubsub.redis`, and Kafka with `initialOffset: oldest`.
    AtBeginning,
    /// After the last event: `pubsub.in-memory`, and Kafka unless told otherwise.
    AtEnd,
    /// The operator knows that the group exists, or that its topics are empty: nothing is refused.
    Exist,
}

/// How deliveries reach the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Intake {
    /// By streams that each subscription opens.
    #[default]
    Streams,
    /// By the callbacks alone: the sidecar is told of the topics at its start, or an operator declares them.
    Callbacks,
}

/// How a [`DaprEventBus`] is opened.
#[derive(Debug, Clone, Copy)]
pub struct EventBusOptions {
    /// How deliveries reach the service.
    pub intake: Intake,
    /// Where new groups begin, if it is not as usual for the component's type.
    pub new_groups: Option<NewGroups>,
    /// Longest wait for the component to subscribe; Kafka joins a group meanwhile.
    pub open_timeout: Duration,
}

impl Default for EventBusOptions {
    /// By streams, new groups as usual, 15 s to subscribe.
    fn default() -> Self {
        Self {
            intake: Intake::default(),
            new_groups: None,
            open_timeout: Duration::from_secs(15),
        }
    }
}

/// An [`EventBus`] on a pub/sub component. A clone shares its subscriptions.
#[derive(Debug, Clone)]
pub struct DaprEventBus {
    publisher: Publisher,
    kind: Kind,
    profile: EventBusProfile,
    intake: Intake,
    new_groups: Option<NewGroups>,
    open_timeout: Duration,
    subscribers: Arc<Subscribers>,
}

/// What is known of a component and its sidecar, to be kept for a start without them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventBusProfile {
    pub(crate) component_type: Box<str>,
    pub(crate) app_id: Box<str>,
}

/// What is known of a component by its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Redis,
    Kafka,
    InMemory,
    Other,
}

impl Kind {
    fn of(component_type: &str) -> Self {
        match component_type {
            "pubsub.redis" => Self::Redis,
            "pubsub.kafka" => Self::Kafka,
            "pubsub.in-memory" => Self::InMemory,
            _ => Self::Other,
        }
    }

    fn capabilities(self) -> &'static [BusCapability] {
        use BusCapability::{CompetingConsumers, DeadLetter, OrderedPerKey};
        match self {
            Self::Redis => &[DeadLetter, CompetingConsumers],
            // Replicas share a group, each beside its own sidecar; a sidecar subscribes to a topic once.
            Self::Kafka => &[OrderedPerKey, DeadLetter],
            Self::InMemory | Self::Other => &[DeadLetter],
        }
    }

    /// When the sidecar is told that an event is done with.
    fn answering(self) -> Answering {
        match self {
            Self::Redis | Self::Kafka | Self::Other => Answering::WhenDone,
            // It hands out one event at a time, lets publishers wait meanwhile, and keeps nothing.
            Self::InMemory => Answering::AtOnce,
        }
    }

    fn new_groups(self) -> Option<NewGroups> {
        match self {
            Self::Redis => Some(NewGroups::AtBeginning),
            Self::Kafka | Self::InMemory => Some(NewGroups::AtEnd),
            Self::Other => None,
        }
    }
}

impl DaprEventBus {
    /// Opens the component that the sidecar's configuration names. The sidecar has to be ready.
    ///
    /// # Errors
    /// `NotFound` if it has no such component, and what [`Sidecar::metadata`] answers.
    pub async fn open(sidecar: &Sidecar, options: EventBusOptions) -> Result<Self, PortError> {
        let metadata = sidecar.metadata().await?;
        let component = metadata.needed(&sidecar.config().components.pubsub)?;
        let profile = EventBusProfile {
            component_type: (*component.kind).into(),
            app_id: (*metadata.app_id).into(),
        };
        Ok(Self::known(sidecar, profile, options))
    }

    /// A bus on a component that was open before, without asking the sidecar: it may be away.
    #[must_use]
    pub fn known(sidecar: &Sidecar, profile: EventBusProfile, options: EventBusOptions) -> Self {
        let kind = Kind::of(&profile.component_type);
        Self {
            publisher: Publisher {
                sidecar: sidecar.clone(),
                pubsub: sidecar.config().components.pubsub.clone(),
            },
            kind,
            profile,
            intake: options.intake,
            new_groups: options.new_groups.or(kind.new_groups()),
            open_timeout: options.open_timeout,
            subscribers: Arc::default(),
        }
    }

    /// The group of every subscription: the app id that the sidecar runs with.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.profile.app_id
    }

    /// What was found out when the component was opened.
    #[must_use]
    pub fn profile(&self) -> &EventBusProfile {
        &self.profile
    }

    pub(crate) fn subscribers(&self) -> &Arc<Subscribers> {
        &self.subscribers
    }

    pub(crate) fn pubsub(&self) -> &str {
        &self.publisher.pubsub
    }

    pub(crate) fn intake(&self) -> Intake {
        self.intake
    }

    /// Refuses what a sidecar cannot do.
    fn check_possible(&self, subscription: &Subscription) -> Result<(), Failure> {
        let group = subscription.group.as_str();
        if group != self.group() {
            return Err(Failure::Unsupported(format!(
                "the group of this sidecar is its app id {:?}, not {group:?}",
                self.group()
            )));
        }
        let possible = match (&subscription.start, self.new_groups) {
            (_, Some(NewGroups::Exist))
            | (StartAt::Beginning, Some(NewGroups::AtBeginning))
            | (StartAt::End, Some(NewGroups::AtEnd)) => true,
            (StartAt::Group(other), Some(NewGroups::AtEnd)) => other == &subscription.group,
            (StartAt::Beginning | StartAt::End | StartAt::Group(_), _) => false,
        };
        if possible {
            return Ok(());
        }
        Err(Failure::Unsupported(format!(
            "component {:?} cannot begin a new group at {:?}, only {:?}",
            self.pubsub(),
            subscription.start,
            self.new_groups
        )))
    }

    fn sharing(&self) -> Sharing {
        match self.capabilities().has(BusCapability::CompetingConsumers) {
            true => Sharing::Competing,
            false => Sharing::Alone,
        }
    }

    async fn open_stream(&self, source: &Source) -> Result<Option<Open>, Failure> {
        match self.intake {
            Intake::Streams => source.open().await.map(Some),
            Intake::Callbacks => Ok(None),
        }
    }
}

#[async_trait]
impl EventBus for DaprEventBus {
    fn capabilities(&self) -> CapabilitySet<BusCapability> {
        CapabilitySet::of(self.kind.capabilities())
    }

    async fn publish(&self, event: &Event) -> Result<(), PortError> {
        event.check_limits(BACKEND, "publish")?;
        let published = self.publisher.publish(event).await;
        published.map_err(|failure| failure.into_port("publish"))
    }

    async fn subscribe(
        &self,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        let refused = |failure: Failure| failure.into_port("subscribe");
        self.check_possible(&subscription).map_err(refused)?;
        let (sender, receiver) = mpsc::channel(MAX_ON_THE_WAY);
        let place = self
            .subscribers
            .join(&subscription.topic, self.sharing(), sender.clone());
        let Some(place) = place else {
            let taken = format!(
                "group {} has a subscriber of {} already",
                self.group(),
                subscription.topic
            );
            return Err(refused(Failure::Conflict(taken)));
        };
        let source = Source {
            sidecar: self.publisher.sidecar.clone(),
            pubsub: self.publisher.pubsub.clone(),
            topic: subscription.topic.clone(),
            open_timeout: self.open_timeout,
        };
        let open = self.open_stream(&source).await.map_err(refused)?;
        let in_hand = InHand::new(subscription, receiver, self.kind.answering());
        let publisher = self.publisher.clone();
        Ok(Background::spawn("dapr subscription", |stop| async move {
            let streaming = async {
                match open {
                    Some(open) => source.run(open, sender, stop.clone()).await,
                    None => None,
                }
            };
            let handling = in_hand.run(handler, publisher, stop.clone());
            let (open, ()) = join(streaming, handling).await;
            // Every answer is given.
            if let Some(open) = open {
                open.close().await;
            }
            drop(place);
        }))
    }

    /// Says whether the sidecar is ready; whether its broker is, nobody can ask it.
    async fn check(&self) -> Result<(), PortError> {
        self.publisher.sidecar.check().await
    }
}
