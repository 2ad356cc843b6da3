//! Buries what cannot be handled, before the sidecar is told that it is done with.
//!
//! The sidecar has dead letters of its own, but would also send there what fails once, and what comes while
//! the app is down. So it is told of none, and they are published from here.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use task_core::background::Stop;
use task_core::dispatch::DeadReason;
use task_core::ports::{Answer, Delivery, EventHandler, Topic};
use tokio::time::sleep;

use super::publisher::Publisher;

/// Pause before a burial is tried again.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

/// A handler that acknowledges what it has moved to the dead letters.
#[derive(Debug)]
pub(super) struct Undertaker {
    pub(super) handler: Arc<dyn EventHandler>,
    pub(super) max_deliveries: u32,
    pub(super) dead_letter: Topic,
    pub(super) publisher: Publisher,
    pub(super) stop: Stop,
}

#[async_trait]
impl EventHandler for Undertaker {
    async fn handle(&self, delivery: &Delivery) -> Answer {
        let call = AssertUnwindSafe(self.handler.handle(delivery)).catch_unwind();
        let answer = call.await.unwrap_or_else(|_| {
            tracing::error!(topic = %delivery.topic, key = %delivery.key, "event handler panicked");
            Answer::Retry
        });
        match answer {
            Answer::Drop(reason) => self.bury(delivery, DeadReason::Dropped(reason)).await,
            Answer::Retry if delivery.attempt >= self.max_deliveries => {
                self.bury(delivery, DeadReason::Exhausted).await
            }
            Answer::Ack | Answer::Retry | Answer::Postpone(_) => answer,
        }
    }
}

impl Undertaker {
    /// Tries until it is done, or until the subscription stops: then the event comes again.
    async fn bury(&self, delivery: &Delivery, reason: DeadReason) -> Answer {
        let event = delivery.clone().into_event(self.dead_letter.clone());
        let mut stop = self.stop.clone();
        while let Err(failure) = self.publisher.publish(&event).await {
            let error = failure.into_port("bury");
            tracing::warn!(%error, dead_letter = %self.dead_letter, "a dead letter waits");
            if stop.or(sleep(PAUSE_AFTER_ERROR)).await.is_none() {
                return Answer::Retry;
            }
        }
        tracing::warn!(
            topic = %delivery.topic, key = %delivery.key, deliveries = delivery.attempt, %reason,
            "event is a dead letter"
        );
        Answer::Ack
    }
}
