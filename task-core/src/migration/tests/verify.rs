//! The comparison of both sides: it finds everything, and accuses nobody wrongly.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join;
use tokio::time::{Instant, sleep};

use super::scene::{CALM, Replica, Scene, UNLISTED, record, someone, task};
use crate::memory::MemoryStateStore;
use crate::migration::{
    Counts, DifferencesRequest, Disagreement, Fix, JobKind, JobState, JobStatus, Pacing, Scope,
    Share, Side, Stage, VerifyRequest,
};
use crate::ports::{DeleteOptions, Key, Kind, PutOptions, StateStore, WriteMode};

pub(super) const VERIFY: JobKind = JobKind::Verify;

pub(super) fn full(fix: Fix) -> VerifyRequest {
    VerifyRequest {
        scope: Scope::Full,
        fix,
        pacing: Pacing::default(),
    }
}

async fn verify(replica: &Replica, request: VerifyRequest) -> JobStatus {
    let _ = replica
        .migration
        .verify_start(request)
        .await
        .expect("none runs");
    replica.finish(VERIFY).await
}

/// A scene in which everything was copied.
pub(super) async fn copied(scene: &Scene, tasks: u64) -> Replica {
    scene.fill(tasks).await;
    let replica = scene.begun().await;
    replica.go(Stage::DualWrite).await;
    let _ = replica.backfill().await;
    replica
}

pub(super) async fn found(
    replica: &Replica,
) -> BTreeMap<String, (Disagreement, Vec<String>, bool)> {
    let request = DifferencesRequest::default();
    let found = replica
        .migration
        .differences(&request)
        .await
        .expect("readable");
    let found = found.differences.into_iter().map(|one| {
        let fields = one.fields.into_iter().map(|field| field.field).collect();
        (one.key, (one.disagreement, fields, one.repaired))
    });
    found.collect()
}

#[tokio::test(start_paused = true)]
async fn equal_sides_are_clean() {
    let scene = Scene::new(1);
    let replica = copied(&scene, 700).await;
    let job = verify(&replica, full(Fix::Nothing)).await;
    assert_eq!(
        (job.state, job.clean, job.percent),
        (JobState::Done, Some(true), 100.0)
    );
    assert_eq!((job.counts.equal, job.done, job.total), (700, 1_400, 1_400));
    assert!(job.not_checked.iter().any(|one| one.starts_with("ttl:")));
    assert!(!job.not_checked.iter().any(|one| one.starts_with("extra:")));
}

/// One of each way in which the new side can be wrong.
async fn corrupt(scene: &Scene) -> BTreeMap<&'static str, (Disagreement, Vec<&'static str>)> {
    let changed = |key: &Key, from: &str, to: &str| {
        let text = String::from_utf8(record(key, 1, "title 3").to_vec()).expect("text");
        assert!(text.contains(from), "{from} is not in {text}");
        text.replace(from, to)
    };
    let options = DeleteOptions::default;
    scene.new.delete(&task(1), options()).await.expect("memory");
    scene
        .put(
            &scene.new,
            &task(5_000),
            record(&task(5_000), 1, "nobody's"),
        )
        .await;
    let other = changed(&task(3), r#""status":"pending""#, r#""status":"completed""#);
    scene.put(&scene.new, &task(3), other).await;
    scene
        .put(&scene.old, &task(4), record(&task(4), 2, "title 4"))
        .await;
    scene
        .put(&scene.new, &task(6), record(&task(6), 9, "title 6"))
        .await;
    scene.put(&scene.new, &task(7), "no record at all").await;
    BTreeMap::from([
        ("task/task-1", (Disagreement::Missing, vec![])),
        ("task/task-5000", (Disagreement::Extra, vec![])),
        ("task/task-3", (Disagreement::Different, vec!["/status"])),
        (
            "task/task-4",
            (Disagreement::Stale, vec!["/_meta/rev", "/_meta/sum"]),
        ),
        (
            "task/task-6",
            (Disagreement::Ahead, vec!["/_meta/rev", "/_meta/sum"]),
        ),
        ("task/task-7", (Disagreement::Different, vec![""])),
    ])
}

#[tokio::test(start_paused = true)]
async fn every_corruption_is_found_with_its_field_and_repaired_on_request() {
    let scene = Scene::new(2);
    let replica = copied(&scene, 1_000).await;
    let expected = corrupt(&scene).await;
    let job = verify(&replica, full(Fix::Nothing)).await;
    let wanted = Counts {
        equal: 995,
        missing: 1,
        extra: 1,
        different: 2,
        stale: 1,
        ahead: 1,
        ..Counts::default()
    };
    assert_eq!((job.counts, job.clean), (wanted, Some(false)));
    let as_found = |repaired: fn(Disagreement) -> bool| {
        let expected = expected.iter().map(|(key, (how, fields))| {
            let fields: Vec<_> = fields.iter().map(|field| (*field).to_owned()).collect();
            ((*key).to_owned(), (*how, fields, repaired(*how)))
        });
        expected.collect::<BTreeMap<_, _>>()
    };
    assert_eq!(found(&replica).await, as_found(|_| false));

    // What is ahead may be all that is left of an acknowledged write, so it is not overwritten.
    let job = verify(&replica, full(Fix::Mismatches)).await;
    assert_eq!((job.counts.repaired, job.clean), (5, Some(false)));
    assert_eq!(
        found(&replica).await,
        as_found(|how| how != Disagreement::Ahead)
    );
    let job = verify(&replica, full(Fix::MismatchesAndAhead)).await;
    assert_eq!((job.counts.mismatches(), job.counts.repaired), (1, 1));
    let kept = scene
        .old
        .get(&task(6))
        .await
        .expect("memory")
        .expect("there");
    assert_eq!(kept.value, record(&task(6), 9, "title 6"));

    let job = verify(&replica, full(Fix::Nothing)).await;
    assert_eq!((job.clean, job.counts.equal), (Some(true), 1_000));
    assert!(found(&replica).await.is_empty());
    scene.assert_equal().await;
}

#[tokio::test(start_paused = true)]
async fn the_side_on_which_a_foreign_writer_was_is_named() {
    let scene = Scene::new(3);
    let replica = copied(&scene, 10).await;
    let text = String::from_utf8(record(&task(3), 1, "title 3").to_vec()).expect("text");
    scene
        .put(&scene.old, &task(3), text.replace("pending", "completed"))
        .await;
    let _ = verify(&replica, full(Fix::Nothing)).await;
    let request = DifferencesRequest::default();
    let found = replica
        .migration
        .differences(&request)
        .await
        .expect("readable");
    assert_eq!(found.differences[0].foreign, [Side::Old]);
}

#[tokio::test(start_paused = true)]
async fn corruptions_are_found_and_repaired_while_the_new_side_leads() {
    let scene = Scene::new(4);
    let replica = copied(&scene, 300).await;
    replica.go(Stage::RampDown).await;
    let options = DeleteOptions::default;
    scene.old.delete(&task(1), options()).await.expect("memory");
    scene
        .put(&scene.old, &task(900), record(&task(900), 1, "nobody's"))
        .await;
    scene
        .put(&scene.new, &task(3), record(&task(3), 4, "later"))
        .await;
    scene
        .put(&scene.old, &task(4), record(&task(4), 4, "later"))
        .await;
    let job = verify(&replica, full(Fix::Mismatches)).await;
    let Counts {
        missing,
        extra,
        stale,
        ahead,
        repaired,
        ..
    } = job.counts;
    assert_eq!((missing, extra, stale, ahead, repaired), (1, 1, 1, 1, 3));
    let job = verify(&replica, full(Fix::MismatchesAndAhead)).await;
    assert_eq!((job.counts.ahead, job.counts.repaired), (1, 1));
    let job = verify(&replica, full(Fix::Nothing)).await;
    assert_eq!(job.clean, Some(true), "{:?}", found(&replica).await);
    scene.assert_equal().await;
    let led = scene
        .new
        .get(&task(4))
        .await
        .expect("memory")
        .expect("there");
    assert_eq!(led.value, record(&task(4), 4, "later"));
}

#[tokio::test(start_paused = true)]
async fn a_mark_is_no_mismatch() {
    let scene = Scene::new(5);
    let replica = copied(&scene, 100).await;
    replica.new.is_down.store(true, Ordering::Relaxed);
    let stored = replica
        .store
        .get(&task(1))
        .await
        .expect("healthy")
        .expect("there");
    let options = PutOptions {
        mode: WriteMode::Match(stored.etag),
        ttl: None,
    };
    let value = record(&task(1), 2, "later");
    let put = replica.store.put(&task(1), value, options).await;
    let _ = put.expect("the new side is not asked");
    // Another replica can read the new side; nobody may repair it meanwhile.
    let other = scene.replica([CALM, CALM]);
    sleep(Duration::from_secs(1)).await;
    let looked = other
        .store
        .sides()
        .verify_one(&task(1), None, Fix::Nothing)
        .await;
    let counts = looked.expect("readable").counts;
    assert!(counts.behind + counts.equal == 1, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn what_ends_a_little_later_on_one_side_is_not_missed() {
    let scene = Scene::new(6);
    let replica = copied(&scene, 10).await;
    let key = Key::new(Kind::SEEN, "event-1");
    let options = PutOptions {
        ttl: Some(Duration::from_secs(60)),
        ..PutOptions::default()
    };
    let put = scene.new.put(&key, "{}".into(), options).await;
    let _ = put.expect("memory");
    let end = async {
        sleep(Duration::from_secs(1)).await;
        scene.clock.advance(Duration::from_secs(61));
    };
    let (looked, ()) = join(
        replica.store.sides().verify_one(&key, None, Fix::Nothing),
        end,
    )
    .await;
    assert_eq!(looked.expect("readable").counts.equal, 1);
}

#[tokio::test(start_paused = true)]
async fn a_sample_is_a_part_and_another_one_each_time() {
    let scene = Scene::new(7);
    let replica = copied(&scene, 2_000).await;
    let mut counts = BTreeSet::new();
    for _ in 0..3 {
        let request = VerifyRequest {
            scope: Scope::Sample(Share::parse("10").expect("a share")),
            ..full(Fix::Nothing)
        };
        let job = verify(&replica, request).await;
        assert!((120..280).contains(&job.counts.equal), "{:?}", job.counts);
        assert_eq!(job.state, JobState::Done);
        counts.insert(job.counts.equal);
    }
    assert!(counts.len() > 1, "{counts:?}");
    let status = replica.migration.status().await.expect("readable");
    assert!(status.full_verify.is_none(), "a sample is not everything");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_seen_is_said() {
    let scene = Scene::new(8);
    let new = MemoryStateStore::with_capabilities(scene.clock(), UNLISTED);
    let scene = scene.with_new(new);
    let replica = copied(&scene, 100).await;
    let job = verify(&replica, full(Fix::Nothing)).await;
    assert_eq!((job.clean, job.total), (Some(true), 100));
    assert!(
        job.not_checked.iter().any(|one| one.starts_with("extra:")),
        "{job:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn differences_are_bounded_and_filtered() {
    let scene = Scene::new(9);
    let replica = copied(&scene, 1_500).await;
    for number in 0..1_500 {
        let key = task(number);
        let value = match number {
            0..20 => "{\"status\":1}".into(),
            _ => record(&key, 1, "another"),
        };
        scene.put(&scene.new, &key, value).await;
    }
    let job = verify(&replica, full(Fix::Nothing)).await;
    assert_eq!(job.counts.different, 1_500);
    let ask = |field: Option<&str>, limit| {
        let field = field.map(str::to_owned);
        let migration = std::sync::Arc::clone(&replica.migration);
        async move {
            let request = DifferencesRequest { field, limit };
            migration.differences(&request).await.expect("readable")
        }
    };
    let all = ask(None, None).await;
    assert_eq!(
        (all.found, all.kept, all.differences.len()),
        (1_500, 1_000, 1_000)
    );
    assert_eq!(ask(None, Some(7)).await.differences.len(), 7);
    let titles = ask(Some("/title"), None).await.differences;
    assert_eq!(titles.len(), 1_000);
    let states = ask(Some("/status"), None).await.differences;
    assert!((1..=20).contains(&states.len()), "{}", states.len());
}

#[tokio::test(start_paused = true)]
async fn a_killed_verify_counts_every_record_once() {
    const KEYS: u64 = 3_000;
    let scene = Scene::new(10);
    let replicas = [copied(&scene, KEYS).await, scene.replica([CALM, CALM])];
    let expected = corrupt(&scene).await;
    let pacing = Pacing {
        keys_per_s: Some(100),
        ..Pacing::default()
    };
    let request = VerifyRequest {
        pacing,
        ..full(Fix::Nothing)
    };
    let _ = replicas[0]
        .migration
        .verify_start(request)
        .await
        .expect("none runs");
    let mut kills = 0;
    while replicas[0].job(VERIFY).await.state == JobState::Running {
        let lives = Duration::from_millis(500 + scene.below(15_000));
        replicas[kills % 2].work_for(lives).await;
        kills += 1;
    }
    assert!(kills > 3, "killed only {kills} times");
    let job = replicas[0].job(VERIFY).await;
    assert_eq!((job.counts.equal, job.counts.mismatches()), (KEYS - 5, 6));
    let found = replicas[0]
        .migration
        .differences(&DifferencesRequest::default())
        .await;
    assert_eq!(found.expect("readable").differences.len(), expected.len());
}

#[tokio::test(start_paused = true)]
async fn a_verify_keeps_to_its_rate_on_both_sides() {
    let scene = Scene::new(12);
    let replica = copied(&scene, 1_000).await;
    let pacing = Pacing {
        keys_per_s: Some(100),
        ..Pacing::default()
    };
    let request = VerifyRequest {
        pacing,
        ..full(Fix::Nothing)
    };
    let from = Instant::now();
    let job = verify(&replica, request).await;
    let took = from.elapsed().as_secs_f64();
    assert!((19.0..21.5).contains(&took), "2000 looks took {took} s");
    assert_eq!(job.clean, Some(true));
}

#[tokio::test(start_paused = true)]
async fn an_aborted_verify_can_be_followed_by_another() {
    let scene = Scene::new(11);
    let replica = copied(&scene, 100).await;
    let _ = replica
        .migration
        .verify_start(full(Fix::Nothing))
        .await
        .expect("none runs");
    let second = replica.migration.verify_start(full(Fix::Nothing)).await;
    assert!(second.is_err(), "one runs");
    let _ = replica
        .migration
        .abort(VERIFY, someone())
        .await
        .expect("it runs");
    let job = verify(&replica, full(Fix::Nothing)).await;
    assert_eq!(job.clean, Some(true));
}
