//! Sagas and drivers that are wrong on purpose: what finds the dirt has to find it.

use super::*;
use crate::saga::{Action, Direction, Outcome, Saga};

fn last_fails(action: &Action) -> Fault {
    let is_last = matches!(&*action.step, "notify" | "create_task_3");
    match action.direction {
        Direction::Do if is_last => Fault::RefusedForGood,
        Direction::Do | Direction::Undo => Fault::None,
    }
}

fn skip(saga: &mut Saga, step: &str) {
    let step = saga.steps.iter_mut().find(|one| one.name == step);
    step.unwrap().compensation = None;
}

#[track_caller]
fn leaves(workflow: Workflow, plan: fn(&mut Saga), expected: &str) {
    let mut harness = Harness::broken(workflow, plan, last_fails);
    assert!(matches!(harness.run(), Outcome::Failed { .. }));
    assert_eq!(harness.dirt(), Err(expected.to_owned()));
}

#[test]
fn a_skipped_compensation_is_found() {
    leaves(
        task(),
        |saga| skip(saga, "assign"),
        "a task is assigned of Some(\"ann\")",
    );
    leaves(
        project(),
        |saga| skip(saga, "create_project"),
        "the project is left",
    );
    leaves(
        project(),
        |saga| skip(saga, "create_task_2"),
        "a reminder is registered",
    );
}

#[test]
fn a_skipped_cancellation_of_the_reminder_is_harmless_because_unassigning_drops_it_too() {
    let mut harness = Harness::broken(task(), |saga| skip(saga, "set_reminder"), last_fails);
    assert!(matches!(harness.run(), Outcome::Failed { .. }));
    assert_eq!(harness.dirt(), Ok(()));
    leaves(
        task(),
        |saga| {
            skip(saga, "set_reminder");
            skip(saga, "assign");
        },
        "a reminder is registered",
    );
}

#[test]
fn a_reminder_that_is_not_cancelled_is_found_and_still_does_no_harm() {
    let mut harness = Harness::new(task(), last_fails);
    harness.world.keeps_reminders = true;
    assert!(matches!(harness.run(), Outcome::Failed { .. }));
    assert_eq!(harness.dirt(), Err("a reminder is registered".to_owned()));
    harness.now = harness
        .now
        .saturating_add(std::time::Duration::from_secs(40_000));
    harness.world.keeps_reminders = false;
    harness.world.fire(harness.now);
    assert_eq!(harness.dirt(), Ok(()));
}

#[test]
fn an_actor_that_forgets_which_run_was_compensated_is_found() {
    let mut harness = Harness::new(task(), last_fails);
    assert!(matches!(harness.run(), Outcome::Failed { .. }));
    harness.world.forget_undone();
    let dirt = harness.dirt().unwrap_err();
    assert!(dirt.starts_with("after late copies: a task is "), "{dirt}");
}

#[test]
fn a_step_that_is_not_taken_back_because_its_answer_was_lost_is_found() {
    let lost = failing("assign", Fault::Unanswered);
    let mut harness = Harness::broken(task(), |saga| skip(saga, "assign"), lost);
    assert!(matches!(harness.run(), Outcome::Failed { .. }));
    let expected = "a task is assigned of Some(\"ann\")";
    assert_eq!(harness.dirt(), Err(expected.to_owned()));
}
