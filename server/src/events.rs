//! Publishes what is pending and hears what is published, beside the requests.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use futures_util::future::join_all;
use task_core::application::Relay;
use task_core::background::{Background, Stop};
use task_core::ports::{ErrorKind, EventBus, EventHandler, PortError, Subscription};
use tokio::time::{sleep, timeout};

/// Pause before a bus is asked again to deliver.
const PAUSE: Duration = Duration::from_millis(500);

/// What the service does with events.
#[derive(Debug)]
pub(crate) struct Events {
    pub(crate) bus: Arc<dyn EventBus>,
    pub(crate) subscription: Subscription,
    pub(crate) handler: Arc<dyn EventHandler>,
    /// One for each outbox; none where the store publishes by itself.
    pub(crate) relays: Vec<Relay>,
    /// Longest wait at the end for what is in hand.
    pub(crate) finish_within: Duration,
}

/// When the bus can deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivers {
    /// As soon as it is asked to.
    AtOnce,
    /// Not before this service answers requests.
    OnceServing,
}

impl Delivers {
    /// Who calls routes of this service looks whether there are any before anything else.
    pub(crate) fn with(callbacks: Option<&Router>) -> Self {
        match callbacks {
            Some(_) => Self::OnceServing,
            None => Self::AtOnce,
        }
    }
}

/// Whether events are heard yet.
#[derive(Debug, Default)]
pub(crate) struct Hearing(Mutex<Option<String>>);

impl Hearing {
    /// Says why events are not heard yet, if they are not.
    pub(crate) fn check(&self) -> Result<(), PortError> {
        let waits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(reason) = &*waits else { return Ok(()) };
        Err(
            PortError::new(ErrorKind::Unavailable, "events", "subscribe")
                .context(format!("the subscription is not open yet: {reason}")),
        )
    }

    fn waits(&self, reason: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }
}

impl Events {
    /// Subscribes, and publishes from then on: a new group's position is fixed before the first event.
    ///
    /// # Errors
    /// As the bus, if it can deliver at once; otherwise it is asked until it does.
    pub(crate) async fn start(
        self,
        delivers: Delivers,
        hearing: Arc<Hearing>,
    ) -> Result<Background, PortError> {
        match delivers {
            Delivers::AtOnce => {
                let heard = self.subscribe().await?;
                Ok(Background::spawn("events", |stop| self.run(heard, stop)))
            }
            Delivers::OnceServing => {
                hearing.waits(Some("it is being opened".to_owned()));
                Ok(Background::spawn("events", |mut stop| async move {
                    let heard = stop.or(self.subscribe_at_last(&hearing)).await;
                    if let Some(heard) = heard {
                        self.run(heard, stop).await;
                    }
                }))
            }
        }
    }

    async fn subscribe(&self) -> Result<Background, PortError> {
        let handler = Arc::clone(&self.handler);
        self.bus.subscribe(self.subscription.clone(), handler).await
    }

    /// Asks until the bus delivers. Meanwhile events wait in the store, and what is published in the bus.
    async fn subscribe_at_last(&self, hearing: &Hearing) -> Background {
        let mut is_told = false;
        loop {
            match self.subscribe().await {
                Ok(heard) => {
                    if is_told {
                        tracing::info!("events are heard");
                    }
                    hearing.waits(None);
                    return heard;
                }
                Err(error) => {
                    if !is_told {
                        tracing::warn!(%error, "events wait for the subscription");
                    }
                    is_told = true;
                    hearing.waits(Some(error.to_string()));
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Publishes and hears until it should stop: then publishes what is pending, and finishes what is in hand.
    async fn run(self, heard: Background, mut stop: Stop) {
        let relays: Vec<_> = self.relays.into_iter().map(Relay::start).collect();
        stop.raised().await;
        join_all(relays.into_iter().map(Background::stop)).await;
        if timeout(self.finish_within, heard.stop()).await.is_err() {
            tracing::warn!("a notification was cut off; it is sent again at the next start");
        }
    }
}
