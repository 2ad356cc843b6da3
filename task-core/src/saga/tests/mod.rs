//! Sagas over a simulated world: every step failed, repeated and left unknown, every log resumed from every entry.

mod broken;
mod logs;
mod outcomes;
mod random;
mod resuming;
mod unwinding;
mod world;

use world::{Fault, Harness, World};

use super::{Action, Direction, NewProject, NewTask, ProcessTask, Workflow};
use crate::domain::Timestamp;

const STEPS: [&str; 4] = ["create", "assign", "set_reminder", "notify"];

fn noon() -> Timestamp {
    Timestamp::from_unix_micros(1_767_225_600_000_000)
}

/// A task whose deadline is far behind any retry.
fn task() -> Workflow {
    task_due_in(36_000)
}

fn task_due_in(seconds: u64) -> Workflow {
    let [title, description] = ["write the report", "the one for March"].map(str::to_owned);
    let input = ProcessTask::new("7", title, description, "ann".to_owned(), Some(seconds));
    Workflow::TaskProcessing(input.unwrap())
}

fn project() -> Workflow {
    let task = |title: &str| {
        let description = "what there is to do".to_owned();
        NewTask::new(title.to_owned(), description, Some(36_000)).unwrap()
    };
    let tasks = ["first of all", "second of all", "third of all"].map(task);
    let input = NewProject::new("p", "spring".to_owned(), "ann".to_owned(), tasks.to_vec());
    Workflow::Project(input.unwrap())
}

/// Every attempt of one step comes to this.
fn failing(step: &str, fault: Fault) -> impl FnMut(&Action) -> Fault {
    move |action| match action.direction {
        Direction::Do if action.step == step => fault,
        Direction::Do | Direction::Undo => Fault::None,
    }
}
