//! What a task's actor is told, as it travels to it.

use serde::{Deserialize, Serialize};

use crate::agent::values::{Deadline, TaskStatus};
use crate::agent::{Run, as_text};
use crate::domain::Timestamp;

/// A command of a task's actor; the names of the variants are the names of the methods.
///
/// Commands with a `run` are steps of a saga, and safe to repeat. Three take back what a run did: they are safe to
/// repeat too, and from then on every step of that run is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "body")]
pub enum TaskCommand {
    /// Reads the task.
    GetTask {},
    /// Makes the task.
    CreateTask(CreateTask),
    /// Moves the task to a status; `completed` cancels the reminder.
    UpdateStatus {
        /// The status.
        status: TaskStatus,
    },
    /// Gives the task to somebody.
    AssignTask {
        /// To whom.
        assignee: String,
        /// The saga's run; `None` for a direct call, which also takes the task from whoever has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<Run>,
    },
    /// Arms the reminder of the deadline.
    SetDeadlineReminder(SetDeadline),
    /// Takes back the reminder of a run.
    CancelDeadlineReminder {
        /// The run.
        run: Run,
    },
    /// Takes back the assignment of a run: the task is pending and nobody's.
    UnassignTask {
        /// The run.
        run: Run,
    },
    /// Takes back the task that a run made.
    WithdrawTask {
        /// The run.
        run: Run,
    },
    /// Forgets that a run was compensated, once no copy of its steps can come any more.
    ForgetRun {
        /// The run.
        run: Run,
    },
}

/// A task to be made, possibly for somebody at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTask {
    /// What it is called.
    pub title: String,
    /// What there is to do.
    pub description: String,
    /// How long it may take; `None` for as long as it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<Deadline>,
    /// Whose it is from the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment: Option<Assignment>,
    /// The saga's run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
}

/// Who gets a task that is being made, with the reminder of its deadline, if it has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Who gets it.
    pub assignee: String,
    /// From when on the deadline counts.
    #[serde(with = "as_text")]
    pub from: Timestamp,
}

/// A deadline to be reminded of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetDeadline {
    /// How long the task may take.
    pub deadline_seconds: Deadline,
    /// From when on; `None` is from now on.
    ///
    /// A saga says it, so that the deadline is the same however often and late the step runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Moment>,
    /// The saga's run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
}

/// A point in time, in JSON as RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(#[serde(with = "as_text")] pub Timestamp);
