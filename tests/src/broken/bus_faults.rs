//! Faults of publishing, delivering and subscribing.

use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use task_core::background::Background;
use task_core::ports::{
    Answer, BusCapability, CapabilitySet, Delivery, ErrorKind, Event, EventBus, EventHandler,
    Group, PortError, StartAt, Subscription, Topic,
};

use super::bus::BusFault;

/// A handler between the bus and the real one.
struct Between<Before, After> {
    handler: Arc<dyn EventHandler>,
    before: Before,
    after: After,
}

impl<B, A> fmt::Debug for Between<B, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Between").finish_non_exhaustive()
    }
}

#[async_trait]
impl<B, A> EventHandler for Between<B, A>
where
    B: Fn(&mut Delivery) + Send + Sync + 'static,
    A: Fn(&Delivery, Answer) -> Answer + Send + Sync + 'static,
{
    async fn handle(&self, delivery: &Delivery) -> Answer {
        let mut changed = delivery.clone();
        (self.before)(&mut changed);
        let answer = self.handler.handle(&changed).await;
        (self.after)(delivery, answer)
    }
}

fn before(
    handler: Arc<dyn EventHandler>,
    before: impl Fn(&mut Delivery) + Send + Sync + 'static,
) -> Arc<dyn EventHandler> {
    Arc::new(Between {
        handler,
        before,
        after: |_: &Delivery, answer| answer,
    })
}

fn after(
    handler: Arc<dyn EventHandler>,
    after: impl Fn(&Delivery, Answer) -> Answer + Send + Sync + 'static,
) -> Arc<dyn EventHandler> {
    Arc::new(Between {
        handler,
        before: |_: &mut Delivery| {},
        after,
    })
}

/// Answers that it has accepted an event, and loses every fortieth.
#[derive(Debug, Default)]
pub(super) struct LosesSome {
    published: AtomicUsize,
}

#[async_trait]
impl BusFault for LosesSome {
    async fn publish(&self, inner: &dyn EventBus, event: &Event) -> Result<(), PortError> {
        let number = self.published.fetch_add(1, Ordering::SeqCst) + 1;
        if number.is_multiple_of(40) {
            return Ok(());
        }
        inner.publish(event).await
    }
}

/// Refuses no event for its size, and loses those that are too large.
#[derive(Debug)]
pub(super) struct AcceptsTooMuch;

#[async_trait]
impl BusFault for AcceptsTooMuch {
    async fn publish(&self, inner: &dyn EventBus, event: &Event) -> Result<(), PortError> {
        match inner.publish(event).await {
            Err(error) if error.kind() == ErrorKind::Invalid => Ok(()),
            result => result,
        }
    }
}

/// Keeps of a key what is ASCII.
#[derive(Debug)]
pub(super) struct RewritesKeys;

#[async_trait]
impl BusFault for RewritesKeys {
    async fn publish(&self, inner: &dyn EventBus, event: &Event) -> Result<(), PortError> {
        let key: String = event.key.chars().filter(char::is_ascii).collect();
        let event = Event {
            key: key.into(),
            ..event.clone()
        };
        inner.publish(&event).await
    }
}

/// Delivers once more what was acknowledged.
#[derive(Debug)]
pub(super) struct DeliversTwice;

#[async_trait]
impl BusFault for DeliversTwice {
    async fn subscribe(
        &self,
        inner: &dyn EventBus,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        let handler = after(handler, |delivery, answer| match answer {
            Answer::Ack if delivery.attempt == 1 => Answer::Retry,
            Answer::Ack | Answer::Retry | Answer::Postpone(_) | Answer::Drop(_) => answer,
        });
        inner.subscribe(subscription, handler).await
    }
}

/// Takes "not now" for "done".
#[derive(Debug)]
pub(super) struct TakesRetryForAck;

#[async_trait]
impl BusFault for TakesRetryForAck {
    async fn subscribe(
        &self,
        inner: &dyn EventBus,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        let handler = after(handler, |_, answer| match answer {
            Answer::Retry => Answer::Ack,
            Answer::Ack | Answer::Postpone(_) | Answer::Drop(_) => answer,
        });
        inner.subscribe(subscription, handler).await
    }
}

#[derive(Debug)]
struct Unpanicking(Arc<dyn EventHandler>);

#[async_trait]
impl EventHandler for Unpanicking {
    async fn handle(&self, delivery: &Delivery) -> Answer {
        let call = AssertUnwindSafe(self.0.handle(delivery)).catch_unwind();
        call.await.unwrap_or(Answer::Ack)
    }
}

/// Takes a handler that panicked for one that is done.
#[derive(Debug)]
pub(super) struct TakesPanicForAck;

#[async_trait]
impl BusFault for TakesPanicForAck {
    async fn subscribe(
        &self,
        inner: &dyn EventBus,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        inner
            .subscribe(subscription, Arc::new(Unpanicking(handler)))
            .await
    }
}

/// Calls every delivery the first.
#[derive(Debug)]
pub(super) struct CountsNoAttempts;

#[async_trait]
impl BusFault for CountsNoAttempts {
    async fn subscribe(
        &self,
        inner: &dyn EventBus,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        let handler = before(handler, |delivery| delivery.attempt = 1);
        inner.subscribe(subscription, handler).await
    }
}

/// Takes "not now, and not for its own sake" for a failed delivery.
#[derive(Debug)]
pub(super) struct CountsPostponements;

#[async_trait]
impl BusFault for CountsPostponements {
    async fn subscribe(
        &self,
        inner: &dyn EventBus,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        let handler = after(handler, |_, answer| match answer {
            Answer::Postpone(_) => Answer::Retry,
            Answer::Ack | Answer::Retry | Answer::Drop(_) => answer,
        });
        inner.subscribe(subscription, handler).await
    }
}

/// Delivers again at once.
#[derive(Debug)]
pub(super) struct IgnoresPauses;

#[async_trait]
impl BusFault for IgnoresPauses {
    async fn subscribe(
        &self,
        inner: &dyn EventBus,
        mut subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        subscription.redelivery.longest_pause = Duration::ZERO;
        inner.subscribe(subscription, handler).await
    }
}

/// Makes one call after the other, whatever their keys.
#[derive(Debug)]
pub(super) struct WaitsForSlowCalls;

#[async_trait]
impl BusFault for WaitsForSlowCalls {
    async fn subscribe(
        &self,
        inner: &dyn EventBus,
        mut subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        subscription.concurrency = 1;
        inner.subscribe(subscription, handler).await
    }
}

/// Gives every event a key of its own, so that none has an order.
#[derive(Debug, Default)]
pub(super) struct MixesKeysUp {
    published: AtomicUsize,
}

#[async_trait]
impl BusFault for MixesKeysUp {
    async fn publish(&self, inner: &dyn EventBus, event: &Event) -> Result<(), PortError> {
        let number = self.published.fetch_add(1, Ordering::SeqCst);
        let event = Event {
            key: format!("{}#{number}", event.key).into(),
            ..event.clone()
        };
        inner.publish(&event).await
    }

    async fn subscribe(
        &self,
        inner: &dyn EventBus,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        let handler = before(handler, |delivery| {
            if let Some((key, _)) = delivery.key.split_once('#') {
                delivery.key = key.into();
            }
        });
        inner.subscribe(subscription, handler).await
    }
}

/// Orders all events as if they had one key.
#[derive(Debug, Default)]
pub(super) struct BlocksOnFailure {
    keys: Arc<Mutex<HashMap<Bytes, Box<str>>>>,
}

#[async_trait]
impl BusFault for BlocksOnFailure {
    async fn publish(&self, inner: &dyn EventBus, event: &Event) -> Result<(), PortError> {
        {
            let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            keys.insert(event.payload.clone(), event.key.clone());
        }
        let event = Event {
            key: "all".into(),
            ..event.clone()
        };
        inner.publish(&event).await
    }

    async fn subscribe(
        &self,
        inner: &dyn EventBus,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        let keys = Arc::clone(&self.keys);
        let handler = before(handler, move |delivery| {
            let keys = keys.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(key) = keys.get(&delivery.payload) {
                delivery.key.clone_from(key);
            }
        });
        inner.subscribe(subscription, handler).await
    }
}

/// Begins every new group at the end.
#[derive(Debug)]
pub(super) struct StartsAtTheEnd;

#[async_trait]
impl BusFault for StartsAtTheEnd {
    async fn subscribe(
        &self,
        inner: &dyn EventBus,
        mut subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        subscription.start = StartAt::End;
        inner.subscribe(subscription, handler).await
    }
}

/// Takes every subscription for a new group.
#[derive(Debug, Default)]
pub(super) struct ForgetsGroups {
    subscribed: AtomicUsize,
}

#[async_trait]
impl BusFault for ForgetsGroups {
    async fn subscribe(
        &self,
        inner: &dyn EventBus,
        mut subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        let number = self.subscribed.fetch_add(1, Ordering::SeqCst);
        subscription.group = Group::new(format!("{} {number}", subscription.group));
        inner.subscribe(subscription, handler).await
    }
}

/// Says that it has stopped while a slow handler call still runs.
#[derive(Debug)]
pub(super) struct StopsTooEarly;

#[async_trait]
impl BusFault for StopsTooEarly {
    async fn subscribe(
        &self,
        inner: &dyn EventBus,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        const HASTE: Duration = Duration::from_millis(25);
        let running = inner.subscribe(subscription, handler).await?;
        Ok(Background::spawn(
            "hasty subscription",
            |mut stop| async move {
                stop.raised().await;
                let stopping = tokio::spawn(running.stop());
                // Ending while the call runs is the fault.
                let _ = tokio::time::timeout(HASTE, stopping).await;
            },
        ))
    }
}

/// Sends dead letters where nobody listens.
#[derive(Debug)]
pub(super) struct BuriesNowhere;

#[async_trait]
impl BusFault for BuriesNowhere {
    async fn subscribe(
        &self,
        inner: &dyn EventBus,
        mut subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        subscription.dead_letter = Topic::new("nowhere");
        inner.subscribe(subscription, handler).await
    }
}

/// Knows no last delivery.
#[derive(Debug)]
pub(super) struct RetriesForEver;

#[async_trait]
impl BusFault for RetriesForEver {
    async fn subscribe(
        &self,
        inner: &dyn EventBus,
        mut subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        subscription.redelivery.max_deliveries = u32::MAX;
        inner.subscribe(subscription, handler).await
    }
}

/// Accepts a second subscriber of a group and gives it nothing.
#[derive(Debug)]
pub(super) struct LetsTwoIn;

#[async_trait]
impl BusFault for LetsTwoIn {
    async fn subscribe(
        &self,
        inner: &dyn EventBus,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        match inner.subscribe(subscription, handler).await {
            Err(error) if error.is_conflict() => {
                Ok(Background::spawn("idle", |mut stop| async move {
                    stop.raised().await;
                }))
            }
            result => result,
        }
    }
}

/// Calls itself shared, and gives a second subscriber of a group nothing.
#[derive(Debug)]
pub(super) struct SharesNothing;

#[async_trait]
impl BusFault for SharesNothing {
    fn capabilities(&self) -> CapabilitySet<BusCapability> {
        CapabilitySet::of(BusCapability::ALL)
    }

    async fn subscribe(
        &self,
        inner: &dyn EventBus,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        LetsTwoIn.subscribe(inner, subscription, handler).await
    }
}

/// Calls itself shared, and gives each subscriber of a group everything.
#[derive(Debug)]
pub(super) struct SharesTwice;

#[async_trait]
impl BusFault for SharesTwice {
    fn capabilities(&self) -> CapabilitySet<BusCapability> {
        CapabilitySet::of(BusCapability::ALL)
    }

    async fn subscribe(
        &self,
        inner: &dyn EventBus,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        let another = Subscription {
            group: Group::new(format!("{}, again", subscription.group)),
            ..subscription.clone()
        };
        match inner.subscribe(subscription, Arc::clone(&handler)).await {
            Err(error) if error.is_conflict() => inner.subscribe(another, handler).await,
            result => result,
        }
    }
}
