//! How sagas end, and what clients see meanwhile.

use std::time::Duration;

use super::*;
use crate::agent::{Command, TaskStatus};
use crate::domain::Timestamp;
use crate::saga::{
    ActorCall, Call, Chain, Direction, Entry, Next, Outcome, RETENTION, Saga, StepResult,
    StepStatus, StepView, Work, WorkflowStatus,
};

fn outputs(harness: &Harness<'_>) -> (WorkflowStatus, Option<String>) {
    let view = harness.saga.view();
    assert_eq!(view.detail, None);
    (view.status, view.output)
}

fn statuses(harness: &Harness<'_>) -> Vec<StepStatus> {
    let timeline = harness.saga.timeline(harness.now);
    timeline.into_iter().map(|step| step.status).collect()
}

#[test]
fn a_completed_workflow_says_whose_the_task_is() {
    let mut harness = Harness::new(task(), |_| Fault::None);
    assert_eq!(outputs(&harness), (WorkflowStatus::Running, None));
    harness.run();
    let output = r#"{"task_id":"7","status":"completed","message":"Task assigned to ann with deadline reminder"}"#;
    let expected = (WorkflowStatus::Completed, Some(output.to_owned()));
    assert_eq!(outputs(&harness), expected);
    let task = harness.world.task("7").unwrap();
    assert_eq!(task.status, TaskStatus::Assigned);
    assert_eq!(task.assignee.as_deref(), Some("ann"));
    assert!(harness.world.has_reminders());
    assert!(!harness.saga.outcome().unwrap().leaves_nothing());
    assert_eq!(statuses(&harness), [StepStatus::Done; 5]);
}

#[test]
fn an_input_that_is_too_short_is_rejected_before_anything_is_done() {
    let texts = ["four", "nine char"].map(str::to_owned);
    let [title, description] = texts;
    let input = crate::saga::ProcessTask::new("7", title, description, "ann".to_owned(), None);
    let workflow = Workflow::TaskProcessing(input.unwrap());
    let mut harness = Harness::new(workflow, |_| Fault::None);
    assert!(matches!(harness.saga.next(harness.now), Next::Record(_)));
    assert!(harness.run().leaves_nothing());
    let output = concat!(
        r#"{"task_id":"7","status":"rejected","message":"Validation failed: "#,
        r#"Title must be at least 5 characters, Description must be at least 10 characters"}"#
    );
    let expected = (WorkflowStatus::Completed, Some(output.to_owned()));
    assert_eq!(outputs(&harness), expected);
    assert!(harness.world.sent.is_empty());
    assert_eq!(harness.world.task("7"), None);
}

#[test]
fn a_project_names_each_task_that_is_too_short() {
    let Workflow::Project(mut input) = project() else {
        panic!("no project");
    };
    input.tasks[1].title = "äöü€".to_owned();
    let mut harness = Harness::new(Workflow::Project(input), |_| Fault::None);
    harness.run();
    let output = concat!(
        r#"{"project_id":"p","status":"rejected","message":"Validation failed: "#,
        r#"task 2: Title must be at least 5 characters"}"#
    );
    assert_eq!(outputs(&harness).1.as_deref(), Some(output));
}

#[test]
fn a_completed_project_has_all_its_tasks_assigned_and_reminded_of() {
    let mut harness = Harness::new(project(), |_| Fault::None);
    harness.run();
    let output =
        r#"{"project_id":"p","status":"completed","message":"Project created with 3 tasks"}"#;
    assert_eq!(outputs(&harness).1.as_deref(), Some(output));
    let project = harness.world.project("p").unwrap();
    assert_eq!(project.tasks.len(), 3);
    for task in &project.tasks {
        let task = harness.world.task(task.task_id.as_str()).unwrap();
        assert_eq!(task.status, TaskStatus::Assigned);
    }
    harness
        .world
        .fire(harness.now.saturating_add(Duration::from_secs(36_001)));
    let task = harness.world.task("p-3").unwrap();
    assert_eq!(task.status, TaskStatus::Overdue);
    assert!(!harness.world.has_reminders());
}

#[test]
fn a_failed_notification_is_tried_after_one_second_and_after_two_more() {
    let mut tried: Vec<Timestamp> = Vec::new();
    let mut harness = Harness::new(task(), failing("notify", Fault::Refused));
    loop {
        if let Next::Run(actions) = harness.saga.next(harness.now)
            && actions[0].step == "notify"
        {
            tried.push(harness.now);
        }
        if harness.step().is_some() {
            break;
        }
    }
    let pauses: Vec<i64> = tried
        .windows(2)
        .map(|pair| (pair[1].unix_micros() - pair[0].unix_micros()) / 1000)
        .collect();
    assert_eq!(pauses, [1003, 2003]);
    assert_eq!(
        outputs(&harness),
        (
            WorkflowStatus::Failed,
            Some(
                r#"{"task_id":"7","status":"failed","message":"Processing failed, compensation applied: the world is unjust"}"#
                    .to_owned()
            )
        )
    );
    assert_eq!(
        statuses(&harness),
        [
            StepStatus::Done,
            StepStatus::Done,
            StepStatus::Undone,
            StepStatus::Undone,
            StepStatus::Failed
        ]
    );
    assert!(harness.saga.outcome().unwrap().leaves_nothing());
}

#[test]
fn a_clock_that_steps_back_does_not_prolong_a_pause() {
    let mut harness = Harness::new(task(), failing("notify", Fault::Refused));
    while harness.saga.timeline(harness.now)[4].failures == 0 {
        assert_eq!(harness.step(), None);
    }
    assert!(matches!(harness.saga.next(harness.now), Next::Wait(_)));
    assert!(matches!(harness.saga.next(noon()), Next::Run(_)));
}

/// The step of a name.
fn step(harness: &Harness<'_>, name: &str) -> StepView {
    let timeline = harness.saga.timeline(harness.now);
    timeline.into_iter().find(|step| step.name == name).unwrap()
}

#[test]
fn what_was_not_tried_uses_up_no_attempt_until_patience_ends() {
    let mut harness = Harness::new(task(), failing("notify", Fault::NotMade));
    while harness.now < noon().saturating_add(Duration::from_secs(600)) {
        assert_eq!(harness.step(), None);
    }
    let notify = step(&harness, "notify");
    assert_eq!(notify.failures, 0);
    assert_eq!(notify.reason.as_deref(), Some("the circuit is open"));
    let outcome = harness.run();
    assert_eq!(
        outcome.message(),
        "Processing failed, compensation applied: postponed for 900 s: the circuit is open"
    );
    assert_eq!(harness.dirt(), Ok(()));
}

#[test]
fn a_workflow_that_is_cancelled_anywhere_leaves_the_task_as_it_was() {
    for workflow in [task(), project()] {
        for steps in 0..12 {
            let mut harness = Harness::new(workflow.clone(), |action| match action.direction {
                Direction::Do => Fault::Unanswered,
                Direction::Undo => Fault::None,
            });
            for _ in 0..steps {
                let _ = harness.step();
            }
            let Some(cancel) = harness.saga.cancel("an operator") else {
                continue;
            };
            harness.append(cancel);
            assert_eq!(harness.saga.cancel("another one"), None);
            let outcome = harness.run();
            assert_eq!(
                outcome.message(),
                "Processing failed, compensation applied: cancelled by an operator"
            );
            assert_eq!(outputs(&harness).0, WorkflowStatus::Failed);
            assert_eq!(harness.dirt(), Ok(()), "after {steps} steps");
        }
    }
}

#[test]
fn a_step_that_runs_while_its_workflow_is_cancelled_is_taken_back_too() {
    let mut harness = Harness::new(task(), |_| Fault::None);
    let action = loop {
        if let Next::Run(mut actions) = harness.saga.next(harness.now)
            && actions[0].step == "assign"
        {
            break actions.remove(0);
        }
        assert_eq!(harness.step(), None);
    };
    let cancel = harness.saga.cancel("ann").unwrap();
    harness.append(cancel);
    let result = harness.world.call(&action.call, harness.now);
    let entry = harness.saga.record(&action, result, harness.now);
    assert!(matches!(entry, Entry::Done { .. }));
    harness.append(entry);
    assert!(matches!(harness.run(), Outcome::Failed { .. }));
    assert_eq!(harness.dirt(), Ok(()));
}

#[test]
fn a_terminated_workflow_stops_where_it_is_and_has_no_output() {
    let mut harness = Harness::new(task(), failing("notify", Fault::Refused));
    while harness.saga.timeline(harness.now)[4].failures == 0 {
        assert_eq!(harness.step(), None);
    }
    let terminate = harness.saga.terminate("ann").unwrap();
    harness.append(terminate);
    assert_eq!(harness.saga.terminate("bob"), None);
    assert!(!harness.run().leaves_nothing());
    assert_eq!(outputs(&harness), (WorkflowStatus::Terminated, None));
    assert_eq!(statuses(&harness)[4], StepStatus::Skipped);
    let task = harness.world.task("7").unwrap();
    assert_eq!(task.status, TaskStatus::Assigned);
}

#[test]
fn a_log_is_kept_for_a_time_after_the_end_and_as_long_as_the_workflow_runs() {
    let mut harness = Harness::new(task(), |_| Fault::None);
    assert_eq!(harness.saga.purge_at(RETENTION), None);
    harness.run();
    let purge = harness.saga.purge_at(RETENTION);
    assert_eq!(
        purge,
        Some(harness.saga.last_at().saturating_add(RETENTION))
    );
}

#[test]
fn what_is_planned_is_shown_before_it_runs() {
    use StepStatus::{Done, Planned, Running, Waiting};

    let mut harness = Harness::new(task(), |action| match &*action.step {
        "assign" if action.attempt == 1 => Fault::Refused,
        _ => Fault::None,
    });
    assert_eq!(
        statuses(&harness),
        [Running, Planned, Planned, Planned, Planned]
    );
    for _ in 0..3 {
        assert_eq!(harness.step(), None);
    }
    assert_eq!(statuses(&harness), [Done, Done, Waiting, Planned, Planned]);
    assert!(step(&harness, "assign").next_at > Some(harness.now));
}

#[test]
fn one_saga_alone_needs_one_write_a_step_and_no_more() {
    let mut harness = Harness::new(task(), |_| Fault::None);
    harness.run();
    // The check of the input shares the write of the beginning.
    let writes = harness.log.len() - 1;
    assert_eq!((writes, harness.saga.timeline(harness.now).len()), (5, 5));
}

#[test]
fn an_id_is_started_again_only_after_a_run_that_left_nothing_behind() {
    let refused = |harness: &Harness<'_>| Saga::start(task(), Some(&harness.saga), noon()).is_err();
    let mut running = Harness::new(task(), |_| Fault::None);
    assert!(refused(&running));
    running.run();
    assert!(refused(&running), "the task is there");

    let mut terminated = Harness::new(task(), |_| Fault::None);
    let terminate = terminated.saga.terminate("ann").unwrap();
    terminated.append(terminate);
    assert!(refused(&terminated), "nobody knows what is there");

    assert!(Saga::start(task(), None, noon()).is_ok());
}

#[test]
fn a_failed_workflow_that_is_started_again_succeeds_even_if_the_clock_has_stepped_back() {
    let mut harness = Harness::new(task(), failing("notify", Fault::RefusedForGood));
    harness.run();
    let before = Timestamp::from_unix_micros(0);
    let again = Saga::start(task(), Some(&harness.saga), before).unwrap();
    assert!(again.run().covers(harness.saga.run()));
    let (_, first) = Chain::begin(&again);
    let log = [first];
    let (world, now) = (harness.world.clone(), harness.now);
    let mut again = Harness::resumed(&log, world, now, |_| Fault::None);
    assert!(matches!(again.run(), Outcome::Completed { .. }));
    // Nothing of the first run touches the second one any more.
    for call in harness.world.sent {
        let _ = again.world.call(&call, again.now);
    }
    let task = again.world.task("7").unwrap();
    assert_eq!(task.status, TaskStatus::Assigned);
}

#[test]
fn every_call_and_every_result_may_travel_as_json() {
    for workflow in [task(), project()] {
        let saga = Saga::begin(workflow, noon());
        for step in &saga.steps {
            let call = match &step.work {
                Work::Call(call) => Some(call.clone()),
                Work::Check { .. } => None,
            };
            let back = step.compensation.clone().map(Call::Actor);
            for call in call.into_iter().chain(back) {
                let json = serde_json::to_string(&call).unwrap();
                assert_eq!(serde_json::from_str::<Call>(&json).unwrap(), call, "{json}");
                if let Call::Actor(ActorCall { command, .. }) = call {
                    let (method, body) = command.to_call();
                    let read = Command::parse(command.actor(), &method, &body);
                    assert_eq!(read, Ok(command));
                }
            }
        }
    }
    let call = Saga::begin(task(), noon()).steps[2].work.clone();
    let Work::Call(call) = call else {
        panic!("assign calls an actor");
    };
    assert_eq!(
        serde_json::to_string(&call).unwrap(),
        concat!(
            r#"{"actor":{"id":"7","actor":"TaskActor","command":{"method":"AssignTask","#,
            r#""body":{"assignee":"ann","run":"task-workflow-7@1767225600000000"}}}}"#
        )
    );
    let (reason, pause_ms, is_final) = ("why".to_owned(), 7, true);
    for result in [
        StepResult::Done,
        StepResult::Postponed { reason, pause_ms },
        StepResult::Failed {
            reason: "why".to_owned(),
            is_final,
        },
    ] {
        let json = serde_json::to_string(&result).unwrap();
        assert_eq!(serde_json::from_str::<StepResult>(&json).unwrap(), result);
    }
}

#[test]
fn a_failed_project_leaves_no_record_once_its_log_is_purged() {
    let mut harness = Harness::new(project(), failing("create_task_3", Fault::RefusedForGood));
    harness.run();
    assert_eq!(harness.world.records(), 4);
    let farewell = harness.saga.farewell();
    assert_eq!(farewell.len(), 4);
    for call in farewell {
        harness.world.command(&call, harness.now).unwrap();
    }
    assert_eq!(harness.world.records(), 0);

    let mut harness = Harness::new(project(), |_| Fault::None);
    harness.run();
    assert_eq!(harness.saga.farewell(), []);
}
