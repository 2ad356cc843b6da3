//! The project's actor: which tasks belong together, and whose they are.
//!
//! It knows the tasks' ids and titles. Where they stand is known by their own actors, and asked of them.

mod stored;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::record::{Foreign, RecordError};
use super::turn::{Refusal, Turn};
use super::values::ActorId;
use super::{Run, as_text};
use crate::domain::Timestamp;

/// A task of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectTask {
    /// Its id.
    pub task_id: ActorId,
    /// What it is called.
    pub title: String,
}

/// A project as its actor knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectView {
    /// Its id.
    pub project_id: ActorId,
    /// What it is called.
    pub title: String,
    /// Who has its tasks.
    pub assignee: String,
    /// Its tasks, in their order.
    pub tasks: Vec<ProjectTask>,
    /// When it was created.
    #[serde(with = "as_text")]
    pub created_at: Timestamp,
}

/// A command of a project's actor; the names of the variants are the names of the methods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "body")]
pub enum ProjectCommand {
    /// Reads the project.
    GetProject {},
    /// Makes the project, as a step of a saga.
    CreateProject {
        /// What it is called.
        title: String,
        /// Who has its tasks.
        assignee: String,
        /// Its tasks.
        tasks: Vec<ProjectTask>,
        /// The saga's run.
        run: Run,
    },
    /// Takes back the project that a run made.
    WithdrawProject {
        /// The run.
        run: Run,
    },
    /// Forgets that a run was compensated, once no copy of its steps can come any more.
    ForgetRun {
        /// The run.
        run: Run,
    },
}

/// The state of one project, whether it is there or not.
#[derive(Debug, Clone, PartialEq)]
pub struct ProjectActor {
    id: ActorId,
    project: Option<Project>,
    /// The last run that was compensated.
    undone: Option<Run>,
    foreign: Foreign,
}

#[derive(Debug, Clone, PartialEq)]
struct Project {
    title: String,
    assignee: String,
    tasks: Vec<ProjectTask>,
    created_at: Timestamp,
    created_by: Run,
    foreign: Foreign,
}

fn what() -> String {
    "Project".to_owned()
}

impl ProjectActor {
    /// The actor of an id, from its record, if it has one.
    ///
    /// # Errors
    /// A record that is not of this version.
    pub fn load(id: ActorId, stored: Option<&[u8]>) -> Result<Self, RecordError> {
        match stored {
            Some(bytes) => stored::decode(id, bytes),
            None => Ok(Self {
                id,
                project: None,
                undone: None,
                foreign: Foreign::new(),
            }),
        }
    }

    /// The record to be stored; `None` when there is nothing to store, or no more.
    #[must_use]
    pub fn store(&self) -> Option<Bytes> {
        stored::encode(self)
    }

    /// The project, if it is there.
    #[must_use]
    pub fn view(&self) -> Option<ProjectView> {
        let project = self.project.as_ref()?;
        Some(ProjectView {
            project_id: self.id.clone(),
            title: project.title.clone(),
            assignee: project.assignee.clone(),
            tasks: project.tasks.clone(),
            created_at: project.created_at,
        })
    }

    /// Carries out a command.
    #[must_use]
    pub fn turn(&mut self, command: ProjectCommand, now: Timestamp) -> Turn<Option<ProjectView>> {
        let before = self.clone();
        match self.carry_out(command, now) {
            Ok(()) => Turn {
                reply: Ok(self.view()),
                changed: *self != before,
                effects: Vec::new(),
            },
            Err(refusal) => Turn::unchanged(Err(refusal)),
        }
    }

    /// Changes nothing where it refuses.
    fn carry_out(&mut self, command: ProjectCommand, now: Timestamp) -> Result<(), Refusal> {
        match command {
            ProjectCommand::GetProject {} => match self.project {
                Some(_) => Ok(()),
                None => Err(Refusal::NotFound { what: what() }),
            },
            ProjectCommand::CreateProject {
                title,
                assignee,
                tasks,
                run,
            } => {
                if self.is_undone(&run) {
                    return Err(Refusal::Undone { run });
                }
                match &self.project {
                    Some(project) if project.created_by == run => return Ok(()),
                    Some(_) => return Err(Refusal::Exists { what: what() }),
                    None => {}
                }
                self.project = Some(Project {
                    title,
                    assignee,
                    tasks,
                    created_at: now,
                    created_by: run,
                    foreign: Foreign::new(),
                });
                Ok(())
            }
            ProjectCommand::WithdrawProject { run } => {
                self.project.take_if(|project| project.created_by == run);
                if !self.is_undone(&run) {
                    self.undone = Some(run);
                }
                Ok(())
            }
            ProjectCommand::ForgetRun { run } => {
                self.undone.take_if(|undone| *undone == run);
                Ok(())
            }
        }
    }

    fn is_undone(&self, run: &Run) -> bool {
        self.undone
            .as_ref()
            .is_some_and(|undone| undone.covers(run))
    }
}
