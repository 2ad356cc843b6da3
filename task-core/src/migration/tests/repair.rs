//! The marks that are left, and the work that ends them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use super::scene::{CALM, Scene, UNLISTED, record, task};
use crate::memory::MemoryStateStore;
use crate::migration::Stage;
use crate::migration::gone::is_left;
use crate::ports::{DeleteOptions, Kind, PutOptions, StateStore};

#[tokio::test(start_paused = true)]
async fn marks_are_counted_by_kind_with_the_age_of_the_oldest() {
    let scene = Scene::new(1);
    let replica = scene.begun().await;
    replica.go(Stage::DualWrite).await;
    assert_eq!(
        replica
            .migration
            .repair_status()
            .await
            .expect("readable")
            .total(),
        0
    );
    replica.new.is_down.store(true, Ordering::Relaxed);
    for number in 0..3 {
        let key = task(number);
        let value = record(&key, 1, "new");
        let put = replica.store.put(&key, value, PutOptions::default()).await;
        let _ = put.expect("the new side is not asked");
        scene.clock.advance(Duration::from_secs(10));
    }
    let seen = crate::ports::Key::new(Kind::SEEN, "event-1");
    let put = replica
        .store
        .put(&seen, "{}".into(), PutOptions::default())
        .await;
    let _ = put.expect("the new side is not asked");
    let marks = replica.migration.repair_status().await.expect("readable");
    assert_eq!((marks.dirty.count, marks.reverse.count), (4, 0));
    assert_eq!(marks.oldest_ms(), Some(30_000));
    let of: Vec<_> = marks
        .dirty
        .of
        .iter()
        .map(|one| (&*one.kind, one.count))
        .collect();
    assert_eq!(of, [("task", 3), ("seen", 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_with_what_was_there_and_not_with_what_comes() {
    let scene = Scene::new(2);
    let replica = scene.begun().await;
    replica.go(Stage::DualWrite).await;
    replica.new.is_down.store(true, Ordering::Relaxed);
    for number in 0..50 {
        let value = record(&task(number), 1, "new");
        let put = replica
            .store
            .put(&task(number), value, PutOptions::default())
            .await;
        let _ = put.expect("the new side is not asked");
    }
    let limit = Duration::from_secs(3);
    let drained = replica
        .migration
        .repair_drain(limit)
        .await
        .expect("readable");
    assert_eq!(
        (drained.drained, drained.before, drained.left),
        (false, 50, 50)
    );
    assert!((3_000..6_000).contains(&drained.took_ms), "{drained:?}");

    // Others write on and on.
    let other = scene.replica([CALM, CALM]);
    sleep(Duration::from_secs(1)).await;
    other.new.is_down.store(true, Ordering::Relaxed);
    replica.new.is_down.store(false, Ordering::Relaxed);
    // So there is always one more when the last one has been copied.
    replica.old.is_healthy.store(false, Ordering::Relaxed);
    let write = async {
        for number in 0..u64::MAX {
            let key = task(100 + number % 40);
            let value = record(&key, number + 1, "again");
            let put = other.store.put(&key, value, PutOptions::default()).await;
            let _ = put.expect("the old side answers");
            sleep(Duration::from_millis(1)).await;
        }
    };
    let drain = replica.migration.repair_drain(Duration::from_secs(30));
    let drained = match futures_util::future::select(Box::pin(drain), Box::pin(write)).await {
        futures_util::future::Either::Left((drained, _)) => drained.expect("readable"),
        futures_util::future::Either::Right(((), _)) => panic!("the writer does not end"),
    };
    assert!(drained.drained, "{drained:?}");
    sleep(Duration::from_secs(5)).await;
    scene.assert_equal().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_deleted_while_off_does_not_return() {
    let scene = Scene::new(5);
    let new = MemoryStateStore::with_capabilities(scene.clock(), UNLISTED);
    let scene = scene.with_new(new);
    scene.fill(3).await;
    let replica = scene.begun().await;
    for number in 0..2 {
        replica.go(Stage::DualWrite).await;
        let _ = replica.backfill().await;
        replica.go(Stage::Off).await;
        let gone = task(number);
        let deleted = replica.store.delete(&gone, DeleteOptions::default());
        deleted.await.expect("the old side alone is asked");
        let marks = replica.migration.repair_status().await.expect("readable");
        assert_eq!(
            marks.total(),
            0,
            "nothing is behind while everything is off"
        );
    }
    replica.go(Stage::DualWrite).await;
    let _ = replica.backfill().await;
    for (number, is_there) in [(0, false), (1, false), (2, true)] {
        let found = scene.new.get(&task(number)).await.expect("memory");
        let found = found.is_some_and(|found| !is_left(&found.value));
        assert_eq!(found, is_there, "task {number}");
    }
}
