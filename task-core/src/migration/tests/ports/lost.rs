//! A new side that is gone, or has gone back to an earlier state.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::fakes::{Mood, SomeStore};
use super::scene::{Replica, Scene, coordinator, event, key, record, until};
use crate::application::TaskRecord;
use crate::memory::{SeededEntropy, lock};
use crate::migration::control::KIND;
use crate::migration::{
    Cause, JobKind, JobState, Migration, MigrationError, MigrationOptions, Moved, Port, Refusal,
    Rollback, Side, Stage,
};
use crate::ports::{
    Clock, Commit, DeleteOptions, Key, Kind, PutOptions, StateStore, Write, WriteMode,
};

const TASKS: u64 = 6;

fn facade(replica: &Replica) -> Migration {
    let options = MigrationOptions::default();
    Migration::new(&replica.store, Arc::new(SeededEntropy::new(1)), options)
}

fn new_lost() -> Rollback {
    Rollback {
        port: Port::State,
        to: None,
        cause: Cause::new("alice", "it is gone"),
        lost: Some(Side::New),
    }
}

fn old_lost() -> Rollback {
    Rollback {
        lost: Some(Side::Old),
        ..new_lost()
    }
}

fn refused(answer: Result<Moved, MigrationError>) -> Refusal {
    match answer {
        Err(MigrationError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

type Content = Vec<(Key, Bytes)>;

async fn content(store: &SomeStore) -> Content {
    let mut content = Vec::new();
    for kind in [Kind::TASK, KIND] {
        let page = store.inner.scan(kind, None, usize::MAX).await;
        let entries = page.expect("memory").entries.into_iter();
        content.extend(entries.map(|(key, stored)| (key, stored.value)));
    }
    content
}

/// Lets a side hold exactly this, as a backup does.
async fn restore(store: &SomeStore, backup: Content) {
    for (key, _) in content(store).await {
        let deleted = store.inner.delete(&key, DeleteOptions::default()).await;
        deleted.expect("memory");
    }
    for (key, value) in backup {
        let put = store.inner.put(&key, value, PutOptions::default()).await;
        put.expect("memory");
    }
}

fn task(number: u64) -> String {
    format!("task-{number}")
}

async fn rev(store: &impl StateStore, id: &str) -> Option<u64> {
    let found = store.get(&key(id)).await.expect("readable")?;
    let record = TaskRecord::decode(&found.value).expect("ours");
    record.revision.map(|revision| revision.rev)
}

fn change(id: &str, rev: u64, mode: WriteMode) -> Write {
    Write::Put {
        key: key(id),
        value: record(id, rev, "a"),
        options: PutOptions { mode, ttl: None },
    }
}

/// Counts the revision of a task up for ever, and notes what was answered, which nobody may write over.
async fn count(replica: &Replica, id: &str, answered: &Mutex<BTreeMap<String, u64>>) {
    loop {
        sleep(Duration::from_millis(7)).await;
        let Ok(found) = replica.store.get(&key(id)).await else {
            continue;
        };
        let (next, mode) = match &found {
            None => (1, WriteMode::Create),
            Some(stored) => {
                let record = TaskRecord::decode(&stored.value).expect("ours");
                let revision = record.revision.expect("it has one");
                (revision.rev + 1, WriteMode::Match(stored.etag.clone()))
            }
        };
        let write = Commit::of(change(id, next, mode));
        if replica.store.commit(write).await.is_ok() {
            let mut answered = lock(answered);
            let most = answered.entry(id.to_owned()).or_default();
            assert!(next > *most, "{id}: {next} over {most}, which was answered");
            *most = next;
        }
    }
}

async fn at(stage: Stage) -> (Scene, Replica, Migration) {
    let (scene, replica) = Scene::begun().await;
    let migration = facade(&replica);
    replica.moves_state(stage).await;
    (scene, replica, migration)
}

#[tokio::test(start_paused = true)]
async fn a_new_side_that_goes_back_under_traffic_is_left_without_loss_and_filled_anew() {
    for stage in [Stage::DualWrite, Stage::Live, Stage::RampDown] {
        let (scene, replica, migration) = at(stage).await;
        let _running = migration.start();
        let answered = Mutex::<BTreeMap<String, u64>>::default();
        let ids: Vec<String> = (0..TASKS).map(task).collect();
        let traffic = join_all(ids.iter().map(|id| count(&replica, id, &answered)));
        let losing = async {
            sleep(Duration::from_secs(5)).await;
            let backup = content(&scene.new).await;
            sleep(Duration::from_secs(5)).await;
            restore(&scene.new, backup).await;
            let began = Instant::now();
            let generation = async || migration.control().await.expect("readable").generation;
            let left = async {
                while generation().await == 1 {
                    sleep(Duration::from_millis(100)).await;
                }
            };
            timeout(Duration::from_secs(60), left)
                .await
                .expect("it is found out");
            let took = began.elapsed();
            sleep(Duration::from_secs(10)).await;
            took
        };
        let took = tokio::select! {
            took = losing => took,
            _ = traffic => unreachable!("traffic never ends"),
        };
        assert!(took < Duration::from_secs(10), "after {took:?}");
        let control = migration.control().await.expect("readable");
        let expected = stage.min(Stage::Shadow);
        assert_eq!(control.state.to_string(), format!("{expected} 100.00 %"));
        let answered = lock(&answered).clone();
        for (id, answered) in answered {
            let held = rev(&*replica.store, &id).await;
            assert!(held >= Some(answered), "{stage}: {id} {held:?} {answered}");
        }
        let job = migration.job(JobKind::Backfill).await.expect("readable");
        let job = job.expect("the new side is filled anew");
        assert_eq!((job.generation, job.state), (2, JobState::Done));
        let audit = migration.audit(10).await.expect("readable");
        let why = |who: &str| audit.iter().filter(|entry| entry.cause.who == who).count();
        assert!(why("canary") > 0, "{audit:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_side_that_is_only_away_or_written_by_many_has_not_gone_back() {
    let (scene, one) = Scene::begun().await;
    let two = scene.replica();
    one.moves_state(Stage::Live).await;
    two.follows().await;
    let (first, second) = (facade(&one), facade(&two));
    let _running = [first.start(), second.start()];
    for mood in [
        Mood::Uneven(Duration::from_millis(900)),
        Mood::Refuses,
        Mood::Forgets,
        Mood::Works,
    ] {
        scene.new.writes.set(mood);
        scene.new.reads.set(mood);
        sleep(Duration::from_secs(30)).await;
    }
    let control = first.control().await.expect("readable");
    assert_eq!(control.state.to_string(), "live 100.00 %");
    assert_eq!(control.generation, 1);
}

#[tokio::test(start_paused = true)]
async fn new_lost_is_refused_while_the_new_side_has_everything() {
    let (_scene, _replica, migration) = at(Stage::RampDown).await;
    let running = migration.start();
    sleep(Duration::from_secs(3)).await;
    running.stop().await;
    let refusal = refused(migration.rollback(new_lost()).await);
    assert_eq!(refusal.guard, "new_side_lost");
    let to_off = Rollback {
        to: Some("off".to_owned()),
        ..new_lost()
    };
    let error = migration.rollback(to_off).await.expect_err("two ends");
    assert_eq!(error.exit_code(), 64, "{error}");
    let of_bus = Rollback {
        port: Port::Bus,
        ..new_lost()
    };
    let error = migration.rollback(of_bus).await.expect_err("no records");
    assert_eq!(error.exit_code(), 64, "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_is_complete_cannot_leave_the_new_side() {
    let (scene, _replica, migration) = at(Stage::Complete).await;
    scene.new.reads.set(Mood::Refuses);
    let refusal = refused(migration.rollback(new_lost()).await);
    assert_eq!(refusal.guard, "no_way_back");
}

#[tokio::test(start_paused = true)]
async fn new_lost_tells_each_write_that_was_not_answered_and_publishes_what_was_made() {
    let (scene, replica, migration) = at(Stage::RampDown).await;
    let told = |id: &str| event(id, 1, scene.clock.now());
    for number in 0..TASKS {
        let id = task(number);
        let birth = change(&id, 1, WriteMode::Create);
        let written = replica.store.commit(Commit::of(birth)).await;
        written.expect("both are there");
    }
    // A change and a birth that nobody finishes, because the new side does not answer any more.
    scene.new.writes.set(Mood::Hangs);
    let unfinished = [
        ("task-0", 2, WriteMode::Overwrite),
        ("born", 1, WriteMode::Create),
    ];
    let mut requests = Vec::new();
    for (id, rev, mode) in unfinished {
        let store = Arc::clone(&replica.store);
        let commit = Commit::of(change(id, rev, mode)).event(told(id));
        requests.push(tokio::spawn(async move { store.commit(commit).await }));
    }
    let noted = || scene.old.inner.scan(Kind::listed("reverse"), None, 10);
    while noted().await.expect("memory").entries.len() < 2 {
        sleep(Duration::from_millis(1)).await;
    }
    // Their replica dies: it is waited for until its lease is over.
    replica.stop().await;
    requests.iter().for_each(tokio::task::JoinHandle::abort);
    restore(&scene.new, Vec::new()).await;
    scene.new.reads.set(Mood::Refuses);

    let other = scene.replica();
    let migration_of_other = facade(&other);
    drop(migration);
    other.follows().await;
    let moved = migration_of_other.rollback(new_lost()).await;
    let moved = moved.expect("the new side is away");
    let unanswered: Vec<(&str, bool)> = moved
        .unanswered
        .iter()
        .map(|write| (&*write.key, write.made))
        .collect();
    assert_eq!(unanswered, [("task/born", true), ("task/task-0", false)]);
    let audit = migration_of_other.audit(1).await.expect("readable");
    assert_eq!(audit[0].cause.who, "alice");
    assert!(audit[0].change().contains("generation 1 → 2"), "{audit:?}");

    other.follows().await;
    assert_eq!(rev(&*other.store, "born").await, Some(1));
    for number in 0..TASKS {
        assert_eq!(rev(&*other.store, &task(number)).await, Some(1));
    }
    let pending = scene.old.inner.pending(None, 100).await.expect("memory");
    let pending: Vec<_> = pending.into_iter().map(|one| one.event).collect();
    assert_eq!(pending, [told("born")]);
    let marks = migration_of_other.repair_status().await.expect("readable");
    assert_eq!(marks.reverse.count, 0);
}

#[tokio::test(start_paused = true)]
async fn nobody_reads_the_lost_side_while_the_right_to_write_comes_back() {
    let (scene, replica, migration) = at(Stage::RampDown).await;
    let running = migration.start();
    let birth = change("task-1", 1, WriteMode::Create);
    let written = replica.store.commit(Commit::of(birth)).await;
    written.expect("both are there");
    sleep(Duration::from_secs(3)).await;
    running.stop().await;
    restore(&scene.new, Vec::new()).await;
    // It is waited for, and the first one waits with it.
    let slow = scene.slow_replica();
    slow.follows().await;
    let reading = async {
        let mut reads = 0;
        loop {
            let pin = replica.member.pin().expect("it takes part");
            let is_waiting = pin.control().waiting_from.is_some();
            drop(pin);
            if is_waiting {
                assert_eq!(rev(&*replica.store, "task-1").await, Some(1));
                reads += 1;
            } else if reads > 0 {
                return reads;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let (moved, reads) = tokio::join!(migration.rollback(new_lost()), reading);
    moved.expect("it has gone back");
    assert!(reads > 10, "{reads} reads while nobody could write");
    assert_eq!(rev(&*replica.store, "task-1").await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn what_the_new_side_has_lost_is_not_deleted_on_the_old_one() {
    let (scene, replica, _migration) = at(Stage::RampDown).await;
    let birth = change("task-1", 1, WriteMode::Create);
    let written = replica.store.commit(Commit::of(birth)).await;
    written.expect("both are there");
    scene.new.writes.set(Mood::Hangs);
    let store = Arc::clone(&replica.store);
    let request = tokio::spawn(async move {
        let write = Commit::of(change("task-1", 2, WriteMode::Overwrite));
        store.commit(write).await
    });
    let is_noted = || {
        let marks = futures_util::FutureExt::now_or_never(scene.old.inner.scan(
            Kind::listed("reverse"),
            None,
            10,
        ));
        marks.is_some_and(|page| !page.expect("memory").entries.is_empty())
    };
    until("a note", is_noted).await;
    restore(&scene.new, Vec::new()).await;
    scene.new.writes.set(Mood::Works);
    // Somebody finishes what was not finished.
    sleep(Duration::from_secs(5)).await;
    assert!(!is_noted(), "nobody has finished it");
    assert_eq!(rev(&scene.old.inner, "task-1").await, Some(1));
    request.abort();
}

#[tokio::test(start_paused = true)]
async fn an_old_side_that_is_gone_is_left_with_all_that_was_answered() {
    let (scene, replica, migration) = at(Stage::RampDown).await;
    for number in 0..TASKS {
        let birth = change(&task(number), 1, WriteMode::Create);
        let written = replica.store.commit(Commit::of(birth)).await;
        written.expect("both are there");
    }
    let refusal = refused(migration.rollback(old_lost()).await);
    assert_eq!(refusal.guard, "old_side_lost");
    // An empty store is in its place.
    restore(&scene.old, Vec::new()).await;
    sleep(Duration::from_secs(10)).await;
    let unknown = replica.store.get(&key("task-0")).await;
    unknown.expect_err("nobody knows who decides");

    let moved = migration.rollback(old_lost()).await;
    let moved = moved.expect("the new side has everything");
    assert_eq!(moved.to[0].stage, "complete");
    assert_eq!(moved.unanswered, []);
    replica.follows().await;
    for number in 0..TASKS {
        assert_eq!(rev(&*replica.store, &task(number)).await, Some(1));
    }
    let next = change("task-0", 2, WriteMode::Overwrite);
    let written = replica.store.commit(Commit::of(next)).await;
    written.expect("the new side decides");
    let audit = migration.audit(1).await.expect("readable");
    assert_eq!(audit[0].cause.who, "alice");
}

#[tokio::test(start_paused = true)]
async fn an_old_side_that_decided_cannot_be_left() {
    for stage in [Stage::Off, Stage::Live] {
        let (scene, replica, migration) = at(Stage::RampDown).await;
        for past in [Stage::RampDown, Stage::Live] {
            if past > stage {
                let mut coordinator = coordinator(&replica);
                let back = coordinator.advance(past, 0).await;
                back.expect("nothing is behind");
            }
        }
        restore(&scene.old, Vec::new()).await;
        let refusal = refused(migration.rollback(old_lost()).await);
        assert_eq!(refusal.guard, "new_side_decides", "{stage}");
    }
}
