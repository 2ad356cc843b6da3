//! Looks at records that change and move, of which none may be accused.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{join, join_all, join3};
use tokio::time::{Instant, sleep};

use super::faulty::Faults;
use super::scene::{CALM, Replica, Scene, record, seeds, task};
use super::verify::{VERIFY, copied, found, full};
use crate::application::TaskRecord;
use crate::migration::verify::Look;
use crate::migration::{Fix, JobState, Stage};
use crate::ports::{DeleteMode, DeleteOptions, Outcome, PutOptions, StateStore, WriteMode};

/// Changes tasks as clients do, until it is told to stop.
async fn work(scene: &Scene, replica: &Replica, name: usize, stop: &AtomicBool) {
    let mut count = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(scene.below(20))).await;
        count += 1;
        let key = task(scene.below(200));
        let Ok(found) = replica.store.get(&key).await else {
            continue;
        };
        let title = format!("{name}.{count}");
        let done = match found {
            Some(stored) if scene.below(40) == 0 => {
                let options = DeleteOptions {
                    mode: DeleteMode::Match(stored.etag),
                    tombstone: Some(Duration::MAX),
                };
                replica.store.delete(&key, options).await
            }
            Some(stored) => {
                let options = PutOptions {
                    mode: WriteMode::Match(stored.etag),
                    ttl: None,
                };
                let value = record(&key, 1_000 + count * 10 + name as u64, &title);
                replica.store.put(&key, value, options).await.map(drop)
            }
            None => {
                let key = task(1_000_000 * (1 + name as u64) + count);
                let options = PutOptions {
                    mode: WriteMode::Create,
                    ttl: None,
                };
                replica
                    .store
                    .put(&key, record(&key, 1, &title), options)
                    .await
                    .map(drop)
            }
        };
        // A conflict is a client's daily bread.
        if let Err(error) = done {
            assert!(
                error.is_conflict()
                    || error.outcome() == Outcome::Unknown
                    || error.outcome() == Outcome::NotMade
                    || error.to_string().contains("on purpose"),
                "{error}"
            );
        }
    }
}

/// Even one look is right; that a mismatch is looked at twice is for what no proof knows of.
#[tokio::test(start_paused = true)]
async fn no_single_look_is_wrong_about_a_record_that_changes_all_the_time() {
    for seed in seeds(400) {
        let scene = Scene::new(seed);
        let leader = copied(&scene, 3).await;
        let replicas = [CALM; 4].map(|calm| scene.replica([calm, calm]));
        sleep(Duration::from_secs(2)).await;
        for slow in &replicas {
            slow.old.is_healthy.store(false, Ordering::Relaxed);
            slow.new.is_healthy.store(false, Ordering::Relaxed);
        }
        let stop = AtomicBool::new(false);
        let write = async |replica: &Replica| {
            while !stop.load(Ordering::Relaxed) {
                let key = task(scene.below(3));
                if let Ok(Some(found)) = replica.store.get(&key).await {
                    let last = TaskRecord::decode(&found.value).expect("ours").revision;
                    let rev = last.expect("ours").rev + 1;
                    let options = PutOptions {
                        mode: WriteMode::Match(found.etag),
                        ttl: None,
                    };
                    let value = record(&key, rev, "changed");
                    let _ = replica.store.put(&key, value, options).await;
                }
                sleep(Duration::from_millis(scene.below(100))).await;
            }
        };
        let looks = async |replica: &Replica| {
            let mut compared = 0;
            while !stop.load(Ordering::Relaxed) {
                let key = task(scene.below(3));
                match replica.store.sides().look(&key).await {
                    Ok(Look::Equal) => compared += 1,
                    Ok(look @ Look::Disagree { .. }) => panic!("{key}: {look:#?}"),
                    Ok(Look::Behind | Look::NotCompared) | Err(_) => {}
                }
            }
            assert!(compared > 50, "compared only {compared}");
        };
        let wander = async {
            for to in [Stage::Live, Stage::RampDown].into_iter().cycle().take(40) {
                leader.try_go(to).await;
                sleep(Duration::from_millis(scene.below(1_500))).await;
            }
            stop.store(true, Ordering::Relaxed);
        };
        let nap = async {
            while !stop.load(Ordering::Relaxed) {
                let time = Duration::from_millis(scene.below(800));
                replicas[2].process.stop_for(time);
                sleep(time + Duration::from_millis(100)).await;
            }
        };
        let writers = join(write(&replicas[0]), write(&replicas[1]));
        let lookers = join_all([2, 3, 2, 3].map(|which: usize| looks(&replicas[which])));
        join3(join(writers, lookers), wander, nap).await;
    }
}

async fn nobody_is_accused(seed: u64, faults: [Faults; 2]) {
    let scene = Scene::new(seed);
    let leader = copied(&scene, 200).await;
    let replicas = [scene.replica(faults), scene.replica(faults)];
    sleep(Duration::from_secs(2)).await;
    let stop = AtomicBool::new(false);
    let workers = (0..6).map(|name| work(&scene, &replicas[name % 2], name, &stop));
    let verifier = scene.replica(faults);
    for slow in replicas.iter().chain([&verifier]) {
        slow.old.is_healthy.store(false, Ordering::Relaxed);
        slow.new.is_healthy.store(false, Ordering::Relaxed);
    }
    let running = verifier.migration.start();
    let look = async {
        let until = Instant::now() + Duration::from_secs(60);
        let mut compared = 0;
        while Instant::now() < until {
            let started = leader.migration.verify_start(full(Fix::Nothing)).await;
            let _ = started.expect("none runs");
            let job = leader.ended(VERIFY).await;
            let found = found(&leader).await;
            assert_eq!(job.counts.mismatches(), 0, "{found:#?}");
            assert_eq!(job.state, JobState::Done, "{job:#?}");
            compared += job.counts.equal;
        }
        assert!(compared > 500, "compared only {compared}");
        stop.store(true, Ordering::Relaxed);
    };
    let wander = async {
        let stages = [
            Stage::Shadow,
            Stage::Live,
            Stage::RampDown,
            Stage::Live,
            Stage::DualWrite,
        ];
        let mut stages = stages.iter().cycle();
        while !stop.load(Ordering::Relaxed) {
            let to = *stages.next().expect("a cycle");
            leader.try_go(to).await;
            sleep(Duration::from_millis(scene.below(3_000))).await;
        }
    };
    join(join(look, wander), join_all(workers)).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_is_accused_wrongly_while_records_change_and_move() {
    for seed in seeds(200) {
        nobody_is_accused(seed, [CALM, CALM]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_accused_wrongly_while_calls_fail() {
    const BAD: Faults = Faults {
        refused: 500,
        unanswered: 500,
    };
    for seed in seeds(300) {
        nobody_is_accused(seed, [BAD, BAD]).await;
    }
}
