//! The event bus on two sides, stage by stage, with one side in trouble.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::fakes::{Mood, SomeNotifier};
use super::scene::{ALL, Replica, Scene, coordinator, event, until};
use crate::application::CompletionNotifier;
use crate::memory::{MemoryStateStore, lock};
use crate::migration::{BusStage, MoveError, MovedCall, PortStage, Side};
use crate::ports::{
    Answer, BusCapability, Clock, Delivery, ErrorKind, Event, EventBus, EventHandler, Group,
    Outcome, Subscription, Topic,
};

/// Notes what it handles, and whether two of a key were ever handled at once.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) deliveries: Mutex<Vec<Delivery>>,
    running: Mutex<HashMap<Box<str>, usize>>,
    overlaps: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    time: Duration,
}

#[async_trait]
impl EventHandler for Heard {
    async fn handle(&self, delivery: &Delivery) -> Answer {
        let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(at_once, Ordering::SeqCst);
        {
            let mut running = lock(&self.running);
            let running = running.entry(delivery.key.clone()).or_default();
            *running += 1;
            self.overlaps.fetch_add(*running - 1, Ordering::SeqCst);
        }
        sleep(self.time).await;
        *lock(&self.running).entry(delivery.key.clone()).or_default() -= 1;
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        lock(&self.deliveries).push(delivery.clone());
        Answer::Ack
    }
}

impl Heard {
    fn count(&self) -> usize {
        lock(&self.deliveries).len()
    }
}

fn topic() -> Topic {
    Topic::new("task-events")
}

pub(super) fn subscription() -> Subscription {
    Subscription::new(topic(), Group::new("g"))
}

fn some_event(scene: &Scene, id: &str) -> Event {
    event(id, 1, scene.clock.now())
}

async fn hears(replica: &Replica) -> (Arc<Heard>, crate::background::Background) {
    let heard = Arc::new(Heard::default());
    let subscribed = replica
        .bus
        .subscribe(subscription(), Arc::clone(&heard) as _)
        .await;
    (heard, subscribed.expect("both are there"))
}

#[tokio::test(start_paused = true)]
async fn each_stage_publishes_where_it_says() {
    let (scene, replica) = Scene::begun().await;
    let (heard, _subscribed) = hears(&replica).await;
    let count = || {
        let new = scene.new_bus.accepted();
        let copies = new
            .iter()
            .filter(|event| event.topic.as_str() == "task-events.shadow");
        let copies = copies.count();
        (scene.old_bus.accepted().len(), new.len() - copies, copies)
    };
    let mut expected = Vec::new();
    for (n, (stage, published)) in [
        (BusStage::Off, (1, 0, 0)),
        (BusStage::Shadow, (2, 0, 1)),
        (BusStage::Live, (2, 1, 1)),
        (BusStage::Complete, (2, 2, 1)),
    ]
    .into_iter()
    .enumerate()
    {
        replica.moves_bus(stage).await;
        let event = some_event(&scene, &format!("t-{n}"));
        replica.bus.publish(&event).await.expect("all works");
        until("copies", || count().2 == published.2).await;
        assert_eq!(count(), published, "{stage}");
        until("it is heard", || heard.count() == n + 1).await;
        let last = lock(&heard.deliveries).last().cloned().expect("heard");
        expected.push(last.payload.clone());
        assert_eq!(
            (last.topic, last.key, last.payload),
            (event.topic, event.key, event.payload)
        );
    }
    let copy = scene.new_bus.accepted().into_iter().next().expect("a copy");
    assert_eq!(copy.payload, expected[1]);
    assert_eq!(&*copy.key, "t-1");
}

#[tokio::test(start_paused = true)]
async fn copies_never_delay_or_fail_a_publication_and_are_bounded() {
    let (scene, replica) = Scene::begun().await;
    replica.moves_bus(BusStage::Shadow).await;
    for mood in [Mood::Hangs, Mood::Refuses] {
        scene.new_bus.publishing.set(mood);
        let began = Instant::now();
        for n in 0..10_000 {
            let event = some_event(&scene, &format!("t-{n}"));
            replica
                .bus
                .publish(&event)
                .await
                .expect("the old bus works");
        }
        assert_eq!(began.elapsed(), Duration::ZERO, "{mood:?}");
    }
    assert_eq!(scene.old_bus.accepted().len(), 20_000);
    let stage = PortStage::Bus(BusStage::Shadow);
    let copies = || {
        replica
            .store
            .recorder()
            .calls(MovedCall::Publish, Side::New, stage)
    };
    assert!(copies().skipped > 10_000, "{}", copies().skipped);
    until("all copies were tried", || {
        copies().count() + copies().skipped == 20_000
    })
    .await;
    assert_eq!(copies().failures, copies().count());
}

#[tokio::test(start_paused = true)]
async fn what_the_old_bus_does_not_accept_has_no_copy() {
    let (scene, replica) = Scene::begun().await;
    replica.moves_bus(BusStage::Shadow).await;
    scene.old_bus.publishing.set(Mood::Refuses);
    let refused = replica.bus.publish(&some_event(&scene, "t-1")).await;
    refused.expect_err("the old bus decides");
    scene.old_bus.publishing.set(Mood::Works);
    replica
        .bus
        .publish(&some_event(&scene, "t-2"))
        .await
        .expect("it works");
    until("a copy", || !scene.new_bus.accepted().is_empty()).await;
    sleep(Duration::from_secs(5)).await;
    let copies = scene.new_bus.accepted();
    let copies: Vec<&str> = copies.iter().map(|copy| &*copy.key).collect();
    assert_eq!(copies, ["t-2"]);
}

#[tokio::test(start_paused = true)]
async fn in_live_an_outage_of_the_new_bus_is_bridged_with_the_same_event() {
    let (scene, replica) = Scene::begun().await;
    let (heard, _subscribed) = hears(&replica).await;
    replica.moves_bus(BusStage::Live).await;
    for (n, (mood, longest)) in [
        (Mood::Refuses, Duration::ZERO),
        (Mood::Hangs, Duration::from_secs(1)),
        (Mood::Slow(Duration::from_secs(5)), Duration::from_secs(1)),
    ]
    .into_iter()
    .enumerate()
    {
        scene.new_bus.publishing.set(mood);
        let event = some_event(&scene, &format!("t-{n}"));
        let began = Instant::now();
        replica
            .bus
            .publish(&event)
            .await
            .expect("the old bus is there");
        assert_eq!(began.elapsed(), longest, "{mood:?}");
        assert_eq!(scene.old_bus.accepted().last(), Some(&event));
        until("it is heard", || heard.count() == n + 1).await;
    }
    let stage = PortStage::Bus(BusStage::Live);
    let failed = replica
        .store
        .recorder()
        .calls(MovedCall::Publish, Side::New, stage);
    assert_eq!((failed.count(), failed.failures), (3, 3));
    scene.old_bus.publishing.set(Mood::Refuses);
    let lost = replica.bus.publish(&some_event(&scene, "t-9")).await;
    lost.expect_err("nobody has accepted it");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_came_to_both_buses_is_notified_once() {
    let (scene, replica) = Scene::begun().await;
    let store = Arc::new(MemoryStateStore::new(Arc::clone(&scene.clock) as _));
    let notifier = Arc::new(SomeNotifier::default());
    notifier.sending.set(Mood::Slow(Duration::from_millis(50)));
    let handler = CompletionNotifier::new(Group::new("g"), store, Arc::clone(&notifier) as _);
    let subscribed = replica
        .bus
        .subscribe(subscription(), Arc::new(handler))
        .await;
    let _subscribed = subscribed.expect("both are there");
    replica.moves_bus(BusStage::Live).await;
    // Accepted, and nobody hears of it: the old bus gets it as well.
    scene.new_bus.publishing.set(Mood::Forgets);
    for n in 0..20 {
        let event = some_event(&scene, &format!("t-{n}"));
        replica
            .bus
            .publish(&event)
            .await
            .expect("the old bus is there");
    }
    assert_eq!(scene.new_bus.accepted(), scene.old_bus.accepted());
    sleep(Duration::from_secs(60)).await;
    assert_eq!(notifier.inner.received().len(), 20);
    assert_eq!(
        notifier.tried().len(),
        20,
        "the second delivery is known by its id"
    );
}

#[tokio::test(start_paused = true)]
async fn deliveries_of_one_key_from_both_buses_are_handled_one_at_a_time() {
    let (scene, replica) = Scene::begun().await;
    let heard = Arc::new(Heard {
        time: Duration::from_millis(100),
        ..Heard::default()
    });
    let wanted = Subscription {
        concurrency: 8,
        ..subscription()
    };
    let subscribed = replica.bus.subscribe(wanted, Arc::clone(&heard) as _).await;
    let _subscribed = subscribed.expect("both are there");
    for n in 0..100 {
        let event = some_event(&scene, &format!("t-{}", n % 20));
        for bus in [&scene.old_bus, &scene.new_bus] {
            bus.publish(&event).await.expect("it works");
        }
    }
    until("all are handled", || heard.count() == 200).await;
    assert_eq!(
        heard.overlaps.load(Ordering::SeqCst),
        0,
        "two of a key at once"
    );
    let most = heard.most_at_once.load(Ordering::SeqCst);
    assert!((2..=8).contains(&most), "{most} at once");
}

#[tokio::test(start_paused = true)]
async fn the_new_bus_may_be_away_when_a_subscription_begins_and_no_event_goes_there_before() {
    let (scene, replica) = Scene::begun().await;
    scene.new_bus.subscribing.set(Mood::Refuses);
    let (heard, _subscribed) = hears(&replica).await;
    replica
        .bus
        .publish(&some_event(&scene, "t-1"))
        .await
        .expect("it works");
    until("the old bus is heard", || heard.count() == 1).await;
    replica.moves_bus(BusStage::Shadow).await;
    let mut coordinator = coordinator(&replica);
    let refusal = coordinator.advance_bus(BusStage::Live, ALL).await;
    let refusal = refusal.expect_err("the group would miss events");
    assert!(matches!(refusal, MoveError::NotHeard { .. }), "{refusal}");
    let text = "group g does not hear task-events on the new bus yet";
    assert_eq!(refusal.to_string(), text);
    scene.new_bus.subscribing.set(Mood::Works);
    sleep(Duration::from_secs(2)).await;
    replica.moves_bus(BusStage::Live).await;
    replica
        .bus
        .publish(&some_event(&scene, "t-2"))
        .await
        .expect("it works");
    until("the new bus is heard", || heard.count() == 2).await;
    assert_eq!(scene.old_bus.accepted().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_does_not_hear_the_new_bus_counts_while_it_is_there() {
    let (scene, replica) = Scene::begun().await;
    scene.new_bus.subscribing.set(Mood::Refuses);
    let (_heard, subscribed) = hears(&replica).await;
    replica.moves_bus(BusStage::Shadow).await;
    let mut coordinator = coordinator(&replica);
    for _ in 0..4 {
        scene.clock.advance(Duration::from_secs(40));
        sleep(Duration::from_secs(2)).await;
        let refusal = coordinator.advance_bus(BusStage::Live, ALL).await;
        assert!(
            matches!(refusal, Err(MoveError::NotHeard { .. })),
            "{refusal:?}"
        );
    }
    subscribed.stop().await;
    scene.clock.advance(Duration::from_secs(61));
    let moved = coordinator.advance_bus(BusStage::Live, ALL).await;
    moved.expect("nobody is there to miss anything");
}

#[tokio::test(start_paused = true)]
async fn when_all_is_complete_the_old_bus_may_be_away() {
    let (scene, replica) = Scene::begun().await;
    replica.moves_bus(BusStage::Complete).await;
    scene.old_bus.subscribing.set(Mood::Refuses);
    scene.old_bus.publishing.set(Mood::Refuses);
    let (heard, subscribed) = hears(&replica).await;
    replica.bus.check().await.expect("the new bus works");
    replica
        .bus
        .publish(&some_event(&scene, "t-1"))
        .await
        .expect("the new bus works");
    until("it is heard", || heard.count() == 1).await;
    subscribed.stop().await;
    scene.new_bus.subscribing.set(Mood::Refuses);
    let refused = replica.bus.subscribe(subscription(), heard).await;
    refused.expect_err("nothing would be heard");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_one_side_refuses_leaves_nothing_on_the_other() {
    let (scene, replica) = Scene::begun().await;
    let heard = Arc::new(Heard::default());
    let taken = scene
        .new_bus
        .inner
        .subscribe(subscription(), Arc::clone(&heard) as _)
        .await;
    let taken = taken.expect("free");
    let refused = replica
        .bus
        .subscribe(subscription(), Arc::clone(&heard) as _)
        .await;
    assert_eq!(refused.expect_err("taken").kind(), ErrorKind::Conflict);
    taken.stop().await;
    let again = replica
        .bus
        .subscribe(subscription(), Arc::clone(&heard) as _)
        .await;
    let again = again.expect("nothing was left on the old bus");
    again.stop().await;
    for bus in [&scene.old_bus, &scene.new_bus] {
        bus.publish(&some_event(&scene, "t-1"))
            .await
            .expect("it works");
    }
    sleep(Duration::from_secs(60)).await;
    assert_eq!(
        heard.count(),
        0,
        "a stopped subscription is quiet on both sides"
    );
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_lease_is_over_publishes_nothing() {
    let (scene, replica) = Scene::begun().await;
    scene.old.reads.set(Mood::Hangs);
    sleep(Duration::from_secs(6)).await;
    let refused = replica.bus.publish(&some_event(&scene, "t-1")).await;
    assert_eq!(refused.expect_err("no lease").outcome(), Outcome::NotMade);
    assert!(scene.old_bus.accepted().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_bus_promises_no_order_that_a_move_could_take_away() {
    let (scene, replica) = Scene::begun().await;
    assert!(
        scene
            .old_bus
            .capabilities()
            .has(BusCapability::OrderedPerKey)
    );
    let promised: Vec<_> = replica.bus.capabilities().iter().collect();
    assert_eq!(promised, [BusCapability::DeadLetter]);
    let large = Event {
        payload: vec![b'x'; Event::MAX_PAYLOAD_BYTES + 1].into(),
        ..some_event(&scene, "t-1")
    };
    let refused = replica.bus.publish(&large).await.expect_err("too large");
    assert_eq!(refused.kind(), ErrorKind::Invalid);
}
