//! The event bus that is two of them.

mod lanes;
mod subscribing;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;

use self::lanes::Lanes;
use self::subscribing::{Both, Needed};
use super::sides::BACKEND;
use super::{Bucket, BusStage, Member, MovedCall, Recorder, Side};
use crate::background::Background;
use crate::ports::{
    BusCapability, CapabilitySet, ErrorKind, Event, EventBus, EventHandler, PortError,
    StateCapability, StateStore, Subscription, Topic,
};

/// How long the two buses may take.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ParallelBusOptions {
    /// How long the new bus has to accept an event before the old one gets it.
    pub deadline: Duration,
    /// Pause before a subscription is tried again on a side that is away.
    pub subscribe_again: Duration,
}

impl Default for ParallelBusOptions {
    /// 1 s for the new bus, 1 s between two tries.
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(1),
            subscribe_again: Duration::from_secs(1),
        }
    }
}

/// An [`EventBus`] on two sides, of which the stage of each key says where events go.
///
/// | stage | published to |
/// | --- | --- |
/// | `off` | old |
/// | `shadow` | old, and when that has accepted it a copy to `<topic>.shadow` of new, beside the request |
/// | `live` | new; what it does not accept within the deadline goes to old, with the same id |
/// | `complete` | new |
///
/// Subscribers hear both sides in every stage. An event that an attempt in `live` has brought to both comes twice,
/// and is known by its id. The events of one key are handled one at a time, but a move does not keep their order:
/// what is on its way on one side may come after what was published on the other. So this bus declares
/// no order, whatever its sides do.
#[derive(Debug)]
pub struct ParallelEventBus {
    old: Arc<dyn EventBus>,
    new: Arc<dyn EventBus>,
    records: Arc<dyn StateStore>,
    member: Arc<Member>,
    recorder: Arc<Recorder>,
    options: ParallelBusOptions,
    lanes: Arc<Lanes>,
    capabilities: CapabilitySet<BusCapability>,
}

impl ParallelEventBus {
    /// A bus on two sides, moved by what this replica has adopted; `records` is the old side's store.
    ///
    /// # Errors
    /// `Unsupported`, naming what the store would have to be able to do.
    pub fn new(
        old: Arc<dyn EventBus>,
        new: Arc<dyn EventBus>,
        records: Arc<dyn StateStore>,
        member: Arc<Member>,
        recorder: Arc<Recorder>,
        options: ParallelBusOptions,
    ) -> Result<Self, PortError> {
        let can = records.capabilities();
        can.require(StateCapability::ConditionalWrites, "old side", "open")?;
        can.require(StateCapability::Scan, "old side", "open")?;
        let lanes = Lanes::new(Arc::clone(&new), Arc::clone(&recorder), options.deadline);
        Ok(Self {
            capabilities: common(old.capabilities(), new.capabilities()),
            lanes: Arc::new(lanes),
            old,
            new,
            records,
            member,
            recorder,
            options,
        })
    }

    /// Publishes copies in the background.
    ///
    /// What waits when it is stopped is not published.
    pub fn start(&self) -> Background {
        Lanes::start(&self.lanes)
    }

    async fn publish_on(
        &self,
        side: Side,
        stage: BusStage,
        event: &Event,
    ) -> Result<(), PortError> {
        let bus = match side {
            Side::Old => &self.old,
            Side::New => &self.new,
        };
        let publishing = bus.publish(event);
        self.recorder
            .time(MovedCall::Publish, side, stage, publishing)
            .await
    }

    async fn publish_live(&self, event: &Event) -> Result<(), PortError> {
        let limit = self.options.deadline;
        let publishing = limited(limit, self.new.publish(event));
        let published = self
            .recorder
            .time(MovedCall::Publish, Side::New, BusStage::Live, publishing)
            .await;
        match published {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::debug!(%error, key = %event.key, "published on the old bus instead");
                self.publish_on(Side::Old, BusStage::Live, event).await
            }
        }
    }

    /// Whether no event goes to the old bus any more.
    fn is_complete(&self) -> bool {
        self.member.pin().is_ok_and(|pin| {
            let complete = pin.control().bus.reached(BusStage::Complete);
            complete == Bucket::COUNT
        })
    }
}

/// The topic on the new bus that gets the copies of a topic's events.
#[must_use]
pub fn shadow_topic(topic: &Topic) -> Topic {
    Topic::new(format!("{topic}.shadow"))
}

/// Waits for the new bus no longer than `limit`; what it accepts later comes twice.
async fn limited(
    limit: Duration,
    publishing: impl Future<Output = Result<(), PortError>> + Send,
) -> Result<(), PortError> {
    match timeout(limit, publishing).await {
        Ok(published) => published,
        Err(_) => Err(PortError::new(ErrorKind::Timeout, BACKEND, "publish")
            .context(format!("not accepted within {} ms", limit.as_millis()))
            .unknown_outcome()),
    }
}

/// What both sides can do, and a move between them does not take away.
fn common(
    old: CapabilitySet<BusCapability>,
    new: CapabilitySet<BusCapability>,
) -> CapabilitySet<BusCapability> {
    use BusCapability::{CompetingConsumers, DeadLetter, Durable};
    const SETS: [&[BusCapability]; 8] = [
        &[],
        &[DeadLetter],
        &[Durable],
        &[DeadLetter, Durable],
        &[CompetingConsumers],
        &[DeadLetter, CompetingConsumers],
        &[Durable, CompetingConsumers],
        &[DeadLetter, Durable, CompetingConsumers],
    ];
    let both = |capability| usize::from(old.has(capability) && new.has(capability));
    CapabilitySet::of(SETS[both(DeadLetter) + 2 * both(Durable) + 4 * both(CompetingConsumers)])
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl EventBus for ParallelEventBus {
    fn capabilities(&self) -> CapabilitySet<BusCapability> {
        self.capabilities
    }

    async fn publish(&self, event: &Event) -> Result<(), PortError> {
        event.check_limits(BACKEND, "publish")?;
        let pin = self.member.pin()?;
        let stage = pin.control().bus_stage_of(&event.key);
        match stage {
            BusStage::Off => self.publish_on(Side::Old, stage, event).await,
            BusStage::Shadow => {
                self.publish_on(Side::Old, stage, event).await?;
                self.lanes.offer(event);
                Ok(())
            }
            BusStage::Live => self.publish_live(event).await,
            BusStage::Complete => self.publish_on(Side::New, stage, event).await,
        }
    }

    /// Hears both sides. The side that publications need has to be there; the other one is tried until it is.
    ///
    /// The group and its start are the same on both: one that a side knows goes on where it stopped there.
    async fn subscribe(
        &self,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        let both = Both {
            old: Arc::clone(&self.old),
            new: Arc::clone(&self.new),
            records: Arc::clone(&self.records),
            again: self.options.subscribe_again,
        };
        let needed = match self.is_complete() {
            true => Needed::New,
            false => Needed::Old,
        };
        both.subscribe(subscription, handler, needed).await
    }

    async fn check(&self) -> Result<(), PortError> {
        match self.is_complete() {
            true => self.new.check().await,
            false => self.old.check().await,
        }
    }
}
