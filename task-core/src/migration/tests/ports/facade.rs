//! The bus and the notifier as a person moves them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::bus::{Heard, subscription};
use super::fakes::Mood;
use super::scene::{Replica, Scene, coordinator};
use crate::migration::{
    Advance, Cause, Confirmation, Migration, MigrationError, MigrationOptions, Moved,
    NotifierStage, Port, Refusal, Rollback, Run, Share,
};
use crate::ports::EventBus;

fn facade(replica: &Replica, moves: &'static [Port]) -> Migration {
    let options = MigrationOptions {
        moves,
        ..MigrationOptions::default()
    };
    let entropy = Arc::new(crate::memory::SeededEntropy::new(1));
    Migration::new(&replica.store, entropy, options)
}

fn to(port: Port, stage: &str) -> Advance {
    Advance {
        port,
        to: stage.to_owned(),
        share: Share::ALL,
        cause: Cause::new("alice", "to see"),
        confirmed: vec![Confirmation::NoWayBack],
        run: Run::Real,
    }
}

fn back(port: Port, stage: Option<&str>) -> Rollback {
    Rollback {
        port,
        to: stage.map(str::to_owned),
        cause: Cause::new("alice", "to see"),
        lost: None,
    }
}

fn stages(moved: &Moved) -> String {
    let stages = moved.to.iter();
    let stages = stages.map(|share| format!("{} {}", share.stage, share.percent));
    stages.collect::<Vec<_>>().join(", ")
}

fn refused<T: std::fmt::Debug>(answer: Result<T, MigrationError>) -> Refusal {
    match answer {
        Err(MigrationError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_bus_moves_behind_its_subscribers_and_not_back_from_complete() {
    let (scene, replica) = Scene::begun().await;
    let migration = facade(&replica, &Port::ALL);
    scene.new_bus.subscribing.set(Mood::Refuses);
    let heard = Arc::new(Heard::default());
    let subscribed = replica.bus.subscribe(subscription(), heard).await;
    let _subscribed = subscribed.expect("the old bus is there");
    let plan = migration.plan(Port::Bus, "complete").await.expect("a plan");
    let commands: Vec<&str> = plan.steps.iter().map(|step| &*step.command).collect();
    assert_eq!(commands.len(), 3);
    assert_eq!(commands[1], "advance --port bus --to live");
    let moved = migration
        .advance(to(Port::Bus, "shadow"))
        .await
        .expect("a step");
    assert_eq!(
        (stages(&moved), moved.rehearsed),
        ("shadow 100.00 %".to_owned(), false)
    );
    let refusal = refused(migration.advance(to(Port::Bus, "live")).await);
    assert_eq!(refusal.guard, "subscribers_hear");
    sleep(Duration::from_secs(1)).await;
    let status = migration.status().await.expect("readable");
    let ports: Vec<Port> = status.ports.iter().map(|port| port.port).collect();
    assert_eq!(ports, Port::ALL);
    let next = status.ports[1].next.as_ref().expect("a way on");
    assert_eq!((&*next.to, next.safe), ("live", false));
    assert_eq!(next.failing, ["subscribers_hear"]);
    scene.new_bus.subscribing.set(Mood::Works);
    sleep(Duration::from_secs(3)).await;
    let moved = migration
        .advance(to(Port::Bus, "live"))
        .await
        .expect("a step");
    assert_eq!(
        (stages(&moved), moved.rehearsed),
        ("live 100.00 %".to_owned(), true)
    );
    let moved = migration
        .rollback(back(Port::Bus, None))
        .await
        .expect("a way back");
    assert_eq!(stages(&moved), "shadow 100.00 %");
    migration
        .advance(to(Port::Bus, "live"))
        .await
        .expect("a step");
    let careless = Advance {
        confirmed: Vec::new(),
        ..to(Port::Bus, "complete")
    };
    assert_eq!(
        refused(migration.advance(careless).await).guard,
        "no_way_back"
    );
    migration
        .advance(to(Port::Bus, "complete"))
        .await
        .expect("a step");
    let refusal = refused(migration.rollback(back(Port::Bus, Some("off"))).await);
    assert_eq!(refusal.guard, "no_way_back");
    let audit = migration.audit(1).await.expect("readable");
    assert_eq!(audit[0].change(), "bus: live 100.00 % → complete 100.00 %");
    let state = &status.ports[0];
    assert_eq!(state.stages[0].stage, "off", "the others have not moved");
}

#[tokio::test(start_paused = true)]
async fn the_notifier_moves_there_and_back_and_a_port_that_stays_is_said_to() {
    let (_scene, replica) = Scene::begun().await;
    let migration = facade(&replica, &Port::ALL);
    let half = Advance {
        share: Share::parse("50").expect("a share"),
        ..to(Port::Notifier, "new")
    };
    let moved = migration.advance(half).await.expect("a step");
    assert_eq!(stages(&moved), "new 50.00 %, old 50.00 %");
    let moved = migration
        .rollback(back(Port::Notifier, None))
        .await
        .expect("a way back");
    assert_eq!(stages(&moved), "old 100.00 %");
    let first = migration.advance(to(Port::Notifier, "old")).await;
    assert_eq!(first.expect_err("no step").exit_code(), 64);
    let state_alone = facade(&replica, &[Port::State]);
    let other = state_alone.advance(to(Port::Notifier, "new")).await;
    let error = other.expect_err("it does not move");
    assert_eq!(error.exit_code(), 64);
    assert_eq!(
        error.to_string(),
        "notifier does not move on these backends"
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_comes_between_the_steps_of_one_command() {
    let (scene, replica) = Scene::begun().await;
    let two = scene.replica();
    two.follows().await;
    let migration = facade(&replica, &Port::ALL);
    let shadow = migration.advance(to(Port::Bus, "shadow")).await;
    shadow.expect("a step");
    // Slow enough for whoever waits to look, and to come, in the time between two steps that each have a turn.
    scene.old.reads.set(Mood::Slow(Duration::from_millis(100)));
    scene.old.writes.set(Mood::Slow(Duration::from_millis(100)));
    let rivals = (0..3).map(async |_| {
        let mut rival = coordinator(&two);
        for n in 0.. {
            let moved = rival.advance_notifier(NotifierStage::New, n % 2).await;
            moved.expect("its turn comes");
            sleep(Duration::from_secs(1)).await;
        }
    });
    let command = async {
        sleep(Duration::from_secs(10)).await;
        let moved = migration.advance(to(Port::Bus, "live")).await;
        sleep(Duration::from_secs(10)).await;
        moved
    };
    let moved = tokio::select! {
        moved = command => moved,
        _ = join_all(rivals) => unreachable!("rivals never end"),
    };
    assert!(moved.expect("a step").rehearsed);
    let audit = migration.audit(100).await.expect("readable");
    let epochs = |port: &str| -> Vec<u64> {
        let of_port = audit
            .iter()
            .filter(|entry| entry.change().starts_with(port));
        of_port.map(|entry| entry.epoch).collect()
    };
    let (live, others) = (epochs("bus: "), epochs("notifier: "));
    let (last, first) = (live[0], live[2]);
    assert!(
        others.iter().any(|epoch| *epoch < first),
        "none came before"
    );
    assert!(others.iter().any(|epoch| *epoch > last), "none waited");
    assert_eq!(
        last - first,
        2,
        "one bucket there, back, and all: {live:?}, others: {others:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn another_replica_may_lead_as_soon_as_a_command_has_ended() {
    let (scene, one) = Scene::begun().await;
    let two = scene.replica();
    two.follows().await;
    let (first, second) = (facade(&one, &Port::ALL), facade(&two, &Port::ALL));
    for migration in [&first, &second, &first, &second] {
        let began = Instant::now();
        for (stage, share) in [("shadow", "100"), ("shadow", "0")] {
            let step = Advance {
                share: Share::parse(share).expect("a share"),
                ..to(Port::Bus, stage)
            };
            migration.advance(step).await.expect("a step");
        }
        let waited = began.elapsed();
        assert!(waited < Duration::from_secs(2), "after {waited:?}");
    }
}
