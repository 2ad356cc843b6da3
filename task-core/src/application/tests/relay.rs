//! Publishing what is pending.

mod fairness;
mod fakes;
mod running;
mod scene;
mod slow;

use self::fakes::Bus;
use super::*;
use crate::application::{Relay, RelayReport};
use crate::domain::{Precondition, Status};

/// What a bus has accepted of a task, in order.
fn types_of(bus: &Bus, task: &str) -> Vec<String> {
    let payloads = bus.payloads(task).into_iter();
    let events = payloads.map(|payload| IncomingEvent::parse(payload.as_bytes()).unwrap());
    events.map(|event| event.event_type).collect()
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
    let bus = Arc::new(Bus::default());
    let relay = Relay::new(f.outbox.clone(), bus.clone());
    let report = relay.pass().await.unwrap();
    assert_eq!((report.published, report.failed), (3, 0));
    let expected = ["task.created", "task.completed", "task.pending"];
    assert_eq!(types_of(&bus, id.as_str()), expected);
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
    let bus = Arc::new(Bus::default());
    bus.refuse(bad.as_str());
    let relay = Relay::new(f.outbox.clone(), bus.clone());
    let report = relay.pass().await.unwrap();
    assert_eq!((report.published, report.failed), (1, 2));
    assert_eq!(types_of(&bus, good.as_str()), ["task.created"]);

    bus.refuse_nothing();
    relay.pass().await.unwrap();
    assert_eq!(
        types_of(&bus, bad.as_str()),
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
    let bus = Arc::new(Bus::default());
    bus.refuse(bad.as_str());
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
    let bus = Arc::new(Bus::default());
    bus.refuse(bad.as_str());
    let relay = Relay::new(f.outbox.clone(), bus.clone());
    let report = relay.pass().await.unwrap();
    assert_eq!((report.published, report.failed), (1, 301));
    assert_eq!(types_of(&bus, good.as_str()), ["task.created"]);
}

#[tokio::test(start_paused = true)]
async fn a_running_relay_publishes_without_being_asked_and_flushes_when_stopped() {
    let f = fixture();
    let bus = Arc::new(Bus::default());
    let relay = Relay::new(f.outbox.clone(), bus.clone()).start();
    let first = f.tasks.create(draft("a"), None).await.unwrap().task.id;
    while types_of(&bus, first.as_str()).is_empty() {
        tokio::task::yield_now().await;
    }
    let last = f.tasks.create(draft("b"), None).await.unwrap().task.id;
    relay.stop().await;
    assert_eq!(types_of(&bus, last.as_str()), ["task.created"]);
    assert!(f.pending().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn of_two_relays_of_one_outbox_one_publishes_and_the_other_follows_when_it_is_gone() {
    let f = fixture();
    let shared = |seed, bus: &Arc<Bus>| {
        let entropy = SeededEntropy::new(seed);
        let (clock, leases) = (f.clock.clone(), f.store.clone());
        let (outbox, bus) = (f.outbox.clone(), bus.clone());
        Relay::shared(outbox, bus, leases, "relay", clock, &entropy).unwrap()
    };
    let (bus, other) = (Arc::new(Bus::default()), Arc::new(Bus::default()));
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
    assert_eq!(types_of(&bus, task.as_str()), ["task.created"]);
}
