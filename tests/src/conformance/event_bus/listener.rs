//! A subscription that tells the case what it hears.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use task_core::background::Background;
use task_core::ports::{Answer, Delivery, EventBus, EventHandler, PortError, Subscription};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{PAUSE, Subject};
use crate::conformance::{Failure, Verdict, ensure_eq};

/// Deliveries that wait for the case; more than any case publishes.
const MOST_HEARD: usize = 4096;

/// A running subscription and what its handler was given.
#[derive(Debug)]
pub struct Listener {
    running: Background,
    heard: mpsc::Receiver<Delivery>,
    patience: Duration,
}

struct Recorder<F> {
    heard: mpsc::Sender<Delivery>,
    answer: F,
}

impl<F> fmt::Debug for Recorder<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

#[async_trait]
impl<F> EventHandler for Recorder<F>
where
    F: Fn(&Delivery) -> Answer + Send + Sync + 'static,
{
    async fn handle(&self, delivery: &Delivery) -> Answer {
        let answer = (self.answer)(delivery);
        // A case that has stopped listening has its verdict already.
        let _ = self.heard.send(delivery.clone()).await;
        answer
    }
}

impl Listener {
    /// Subscribes and answers every delivery as told.
    ///
    /// # Errors
    /// What the bus says.
    pub async fn start(
        subject: &Subject,
        subscription: Subscription,
        answer: impl Fn(&Delivery) -> Answer + Send + Sync + 'static,
    ) -> Result<Self, PortError> {
        let patience = subject.backend.patience();
        Self::on(&*subject.bus, patience, subscription, answer).await
    }

    /// Subscribes to a bus of any origin; waits at most `patience` for each delivery.
    ///
    /// # Errors
    /// What the bus says.
    pub async fn on(
        bus: &dyn EventBus,
        patience: Duration,
        subscription: Subscription,
        answer: impl Fn(&Delivery) -> Answer + Send + Sync + 'static,
    ) -> Result<Self, PortError> {
        let (sender, heard) = mpsc::channel(MOST_HEARD);
        let recorder = Arc::new(Recorder {
            heard: sender,
            answer,
        });
        let running = bus.subscribe(subscription, recorder).await?;
        Ok(Self {
            running,
            heard,
            patience,
        })
    }

    /// Subscribes and acknowledges everything.
    ///
    /// # Errors
    /// What the bus says.
    pub async fn acknowledging(
        subject: &Subject,
        subscription: Subscription,
    ) -> Result<Self, PortError> {
        Self::start(subject, subscription, |_| Answer::Ack).await
    }

    /// The next delivery.
    ///
    /// # Errors
    /// None came in time.
    #[track_caller]
    pub fn hear(&mut self) -> impl Future<Output = Result<Delivery, Failure>> + Send {
        let lost = Failure::new(format!("no event came within {:?}", self.patience));
        async move {
            match timeout(self.patience, self.heard.recv()).await {
                Ok(Some(delivery)) => Ok(delivery),
                Ok(None) | Err(_) => Err(lost),
            }
        }
    }

    /// The payloads of so many deliveries.
    ///
    /// # Errors
    /// Fewer came in time.
    pub async fn hear_many(&mut self, count: usize) -> Result<Vec<Bytes>, Failure> {
        let mut payloads = Vec::with_capacity(count);
        while payloads.len() < count {
            payloads.push(self.hear().await?.payload);
        }
        Ok(payloads)
    }

    /// Publishes a mark, waits until it is heard, and fails if anything else is, then or soon after.
    ///
    /// What fell due meanwhile comes before a second mark, however slow the machine is.
    ///
    /// # Errors
    /// What was heard, or that the mark was not.
    pub async fn hears_only_a_mark(&mut self, subject: &Subject, mark: &str) -> Verdict {
        subject.publish("mark", mark).await?;
        ensure_eq!(self.hear().await?.payload, super::payload(mark), "the mark");
        self.stays_quiet().await?;
        let last = format!("{mark}, again");
        subject.publish("mark", &last).await?;
        ensure_eq!(
            self.hear().await?.payload,
            super::payload(&last),
            "the mark"
        );
        Ok(())
    }

    /// Fails if anything is heard before several pauses of redelivery are over.
    ///
    /// # Errors
    /// What was heard.
    pub async fn stays_quiet(&mut self) -> Verdict {
        match timeout(10 * PAUSE, self.heard.recv()).await {
            Ok(Some(extra)) => Err(Failure::new(format!("heard once too often: {extra:?}"))),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// Ends the subscription.
    ///
    /// # Errors
    /// It did not end in time.
    pub async fn stop(self) -> Verdict {
        let stopped = timeout(self.patience, self.running.stop()).await;
        stopped.map_err(|_| Failure::new("the subscription does not stop"))
    }
}
