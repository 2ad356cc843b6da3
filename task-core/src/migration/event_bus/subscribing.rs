//! One subscription on two buses.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::background::{Background, Stop};
use crate::migration::Side;
use crate::migration::queue::Queues;
use crate::migration::subscriber::Subscriber;
use crate::ports::{
    Answer, Delivery, ErrorKind, EventBus, EventHandler, PortError, StateStore, Subscription,
};

/// The side without which a subscription fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needed {
    /// While any event may go to the old bus.
    Old,
    /// When all go to the new one.
    New,
}

/// The two buses, and where it is known who hears them.
#[derive(Debug)]
pub(super) struct Both {
    pub(super) old: Arc<dyn EventBus>,
    pub(super) new: Arc<dyn EventBus>,
    pub(super) records: Arc<dyn StateStore>,
    pub(super) again: Duration,
}

impl Both {
    /// Subscribes on the needed side, and on the other one now or as soon as it is there.
    ///
    /// # Errors
    /// As the needed side and the records; as the other side, unless it is only away.
    pub(super) async fn subscribe(
        self,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
        needed: Needed,
    ) -> Result<Background, PortError> {
        let subscriber = Subscriber::of(&subscription);
        // Known before it hears anything, so that nothing is published where it does not listen.
        match subscriber.announce(&*self.records).await {
            Err(error) if needed == Needed::Old => return Err(error),
            _ => {}
        }
        let handler = Arc::new(OneAtATime::new(handler, subscription.concurrency));
        let mut joining = Joining {
            both: self,
            subscription,
            handler,
            subscriber,
        };
        let (first, second) = match needed {
            Needed::Old => (Side::Old, Side::New),
            Needed::New => (Side::New, Side::Old),
        };
        let heard = joining.join(first).await?;
        let other = match joining.join(second).await {
            Ok(other) => Some(other),
            Err(error) if is_away(&error) => {
                tracing::warn!(%error, side = %second, "subscribed on one side; the other is tried again");
                None
            }
            Err(error) => {
                heard.stop().await;
                return Err(error);
            }
        };
        Ok(Background::spawn("parallel subscription", |stop| {
            joining.run(heard, other, second, stop)
        }))
    }
}

/// Whether a side may be subscribed to later.
fn is_away(error: &PortError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Throttled
    )
}

struct Joining {
    both: Both,
    subscription: Subscription,
    handler: Arc<OneAtATime>,
    subscriber: Subscriber,
}

impl Joining {
    async fn join(&mut self, side: Side) -> Result<Background, PortError> {
        let bus = match side {
            Side::Old => &self.both.old,
            Side::New => &self.both.new,
        };
        let handler = Arc::clone(&self.handler);
        let heard = bus.subscribe(self.subscription.clone(), handler).await?;
        if side == Side::New
            && let Err(error) = self.subscriber.hears_new(&*self.both.records).await
        {
            heard.stop().await;
            return Err(error);
        }
        Ok(heard)
    }

    async fn run(
        mut self,
        heard: Background,
        mut other: Option<Background>,
        side: Side,
        mut stop: Stop,
    ) {
        while other.is_none() && !stop.is_raised() {
            stop.or(sleep(self.both.again)).await;
            // Not broken off: a subscription that has begun is one that has to be stopped.
            match stop.is_raised() {
                true => break,
                false => other = self.try_again(side).await,
            }
        }
        stop.raised().await;
        let other = async {
            if let Some(other) = other {
                other.stop().await;
            }
        };
        join(heard.stop(), other).await;
    }

    async fn try_again(&mut self, side: Side) -> Option<Background> {
        match self.join(side).await {
            Ok(other) => {
                tracing::info!(%side, group = %self.subscription.group, "subscribed on both sides");
                Some(other)
            }
            Err(error) => {
                tracing::debug!(%error, %side, "still subscribed on one side");
                if let Err(error) = self.subscriber.announce(&*self.both.records).await {
                    tracing::debug!(%error, "nobody knows of a group that does not hear the new side");
                }
                None
            }
        }
    }
}

/// Calls a handler as one bus would, for deliveries of two: one at a time for each key, and no more at
/// once than were asked for.
///
/// So an event that comes from both sides at once is known the second time.
#[derive(Debug)]
struct OneAtATime {
    handler: Arc<dyn EventHandler>,
    /// The keys that are handled now; as many as both buses deliver at once.
    keys: Queues,
    places: Semaphore,
}

impl OneAtATime {
    fn new(handler: Arc<dyn EventHandler>, concurrency: usize) -> Self {
        Self {
            handler,
            keys: Queues::default(),
            places: Semaphore::new(concurrency.max(1)),
        }
    }

    async fn call(&self, delivery: &Delivery) -> Answer {
        let _place = self.places.acquire().await;
        self.handler.handle(delivery).await
    }
}

#[async_trait]
impl EventHandler for OneAtATime {
    async fn handle(&self, delivery: &Delivery) -> Answer {
        // What has no key has no order, and nobody to wait for.
        if delivery.key.is_empty() {
            return self.call(delivery).await;
        }
        let _turn = self.keys.enter(&delivery.key).await;
        self.call(delivery).await
    }
}
