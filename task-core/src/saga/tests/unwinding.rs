//! Every step fails in every way, and every compensation is repeated and fails before it succeeds.

use super::*;
use crate::agent::TaskStatus;
use crate::saga::{Direction, Entry, Outcome, StepStatus};

fn is_failed(outcome: &Outcome, reason: &str) -> bool {
    let message = format!("Processing failed, compensation applied: {reason}");
    *outcome == Outcome::Failed { message }
}

fn undone(harness: &Harness<'_>) -> Vec<String> {
    let entries = harness.entries.iter();
    let undone = entries.filter_map(|entry| match entry {
        Entry::Undone { step } => Some(step.clone()),
        Entry::Begun { .. }
        | Entry::Done { .. }
        | Entry::Failed { .. }
        | Entry::Postponed { .. }
        | Entry::UndoFailed { .. }
        | Entry::Cancelled { .. }
        | Entry::Terminated { .. } => None,
    });
    undone.collect()
}

#[test]
fn a_task_is_as_before_it_was_assigned_whichever_step_fails_and_however() {
    for step in STEPS {
        for fault in [Fault::Refused, Fault::RefusedForGood, Fault::Unanswered] {
            let mut harness = Harness::new(task(), failing(step, fault));
            let outcome = harness.run();
            assert!(is_failed(&outcome, "the world is unjust"), "{outcome:?}");
            assert_eq!(harness.dirt(), Ok(()), "{step} {fault:?}");
        }
    }
}

#[test]
fn a_project_leaves_nothing_whichever_of_its_steps_fails_and_however() {
    for step in [
        "create_project",
        "create_task_1",
        "create_task_2",
        "create_task_3",
    ] {
        for fault in [Fault::Refused, Fault::RefusedForGood, Fault::Unanswered] {
            let mut harness = Harness::new(project(), failing(step, fault));
            let outcome = harness.run();
            assert!(is_failed(&outcome, "the world is unjust"), "{outcome:?}");
            assert_eq!(harness.dirt(), Ok(()), "{step} {fault:?}");
        }
    }
}

#[test]
fn steps_are_taken_back_in_reverse_order_the_one_that_failed_included() {
    let mut harness = Harness::new(task(), failing("set_reminder", Fault::Unanswered));
    harness.run();
    assert_eq!(undone(&harness), ["set_reminder", "assign"]);

    let mut harness = Harness::new(project(), failing("create_task_2", Fault::RefusedForGood));
    harness.run();
    assert_eq!(
        undone(&harness),
        [
            "create_task_1",
            "create_task_2",
            "create_task_3",
            "create_project"
        ]
    );
}

#[test]
fn every_step_and_every_compensation_may_be_repeated() {
    for workflow in [task(), project()] {
        let mut harness = Harness::new(workflow, |_| Fault::Twice);
        assert!(matches!(harness.run(), Outcome::Completed { .. }));
    }
    for (workflow, last) in [(task(), "notify"), (project(), "create_task_3")] {
        let mut harness = Harness::new(workflow, |action| match action.direction {
            Direction::Do if action.step == last => Fault::RefusedForGood,
            Direction::Do | Direction::Undo => Fault::Twice,
        });
        assert!(matches!(harness.run(), Outcome::Failed { .. }));
        assert_eq!(harness.dirt(), Ok(()));
    }
}

#[test]
fn a_compensation_that_fails_is_tried_again_until_it_succeeds() {
    for fault in [
        Fault::Refused,
        Fault::RefusedForGood,
        Fault::Unanswered,
        Fault::NotMade,
    ] {
        let mut harness = Harness::new(task(), |action| match action.direction {
            Direction::Do if action.step == "notify" => Fault::RefusedForGood,
            Direction::Undo if action.attempt < 15 => fault,
            Direction::Do | Direction::Undo => Fault::None,
        });
        let mut stuck = Vec::new();
        let outcome = loop {
            if let Some(outcome) = harness.step() {
                break outcome;
            }
            let Some(detail) = harness.saga.stuck() else {
                continue;
            };
            let view = harness.saga.view();
            assert_eq!(view.status, crate::saga::WorkflowStatus::Running);
            assert_eq!((view.output, view.detail.as_ref()), (None, Some(&detail)));
            let timeline = harness.saga.timeline(harness.now);
            assert!(timeline.iter().any(|step| step.status == StepStatus::Stuck));
            stuck.push(detail);
        };
        assert!(matches!(outcome, Outcome::Failed { .. }));
        assert!(
            stuck[0].starts_with("stuck: the compensation of set_reminder failed 10 times: "),
            "{stuck:?}"
        );
        assert_eq!(harness.saga.stuck(), None);
        assert_eq!(harness.dirt(), Ok(()), "{fault:?}");
    }
}

#[test]
fn what_somebody_completed_meanwhile_stays_completed_and_has_no_reminder() {
    use crate::agent::{Command, TaskCommand};
    use crate::saga::ActorCall;

    let mut harness = Harness::new(task(), failing("notify", Fault::Refused));
    while harness.saga.timeline(harness.now)[4].failures == 0 {
        assert_eq!(harness.step(), None);
    }
    let status = TaskStatus::Completed;
    let complete = ActorCall {
        id: "7".parse().unwrap(),
        command: Command::Task(TaskCommand::UpdateStatus { status }),
    };
    harness.world.command(&complete, harness.now).unwrap();
    assert!(matches!(harness.run(), Outcome::Failed { .. }));
    let task = harness.world.task("7").unwrap();
    assert_eq!((task.status, task.assignee), (status, None));
    assert!(!harness.world.has_reminders());
}

#[test]
fn a_deadline_that_falls_into_the_retries_is_neither_lost_nor_left_behind() {
    // Due between the first and the second pause of the notification.
    for (fails, expected) in [(2, TaskStatus::Overdue), (3, TaskStatus::Pending)] {
        let mut seen = Vec::new();
        let mut harness = Harness::new(task_due_in(2), |action| match &*action.step {
            "notify" if action.attempt <= fails => Fault::Refused,
            _ => Fault::None,
        });
        while harness.step().is_none() {
            seen.extend(harness.world.task("7").map(|task| task.status));
        }
        assert!(seen.contains(&TaskStatus::Overdue), "{seen:?}");
        assert_eq!(harness.world.task("7").unwrap().status, expected);
        assert!(!harness.world.has_reminders());
    }
}

#[test]
fn somebody_elses_assignment_is_left_alone() {
    use crate::agent::{Command, TaskCommand};
    use crate::saga::ActorCall;

    let mut harness = Harness::new(task(), failing("notify", Fault::Refused));
    while harness.saga.timeline(harness.now)[4].failures == 0 {
        assert_eq!(harness.step(), None);
    }
    let assign = ActorCall {
        id: "7".parse().unwrap(),
        command: Command::Task(TaskCommand::AssignTask {
            assignee: "bob".to_owned(),
            run: None,
        }),
    };
    harness.world.command(&assign, harness.now).unwrap();
    assert!(matches!(harness.run(), Outcome::Failed { .. }));
    let task = harness.world.task("7").unwrap();
    assert_eq!(task.assignee.as_deref(), Some("bob"));
    assert!(!harness.world.has_reminders());
}
