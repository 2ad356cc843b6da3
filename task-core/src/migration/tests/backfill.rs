//! The backfill: behind its barrier, at its rate, through kills and faults.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::faulty::Faults;
use super::scene::{CALM, Replica, Scene, record, task};
use crate::memory::lock;
use crate::migration::{
    Coordinator, CoordinatorOptions, JobKind, JobState, MigrationError, Pacing, Phase, Stage,
};
use crate::ports::{Commit, Key, Kind, PutOptions, StateStore, Write, WriteMode};

const BACKFILL: JobKind = JobKind::Backfill;

fn at(keys_per_s: u32) -> Pacing {
    Pacing {
        keys_per_s: Some(keys_per_s),
        ..Pacing::default()
    }
}

fn guard_of(error: MigrationError) -> String {
    match error {
        MigrationError::Refused(refusal) => refusal.guard,
        other @ (MigrationError::Usage(_) | MigrationError::Port(_)) => {
            panic!("not refused: {other}")
        }
    }
}

async fn start(replica: &Replica, pacing: Pacing) {
    let started = replica.migration.backfill_start(pacing).await;
    assert_eq!(started.expect("allowed").state, JobState::Running);
}

#[tokio::test(start_paused = true)]
async fn a_backfill_copies_every_kind_of_record_and_counts_it() {
    let scene = Scene::new(1);
    scene.fill(1_000).await;
    for (kind, id) in [(Kind::SEEN, "event-1"), (Kind::GROUP, "group-1")] {
        scene.put(&scene.old, &Key::new(kind, id), "{}").await;
    }
    let replica = scene.begun().await;
    replica.go(Stage::DualWrite).await;
    // Some of it is there already.
    for number in 0..100 {
        let key = task(number);
        let value = record(&key, 1, &format!("title {number}"));
        scene.put(&scene.new, &key, value).await;
    }
    start(&replica, Pacing::default()).await;
    let job = replica.finish(BACKFILL).await;
    assert_eq!((job.state, job.percent), (JobState::Done, 100.0));
    assert_eq!((job.done, job.total), (1_002, 1_002));
    assert_eq!((job.counts.copied, job.counts.equal), (902, 100));
    scene.assert_equal().await;
}

#[tokio::test(start_paused = true)]
async fn the_copy_of_a_mark_of_an_event_ends_some_day() {
    let scene = Scene::new(2);
    let key = Key::new(Kind::SEEN, "event-1");
    scene.put(&scene.old, &key, "{}").await;
    let replica = scene.begun().await;
    replica.go(Stage::DualWrite).await;
    start(&replica, Pacing::default()).await;
    let _ = replica.finish(BACKFILL).await;
    assert!(scene.new.get(&key).await.expect("memory").is_some());
    scene.clock.advance(Duration::from_secs(8 * 24 * 3600));
    assert!(scene.new.get(&key).await.expect("memory").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_backfill_waits_until_nobody_writes_unseen() {
    let scene = Scene::new(3);
    scene.fill(10).await;
    let replica = scene.begun().await;
    let refused = replica.migration.backfill_start(Pacing::default()).await;
    assert_eq!(guard_of(refused.expect_err("all is off")), "all_mirrored");

    let other = scene.replica([CALM, CALM]);
    sleep(Duration::from_secs(1)).await;
    // A request of the other replica began in `off` and does not end.
    let pin = other.member.pin().expect("it takes part");
    let mut coordinator = Coordinator::new(&replica.store, CoordinatorOptions::default());
    let step = coordinator.advance(Stage::DualWrite, 10_000).await;
    let _ = step.expect("everybody was at `off`");
    let refused = replica.migration.backfill_start(Pacing::default()).await;
    let refused = refused.expect_err("somebody writes without marks");
    assert_eq!(guard_of(refused), "replicas_adopted");

    // What it began it may still write until the barrier has been passed, and not after it.
    let key = task(99);
    let write = |epoch_of: &crate::migration::Pin| {
        let put = Write::Put {
            key: key.clone(),
            value: record(&key, 1, "unseen"),
            options: PutOptions::default(),
        };
        Commit::of(put).guard(epoch_of.control().guard())
    };
    let late = write(&pin);
    drop(pin);
    start(&replica, Pacing::default()).await;
    let refused = scene.old.commit(late).await;
    assert!(refused.is_err(), "a write without a mark came through");
    let _ = replica.finish(BACKFILL).await;
    scene.assert_equal().await;
}

#[tokio::test(start_paused = true)]
async fn a_second_backfill_is_refused_while_one_runs() {
    let scene = Scene::new(4);
    scene.fill(100).await;
    let replica = scene.begun().await;
    replica.go(Stage::DualWrite).await;
    start(&replica, at(10)).await;
    let refused = replica.migration.backfill_start(Pacing::default()).await;
    assert_eq!(guard_of(refused.expect_err("one runs")), "no_other_job");
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_held_within_five_percent() {
    let scene = Scene::new(5);
    scene.fill(40_000).await;
    let replica = scene.begun().await;
    replica.go(Stage::DualWrite).await;
    // The stores answer after up to 40 ms.
    replica.old.is_healthy.store(false, Ordering::Relaxed);
    replica.new.is_healthy.store(false, Ordering::Relaxed);
    for per_s in [100_u32, 500] {
        start(
            &replica,
            Pacing {
                concurrency: 128,
                ..at(per_s)
            },
        )
        .await;
        let running = replica.migration.start();
        let began = replica
            .until(BACKFILL, |job| job.phase == Phase::Old && job.done > 0)
            .await;
        let from = Instant::now();
        sleep(Duration::from_secs(8)).await;
        let now = replica.job(BACKFILL).await;
        let rate = (now.done - began.done) as f64 / from.elapsed().as_secs_f64();
        let error = (rate / f64::from(per_s) - 1.0).abs();
        // The record is written in steps of up to half a second's keys.
        assert!(error < 0.07, "{rate} keys a second instead of {per_s}");
        let told = now.keys_per_s / f64::from(per_s);
        assert!(
            (0.95..1.05).contains(&told),
            "{} keys a second",
            now.keys_per_s
        );
        assert!(now.eta_s.is_some() && now.throttled.is_some(), "{now:?}");
        let aborted = replica
            .migration
            .abort(BACKFILL, super::scene::someone())
            .await;
        let _ = aborted.expect("it runs");
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_held_from_the_beginning_to_the_end() {
    let scene = Scene::new(55);
    scene.fill(6_000).await;
    let replica = scene.begun().await;
    replica.go(Stage::DualWrite).await;
    start(&replica, at(300)).await;
    let running = replica.migration.start();
    let _ = replica
        .until(BACKFILL, |job| job.phase != Phase::Counting)
        .await;
    let from = Instant::now();
    let _ = replica.ended(BACKFILL).await;
    let took = from.elapsed().as_secs_f64();
    assert!((19.0..21.0).contains(&took), "6000 keys took {took} s");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_killed_backfill_goes_on_elsewhere_and_repeats_less_than_a_hundredth() {
    const KEYS: u64 = 4_000;
    let scene = Scene::new(6);
    scene.fill(KEYS).await;
    let replicas = [scene.begun().await, scene.replica([CALM, CALM])];
    sleep(Duration::from_secs(1)).await;
    replicas[0].go(Stage::DualWrite).await;
    start(&replicas[0], at(200)).await;
    let (mut kills, mut wasted) = (0, 0);
    while replicas[0].job(BACKFILL).await.state == JobState::Running {
        let lives = Duration::from_millis(500 + scene.below(15_000));
        replicas[kills % 2].work_for(lives).await;
        kills += 1;
        // What was worked on and is not written down is repeated by the next one.
        let worked = worked_by(&replicas);
        let lost = worked - replicas[0].job(BACKFILL).await.done - wasted;
        assert!(lost < KEYS / 100, "{lost} of {KEYS} are repeated");
        wasted += lost;
    }
    let job = replicas[0].job(BACKFILL).await;
    assert_eq!(job.state, JobState::Done);
    assert!(kills > 5 && wasted > 0, "{kills} kills, {wasted} repeated");
    // Nothing is counted twice.
    assert_eq!((job.done, job.total), (KEYS, KEYS));
    scene.assert_equal().await;
}

fn worked_by(replicas: &[Replica]) -> u64 {
    let reads = replicas.iter();
    let reads = reads.map(|replica| replica.new.reads.load(Ordering::Relaxed));
    reads.sum()
}

#[tokio::test(start_paused = true)]
async fn only_one_replica_works_on_a_backfill() {
    const KEYS: u64 = 2_000;
    let scene = Scene::new(61);
    scene.fill(KEYS).await;
    let replicas = [scene.begun().await, scene.replica([CALM, CALM])];
    sleep(Duration::from_secs(1)).await;
    replicas[0].go(Stage::DualWrite).await;
    start(&replicas[0], at(200)).await;
    let running = replicas.each_ref().map(|replica| replica.migration.start());
    let job = replicas[0].ended(BACKFILL).await;
    assert_eq!((job.state, worked_by(&replicas)), (JobState::Done, KEYS));
    futures_util::future::join_all(running.map(|running| running.stop())).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_slept_counts_nothing_of_what_another_one_has_taken_over() {
    for seed in 500..508 {
        two_that_sleep_share_a_backfill(seed).await;
    }
}

async fn two_that_sleep_share_a_backfill(seed: u64) {
    const KEYS: u64 = 2_000;
    let scene = Scene::new(seed);
    scene.fill(KEYS).await;
    let replicas = [scene.begun().await, scene.replica([CALM, CALM])];
    sleep(Duration::from_secs(1)).await;
    replicas[0].go(Stage::DualWrite).await;
    // Their calls take a while, so they fall asleep in the middle of some.
    for replica in &replicas {
        replica.old.is_healthy.store(false, Ordering::Relaxed);
        replica.new.is_healthy.store(false, Ordering::Relaxed);
    }
    let watcher = scene.replica([CALM, CALM]);
    start(&watcher, at(100)).await;
    let running = replicas.each_ref().map(|replica| replica.migration.start());
    let mut naps = 0;
    while watcher.job(BACKFILL).await.state == JobState::Running {
        replicas[naps % 2].process.stop_for(Duration::from_secs(12));
        sleep(Duration::from_millis(13_000 + scene.below(1_000))).await;
        naps += 1;
    }
    assert!(naps > 3, "they slept only {naps} times");
    let job = watcher.job(BACKFILL).await;
    assert_eq!(
        (job.state, job.done, job.total),
        (JobState::Done, KEYS, KEYS)
    );
    assert_eq!(job.counts.copied + job.counts.equal, KEYS);
    futures_util::future::join_all(running.map(|running| running.stop())).await;
    scene.assert_equal().await;
}

#[tokio::test(start_paused = true)]
async fn faults_of_single_calls_do_not_end_a_backfill() {
    const BAD: Faults = Faults {
        refused: 1_000,
        unanswered: 1_000,
    };
    for seed in 100..104 {
        let scene = Scene::new(seed);
        scene.fill(1_500).await;
        let replica = scene.begun().await;
        replica.go(Stage::DualWrite).await;
        let bad = scene.replica([BAD, BAD]);
        sleep(Duration::from_secs(2)).await;
        start(&replica, Pacing::default()).await;
        let job = bad.finish(BACKFILL).await;
        assert_eq!(job.state, JobState::Done, "{job:#?}");
        assert_eq!((job.done, job.counts.failed), (1_500, 0));
        scene.assert_equal().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_backfill_waits_while_a_side_is_down_and_says_which() {
    let scene = Scene::new(8);
    scene.fill(1_000).await;
    let replica = scene.begun().await;
    replica.go(Stage::DualWrite).await;
    start(&replica, at(200)).await;
    let running = replica.migration.start();
    let _ = replica.until(BACKFILL, |job| job.done > 300).await;
    replica.new.is_down.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(60)).await;
    let job = replica.job(BACKFILL).await;
    assert_eq!((job.state, job.left.len()), (JobState::Running, 0));
    let why = job.throttled.expect("it waits");
    assert!(why.contains("the new side does not answer"), "{why}");
    replica.new.is_down.store(false, Ordering::Relaxed);
    let job = replica.ended(BACKFILL).await;
    let counts = (job.counts.copied + job.counts.equal, job.counts.failed);
    assert_eq!((job.state, counts), (JobState::Done, (1_000, 0)));
    running.stop().await;
    scene.assert_equal().await;
}

#[tokio::test(start_paused = true)]
async fn records_that_cannot_be_copied_are_named_and_tried_again_on_request() {
    let scene = Scene::new(9);
    scene.fill(500).await;
    let replica = scene.begun().await;
    replica.go(Stage::DualWrite).await;
    *lock(&replica.new.broken) = BTreeSet::from([task(7), task(400)]);
    start(&replica, Pacing::default()).await;
    let job = replica.finish(BACKFILL).await;
    assert_eq!((job.state, job.counts.failed), (JobState::Failed, 2));
    let names: BTreeSet<_> = job.left.iter().map(|left| left.key.clone()).collect();
    assert_eq!(
        names,
        BTreeSet::from(["task/task-7".to_owned(), "task/task-400".to_owned()])
    );
    assert!(job.left[0].error.contains("broken on purpose"));
    lock(&replica.new.broken).clear();
    let resumed = replica.migration.resume(BACKFILL, None).await;
    assert_eq!(resumed.expect("it failed").state, JobState::Running);
    let job = replica.finish(BACKFILL).await;
    assert_eq!((job.state, job.counts.failed), (JobState::Done, 0));
    scene.assert_equal().await;
}

#[tokio::test(start_paused = true)]
async fn too_many_failures_end_a_backfill_where_it_was() {
    let scene = Scene::new(10);
    scene.fill(2_000).await;
    let replica = scene.begun().await;
    replica.go(Stage::DualWrite).await;
    *lock(&replica.new.broken) = (0..1_000).map(task).collect();
    start(&replica, Pacing::default()).await;
    let job = replica.finish(BACKFILL).await;
    assert_eq!(job.state, JobState::Failed);
    assert!(job.left.len() <= 256);
    lock(&replica.new.broken).clear();
    let _ = replica
        .migration
        .resume(BACKFILL, None)
        .await
        .expect("it failed");
    let job = replica.finish(BACKFILL).await;
    assert_eq!((job.state, job.done), (JobState::Done, 2_000));
    scene.assert_equal().await;
}

#[tokio::test(start_paused = true)]
async fn a_backfill_pauses_resumes_at_another_rate_and_aborts() {
    let scene = Scene::new(11);
    scene.fill(2_000).await;
    let replica = scene.begun().await;
    replica.go(Stage::DualWrite).await;
    start(&replica, at(100)).await;
    let running = replica.migration.start();
    let _ = replica.until(BACKFILL, |job| job.done >= 100).await;
    let _ = replica.migration.pause(BACKFILL).await.expect("it runs");
    sleep(Duration::from_secs(2)).await;
    let paused = replica.job(BACKFILL).await;
    sleep(Duration::from_secs(60)).await;
    let later = replica.job(BACKFILL).await;
    assert_eq!((later.state, later.done), (JobState::Paused, paused.done));
    assert_eq!(later.throttled.as_deref(), Some("paused"));

    let from = Instant::now();
    let resumed = replica.migration.resume(BACKFILL, Some(at(1_000))).await;
    let _ = resumed.expect("it is paused");
    let _ = replica.until(BACKFILL, |job| job.done >= 1_000).await;
    assert!(
        from.elapsed() < Duration::from_secs(3),
        "{:?}",
        from.elapsed()
    );

    let aborted = replica
        .migration
        .abort(BACKFILL, super::scene::someone())
        .await;
    let aborted = aborted.expect("it runs");
    assert_eq!(aborted.reason.as_deref(), Some("tester: to see"));
    sleep(Duration::from_secs(5)).await;
    let job = replica.job(BACKFILL).await;
    assert_eq!(job.state, JobState::Aborted);
    assert!(job.done < 2_000);
    let refused = replica.migration.resume(BACKFILL, None).await;
    assert_eq!(guard_of(refused.expect_err("it is over")), "job_active");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_backfill_does_not_count_once_a_bucket_was_off_again() {
    let scene = Scene::new(12);
    scene.fill(500).await;
    let replica = scene.begun().await;
    replica.go(Stage::DualWrite).await;
    start(&replica, at(50)).await;
    let running = replica.migration.start();
    let _ = replica.until(BACKFILL, |job| job.done > 50).await;
    replica.go(Stage::Off).await;
    let job = replica.ended(BACKFILL).await;
    assert_eq!(job.state, JobState::Failed);
    let reason = job.reason.expect("a reason");
    assert!(reason.contains("generation"), "{reason}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restarted_server_has_its_records_listed_anew() {
    let scene = Scene::new(13);
    scene.fill(1_000).await;
    let replica = scene.begun().await;
    replica.go(Stage::DualWrite).await;
    *lock(&replica.old.server) = Some("run 1".into());
    start(&replica, at(200)).await;
    let running = replica.migration.start();
    let _ = replica.until(BACKFILL, |job| job.done > 500).await;
    *lock(&replica.old.server) = Some("run 2".into());
    let job = replica.until(BACKFILL, |job| job.done < 500).await;
    assert_eq!(job.state, JobState::Running);
    let job = replica.ended(BACKFILL).await;
    assert_eq!((job.done, job.total), (1_000, 1_000));
    assert!(job.counts.equal > 500, "{:?}", job.counts);
    running.stop().await;
    scene.assert_equal().await;
}

#[tokio::test(start_paused = true)]
async fn a_backfill_never_undoes_what_is_written_or_deleted_meanwhile() {
    let scene = Scene::new(14);
    scene.fill(1_000).await;
    let replica = scene.begun().await;
    replica.go(Stage::DualWrite).await;
    start(&replica, at(250)).await;
    let running = replica.migration.start();
    let _ = replica.until(BACKFILL, |job| job.phase == Phase::Old).await;
    for _ in 0..600 {
        let key = task(scene.below(1_000));
        if let Some(stored) = replica.store.get(&key).await.expect("healthy") {
            let write = match scene.below(3) {
                0 => replica.store.delete(&key, Default::default()).await,
                _ => {
                    let options = PutOptions {
                        mode: WriteMode::Match(stored.etag),
                        ttl: None,
                    };
                    let value = record(&key, 2, "changed");
                    replica.store.put(&key, value, options).await.map(drop)
                }
            };
            write.expect("healthy");
        }
        sleep(Duration::from_millis(5)).await;
    }
    let _ = replica.ended(BACKFILL).await;
    sleep(Duration::from_secs(5)).await;
    running.stop().await;
    scene.assert_equal().await;
}
