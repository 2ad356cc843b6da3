//! The event bus in the file.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use task_core::background::Background;
use task_core::ports::{
    BusCapability, CapabilitySet, ErrorKind, Event, EventBus, EventHandler, Group, PortError,
    Subscription, Topic,
};

use super::database::Database;
use super::error::BACKEND;
use super::events;
use super::subscription::Subscriber;
use super::writer::Urgency;

/// An [`EventBus`] in one SQLite file: durable, ordered per key, with dead letters.
///
/// Every event waits in the file until each group of its topic has finished it. A group that never
/// comes back therefore holds its events for ever; topics without a group keep everything.
#[derive(Debug, Clone)]
pub struct EmbeddedEventBus {
    database: Arc<Database>,
}

/// The groups with a running subscription.
pub(super) type Subscribed = Arc<Mutex<HashSet<(Topic, Group)>>>;

impl EmbeddedEventBus {
    pub(super) fn new(database: Arc<Database>) -> Self {
        Self { database }
    }
}

#[async_trait]
impl EventBus for EmbeddedEventBus {
    fn capabilities(&self) -> CapabilitySet<BusCapability> {
        CapabilitySet::of(&[
            BusCapability::OrderedPerKey,
            BusCapability::DeadLetter,
            BusCapability::Durable,
        ])
    }

    async fn publish(&self, event: &Event) -> Result<(), PortError> {
        event.check_limits(BACKEND, "publish")?;
        let event = event.clone();
        self.database
            .write("publish", Urgency::Background, move |session| {
                events::publish(session, &event)
            })
            .await?;
        self.database.published().notify_waiters();
        Ok(())
    }

    async fn subscribe(
        &self,
        subscription: Subscription,
        handler: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        let place = Place::take(self.database.subscribed(), &subscription)?;
        let subscriber = Subscriber::join(Arc::clone(&self.database), subscription, place).await?;
        Ok(Background::spawn("embedded subscription", |stop| {
            subscriber.run(handler, stop)
        }))
    }

    async fn check(&self) -> Result<(), PortError> {
        self.database.check().await
    }
}

/// A group's one running subscription; freed when it ends, however it ends.
#[derive(Debug)]
pub(super) struct Place {
    subscribed: Subscribed,
    group: (Topic, Group),
}

impl Place {
    fn take(subscribed: &Subscribed, wanted: &Subscription) -> Result<Self, PortError> {
        let group = (wanted.topic.clone(), wanted.group.clone());
        let mut groups = subscribed.lock().unwrap_or_else(PoisonError::into_inner);
        if !groups.insert(group.clone()) {
            return Err(
                PortError::new(ErrorKind::Conflict, BACKEND, "subscribe").context(format!(
                    "group {} is subscribed to {} already",
                    wanted.group, wanted.topic
                )),
            );
        }
        drop(groups);
        Ok(Self {
            subscribed: Arc::clone(subscribed),
            group,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut groups = self
            .subscribed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        groups.remove(&self.group);
    }
}
