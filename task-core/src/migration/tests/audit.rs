//! No change of the control record is without its entry, whatever fails and whoever is killed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::faulty::Faults;
use super::scene::{CALM, Scene, someone};
use crate::migration::{Bucket, Cause, Coordinator, CoordinatorOptions, Stage};

#[tokio::test(start_paused = true)]
async fn every_change_stands_there_with_its_cause_newest_first() {
    let scene = Scene::new(1);
    let replica = scene.begun().await;
    replica.go(Stage::Shadow).await;
    let mut coordinator = Coordinator::new(&replica.store, CoordinatorOptions::default());
    coordinator.because(Cause::new("alice", "a first look"));
    let _ = coordinator
        .advance(Stage::Live, 2_500)
        .await
        .expect("a step");
    let audit = replica.migration.audit(2).await.expect("readable");
    assert_eq!(audit.len(), 2);
    assert_eq!(audit[0].cause, Cause::new("alice", "a first look"));
    assert_eq!(
        audit[0].change(),
        "state: shadow 100.00 % → live 25.00 %, shadow 75.00 %"
    );
    let all = replica.migration.audit(100).await.expect("readable");
    assert_eq!(all.last().expect("the first").cause, someone());
    assert_eq!(all.last().expect("the first").from, None);
}

#[tokio::test(start_paused = true)]
async fn no_change_is_without_its_entry_when_calls_fail_and_leaders_die() {
    const BAD: Faults = Faults {
        refused: 3_000,
        unanswered: 6_000,
    };
    for seed in 0..10 {
        let scene = Scene::new(seed);
        let calm = scene.begun().await;
        let bad = scene.replica([BAD, CALM]);
        sleep(Duration::from_secs(2)).await;
        // Each call is one leader's life. They share a name, or each would wait for the lease of the last one.
        let mut coordinator = Coordinator::new(&bad.store, CoordinatorOptions::default());
        let mut height = 0;
        let way = [
            Stage::DualWrite,
            Stage::Shadow,
            Stage::Live,
            Stage::RampDown,
        ];
        for _ in 0..60 {
            let control = calm.migration.control().await.expect("readable");
            let climbs = scene.below(3) > 0;
            let reached = |stage| control.state.reached(stage) > 0;
            height = way.iter().filter(|stage| reached(**stage)).count();
            let (stage, buckets) = match (climbs, height) {
                (true, 4) | (false, 0) => continue,
                (true, height) => (way[height], Bucket::COUNT),
                (false, height) => (way[height - 1], 0),
            };
            let lives = Duration::from_millis(scene.below(800));
            let _ = timeout(lives, coordinator.advance(stage, buckets)).await;
        }
        let _ = height;
        let now = calm.migration.control().await.expect("readable");
        let audit = calm.migration.audit(1_000).await.expect("readable");
        let epochs: Vec<_> = audit.iter().map(|entry| entry.epoch).collect();
        let expected: Vec<_> = (1..=now.epoch).rev().collect();
        assert_eq!(epochs, expected, "seed {seed}");
        assert_eq!(audit[0].to, now);
        for pair in audit.windows(2) {
            assert_eq!(pair[0].from.as_ref(), Some(&pair[1].to));
        }
        assert!(now.epoch > 5, "too little happened: {}", now.epoch);
    }
}

#[tokio::test(start_paused = true)]
async fn leaders_come_one_after_the_other() {
    let scene = Scene::new(3);
    let replica = scene.begun().await;
    replica.go(Stage::DualWrite).await;
    let rivals: Vec<_> = (0..4).map(|_| scene.replica([CALM, CALM])).collect();
    sleep(Duration::from_secs(1)).await;
    let calls = rivals.iter().map(|rival| {
        let migration = Arc::clone(&rival.migration);
        async move { migration.backfill_start(Default::default()).await }
    });
    let started = futures_util::future::join_all(calls).await;
    let ids: BTreeSet<_> = started.iter().flatten().map(|job| job.id.clone()).collect();
    assert_eq!(ids.len(), 1, "{started:?}");
}
