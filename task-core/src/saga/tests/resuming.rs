//! A process dies anywhere, and another one goes on from what the log says.

use bytes::Bytes;

use super::*;
use crate::saga::{Action, Direction, Outcome};

/// A log, the world of its last entry, and the time.
struct Moment {
    log: Vec<Bytes>,
    world: World,
    now: Timestamp,
}

/// The last step of each plan fails, and nobody knows whether it took effect.
fn unlucky(action: &Action) -> Fault {
    let is_last = matches!(&*action.step, "notify" | "create_task_2");
    match action.direction {
        Direction::Do if is_last => Fault::Unanswered,
        Direction::Do | Direction::Undo => Fault::None,
    }
}

fn lucky(_: &Action) -> Fault {
    Fault::None
}

/// Every moment of a run from its beginning to its end.
fn history(workflow: Workflow, script: fn(&Action) -> Fault) -> Vec<Moment> {
    let mut harness = Harness::new(workflow, script);
    let mut moments = Vec::new();
    loop {
        moments.push(Moment {
            log: harness.log.clone(),
            world: harness.world.clone(),
            now: harness.now,
        });
        if harness.step().is_some() {
            return moments;
        }
    }
}

#[track_caller]
fn goes_on(log: &[Bytes], world: &World, now: Timestamp, script: fn(&Action) -> Fault) -> Outcome {
    let mut harness = Harness::resumed(log, world.clone(), now, script);
    let outcome = harness.run();
    if matches!(outcome, Outcome::Failed { .. }) {
        assert_eq!(harness.dirt(), Ok(()), "after {} entries", log.len());
    }
    outcome
}

#[test]
fn a_saga_goes_on_from_every_moment_of_its_life_with_and_without_luck() {
    for workflow in [task(), project()] {
        for script in [lucky, unlucky] {
            for Moment { log, world, now } in history(workflow.clone(), script) {
                goes_on(&log, &world, now, lucky);
                goes_on(&log, &world, now, unlucky);
            }
        }
    }
}

#[test]
fn a_saga_goes_on_from_every_prefix_of_its_log_in_a_world_that_is_further() {
    for workflow in [task(), project()] {
        let moments = history(workflow, lucky);
        let Some(Moment { log, world, now }) = moments.last() else {
            panic!("no history");
        };
        for entries in 1..=log.len() {
            let outcome = goes_on(&log[..entries], world, *now, lucky);
            assert!(matches!(outcome, Outcome::Completed { .. }), "{outcome:?}");
        }
    }
}

#[test]
fn a_process_may_die_before_and_after_every_step_and_every_compensation() {
    for workflow in [task(), project()] {
        for is_failing in [false, true] {
            for fault in [Fault::DeadBefore, Fault::DeadAfter] {
                let mut died = std::collections::HashSet::new();
                let mut harness = Harness::new(workflow.clone(), |action| {
                    let is_last = matches!(&*action.step, "notify" | "create_task_3");
                    match action.direction {
                        _ if died.insert((action.step.clone(), action.direction)) => fault,
                        Direction::Do if is_last && is_failing => Fault::RefusedForGood,
                        Direction::Do | Direction::Undo => Fault::None,
                    }
                });
                let outcome = harness.run();
                assert_eq!(matches!(outcome, Outcome::Failed { .. }), is_failing);
                if is_failing {
                    assert_eq!(harness.dirt(), Ok(()));
                }
            }
        }
    }
}

#[test]
fn a_notification_has_the_same_key_however_often_it_is_sent() {
    let mut died = false;
    let mut harness = Harness::new(task(), |action| match &*action.step {
        "notify" if !std::mem::replace(&mut died, true) => Fault::DeadAfter,
        _ => Fault::None,
    });
    assert!(matches!(harness.run(), Outcome::Completed { .. }));
    let sent = &harness.world.notified;
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0], sent[1]);
    assert_eq!(sent[0], format!("{}/notify", harness.saga.run()));
}
