//! Values that end by themselves, while one side follows the other.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::fakes::{Mood, SomeStore};
use super::scene::{Replica, Scene, coordinator};
use crate::memory::{ManualClock, MemoryStateStore};
use crate::migration::Stage;
use crate::ports::{Clock, Key, Kind, PortError, PutOptions, StateStore};

const HOUR: Duration = Duration::from_secs(3_600);
const SHORT: Duration = Duration::from_secs(5);

fn seen() -> Key {
    Key::new(Kind::SEEN, "event-1")
}

async fn put(replica: &Replica, value: &'static str, ttl: Duration) -> Result<(), PortError> {
    let options = PutOptions {
        ttl: Some(ttl),
        ..PutOptions::default()
    };
    let put = replica.store.put(&seen(), value.into(), options).await;
    put.map(drop)
}

async fn value(store: &SomeStore) -> Option<Bytes> {
    let found = store.inner.get(&seen()).await.expect("memory");
    found.map(|stored| stored.value)
}

/// A side whose clock stands, and so has what is over for everybody else.
fn behind(clock: &Arc<ManualClock>) -> Arc<SomeStore> {
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    Arc::new(SomeStore::new(MemoryStateStore::new(clock)))
}

async fn replica_at(scene: &Scene, stage: Stage) -> Replica {
    let replica = scene.replica();
    let begun = coordinator(&replica).init("salt").await;
    begun.expect("nothing is there");
    replica.follows().await;
    replica.moves_state(stage).await;
    replica
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_over_before_it_is_copied_leaves_no_older_one_on_the_new_side() {
    let late = Arc::new(ManualClock::default());
    let scene = Scene {
        old: behind(&late),
        ..Scene::new()
    };
    let replica = replica_at(&scene, Stage::DualWrite).await;
    put(&replica, "older", HOUR).await.expect("it works");
    sleep(SHORT).await;
    assert_eq!(value(&scene.new).await.as_deref(), Some(&b"older"[..]));

    scene.new.writes.set(Mood::Refuses);
    let newer = put(&replica, "newer", SHORT).await;
    newer.expect("the new side is not asked");
    scene.clock.advance(SHORT);
    scene.new.writes.set(Mood::Works);
    sleep(SHORT).await;
    assert_eq!(value(&scene.old).await.as_deref(), Some(&b"newer"[..]));

    late.advance(SHORT);
    scene.clock.advance(SHORT);
    sleep(SHORT).await;
    for side in [&scene.old, &scene.new] {
        assert_eq!(value(side).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_over_before_the_old_side_follows_ends_on_both() {
    let late = Arc::new(ManualClock::default());
    let scene = Scene {
        new: behind(&late),
        ..Scene::new()
    };
    let replica = replica_at(&scene, Stage::RampDown).await;
    put(&replica, "older", HOUR).await.expect("it works");
    // The old side goes away between the note of the write and its end.
    scene.new.writes.set(Mood::Slow(Duration::from_millis(200)));
    let gone = async {
        sleep(Duration::from_millis(100)).await;
        scene.old.writes.set(Mood::Refuses);
    };
    let (unfinished, ()) = tokio::join!(put(&replica, "newer", SHORT), gone);
    unfinished.expect_err("the old side is away");
    assert_eq!(value(&scene.new).await.as_deref(), Some(&b"newer"[..]));

    scene.clock.advance(SHORT);
    scene.old.writes.set(Mood::Works);
    sleep(SHORT).await;
    late.advance(SHORT);
    scene.clock.advance(SHORT);
    for side in [&scene.old, &scene.new] {
        assert_eq!(value(side).await, None);
    }
}
