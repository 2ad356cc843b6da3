//! One coordinator at a time, and what each port's way allows.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::scene::{ALL, Scene, coordinator};
use crate::migration::{BusStage, MoveError, NotifierStage, PortStage, Stage};

#[tokio::test(start_paused = true)]
async fn two_coordinators_that_begin_at_once_move_one_after_the_other() {
    let (scene, one) = Scene::begun().await;
    let two = scene.replica();
    let (mut first, mut second) = (coordinator(&one), coordinator(&two));
    let (state, bus) = tokio::join!(
        first.advance(Stage::DualWrite, 4_000),
        second.advance_bus(BusStage::Shadow, 3_000),
    );
    let epochs = [state.expect("a step").epoch, bus.expect("a step").epoch];
    assert_eq!(epochs.iter().sum::<u64>(), 2 + 3);
    let control = first.control().await.expect("there is one");
    assert_eq!(control.state.reached(Stage::DualWrite), 4_000);
    assert_eq!(control.bus.reached(BusStage::Shadow), 3_000);
}

#[tokio::test(start_paused = true)]
async fn a_time_without_writes_is_not_taken_for_a_forgotten_one() {
    let (scene, one) = Scene::begun().await;
    one.moves_state(Stage::Live).await;
    let two = scene.replica();
    two.follows().await;
    let (mut first, mut second) = (coordinator(&one), coordinator(&two));
    let recover = async {
        let mut handoffs = 0;
        for _ in 0..100 {
            let control = second.control().await.expect("there is one");
            handoffs += u32::from(control.waiting_from.is_some());
            let _ = second.recover().await;
            sleep(Duration::from_millis(10)).await;
        }
        handoffs
    };
    let (moved, handoffs) = tokio::join!(first.advance(Stage::RampDown, ALL), recover);
    moved.expect("nobody takes it back");
    assert!(handoffs > 0, "nobody looked while nobody could write");
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_waits_for_longer_than_a_lease_keeps_its_turn() {
    let (scene, one) = Scene::begun().await;
    let two = scene.replica();
    two.follows().await;
    let (mut first, mut second) = (coordinator(&one), coordinator(&two));
    first
        .advance_bus(BusStage::Shadow, 1)
        .await
        .expect("one step");
    let pin = two.member.pin().expect("it has joined");
    let began = Instant::now();
    let waiting = async {
        first
            .advance_bus(BusStage::Shadow, 2)
            .await
            .expect("a step");
        began.elapsed()
    };
    let coming = async {
        sleep(Duration::from_millis(100)).await;
        second.recover().await.expect("its turn comes");
        began.elapsed()
    };
    // A request that works by the epoch before the last one, for 20 s.
    let request = async {
        sleep(Duration::from_secs(20)).await;
        drop(pin);
    };
    let (moved, came, ()) = tokio::join!(waiting, coming, request);
    assert!(moved >= Duration::from_secs(20), "after {moved:?}");
    assert!(
        came >= moved,
        "after {came:?}, and the other one after {moved:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_dies_is_replaced_after_two_leases() {
    let (scene, one) = Scene::begun().await;
    one.moves_state(Stage::Live).await;
    let two = scene.replica();
    two.follows().await;
    let mut first = coordinator(&one);
    // It dies while nobody can write, and with it its replica.
    let dying = timeout(
        Duration::from_millis(150),
        first.advance(Stage::RampDown, ALL),
    )
    .await;
    assert!(dying.is_err(), "it was to be caught in the middle");
    drop(first);
    let mut second = coordinator(&two);
    let waiting = second.control().await.expect("there is one").waiting_from;
    assert!(waiting.is_some(), "nobody waits for anything");
    let began = Instant::now();
    let recovered = second.recover().await.expect("it is gone");
    let waited = began.elapsed();
    assert!(waited >= Duration::from_secs(10), "after {waited:?}");
    assert!(waited < Duration::from_secs(11), "after {waited:?}");
    assert_eq!(recovered.waiting_from, None);
    assert_eq!(recovered.state.within(Stage::Live), ALL);
}

#[tokio::test(start_paused = true)]
async fn every_port_moves_by_one_stage_and_leaves_the_others_alone() {
    let (_scene, replica) = Scene::begun().await;
    let mut coordinator = coordinator(&replica);
    let refusal = coordinator.advance_bus(BusStage::Live, 1).await;
    let refusal = refusal.expect_err("a jump").to_string();
    assert_eq!(refusal, "1 buckets cannot reach live: shadow has 0");
    replica.moves_bus(BusStage::Complete).await;
    let refusal = coordinator.advance_bus(BusStage::Complete, ALL - 1).await;
    let refusal = refusal.expect_err("the end of the way").to_string();
    assert_eq!(refusal, "bus complete cannot be left again");
    replica.moves_notifier(NotifierStage::New).await;
    replica.moves_notifier(NotifierStage::Old).await;
    let control = coordinator.control().await.expect("there is one");
    assert_eq!(control.bus.to_string(), "complete 100.00 %");
    assert_eq!(control.notifier.to_string(), "old 100.00 %");
    assert!(control.state.are_off());
    assert_eq!(control.term, 1);
}

#[tokio::test(start_paused = true)]
async fn no_stage_of_any_port_is_changed_before_every_replica_has_followed() {
    let (scene, one) = Scene::begun().await;
    let two = scene.replica();
    two.follows().await;
    let mut coordinator = coordinator(&one);
    let pin = two.member.pin().expect("it has joined");
    coordinator
        .advance_bus(BusStage::Shadow, ALL)
        .await
        .expect("one step");
    let refusal = coordinator.advance_bus(BusStage::Live, ALL).await;
    assert!(
        matches!(refusal, Err(MoveError::NotAdopted { .. })),
        "{refusal:?}"
    );
    let refusal = coordinator.advance_notifier(NotifierStage::New, 1).await;
    assert!(
        matches!(refusal, Err(MoveError::NotAdopted { .. })),
        "{refusal:?}"
    );
    drop(pin);
    coordinator
        .advance_bus(BusStage::Live, ALL)
        .await
        .expect("it is done");
}

#[tokio::test(start_paused = true)]
async fn a_step_back_takes_only_the_buckets_of_its_stage_and_only_of_its_epoch() {
    let (_scene, replica) = Scene::begun().await;
    replica.moves_state(Stage::Shadow).await;
    let mut coordinator = coordinator(&replica);
    coordinator
        .advance(Stage::Live, 6_000)
        .await
        .expect("a step");
    let control = coordinator
        .advance(Stage::RampDown, 1_000)
        .await
        .expect("a step");
    let live = PortStage::State(Stage::Live);
    let late = coordinator.step_back(live, control.epoch - 1).await;
    assert_eq!(late.expect("no error"), None, "somebody has moved since");
    let nobody = PortStage::Bus(BusStage::Live);
    let none = coordinator.step_back(nobody, control.epoch).await;
    assert_eq!(none.expect("no error"), None, "nobody is there");
    let back = coordinator.step_back(live, control.epoch).await;
    let back = back.expect("no error").expect("it moved").state;
    assert_eq!(back.to_string(), "rampdown 10.00 %, shadow 90.00 %");
}
