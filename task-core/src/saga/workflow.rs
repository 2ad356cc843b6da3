//! What can be started: the inputs of the workflows, with the rules of their fields.

use serde::{Deserialize, Serialize};

use super::plan::Step;
use super::{project, task_processing};
use crate::agent::{ActorId, Deadline, Run};
use crate::domain::{FieldError, ValidationError};

/// Most Unicode scalar values of a title and of an assignee's name.
const MAX_NAME_CHARS: usize = 200;

/// Most Unicode scalar values of a description.
const MAX_DESCRIPTION_CHARS: usize = 10_000;

/// A workflow with its input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "definition", content = "input", rename_all = "snake_case")]
#[serde(deny_unknown_fields)]
pub enum Workflow {
    /// Creates a task, assigns it, sets its reminder and tells the assignee.
    TaskProcessing(ProcessTask),
    /// Creates a project with its first tasks.
    Project(NewProject),
}

/// The input of the task-processing workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessTask {
    /// The task to be made.
    pub task_id: ActorId,
    /// What it is called. Whether that is long enough the workflow decides.
    pub title: String,
    /// What there is to do.
    pub description: String,
    /// Who gets it.
    pub assignee: String,
    /// How long it may take, counted from the start of the workflow.
    pub deadline_seconds: Deadline,
}

/// The input of the project workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewProject {
    /// The project to be made.
    pub project_id: ActorId,
    /// What it is called.
    pub title: String,
    /// Who gets its tasks.
    pub assignee: String,
    /// Its tasks, 1 to [`MAX_TASKS`](Self::MAX_TASKS).
    pub tasks: Vec<NewTask>,
}

/// A task of a project to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTask {
    /// What it is called.
    pub title: String,
    /// What there is to do.
    pub description: String,
    /// How long it may take, counted from the start of the workflow.
    pub deadline_seconds: Deadline,
}

impl Workflow {
    /// The version of the plans that this code makes, and the only one whose logs it continues.
    pub const VERSION: u32 = 1;

    /// The id of the workflow: one for each task and for each project.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::TaskProcessing(input) => format!("task-workflow-{}", input.task_id),
            Self::Project(input) => format!("project-workflow-{}", input.project_id),
        }
    }

    /// The steps of a run.
    ///
    /// They follow from the input and the run alone, so every replica and every restart plans the same.
    #[must_use]
    pub fn plan(&self, run: &Run) -> Vec<Step> {
        match self {
            Self::TaskProcessing(input) => task_processing::plan(input, run),
            Self::Project(input) => project::plan(input, run),
        }
    }

    /// What is said of a run whose steps are all done.
    pub(super) fn success(&self) -> String {
        match self {
            Self::TaskProcessing(input) => task_processing::success(input),
            Self::Project(input) => project::success(input),
        }
    }

    /// The name and the value of what the output is about.
    pub(super) fn subject(&self) -> (&'static str, &ActorId) {
        match self {
            Self::TaskProcessing(input) => ("task_id", &input.task_id),
            Self::Project(input) => ("project_id", &input.project_id),
        }
    }
}

fn at_most(field: &'static str, text: &str, most: usize) -> Result<(), FieldError> {
    match text.chars().count() {
        chars if chars > most => {
            let detail = format!("it has at most {most} characters, this one has {chars}");
            Err(FieldError::new(field, detail))
        }
        _ => Ok(()),
    }
}

fn name(field: &'static str, text: &str) -> Result<(), FieldError> {
    match text.trim().is_empty() {
        true => Err(FieldError::new(field, "it must not be empty")),
        false => at_most(field, text, MAX_NAME_CHARS),
    }
}

fn texts(title: &str, description: &str) -> [Option<FieldError>; 2] {
    [
        at_most("title", title, MAX_NAME_CHARS).err(),
        at_most("description", description, MAX_DESCRIPTION_CHARS).err(),
    ]
}

/// The id, or a refusal beside the others.
fn id(field: &'static str, text: &str, errors: &mut Vec<FieldError>) -> Option<ActorId> {
    match ActorId::parse(field, text) {
        Ok(id) => Some(id),
        Err(error) => {
            errors.push(error);
            None
        }
    }
}

/// The deadline, or one hour where none is given or a bad one, which is refused beside the others.
fn deadline(seconds: Option<u64>, errors: &mut Vec<FieldError>) -> Deadline {
    let given = seconds.map(Deadline::parse).transpose();
    given
        .unwrap_or_else(|error| {
            errors.push(error);
            None
        })
        .unwrap_or_default()
}

impl ProcessTask {
    /// Checks what a client asks for; a missing deadline is one hour.
    ///
    /// ```
    /// use task_core::saga::ProcessTask;
    ///
    /// let (title, description) = ("write".to_owned(), "the report".to_owned());
    /// let input = ProcessTask::new("7", title, description, "ann".to_owned(), None).unwrap();
    /// assert_eq!(input.deadline_seconds.seconds(), 3600);
    /// ```
    ///
    /// # Errors
    /// All fields that break a rule.
    pub fn new(
        task_id: &str,
        title: String,
        description: String,
        assignee: String,
        deadline_seconds: Option<u64>,
    ) -> Result<Self, ValidationError> {
        let mut errors = Vec::new();
        let task_id = id("task_id", task_id, &mut errors);
        errors.extend(texts(&title, &description).into_iter().flatten());
        errors.extend(name("assignee", &assignee).err());
        let deadline_seconds = deadline(deadline_seconds, &mut errors);
        ValidationError::check(errors)?;
        Ok(Self {
            task_id: task_id.expect("an id that is none is an error"),
            title,
            description,
            assignee,
            deadline_seconds,
        })
    }
}

impl NewProject {
    /// Most tasks that a project begins with.
    pub const MAX_TASKS: usize = 100;

    /// Longest id, in bytes: those of its tasks are a little longer.
    pub const MAX_ID_BYTES: usize = ActorId::MAX_BYTES - 8;

    /// Checks what a client asks for.
    ///
    /// # Errors
    /// All fields that break a rule.
    pub fn new(
        project_id: &str,
        title: String,
        assignee: String,
        tasks: Vec<NewTask>,
    ) -> Result<Self, ValidationError> {
        let mut errors = Vec::new();
        if project_id.len() > Self::MAX_ID_BYTES {
            let (most, found) = (Self::MAX_ID_BYTES, project_id.len());
            let detail = format!("a project's id has 1 to {most} bytes, this one has {found}");
            errors.push(FieldError::new("project_id", detail));
        }
        let project_id = id("project_id", project_id, &mut errors);
        errors.extend(name("title", &title).err());
        errors.extend(name("assignee", &assignee).err());
        if !(1..=Self::MAX_TASKS).contains(&tasks.len()) {
            let (most, found) = (Self::MAX_TASKS, tasks.len());
            let detail = format!("a project has 1 to {most} tasks, this one has {found}");
            errors.push(FieldError::new("tasks", detail));
        }
        ValidationError::check(errors)?;
        Ok(Self {
            project_id: project_id.expect("an id that is none is an error"),
            title,
            assignee,
            tasks,
        })
    }

    /// The id of the task of this place, counted from 1.
    #[must_use]
    pub fn task_id(&self, place: usize) -> ActorId {
        let id = format!("{}-{place}", self.project_id);
        ActorId::parse("task_id", &id).expect("a project's id leaves room for a number")
    }
}

impl NewTask {
    /// Checks one task of what a client asks for; a missing deadline is one hour.
    ///
    /// # Errors
    /// All fields that break a rule.
    pub fn new(
        title: String,
        description: String,
        deadline_seconds: Option<u64>,
    ) -> Result<Self, ValidationError> {
        let mut errors: Vec<_> = texts(&title, &description).into_iter().flatten().collect();
        let deadline_seconds = deadline(deadline_seconds, &mut errors);
        ValidationError::check(errors)?;
        Ok(Self {
            title,
            description,
            deadline_seconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let refused = ProcessTask::new(
            "a/b",
            "t".repeat(201),
            "d".repeat(10_001),
            " ".to_owned(),
            Some(0),
        );
        let refused = refused.expect_err("five bad fields");
        let fields = refused.errors().iter().map(|error| error.field);
        assert_eq!(
            fields.collect::<Vec<_>>(),
            [
                "task_id",
                "title",
                "description",
                "assignee",
                "deadline_seconds"
            ]
        );
    }

    #[test]
    fn a_project_has_tasks_and_an_id_that_leaves_room_for_theirs() {
        let task = NewTask::new("a title".to_owned(), "a description".to_owned(), None)
            .expect("a valid task");
        let project = |id: &str, tasks: usize| {
            let tasks = vec![task.clone(); tasks];
            NewProject::new(id, "a project".to_owned(), "ann".to_owned(), tasks)
        };
        let longest = "p".repeat(NewProject::MAX_ID_BYTES);
        let made = project(&longest, NewProject::MAX_TASKS).expect("a valid project");
        assert!(
            made.task_id(NewProject::MAX_TASKS)
                .as_str()
                .ends_with("-100")
        );
        assert!(project(&format!("{longest}p"), 1).is_err());
        assert!(project("p", 0).is_err());
        assert!(project("p", NewProject::MAX_TASKS + 1).is_err());
    }
}
