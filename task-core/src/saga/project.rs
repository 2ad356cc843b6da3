//! The workflow of a project: validate, create the project, create all its tasks side by side.
//!
//! A task is created, assigned and reminded of in one turn of its actor. If one of them cannot be, all are taken back, and then
//! the project.

use super::plan::{ActorCall, Attempts, Call, Step, Work};
use super::task_processing::issues;
use super::workflow::{NewProject, NewTask};
use crate::agent::{
    ActorId, Assignment, Command, CreateTask, ProjectCommand, ProjectTask, Run, TaskCommand,
};

pub(super) fn success(input: &NewProject) -> String {
    format!("Project created with {} tasks", input.tasks.len())
}

pub(super) fn plan(input: &NewProject, run: &Run) -> Vec<Step> {
    let all_issues = (1..).zip(&input.tasks).flat_map(|(place, task)| {
        let issues = issues(&task.title, &task.description);
        issues
            .into_iter()
            .map(move |issue| format!("task {place}: {issue}"))
    });
    let validate = Step {
        name: "validate".into(),
        stage: 0,
        work: Work::Check {
            issues: all_issues.collect(),
        },
        compensation: None,
        attempts: Attempts::ACTOR,
    };
    let tasks = (1..).zip(&input.tasks);
    let tasks = tasks.map(|(place, task)| create_task(input, place, task, run));
    [validate, create_project(input, run)]
        .into_iter()
        .chain(tasks)
        .collect()
}

fn create_project(input: &NewProject, run: &Run) -> Step {
    let call = |command| ActorCall {
        id: input.project_id.clone(),
        command: Command::Project(command),
    };
    let tasks = (1..).zip(&input.tasks);
    let create = ProjectCommand::CreateProject {
        title: input.title.clone(),
        assignee: input.assignee.clone(),
        tasks: tasks
            .map(|(place, task)| ProjectTask {
                task_id: input.task_id(place),
                title: task.title.clone(),
            })
            .collect(),
        run: run.clone(),
    };
    Step {
        name: "create_project".into(),
        stage: 1,
        work: Work::Call(Call::Actor(call(create))),
        compensation: Some(call(ProjectCommand::WithdrawProject { run: run.clone() })),
        attempts: Attempts::ACTOR,
    }
}

fn create_task(input: &NewProject, place: usize, task: &NewTask, run: &Run) -> Step {
    let id: ActorId = input.task_id(place);
    let call = |command| ActorCall {
        id: id.clone(),
        command: Command::Task(command),
    };
    let create = TaskCommand::CreateTask(CreateTask {
        title: task.title.clone(),
        description: task.description.clone(),
        deadline_seconds: Some(task.deadline_seconds),
        assignment: Some(Assignment {
            assignee: input.assignee.clone(),
            from: run.started(),
        }),
        run: Some(run.clone()),
    });
    Step {
        name: format!("create_task_{place}").into(),
        stage: 2,
        work: Work::Call(Call::Actor(call(create))),
        compensation: Some(call(TaskCommand::WithdrawTask { run: run.clone() })),
        attempts: Attempts::ACTOR,
    }
}
