//! Budgets: buckets go back by themselves when the new side costs too much, by one stage and not further.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::fakes::Mood;
use super::scene::{ALL, Replica, Scene, coordinator, event, key, record, until};
use crate::background::Background;
use crate::migration::{
    Budgets, BusStage, Cause, Control, CoordinatorOptions, Guardian, Migration, MigrationOptions,
    NotifierStage, Stage, StepsBack,
};
use crate::ports::{Clock, EventBus, Notification, Notifier, PutOptions, StateStore};

fn guard(replica: &Replica) -> (std::sync::Arc<StepsBack>, Background) {
    let options = CoordinatorOptions::default();
    let guardian = Guardian::new(&replica.store, Budgets::default(), options);
    (std::sync::Arc::clone(guardian.history()), guardian.start())
}

async fn in_stage(stage: Stage) -> (Scene, Replica) {
    let (scene, replica) = Scene::begun().await;
    replica.store.compare_one_of(NonZeroU64::MIN);
    replica.moves_state(Stage::DualWrite).await;
    for n in 0..10 {
        let (key, id) = (key(&format!("t-{n}")), format!("t-{n}"));
        let put = replica
            .store
            .put(&key, record(&id, 1, "one"), PutOptions::default());
        put.await.expect("it works");
    }
    sleep(Duration::from_secs(1)).await;
    replica.moves_state(stage).await;
    (scene, replica)
}

/// Reads at a steady rate; answers how many reads failed.
async fn read_for(replica: &Replica, time: Duration) -> u32 {
    let until = Instant::now() + time;
    let mut failed = 0;
    for n in 0.. {
        if Instant::now() >= until {
            break;
        }
        let read = replica.store.get(&key(&format!("t-{}", n % 10))).await;
        failed += u32::from(read.is_err());
        sleep(Duration::from_millis(20)).await;
    }
    failed
}

async fn control(replica: &Replica) -> Control {
    coordinator(replica).control().await.expect("there is one")
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_new_side_in_live_takes_reads_back_and_no_client_notices() {
    let (scene, replica) = in_stage(Stage::Live).await;
    let (history, guarding) = guard(&replica);
    assert_eq!(read_for(&replica, Duration::from_secs(60)).await, 0);
    assert_eq!(history.all(), [], "nothing is wrong");
    scene.new.reads.set(Mood::Refuses);
    assert_eq!(read_for(&replica, Duration::from_secs(30)).await, 0);
    assert_eq!(control(&replica).await.state.within(Stage::Shadow), ALL);
    let steps = history.all();
    assert_eq!(steps.len(), 1, "{steps:?}");
    assert!(steps[0].done_by_epoch.is_some());
    let text = "budget of state live exceeded: ";
    assert!(steps[0].reason.starts_with(text), "{}", steps[0].reason);
    assert!(
        steps[0]
            .reason
            .contains("read calls of the new side failed")
    );
    let json = serde_json::to_value(&steps[0]).expect("text and numbers");
    assert_eq!(json["excess"]["what"], "errors");
    let entropy = std::sync::Arc::new(crate::memory::SeededEntropy::new(1));
    let migration = Migration::new(&replica.store, entropy, MigrationOptions::default());
    let audit = migration.audit(1).await.expect("readable");
    assert_eq!(audit[0].cause, Cause::new("guardian", &steps[0].reason));
    assert_eq!(audit[0].change(), "state: live 100.00 % → shadow 100.00 %");
    // No client depends on the new side any more: it goes no further.
    assert_eq!(read_for(&replica, Duration::from_secs(300)).await, 0);
    assert_eq!(control(&replica).await.state.within(Stage::Shadow), ALL);
    assert_eq!(history.all().len(), 1);
    guarding.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_side_that_is_slow_or_wrong_goes_back() {
    let (scene, replica) = in_stage(Stage::Live).await;
    let (history, guarding) = guard(&replica);
    scene.old.reads.set(Mood::Slow(Duration::from_millis(8)));
    scene.new.reads.set(Mood::Slow(Duration::from_millis(12)));
    read_for(&replica, Duration::from_secs(60)).await;
    assert_eq!(history.all(), [], "it is a little slower");
    scene.new.reads.set(Mood::Slow(Duration::from_millis(90)));
    read_for(&replica, Duration::from_secs(60)).await;
    let steps = history.all();
    assert!(steps[0].reason.contains("p99 of"), "{steps:?}");
    assert_eq!(control(&replica).await.state.within(Stage::Shadow), ALL);
    guarding.stop().await;

    let (scene, replica) = in_stage(Stage::Live).await;
    let (history, guarding) = guard(&replica);
    read_for(&replica, Duration::from_secs(10)).await;
    let other = record("t-3", 1, "other");
    let wrong = key("t-3");
    let put = scene.new.inner.put(&wrong, other, PutOptions::default());
    put.await.expect("memory");
    read_for(&replica, Duration::from_secs(15)).await;
    let steps = history.all();
    assert!(
        steps[0].reason.contains("found the new side wrong"),
        "{steps:?}"
    );
    // What is still wrong is found in `shadow` again.
    read_for(&replica, Duration::from_secs(30)).await;
    assert_eq!(control(&replica).await.state.within(Stage::DualWrite), ALL);
    read_for(&replica, Duration::from_secs(120)).await;
    assert_eq!(control(&replica).await.state.within(Stage::DualWrite), ALL);
    assert_eq!(history.all().len(), 2);
    guarding.stop().await;
}

#[tokio::test(start_paused = true)]
async fn records_that_wait_too_long_take_live_back() {
    let (scene, replica) = in_stage(Stage::Live).await;
    let (history, guarding) = guard(&replica);
    scene.new.writes.set(Mood::Refuses);
    let key = key("t-1");
    let put = replica
        .store
        .put(&key, record("t-1", 2, "two"), PutOptions::default());
    put.await.expect("the old side works");
    sleep(Duration::from_secs(50)).await;
    assert_eq!(history.all(), []);
    sleep(Duration::from_secs(50)).await;
    let steps = history.all();
    assert!(steps[0].reason.contains("a record has waited"), "{steps:?}");
    assert_eq!(control(&replica).await.state.within(Stage::Shadow), ALL);
    guarding.stop().await;
}

#[tokio::test(start_paused = true)]
async fn of_several_guardians_one_steps_back_and_by_one_stage() {
    let (scene, one) = in_stage(Stage::Live).await;
    let two = scene.replica();
    two.follows().await;
    let (first, guarding) = guard(&one);
    let (second, also_guarding) = guard(&two);
    scene.new.reads.set(Mood::Refuses);
    let time = Duration::from_secs(60);
    let failed = tokio::join!(read_for(&one, time), read_for(&two, time));
    assert_eq!(failed, (0, 0));
    assert_eq!(control(&one).await.state.within(Stage::Shadow), ALL);
    let done = first.all().into_iter().chain(second.all());
    assert_eq!(done.filter(|step| step.done_by_epoch.is_some()).count(), 1);
    guarding.stop().await;
    also_guarding.stop().await;
}

#[tokio::test(start_paused = true)]
async fn few_calls_and_short_troubles_move_nothing() {
    let (scene, replica) = in_stage(Stage::Live).await;
    let (history, guarding) = guard(&replica);
    scene.new.reads.set(Mood::Refuses);
    for _ in 0..80 {
        replica
            .store
            .get(&key("t-1"))
            .await
            .expect("the old side works");
    }
    scene.new.reads.set(Mood::Works);
    sleep(Duration::from_secs(90)).await;
    assert_eq!(history.all(), [], "80 calls say nothing");
    read_for(&replica, Duration::from_secs(60)).await;
    scene.new.reads.set(Mood::Refuses);
    read_for(&replica, Duration::from_millis(400)).await;
    scene.new.reads.set(Mood::Works);
    read_for(&replica, Duration::from_secs(60)).await;
    assert_eq!(history.all(), [], "less than one call in a hundred");
    guarding.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rampdown_goes_back_through_a_time_without_writes() {
    let (scene, replica) = in_stage(Stage::RampDown).await;
    let (history, guarding) = guard(&replica);
    read_for(&replica, Duration::from_secs(60)).await;
    assert_eq!(history.all(), []);
    scene.new.reads.set(Mood::Refuses);
    read_for(&replica, Duration::from_secs(30)).await;
    scene.new.reads.set(Mood::Works);
    let steps = history.all();
    assert!(
        steps[0].reason.starts_with("budget of state rampdown"),
        "{steps:?}"
    );
    let back = || steps.iter().any(|step| step.done_by_epoch.is_some());
    assert!(back(), "{steps:?}");
    assert_eq!(control(&replica).await.state.within(Stage::Live), ALL);
    guarding.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_step_back_that_cannot_be_made_is_told_and_tried_again_ever_more_rarely() {
    let (scene, one) = in_stage(Stage::Live).await;
    let two = scene.replica();
    two.follows().await;
    let (history, guarding) = guard(&one);
    // A request that never ends keeps its replica in its epoch.
    let pin = two.member.pin().expect("it has joined");
    let mut coordinator = coordinator(&one);
    coordinator
        .advance_bus(BusStage::Shadow, ALL)
        .await
        .expect("one step");
    scene.new.reads.set(Mood::Refuses);
    read_for(&one, Duration::from_secs(600)).await;
    let steps = history.all();
    assert!((3..8).contains(&steps.len()), "{} tries", steps.len());
    assert!(steps.iter().all(|step| step.done_by_epoch.is_none()));
    assert!(
        steps[0].reason.contains("not done: replica"),
        "{}",
        steps[0].reason
    );
    drop(pin);
    read_for(&one, Duration::from_secs(600)).await;
    let done = history
        .all()
        .iter()
        .any(|step| step.done_by_epoch.is_some());
    assert!(done, "nothing stands in the way any more");
    guarding.stop().await;
}

#[tokio::test(start_paused = true)]
async fn events_and_notifications_go_back_too() {
    let (scene, replica) = Scene::begun().await;
    replica.moves_bus(BusStage::Live).await;
    replica.moves_notifier(NotifierStage::New).await;
    let (history, guarding) = guard(&replica);
    let work = async |rounds: u64| {
        for n in 0..rounds {
            let event = event("t-1", n, scene.clock.now());
            replica
                .bus
                .publish(&event)
                .await
                .expect("the old bus is there");
            let notification = Notification {
                idempotency_key: format!("{rounds} {n}").into(),
                body: "{}".into(),
            };
            let _ = replica.notifier.notify(&notification).await;
            sleep(Duration::from_millis(50)).await;
        }
    };
    work(1_000).await;
    assert_eq!(history.all(), []);
    scene.new_bus.publishing.set(Mood::Refuses);
    work(999).await;
    assert_eq!(control(&replica).await.bus.within(BusStage::Shadow), ALL);
    scene.new_notifier.sending.set(Mood::Refuses);
    work(998).await;
    until("both", || history.all().len() == 2).await;
    let steps = history.all();
    assert!(
        steps[0].reason.starts_with("budget of bus live"),
        "{steps:?}"
    );
    assert!(
        steps[1].reason.starts_with("budget of notifier new"),
        "{steps:?}"
    );
    assert_eq!(
        control(&replica).await.notifier.within(NotifierStage::Old),
        ALL
    );
    guarding.stop().await;
}
