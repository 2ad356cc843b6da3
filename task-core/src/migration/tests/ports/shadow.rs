//! The comparison of a topic with its copy, through the parallel bus.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::fakes::Mood;
use super::scene::{Replica, Scene, event, until};
use crate::background::Background;
use crate::domain::Timestamp;
use crate::migration::{
    BusStage, COMPARING_GROUP, Listening, ShadowComparison, ShadowFinding, shadow_topic,
};
use crate::ports::{Clock, Event, EventBus, Group, Topic};

fn compare(scene: &Scene, replica: &Replica) -> (Arc<ShadowComparison>, Background) {
    let listening = |bus| Listening {
        bus,
        group: Group::new(COMPARING_GROUP),
    };
    let comparison = Arc::new(ShadowComparison::new(
        listening(Arc::clone(&scene.old_bus) as _),
        listening(Arc::clone(&scene.new_bus) as _),
        Topic::new("task-events"),
        Arc::clone(&replica.member),
        Arc::clone(&scene.clock) as _,
    ));
    let running = comparison.start(Arc::clone(&scene.old) as _, &scene.entropy);
    (comparison, running.expect("memory can do all"))
}

/// A time at which an event is compared.
fn later(scene: &Scene) -> Timestamp {
    scene.clock.now().saturating_add(Duration::from_secs(11))
}

#[tokio::test(start_paused = true)]
async fn what_the_copy_lacks_has_too_much_or_has_otherwise_is_found() {
    let (scene, replica) = Scene::begun().await;
    let (comparison, running) = compare(&scene, &replica);
    replica.moves_bus(BusStage::Shadow).await;
    until("somebody compares", || comparison.status().is_here).await;
    let at = later(&scene);
    for n in 0..50 {
        let event = event(&format!("t-{n}"), 1, at);
        replica.bus.publish(&event).await.expect("it works");
    }
    until("the copies", || scene.new_bus.accepted().len() == 50).await;
    scene.new_bus.publishing.set(Mood::Refuses);
    replica
        .bus
        .publish(&event("t-lost", 1, at))
        .await
        .expect("the old bus works");
    sleep(Duration::from_secs(2)).await;
    scene.new_bus.publishing.set(Mood::Works);
    let extra = event("t-extra", 1, at);
    let copy = shadow_topic(&extra.topic);
    let extra = Event {
        topic: copy.clone(),
        ..extra
    };
    scene.new_bus.publish(&extra).await.expect("it works");
    let changed = event("t-changed", 1, at);
    scene.old_bus.publish(&changed).await.expect("it works");
    let text = String::from_utf8(changed.payload.to_vec()).expect("text");
    let changed = Event {
        topic: copy,
        payload: text.replace("\"title\":\"a\"", "\"title\":\"b\"").into(),
        ..changed
    };
    scene.new_bus.publish(&changed).await.expect("it works");
    until("all are judged", || {
        comparison.status().report.compared == 53
    })
    .await;
    let report = comparison.status().report;
    assert_eq!((report.equal, report.waiting), (50, 0), "{report:?}");
    let mut found: Vec<_> = report
        .examples
        .iter()
        .map(|one| (&*one.key, one.finding))
        .collect();
    found.sort_by_key(|(key, _)| *key);
    let expected = [
        ("t-changed", ShadowFinding::Different),
        ("t-extra", ShadowFinding::Extra),
        ("t-lost", ShadowFinding::Missing),
    ];
    assert_eq!(found, expected);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn moves_of_buckets_give_no_false_alarm() {
    let (scene, replica) = Scene::begun().await;
    let two = scene.slow_replica();
    two.follows().await;
    let (comparison, running) = compare(&scene, &replica);
    for round in 0..8_u64 {
        let stage = [BusStage::Shadow, BusStage::Off][(round % 2) as usize];
        for n in 0..20 {
            let replica = [&replica, &two][n as usize % 2];
            let event = event(&format!("t-{n}"), round * 100 + n, scene.clock.now());
            replica.bus.publish(&event).await.expect("it works");
            scene.clock.advance(Duration::from_millis(700));
            sleep(Duration::from_millis(700)).await;
        }
        let buckets = if stage == BusStage::Shadow { 6_000 } else { 0 };
        let mut coordinator = super::scene::coordinator(&replica);
        let moved = coordinator.advance_bus(BusStage::Shadow, buckets).await;
        moved.expect("nothing stands in the way");
        // One of the two does not know of the move for seconds, and what it publishes is judged after half a minute.
        for n in 20..80 {
            let replica = [&replica, &two][n as usize % 2];
            let event = event(&format!("t-{n}"), round * 100 + n, scene.clock.now());
            replica.bus.publish(&event).await.expect("it works");
            scene.clock.advance(Duration::from_millis(700));
            sleep(Duration::from_millis(700)).await;
        }
    }
    let report = comparison.status().report;
    assert!(report.equal > 50, "{report:?}");
    let wrong = report.missing + report.extra + report.different + report.order;
    assert_eq!(wrong, 0, "{report:?}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_replica_of_all_compares_and_another_one_when_it_has_gone() {
    let (scene, one) = Scene::begun().await;
    let two = scene.replica();
    let (first, running) = compare(&scene, &one);
    one.moves_bus(BusStage::Shadow).await;
    until("the first one compares", || first.status().is_here).await;
    let (second, also_running) = compare(&scene, &two);
    sleep(Duration::from_secs(60)).await;
    assert!(!second.status().is_here);
    assert_eq!(
        scene.new_bus.subscriptions(),
        1,
        "the second one does not even try"
    );
    running.stop().await;
    assert!(!first.status().is_here);
    until("the second one compares", || second.status().is_here).await;
    one.moves_bus(BusStage::Live).await;
    until("nothing is left to compare", || !second.status().is_here).await;
    also_running.stop().await;
}
