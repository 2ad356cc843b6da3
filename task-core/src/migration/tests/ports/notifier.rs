//! Notifications on two sides: each by one of them, whatever happens.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::fakes::Mood;
use super::scene::{ALL, Replica, Scene, coordinator, event, until};
use crate::application::CompletionNotifier;
use crate::memory::SeededEntropy;
use crate::migration::{MovedCall, NotifierStage, PortStage, Side};
use crate::ports::{
    Answer, Clock, Delivery, Entropy, ErrorKind, EventHandler, Group, Notification, Notifier,
    Outcome, Retry,
};

fn notification(key: &str) -> Notification {
    Notification {
        idempotency_key: key.into(),
        body: format!(r#"{{"message":"{key}"}}"#).into(),
    }
}

fn tried(scene: &Scene) -> (usize, usize) {
    (
        scene.old_notifier.tried().len(),
        scene.new_notifier.tried().len(),
    )
}

#[tokio::test(start_paused = true)]
async fn a_notification_goes_by_the_side_of_its_stage() {
    let (scene, replica) = Scene::begun().await;
    replica
        .notifier
        .notify(&notification("a"))
        .await
        .expect("it works");
    assert_eq!(tried(&scene), (1, 0));
    replica.moves_notifier(NotifierStage::New).await;
    replica
        .notifier
        .notify(&notification("b"))
        .await
        .expect("it works");
    assert_eq!(tried(&scene), (1, 1));
    assert_eq!(scene.new_notifier.inner.received(), [notification("b")]);
}

#[tokio::test(start_paused = true)]
async fn once_tried_a_notification_never_changes_its_side() {
    for mood in [Mood::Refuses, Mood::Forgets, Mood::Hangs] {
        for first in [NotifierStage::Old, NotifierStage::New] {
            let (scene, replica) = Scene::begun().await;
            let other = scene.replica();
            replica.moves_notifier(first).await;
            let (own, others) = match first {
                NotifierStage::Old => (&scene.old_notifier, &scene.new_notifier),
                NotifierStage::New => (&scene.new_notifier, &scene.old_notifier),
            };
            own.sending.set(mood);
            let limit = Duration::from_secs(1);
            let sent = timeout(limit, replica.notifier.notify(&notification("a"))).await;
            assert!(!matches!(sent, Ok(Ok(()))), "{mood:?}");
            let next = match first {
                NotifierStage::Old => NotifierStage::New,
                NotifierStage::New => NotifierStage::Old,
            };
            replica.moves_notifier(next).await;
            other.follows().await;
            own.sending.set(Mood::Works);
            // Another replica, another stage, the same side.
            other
                .notifier
                .notify(&notification("a"))
                .await
                .expect("it works");
            assert_eq!(own.inner.received().len(), 1, "{mood:?} {first}");
            assert_eq!(others.tried().len(), 0, "{mood:?} {first}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_recorded_is_not_sent_and_is_tried_again() {
    let (scene, replica) = Scene::begun().await;
    for mood in [Mood::Refuses, Mood::Forgets] {
        scene.old.writes.set(mood);
        let refused = replica.notifier.notify(&notification("a")).await;
        let error = refused.expect_err("no record");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.outcome(), Outcome::NotMade);
        assert!(matches!(error.retryable(), Retry::After(_)), "{error}");
        assert_eq!(tried(&scene), (0, 0));
    }
    // The second one was recorded, and nobody heard of it: its side counts.
    scene.old.writes.set(Mood::Works);
    replica.moves_notifier(NotifierStage::New).await;
    replica
        .notifier
        .notify(&notification("a"))
        .await
        .expect("it works");
    assert_eq!(tried(&scene), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_side_cannot_be_recorded_is_postponed_and_not_used_up() {
    let (scene, replica) = Scene::begun().await;
    let marks = Arc::clone(&replica.store) as _;
    let handler =
        CompletionNotifier::new(Group::new("g"), marks, Arc::clone(&replica.notifier) as _);
    scene.old.writes.set(Mood::Refuses);
    let event = event("t-1", 1, scene.clock.now());
    let delivery = Delivery {
        topic: event.topic,
        key: event.key,
        payload: event.payload,
        attempt: 1,
    };
    let answer = handler.handle(&delivery).await;
    assert!(matches!(answer, Answer::Postpone(_)), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn while_notifications_go_by_the_old_side_the_new_one_is_asked_and_sends_nothing() {
    let (scene, replica) = Scene::begun().await;
    scene.new_notifier.sending.set(Mood::Refuses);
    for n in 0..1_000 {
        let one = notification(&n.to_string());
        replica
            .notifier
            .notify(&one)
            .await
            .expect("the old side works");
        sleep(Duration::from_millis(10)).await;
    }
    let stage = PortStage::Notifier(NotifierStage::Old);
    let asked = || {
        replica
            .store
            .recorder()
            .calls(MovedCall::Notify, Side::New, stage)
    };
    until("the new side is asked", || asked().count() > 0).await;
    sleep(Duration::from_secs(5)).await;
    assert!(
        (8..=12).contains(&asked().count()),
        "{} times",
        asked().count()
    );
    assert_eq!(asked().failures, asked().count());
    assert_eq!(tried(&scene), (1_000, 0));
}

fn below(scene: &Scene, most: u64) -> u64 {
    let mut bytes = [0; 8];
    scene.entropy.fill(&mut bytes);
    u64::from_le_bytes(bytes) % most
}

/// Tries each notification on random replicas until one attempt succeeds.
async fn notify_all(scene: &Scene, replicas: &[Replica], until: Instant, worker: u64) -> u64 {
    let mut sent = 0;
    while Instant::now() < until {
        let one = notification(&format!("{worker}.{sent}"));
        loop {
            let replica = &replicas[below(scene, 3) as usize];
            let limit = Duration::from_secs(2);
            if let Ok(Ok(())) = timeout(limit, replica.notifier.notify(&one)).await {
                break;
            }
            sleep(Duration::from_millis(below(scene, 400))).await;
        }
        sent += 1;
        sleep(Duration::from_millis(below(scene, 100))).await;
    }
    sent
}

async fn disturb(scene: &Scene, until: Instant) {
    let moods = [Mood::Refuses, Mood::Forgets, Mood::Hangs];
    while Instant::now() < until {
        let mood = moods[below(scene, 3) as usize];
        match below(scene, 3) {
            0 => scene.old.writes.set(moods[below(scene, 2) as usize]),
            1 => scene.old_notifier.sending.set(mood),
            _ => scene.new_notifier.sending.set(mood),
        }
        sleep(Duration::from_millis(below(scene, 800))).await;
        scene.old.writes.set(Mood::Works);
        scene.old_notifier.sending.set(Mood::Works);
        scene.new_notifier.sending.set(Mood::Works);
        sleep(Duration::from_millis(below(scene, 800))).await;
    }
}

async fn wander(scene: &Scene, replica: &Replica, until: Instant) -> u32 {
    let mut coordinator = coordinator(replica);
    let mut moved = 0;
    while Instant::now() < until {
        let buckets = [0, 2_000, 5_000, ALL][below(scene, 4) as usize];
        let step = coordinator
            .advance_notifier(NotifierStage::New, buckets)
            .await;
        moved += u32::from(step.is_ok());
        sleep(Duration::from_millis(below(scene, 300))).await;
    }
    moved
}

#[tokio::test(start_paused = true)]
async fn no_notification_is_tried_by_both_sides_while_buckets_move_and_calls_fail() {
    for seed in 0..4 {
        let (mut scene, first) = Scene::begun().await;
        scene.entropy = SeededEntropy::new(seed);
        let replicas = [first, scene.replica(), scene.replica()];
        for replica in &replicas {
            replica.follows().await;
        }
        let until = Instant::now() + Duration::from_secs(60);
        let work = (0..6).map(|worker| notify_all(&scene, &replicas, until, worker));
        let (sent, moved, ()) = tokio::join!(
            futures_util::future::join_all(work),
            wander(&scene, &replicas[0], until),
            disturb(&scene, until),
        );
        assert!(moved > 20, "hardly moved: {moved}");
        let set = |tried: Vec<Box<str>>| tried.into_iter().collect::<BTreeSet<_>>();
        let (old, new) = (
            set(scene.old_notifier.tried()),
            set(scene.new_notifier.tried()),
        );
        assert!(
            old.len() > 50 && new.len() > 50,
            "{} and {}",
            old.len(),
            new.len()
        );
        let both: Vec<_> = old.intersection(&new).collect();
        assert!(both.is_empty(), "tried by both: {both:?}");
        let received = scene.old_notifier.inner.received().len();
        let received = received + scene.new_notifier.inner.received().len();
        assert_eq!(received as u64, sent.iter().sum::<u64>());
    }
}

#[tokio::test(start_paused = true)]
async fn replicas_that_try_at_once_try_by_one_side() {
    let (scene, one) = Scene::begun().await;
    let two = scene.replica();
    two.follows().await;
    let mut coordinator = coordinator(&one);
    coordinator
        .advance_notifier(NotifierStage::New, ALL)
        .await
        .expect("a step");
    // One has not followed yet, the other one has.
    let pin = two.member.pin().expect("it has joined");
    assert_eq!(pin.control().notifier.reached(NotifierStage::New), 0);
    drop(pin);
    one.follows().await;
    let (first, second) = (notification("a"), notification("a"));
    scene.old.writes.set(Mood::Slow(Duration::from_millis(1)));
    let (first, second) = tokio::join!(one.notifier.notify(&first), two.notifier.notify(&second));
    first.and(second).expect("all works");
    let (old, new) = tried(&scene);
    assert!(old == 0 || new == 0, "old {old}, new {new}");
    assert_eq!(old + new, 2);
}
