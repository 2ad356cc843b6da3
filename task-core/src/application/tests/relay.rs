//! Publishing what is pending.

mod fairness;
mod fakes;
mod running;
mod scene;
mod slow;

use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::application::{Relay, RelayReport};
use crate::background::Background;
use crate::domain::{Precondition, Status};
use crate::ports::{
    BusCapability, CapabilitySet, ErrorKind, Event, EventBus, EventHandler, PortError, Subscription,
};

/// A bus that keeps what it accepts and refuses one key.
#[derive(Debug, Default)]
struct PickyBus {
    accepted: Mutex<Vec<Event>>,
    refused_key: Mutex<Option<Box<str>>>,
}

#[async_trait]
impl EventBus for PickyBus {
    fn capabilities(&self) -> CapabilitySet<BusCapability> {
        CapabilitySet::of(&[])
    }

    async fn publish(&self, event: &Event) -> Result<(), PortError> {
        if self.refused_key.lock().unwrap().as_ref() == Some(&event.key) {
            return Err(PortError::new(ErrorKind::Unavailable, "picky", "publish"));
        }
        self.accepted.lock().unwrap().push(event.clone());
        Ok(())
    }

    async fn subscribe(
        &self,
        _: Subscription,
        _: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        Err(PortError::new(ErrorKind::Unsupported, "picky", "subscribe"))
    }

    async fn check(&self) -> Result<(), PortError> {
        Ok(())
    }
}

impl PickyBus {
    fn types_of(&self, key: &str) -> Vec<String> {
        let accepted = self.accepted.lock().unwrap();
        let of_key = accepted.iter().filter(|event| &*event.key == key);
        of_key
            .map(|event| IncomingEvent::parse(&event.payload).unwrap().event_type)
            .collect()
    }
}

#[tokio::test]
async fn what_is_pending_is_published_in_order_and_settled() {
    let f = fixture();
    let created = f.tasks.create(draft("a"), None).await.unwrap();
    let id = &created.task.id;
    for status in [Status::Completed, Status::Pending] {
        let changed = f.tasks.set_status(id, status, &Precondition::None).await;
        changed.unwrap();
    }
    let bus = Arc::new(PickyBus::default());
    let relay = Relay::new(f.outbox.clone(), bus.clone());
    let report = relay.pass().await.unwrap();
    assert_eq!((report.published, report.failed), (3, 0));
    let expected = ["task.created", "task.completed", "task.pending"];
    assert_eq!(bus.types_of(id.as_str()), expected);
    assert!(f.pending().await.is_empty());
    assert_eq!(relay.pass().await.unwrap(), RelayReport::default());
}

#[tokio::test]
async fn a_key_that_fails_holds_back_its_own_events_and_no_others() {
    let f = fixture();
    let bad = f.tasks.create(draft("bad"), None).await.unwrap().task.id;
    let any = Precondition::None;
    let done = f.tasks.set_status(&bad, Status::Completed, &any).await;
    done.unwrap();
    let good = f.tasks.create(draft("good"), None).await.unwrap().task.id;
    let bus = Arc::new(PickyBus::default());
    *bus.refused_key.lock().unwrap() = Some(bad.as_str().into());
    let relay = Relay::new(f.outbox.clone(), bus.clone());
    let report = relay.pass().await.unwrap();
    assert_eq!((report.published, report.failed), (1, 2));
    assert_eq!(bus.types_of(good.as_str()), ["task.created"]);

    *bus.refused_key.lock().unwrap() = None;
    relay.pass().await.unwrap();
    assert_eq!(
        bus.types_of(bad.as_str()),
        ["task.created", "task.completed"]
    );
}

#[tokio::test]
async fn more_events_than_a_page_are_all_published_past_a_failing_key() {
    let f = fixture();
    let bad = f.tasks.create(draft("bad"), None).await.unwrap().task.id;
    for n in 0..600 {
        f.tasks.create(draft(&n.to_string()), None).await.unwrap();
    }
    let bus = Arc::new(PickyBus::default());
    *bus.refused_key.lock().unwrap() = Some(bad.as_str().into());
    let report = Relay::new(f.outbox.clone(), bus).pass().await.unwrap();
    assert_eq!((report.published, report.failed), (600, 1));
}

#[tokio::test]
async fn a_failing_key_with_more_events_than_a_page_does_not_hide_the_keys_behind_it() {
    let f = fixture();
    let bad = f.tasks.create(draft("bad"), None).await.unwrap().task.id;
    for n in 0..300 {
        let edited = f
            .tasks
            .edit(&bad, draft(&n.to_string()), &Precondition::None);
        edited.await.unwrap();
    }
    let good = f.tasks.create(draft("good"), None).await.unwrap().task.id;
    let bus = Arc::new(PickyBus::default());
    *bus.refused_key.lock().unwrap() = Some(bad.as_str().into());
    let relay = Relay::new(f.outbox.clone(), bus.clone());
    let report = relay.pass().await.unwrap();
    assert_eq!((report.published, report.failed), (1, 301));
    assert_eq!(bus.types_of(good.as_str()), ["task.created"]);
}

#[tokio::test(start_paused = true)]
async fn a_running_relay_publishes_without_being_asked_and_flushes_when_stopped() {
    let f = fixture();
    let bus = Arc::new(PickyBus::default());
    let relay = Relay::new(f.outbox.clone(), bus.clone()).start();
    let first = f.tasks.create(draft("a"), None).await.unwrap().task.id;
    while bus.types_of(first.as_str()).is_empty() {
        tokio::task::yield_now().await;
    }
    let last = f.tasks.create(draft("b"), None).await.unwrap().task.id;
    relay.stop().await;
    assert_eq!(bus.types_of(last.as_str()), ["task.created"]);
    assert!(f.pending().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn of_two_relays_of_one_outbox_one_publishes_and_the_other_follows_when_it_is_gone() {
    let f = fixture();
    let shared = |seed, bus: &Arc<PickyBus>| {
        let entropy = SeededEntropy::new(seed);
        let (clock, leases) = (f.clock.clone(), f.store.clone());
        let (outbox, bus) = (f.outbox.clone(), bus.clone());
        Relay::shared(outbox, bus, leases, "relay", clock, &entropy).unwrap()
    };
    let (bus, other) = (Arc::new(PickyBus::default()), Arc::new(PickyBus::default()));
    let (one, two) = (shared(1, &bus), shared(2, &other));
    one.pass().await.unwrap();
    let task = f.tasks.create(draft("a"), None).await.unwrap().task.id;
    assert_eq!(two.pass().await.unwrap(), RelayReport::default());
    assert_eq!(one.pass().await.unwrap().published, 1);
    f.tasks.create(draft("b"), None).await.unwrap();
    // The first one is paused: it renews nothing.
    assert_eq!(two.pass().await.unwrap(), RelayReport::default());
    tokio::time::advance(std::time::Duration::from_secs(6)).await;
    assert_eq!(two.pass().await.unwrap().published, 1);
    assert_eq!(one.pass().await.unwrap(), RelayReport::default());
    assert_eq!(bus.types_of(task.as_str()), ["task.created"]);
}
