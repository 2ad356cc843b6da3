//! The cases of the [`EventBus`] port, promises E1 to E12.

pub mod dead_letters;
pub mod delivery;
pub mod listener;
pub mod order;
pub mod positions;
pub mod postponed;
pub mod sharing;
pub mod slow;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use task_core::ports::BusCapability::{DeadLetter, Durable, OrderedPerKey};
use task_core::ports::{
    BusCapability, Event, EventBus, Group, Redelivery, StartAt, Subscription, Topic,
};

use super::{Failure, Verdict, cases};

/// How an adapter is put under test; one instance serves one case.
#[async_trait]
pub trait EventBusBackend: Debug + Send + Sync + 'static {
    /// Opens a bus without events and groups. The suite calls it once.
    async fn open(&self) -> Result<Arc<dyn EventBus>, Failure>;

    /// Closes the bus and opens it again, as after a restart. Only called with `durable`.
    async fn reopen(&self, bus: Arc<dyn EventBus>) -> Result<Arc<dyn EventBus>, Failure>;

    /// How long an event that is due may take before it counts as lost, for example 10 s.
    fn patience(&self) -> Duration;

    /// Removes everything that [`open`](Self::open) made.
    async fn close(&self);
}

/// What a case is given: a bus without events, and the backend that it belongs to.
#[derive(Debug)]
pub struct Subject {
    /// The bus under test.
    pub bus: Arc<dyn EventBus>,
    /// How to restart it, and how long to wait for it.
    pub backend: Arc<dyn EventBusBackend>,
}

impl Subject {
    /// Closes the bus and opens it again.
    ///
    /// # Errors
    /// What the backend says.
    pub async fn reopen(self) -> Result<Self, Failure> {
        let bus = self.backend.reopen(self.bus).await?;
        Ok(Self { bus, ..self })
    }

    async fn publish(&self, key: &str, name: &str) -> Verdict {
        Ok(self.bus.publish(&event(key, name)).await?)
    }

    /// What was heard, in an order that can be compared: its own if the bus declares one.
    fn comparable(&self, mut payloads: Vec<Bytes>) -> Vec<Bytes> {
        if !self.bus.capabilities().has(OrderedPerKey) {
            payloads.sort();
        }
        payloads
    }

    async fn publish_all(&self, key: &str, names: &[&str]) -> Verdict {
        for name in names {
            self.publish(key, name).await?;
        }
        Ok(())
    }
}

/// A requirement of the event bus port.
pub type Case = super::Case<Subject, BusCapability>;

/// Every case; the race over an exact total comes last.
pub const CASES: &[Case] = cases![
    "E2" delivery::an_acknowledged_event_does_not_come_again [],
    "E3" delivery::a_retried_event_comes_again [],
    "E3" delivery::a_panicking_handler_counts_as_retry [],
    "E4" delivery::a_failing_event_does_not_block_other_keys [],
    "E4" slow::a_slow_handler_call_does_not_hold_back_other_keys [],
    "E5" positions::a_new_group_starts_where_it_is_told [],
    "E5" positions::a_group_goes_on_where_it_stopped [],
    "E6" positions::a_stopped_subscription_is_quiet [],
    "E7" delivery::event_limits_are_refused_and_the_largest_is_delivered [],
    "E8" order::events_of_one_key_keep_their_order [OrderedPerKey],
    "E8" order::a_retry_holds_back_later_events_of_its_key [OrderedPerKey],
    "E8" postponed::a_postponed_event_holds_back_later_events_of_its_key [OrderedPerKey],
    "E9" dead_letters::a_dropped_event_is_dead_lettered [DeadLetter],
    "E9" dead_letters::an_event_that_fails_too_often_is_dead_lettered [DeadLetter],
    "E10" positions::events_and_positions_survive_a_restart [Durable],
    "E11" sharing::subscribers_of_one_group_share_or_conflict [],
    "E12" postponed::a_postponed_event_comes_again_and_is_not_counted [],
    "E1" sharing::every_group_receives_every_event_unchanged [],
];

/// The case of this name.
#[must_use]
pub fn case(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}

/// Runs a case on a fresh backend.
///
/// # Errors
/// The first promise that was not kept, also a panic of the adapter, or a case that does not apply.
pub async fn run(case: &'static Case, backend: Arc<dyn EventBusBackend>) -> Verdict {
    let owner = Arc::clone(&backend);
    let verdict = tokio::spawn(judge(case, backend)).await;
    owner.close().await;
    verdict?
}

async fn judge(case: &'static Case, backend: Arc<dyn EventBusBackend>) -> Verdict {
    let bus = backend.open().await?;
    let declared = bus.capabilities();
    if let Some(missing) = case.requires.iter().find(|needed| !declared.has(**needed)) {
        return Err(Failure::new(format!("needs {missing}, not declared")));
    }
    (case.body)(Subject { bus, backend }).await
}

/// Pause before a second delivery; ten times as long, nothing that fell due can still be on its way.
const PAUSE: Duration = Duration::from_millis(10);

fn topic() -> Topic {
    Topic::new("tasks")
}

/// An event whose payload is JSON that a re-encoding bus would change.
fn event(key: &str, name: &str) -> Event {
    Event {
        topic: topic(),
        key: key.into(),
        payload: payload(name),
    }
}

fn payload(name: &str) -> Bytes {
    let text = format!("{{\"z\": 1.0,  \"name\":\"{name}\", \"a\":\"\\u00e4\u{e4}\"}}\n");
    Bytes::from(text)
}

fn payloads(names: &[&str]) -> Vec<Bytes> {
    names.iter().map(|name| payload(name)).collect()
}

/// A subscription with short pauses and, in effect, no last delivery.
fn subscription(group: &str, start: StartAt) -> Subscription {
    Subscription {
        start,
        redelivery: Redelivery {
            max_deliveries: 10_000,
            first_pause: PAUSE,
            longest_pause: 2 * PAUSE,
        },
        concurrency: 8,
        ..Subscription::new(topic(), Group::new(group))
    }
}
