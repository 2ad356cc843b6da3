//! The comparison of reads: what is wrong is found, what lags is not.

use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::fakes::Mood;
use super::scene::{Replica, Scene, key, record, until};
use crate::migration::{Finding, MovedCall, PortStage, Side, Stage};
use crate::ports::{DeleteOptions, Key, PutOptions, StateStore, WriteMode};

async fn in_stage(stage: Stage) -> (Scene, Replica) {
    let (scene, replica) = Scene::begun().await;
    replica.store.compare_one_of(NonZeroU64::MIN);
    replica.moves_state(Stage::DualWrite).await;
    for n in 0..8 {
        write(&replica, &format!("t-{n}"), 1, "one").await;
    }
    sleep(Duration::from_secs(1)).await;
    replica.moves_state(stage).await;
    (scene, replica)
}

async fn write(replica: &Replica, id: &str, rev: u64, title: &str) {
    let key = key(id);
    let found = replica.store.get(&key).await.expect("it works");
    let mode = found.map_or(WriteMode::Create, |found| WriteMode::Match(found.etag));
    let options = PutOptions { mode, ttl: None };
    let put = replica.store.put(&key, record(id, rev, title), options);
    put.await.expect("it works");
}

async fn corrupt(scene: &Scene, key: &Key, value: bytes::Bytes) {
    let put = scene.new.inner.put(key, value, PutOptions::default());
    put.await.expect("memory");
}

fn found(replica: &Replica, stage: Stage) -> Vec<(Finding, u64)> {
    let counts =
        Finding::ALL.map(|finding| (finding, replica.store.recorder().findings(stage, finding)));
    let wanted = |(finding, count): &(Finding, u64)| *count > 0 && *finding != Finding::Equal;
    counts.into_iter().filter(wanted).collect()
}

#[tokio::test(start_paused = true)]
async fn everything_that_the_new_side_holds_wrong_is_found_and_named() {
    for stage in [Stage::Shadow, Stage::Live] {
        let (scene, replica) = in_stage(stage).await;
        write(&replica, "t-2", 2, "two").await;
        let gone = key("t-5");
        let deleted = replica.store.delete(&gone, DeleteOptions::default());
        deleted.await.expect("it works");
        sleep(Duration::from_secs(1)).await;
        corrupt(&scene, &key("t-1"), record("t-1", 1, "other")).await;
        corrupt(&scene, &key("t-2"), record("t-2", 1, "one")).await;
        corrupt(&scene, &key("t-3"), record("t-3", 9, "nine")).await;
        corrupt(&scene, &key("t-x"), record("t-x", 1, "one")).await;
        let missing = key("t-4");
        let deleted = scene.new.inner.delete(&missing, DeleteOptions::default());
        deleted.await.expect("memory");
        for id in ["t-0", "t-1", "t-2", "t-3", "t-4", "t-5", "t-x", "t-none"] {
            replica.store.get(&key(id)).await.expect("it works");
        }
        until("all are found", || replica.store.mismatches().len() == 4).await;
        let expected = [
            (Finding::Different, 1),
            (Finding::Stale, 1),
            (Finding::Missing, 1),
            (Finding::Extra, 1),
            (Finding::Ahead, 1),
        ];
        until("the one ahead", || found(&replica, stage).len() == 5).await;
        assert_eq!(found(&replica, stage), expected, "{stage}");
        assert_eq!(replica.store.recorder().wrong(stage), 4);
        let mut named: Vec<_> = replica.store.mismatches();
        named.sort_by(|a, b| a.id.cmp(&b.id));
        let named: Vec<_> = named.iter().map(|one| (&*one.id, one.finding)).collect();
        let expected = [
            ("t-1", Finding::Different),
            ("t-2", Finding::Stale),
            ("t-4", Finding::Missing),
            ("t-x", Finding::Extra),
        ];
        assert_eq!(named, expected, "{stage}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_side_that_follows_slowly_or_not_at_all_is_not_wrong() {
    for stage in [Stage::Shadow, Stage::Live] {
        let (scene, replica) = in_stage(stage).await;
        let until = Instant::now() + Duration::from_secs(120);
        let trouble = async {
            while Instant::now() < until {
                for mood in [
                    Mood::Slow(Duration::from_millis(300)),
                    Mood::Refuses,
                    Mood::Slow(Duration::from_millis(20)),
                    Mood::Forgets,
                ] {
                    scene.new.writes.set(mood);
                    sleep(Duration::from_secs(3)).await;
                }
            }
            scene.new.writes.set(Mood::Works);
        };
        scene.old.reads.set(Mood::Uneven(Duration::from_millis(40)));
        scene.new.reads.set(Mood::Uneven(Duration::from_millis(40)));
        let write_all = |worker: u64| {
            let replica = &replica;
            async move {
                for rev in 2.. {
                    if Instant::now() >= until {
                        break;
                    }
                    let id = format!("t-{worker}");
                    match rev % 5 {
                        0 => {
                            let deleted = key(&id);
                            let deleting = replica.store.delete(&deleted, DeleteOptions::default());
                            deleting.await.expect("it works");
                        }
                        _ => write(replica, &id, rev, &rev.to_string()).await,
                    }
                    sleep(Duration::from_millis(40 + worker * 13)).await;
                }
            }
        };
        let writers = futures_util::future::join_all((0..8).map(write_all));
        tokio::join!(trouble, writers);
        assert_eq!(replica.store.mismatches(), [], "{stage}");
        let recorder = replica.store.recorder();
        assert!(recorder.findings(stage, Finding::Equal) > 100);
        assert!(recorder.findings(stage, Finding::Unsettled) > 10);
    }
}

#[tokio::test(start_paused = true)]
async fn comparing_takes_nothing_from_a_read_and_is_bounded() {
    let (scene, replica) = in_stage(Stage::Shadow).await;
    scene.new.reads.set(Mood::Hangs);
    let began = Instant::now();
    for n in 0..5_000 {
        let read = replica.store.get(&key(&format!("t-{n}"))).await;
        read.expect("the old side works");
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    let recorder = replica.store.recorder();
    assert!(recorder.findings(Stage::Shadow, Finding::Skipped) > 4_000);
    let failed = || recorder.findings(Stage::Shadow, Finding::Failed);
    until("looks end", || failed() >= 4).await;
    scene.new.reads.set(Mood::Works);
    let read = |side| recorder.calls(MovedCall::Read, side, PortStage::State(Stage::Shadow));
    assert!(read(Side::Old).count() >= 5_000);
    until("the rest", || read(Side::New).count() >= 200).await;
}
