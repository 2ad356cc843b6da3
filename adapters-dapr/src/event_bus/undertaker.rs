//! Buries what cannot be handled, before the sidecar is told that it is done with.
//!
//! The sidecar has dead letters of its own, but would also send there what fails once, and what comes while
//! the app is down. So it is told of none, and they are published from here.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use task_core::background::Stop;
use task_core::dispatch::DeadReason;
use task_core::ports::{Answer, Delivery, EventHandler, Topic};
use tokio::time::sleep;

use super::publisher::Publisher;
use crate::sidecar::{TraceParent, WithinTrace};

/// Pause before a burial is tried again.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

/// A handler that acknowledges what it has moved to the dead letters.
#[derive(Debug)]
pub(super) struct Undertaker {
    pub(super) handler: Arc<dyn EventHandler>,
    pub(super) max_deliveries: u32,
    pub(super) dead_letter: Topic,
    pub(super) publisher: Publisher,
    pub(super) traces: Arc<Traces>,
    pub(super) within: WithinTrace,
    pub(super) stop: Stop,
}

/// The traces of what is in hand, by key and payload: a handler's call is told no more.
#[derive(Debug, Default)]
pub(super) struct Traces(Mutex<HashMap<(Box<str>, Bytes), TraceParent>>);

impl Traces {
    fn all(&self) -> MutexGuard<'_, HashMap<(Box<str>, Bytes), TraceParent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self, content: &(Box<str>, Bytes), trace: Option<TraceParent>) {
        if let Some(trace) = trace {
            self.all().insert(content.clone(), trace);
        }
    }

    pub(super) fn end(&self, content: &(Box<str>, Bytes)) {
        self.all().remove(content);
    }

    fn of(&self, delivery: &Delivery) -> Option<TraceParent> {
        let content = (delivery.key.clone(), delivery.payload.clone());
        self.all().get(&content).copied()
    }
}

#[async_trait]
impl EventHandler for Undertaker {
    async fn handle(&self, delivery: &Delivery) -> Answer {
        let call = self.handler.handle(delivery);
        let call = match self.traces.of(delivery) {
            Some(trace) => (self.within)(trace, call),
            None => call,
        };
        let call = AssertUnwindSafe(call).catch_unwind();
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
