//! The workflow of one task: validate, create, assign, set the reminder, notify.

use super::plan::{ActorCall, Assigned, Attempts, Call, Step, Work};
use super::workflow::ProcessTask;
use crate::agent::{Command, CreateTask, Moment, Run, SetDeadline, TaskCommand};

/// Fewest characters of a title.
const MIN_TITLE_CHARS: usize = 5;

/// Fewest characters of a description.
const MIN_DESCRIPTION_CHARS: usize = 10;

/// What keeps a task from being processed.
pub(super) fn issues(title: &str, description: &str) -> Vec<String> {
    let mut issues = Vec::new();
    for (name, text, least) in [
        ("Title", title, MIN_TITLE_CHARS),
        ("Description", description, MIN_DESCRIPTION_CHARS),
    ] {
        if text.chars().count() < least {
            issues.push(format!("{name} must be at least {least} characters"));
        }
    }
    issues
}

pub(super) fn success(input: &ProcessTask) -> String {
    format!("Task assigned to {} with deadline reminder", input.assignee)
}

pub(super) fn plan(input: &ProcessTask, run: &Run) -> Vec<Step> {
    let call = |command| ActorCall {
        id: input.task_id.clone(),
        command: Command::Task(command),
    };
    let step =
        |stage, name: &'static str, work, compensation: Option<TaskCommand>, attempts| Step {
            name: name.into(),
            stage,
            work,
            compensation: compensation.map(call),
            attempts,
        };
    let actor = |command| Work::Call(Call::Actor(call(command)));
    let create = TaskCommand::CreateTask(CreateTask {
        title: input.title.clone(),
        description: input.description.clone(),
        deadline_seconds: Some(input.deadline_seconds),
        assignment: None,
        run: Some(run.clone()),
    });
    let assign = TaskCommand::AssignTask {
        assignee: input.assignee.clone(),
        run: Some(run.clone()),
    };
    let set_reminder = TaskCommand::SetDeadlineReminder(SetDeadline {
        deadline_seconds: input.deadline_seconds,
        from: Some(Moment(run.started())),
        run: Some(run.clone()),
    });
    let notify = Work::Call(Call::Notify(Assigned {
        idempotency_key: format!("{run}/notify").into(),
        task_id: input.task_id.clone(),
        assignee: input.assignee.clone(),
        title: input.title.clone(),
    }));
    let validate = Work::Check {
        issues: issues(&input.title, &input.description),
    };
    let unassign = TaskCommand::UnassignTask { run: run.clone() };
    let cancel = TaskCommand::CancelDeadlineReminder { run: run.clone() };
    let often = Attempts::ACTOR;
    vec![
        step(0, "validate", validate, None, often),
        step(1, "create", actor(create), None, often),
        step(2, "assign", actor(assign), Some(unassign), often),
        step(3, "set_reminder", actor(set_reminder), Some(cancel), often),
        step(4, "notify", notify, None, Attempts::NOTIFY),
    ]
}
