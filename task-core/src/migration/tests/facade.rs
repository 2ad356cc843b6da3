//! A whole move as a person makes it, and every guard that may say no.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::scene::{CALM, Replica, Scene, record, someone, task};
use crate::application::Lease;
use crate::migration::{
    Advance, Confirmation, Fix, JobKind, MigrationError, Moved, Pacing, Port, Refusal, Rollback,
    Run, Scope, Share, VerifyRequest,
};
use crate::ports::{DeleteOptions, PendingId, PutOptions, StateStore, WriteMode};

const YES: &[Confirmation] = &[Confirmation::NoForeignWriters, Confirmation::NoWayBack];

fn to(stage: &str, share: &str, confirmed: &[Confirmation]) -> Advance {
    Advance {
        port: Port::State,
        to: stage.to_owned(),
        share: Share::parse(share).expect("a share"),
        cause: someone(),
        confirmed: confirmed.to_vec(),
        run: Run::Real,
    }
}

async fn advance(replica: &Replica, stage: &str, share: &str) -> Moved {
    let moved = replica.migration.advance(to(stage, share, YES)).await;
    moved.unwrap_or_else(|error| panic!("{stage}: {error}"))
}

async fn refusal(replica: &Replica, request: Advance) -> Refusal {
    match replica.migration.advance(request).await {
        Err(MigrationError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

async fn backfill(replica: &Replica) {
    let started = replica.migration.backfill_start(Pacing::default()).await;
    let _ = started.expect("mirrored");
    let _ = replica.finish(JobKind::Backfill).await;
}

async fn verify(replica: &Replica, fix: Fix) {
    let request = VerifyRequest {
        scope: Scope::Full,
        fix,
        pacing: Pacing::default(),
    };
    let _ = replica
        .migration
        .verify_start(request)
        .await
        .expect("none runs");
    let _ = replica.finish(JobKind::Verify).await;
}

fn stages(moved: &Moved) -> String {
    let stages = moved.to.iter();
    let stages = stages.map(|share| format!("{} {}", share.stage, share.percent));
    stages.collect::<Vec<_>>().join(", ")
}

#[tokio::test(start_paused = true)]
async fn a_move_goes_from_the_beginning_to_the_end() {
    let scene = Scene::new(1);
    scene.fill(500).await;
    let replica = scene.replica([CALM, CALM]);
    let nothing = replica.migration.status().await.expect("readable");
    assert!(!nothing.begun);
    let _ = replica
        .migration
        .init(someone())
        .await
        .expect("the first one");
    sleep(Duration::from_secs(1)).await;

    let moved = advance(&replica, "dualwrite", "100").await;
    assert_eq!(
        (stages(&moved), moved.rehearsed),
        ("dualwrite 100.00 %".to_owned(), false)
    );
    backfill(&replica).await;
    let moved = advance(&replica, "shadow", "50").await;
    assert_eq!(stages(&moved), "shadow 50.00 %, dualwrite 50.00 %");
    assert!(moved.rehearsed);
    let moved = advance(&replica, "shadow", "100").await;
    assert!(!moved.rehearsed);
    sleep(Duration::from_secs(1)).await;
    let status = replica.migration.status().await.expect("readable");
    let next = status.ports[0].next.as_ref().expect("a way on");
    assert_eq!((&*next.to, next.safe), ("live", false));
    assert_eq!(next.failing, ["verify_clean", "verify_recent"]);
    verify(&replica, Fix::Nothing).await;
    let status = replica.migration.status().await.expect("readable");
    let next = status.ports[0].next.as_ref().expect("a way on");
    assert!(next.safe, "{next:#?}");

    for stage in ["live", "rampdown", "complete"] {
        let moved = advance(&replica, stage, "100").await;
        assert_eq!(stages(&moved), format!("{stage} 100.00 %"));
        assert_eq!(moved.rehearsed, stage != "complete");
    }
    let status = replica.migration.status().await.expect("readable");
    assert!(status.ports[0].next.is_none());
    let report = replica.migration.report().await.expect("readable");
    assert!(report.complete, "{report}");
    let text = report.to_string();
    for part in [
        "state: complete 100.00 %",
        "500 copied",
        "; clean",
        "tester: to see",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let json = serde_json::to_string(&report).expect("JSON");
    let again: crate::migration::Report = serde_json::from_str(&json).expect("our own");
    assert_eq!(again, report);
}

#[tokio::test(start_paused = true)]
async fn a_jump_is_refused_and_a_dry_run_changes_nothing() {
    let scene = Scene::new(2);
    let replica = scene.begun().await;
    let refused = refusal(&replica, to("shadow", "1", YES)).await;
    assert_eq!(refused.guard, "no_jump");
    let request = VerifyRequest {
        scope: Scope::Full,
        fix: Fix::Nothing,
        pacing: Pacing::default(),
    };
    let error = replica.migration.verify_start(request).await;
    let error = error.expect_err("nothing to compare").to_string();
    assert!(error.contains("something_mirrored"), "{error}");
    assert!(
        refused.detail.contains("dualwrite has 0"),
        "{}",
        refused.detail
    );
    let _ = advance(&replica, "dualwrite", "25").await;
    let refused = refusal(&replica, to("shadow", "25.01", YES)).await;
    assert_eq!(refused.guard, "no_jump");
    let dry = Advance {
        run: Run::Dry,
        ..to("shadow", "25", YES)
    };
    let before = replica.migration.status().await.expect("readable").epoch;
    let moved = replica.migration.advance(dry).await.expect("allowed");
    assert_eq!(stages(&moved), "shadow 25.00 %, off 75.00 %");
    assert_eq!(
        replica.migration.status().await.expect("readable").epoch,
        before
    );
    for (port, stage) in [
        (Port::State, "handoff"),
        (Port::State, "Live"),
        (Port::State, "off"),
    ] {
        let request = Advance {
            port,
            ..to(stage, "100", YES)
        };
        let error = replica
            .migration
            .advance(request)
            .await
            .expect_err("no such step");
        assert_eq!(error.exit_code(), 64, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn live_needs_a_backfill_a_clean_verify_and_no_old_mark() {
    let scene = Scene::new(3);
    scene.fill(100).await;
    let replica = scene.begun().await;
    let _ = advance(&replica, "dualwrite", "100").await;
    let _ = advance(&replica, "shadow", "100").await;
    let refused = refusal(&replica, to("live", "1", YES)).await;
    assert_eq!(refused.guard, "backfill_complete");
    assert!(
        refused
            .conditions
            .iter()
            .any(|condition| condition.name == "verify_clean")
    );
    backfill(&replica).await;
    assert_eq!(
        refusal(&replica, to("live", "1", YES)).await.guard,
        "verify_clean"
    );

    scene
        .new
        .delete(&task(1), DeleteOptions::default())
        .await
        .expect("memory");
    verify(&replica, Fix::Mismatches).await;
    // It was repaired, and nobody has seen yet that all is well.
    let refused = refusal(&replica, to("live", "1", YES)).await;
    assert_eq!(refused.guard, "verify_clean");
    assert!(
        refused.detail.contains("1 mismatches"),
        "{}",
        refused.detail
    );
    verify(&replica, Fix::Nothing).await;

    scene.clock.advance(Duration::from_secs(25 * 3600));
    assert_eq!(
        refusal(&replica, to("live", "1", YES)).await.guard,
        "verify_recent"
    );
    verify(&replica, Fix::Nothing).await;

    replica.new.is_down.store(true, Ordering::Relaxed);
    let value = record(&task(200), 1, "new");
    let put = replica
        .store
        .put(&task(200), value, PutOptions::default())
        .await;
    let _ = put.expect("the new side is not asked");
    scene.clock.advance(Duration::from_secs(31));
    assert_eq!(
        refusal(&replica, to("live", "1", YES)).await.guard,
        "no_old_mark"
    );
    replica.new.is_down.store(false, Ordering::Relaxed);
    let _ = replica
        .migration
        .repair_drain(Duration::from_secs(5))
        .await
        .expect("readable");

    assert_eq!(
        refusal(&replica, to("live", "1", &[])).await.guard,
        "no_foreign_writers"
    );
    let _ = advance(&replica, "live", "1").await;
}

#[tokio::test(start_paused = true)]
async fn what_was_verified_does_not_count_after_everything_was_off() {
    let scene = Scene::new(4);
    scene.fill(100).await;
    let replica = scene.begun().await;
    let _ = advance(&replica, "dualwrite", "100").await;
    backfill(&replica).await;
    verify(&replica, Fix::Nothing).await;
    let back = Rollback {
        port: Port::State,
        to: Some("off".to_owned()),
        cause: someone(),
        lost: None,
    };
    let _ = replica
        .migration
        .rollback(back)
        .await
        .expect("nothing is lost");
    let _ = advance(&replica, "dualwrite", "100").await;
    let _ = advance(&replica, "shadow", "100").await;
    let refused = refusal(&replica, to("live", "1", YES)).await;
    assert_eq!(refused.guard, "backfill_complete");
    backfill(&replica).await;
    assert_eq!(
        refusal(&replica, to("live", "1", YES)).await.guard,
        "verify_clean"
    );
}

async fn at_rampdown(scene: &Scene) -> Replica {
    scene.fill(100).await;
    let replica = scene.begun().await;
    let _ = advance(&replica, "dualwrite", "100").await;
    backfill(&replica).await;
    verify(&replica, Fix::Nothing).await;
    for stage in ["shadow", "live", "rampdown"] {
        let _ = advance(&replica, stage, "100").await;
    }
    replica
}

#[tokio::test(start_paused = true)]
async fn a_rollback_goes_one_stage_or_all_the_way() {
    let scene = Scene::new(5);
    let replica = at_rampdown(&scene).await;
    let back = |to: Option<&str>| Rollback {
        port: Port::State,
        to: to.map(str::to_owned),
        cause: someone(),
        lost: None,
    };
    let moved = replica
        .migration
        .rollback(back(None))
        .await
        .expect("a way back");
    assert_eq!(stages(&moved), "live 100.00 %");
    let moved = replica
        .migration
        .rollback(back(Some("off")))
        .await
        .expect("a way back");
    assert_eq!(stages(&moved), "off 100.00 %");
    let moved = replica
        .migration
        .rollback(back(None))
        .await
        .expect("nothing to do");
    assert_eq!(stages(&moved), "off 100.00 %");
}

#[tokio::test(start_paused = true)]
async fn complete_is_confirmed_waits_for_events_and_is_final() {
    let scene = Scene::new(6);
    let replica = at_rampdown(&scene).await;
    assert_eq!(
        refusal(&replica, to("complete", "100", &[])).await.guard,
        "no_way_back"
    );
    let event = crate::ports::Event {
        topic: crate::ports::Topic::new("t"),
        key: "task-1".into(),
        payload: "x".into(),
    };
    let commit = crate::ports::Commit::default().event(event);
    let _ = scene.old.commit(commit).await.expect("memory");
    let refused = refusal(&replica, to("complete", "100", YES)).await;
    assert_eq!(refused.guard, "old_events_published");
    let pending = scene.old.pending(None, 10).await.expect("memory");
    let ids: Vec<PendingId> = pending.into_iter().map(|event| event.id).collect();
    scene.old.settle(&ids).await.expect("memory");
    let _ = advance(&replica, "complete", "100").await;
    let back = Rollback {
        port: Port::State,
        to: None,
        cause: someone(),
        lost: None,
    };
    let error = replica.migration.rollback(back).await.expect_err("final");
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("no_way_back"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_does_not_follow_stops_every_step() {
    let scene = Scene::new(7);
    let replica = scene.begun().await;
    let slow = scene.replica([CALM, CALM]);
    sleep(Duration::from_secs(1)).await;
    let pin = slow.member.pin().expect("it takes part");
    let _ = advance(&replica, "dualwrite", "100").await;
    sleep(Duration::from_secs(1)).await;
    let refused = refusal(&replica, to("shadow", "100", YES)).await;
    assert_eq!(refused.guard, "replicas_adopted");
    assert!(
        refused.detail.contains(slow.member.id()),
        "{}",
        refused.detail
    );
    drop(pin);
    sleep(Duration::from_secs(1)).await;
    let _ = advance(&replica, "shadow", "100").await;
}

#[tokio::test(start_paused = true)]
async fn many_that_have_died_are_waited_for_at_once() {
    let scene = Scene::new(1);
    let replica = scene.begun().await;
    let dead: Vec<Replica> = (0..8).map(|_| scene.replica([CALM, CALM])).collect();
    sleep(Duration::from_secs(1)).await;
    for dead in &dead {
        dead.process.stop_for(Duration::from_secs(3600));
    }
    // They have adopted what this step begins from, and no more than that.
    advance(&replica, "dualwrite", "1").await;
    advance(&replica, "dualwrite", "2").await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_leader_is_followed_and_a_living_one_is_not_overtaken() {
    let scene = Scene::new(8);
    let replica = scene.begun().await;
    let old = std::sync::Arc::clone(&replica.old) as std::sync::Arc<dyn StateStore>;
    let length = Duration::from_secs(5);
    let name = "migration-coordinator";
    let lease = Lease::new(old, name, length, scene.clock(), &*scene.entropy);
    let mut other = lease.expect("conditional writes");
    assert!(other.hold().await.expect("healthy"));
    // It died: nothing is heard of it any more.
    let _ = advance(&replica, "dualwrite", "100").await;

    let keep = async {
        loop {
            let _ = other.hold().await;
            sleep(Duration::from_secs(1)).await;
        }
    };
    sleep(Duration::from_secs(15)).await;
    let ask = async {
        sleep(Duration::from_millis(100)).await;
        refusal(&replica, to("shadow", "100", YES)).await
    };
    let refused = match futures_util::future::select(Box::pin(ask), Box::pin(keep)).await {
        futures_util::future::Either::Left((refused, _)) => refused,
        futures_util::future::Either::Right(((), _)) => panic!("it does not end"),
    };
    assert_eq!(refused.guard, "one_coordinator");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_dies_in_a_time_without_writes_is_cleared_up_after() {
    for seed in 20..40 {
        let scene = Scene::new(seed);
        let replica = at_rampdown(&scene).await;
        let other = scene.replica([CALM, CALM]);
        sleep(Duration::from_secs(1)).await;
        let running = other.migration.start();
        replica.old.is_healthy.store(false, Ordering::Relaxed);
        let back = Rollback {
            port: Port::State,
            to: None,
            cause: someone(),
            lost: None,
        };
        let lives = Duration::from_millis(scene.below(1_500));
        let _ = timeout(lives, replica.migration.rollback(back)).await;
        let key = task(scene.below(100));
        let write = async {
            loop {
                let found = other
                    .store
                    .get(&key)
                    .await
                    .expect("healthy")
                    .expect("there");
                let options = PutOptions {
                    mode: WriteMode::Match(found.etag),
                    ttl: None,
                };
                let put = other
                    .store
                    .put(&key, record(&key, 2, "again"), options)
                    .await;
                if put.is_ok() {
                    break;
                }
            }
        };
        let written = timeout(Duration::from_secs(12), write).await;
        assert!(written.is_ok(), "nobody can write after {lives:?}");
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_plan_names_the_steps_in_both_directions() {
    let scene = Scene::new(9);
    let replica = scene.begun().await;
    let _ = advance(&replica, "dualwrite", "100").await;
    let plan = replica
        .migration
        .plan(Port::State, "live")
        .await
        .expect("readable");
    let commands: Vec<_> = plan.steps.iter().map(|step| &*step.command).collect();
    assert_eq!(
        commands,
        [
            "advance --port state --to shadow",
            "advance --port state --to live"
        ]
    );
    assert!(
        plan.steps[1]
            .conditions
            .iter()
            .any(|condition| !condition.holds)
    );
    assert_eq!(plan.steps[1].to_confirm, [Confirmation::NoForeignWriters]);
    let plan = replica
        .migration
        .plan(Port::State, "off")
        .await
        .expect("readable");
    assert_eq!(plan.steps[0].command, "rollback --port state --to off");
}

#[tokio::test(start_paused = true)]
async fn what_is_unreachable_is_no_refusal() {
    let scene = Scene::new(10);
    let replica = scene.begun().await;
    replica.old.is_down.store(true, Ordering::Relaxed);
    let error = replica
        .migration
        .status()
        .await
        .expect_err("nobody answers");
    assert_eq!(error.exit_code(), 3);
    replica.old.is_down.store(false, Ordering::Relaxed);
    let again = replica
        .migration
        .init(someone())
        .await
        .expect_err("it has begun");
    assert_eq!(again.exit_code(), 2);
}
