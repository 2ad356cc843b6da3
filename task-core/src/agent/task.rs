//! The task's actor: who has it, until when, and what a reminder means when it comes.
//!
//! A deadline belongs to the assignment that it was set for. Whoever completes the task or takes it from the assignee
//! ends it; a reminder that still fires finds nothing armed and is cancelled.
//!
//! A run that is compensated leaves a mark. So a step of it that was sent before, and arrives after, is refused, and the task
//! stays as it was before it was assigned.

mod command;
mod stored;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use command::{Assignment, CreateTask, Moment, SetDeadline, TaskCommand};

use super::record::{Foreign, RecordError};
use super::turn::{DEADLINE_REMINDER, Effect, Refusal, Reminder, Turn};
use super::values::{ActorId, Deadline, TaskStatus};
use super::{Run, as_text};
use crate::domain::Timestamp;

/// A task as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskView {
    /// Its id.
    pub task_id: ActorId,
    /// What it is called.
    pub title: String,
    /// What there is to do.
    pub description: String,
    /// Where it stands.
    pub status: TaskStatus,
    /// Who has it.
    pub assignee: Option<String>,
    /// How long it may take, in seconds, as it was given.
    pub deadline: Option<Deadline>,
    /// When it was created.
    #[serde(with = "as_text")]
    pub created_at: Timestamp,
    /// When it last changed.
    #[serde(with = "as_text")]
    pub updated_at: Timestamp,
}

/// The state of one task, whether the task is there or not.
///
/// ```
/// use task_core::agent::{ActorId, CreateTask, TaskActor, TaskCommand};
/// use task_core::domain::Timestamp;
///
/// let now = Timestamp::from_unix_micros(0);
/// let mut actor = TaskActor::load(ActorId::parse("task_id", "t-1").unwrap(), None).unwrap();
/// let unknown = actor.turn(TaskCommand::GetTask {}, now);
/// assert_eq!(unknown.reply.unwrap_err().to_string(), "Task not found");
/// assert!(!unknown.changed, "a reader leaves nothing behind");
///
/// let create = CreateTask {
///     title: "write the report".to_owned(),
///     description: "the one for March".to_owned(),
///     deadline_seconds: None,
///     assignment: None,
///     run: None,
/// };
/// let created = actor.turn(TaskCommand::CreateTask(create), now);
/// assert!(created.changed);
/// assert_eq!(created.reply.unwrap().unwrap().title, "write the report");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct TaskActor {
    id: ActorId,
    task: Option<Task>,
    /// The last run that was compensated.
    undone: Option<Run>,
    foreign: Foreign,
}

#[derive(Debug, Clone, PartialEq)]
struct Task {
    title: String,
    description: String,
    status: TaskStatus,
    assignee: Option<String>,
    deadline: Option<Deadline>,
    created_at: Timestamp,
    updated_at: Timestamp,
    created_by: Option<Run>,
    assigned_by: Option<Run>,
    reminder: Option<Alarm>,
    foreign: Foreign,
}

/// The deadline of an assignment. One that is over stays as a mark that its step was done.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Alarm {
    reminder: Reminder,
    is_armed: bool,
}

type Reply = Result<Option<TaskView>, Refusal>;

fn not_found() -> Refusal {
    let what = "Task".to_owned();
    Refusal::NotFound { what }
}

impl TaskActor {
    /// The actor of an id, from its record, if it has one.
    ///
    /// # Errors
    /// A record that is not of this version.
    pub fn load(id: ActorId, stored: Option<&[u8]>) -> Result<Self, RecordError> {
        match stored {
            Some(bytes) => stored::decode(id, bytes),
            None => Ok(Self {
                id,
                task: None,
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

    /// The task as clients see it.
    #[must_use]
    pub fn view(&self) -> Option<TaskView> {
        let task = self.task.as_ref()?;
        Some(TaskView {
            task_id: self.id.clone(),
            title: task.title.clone(),
            description: task.description.clone(),
            status: task.status,
            assignee: task.assignee.clone(),
            deadline: task.deadline,
            created_at: task.created_at,
            updated_at: task.updated_at,
        })
    }

    /// The reminder that has to be registered now.
    ///
    /// A driver that does not know what came of a save sets it again, after it has read the record.
    #[must_use]
    pub fn armed(&self) -> Option<&Reminder> {
        let alarm = self.task.as_ref()?.reminder.as_ref()?;
        alarm.is_armed.then_some(&alarm.reminder)
    }

    /// Carries out a command.
    #[must_use]
    pub fn turn(&mut self, command: TaskCommand, now: Timestamp) -> Turn<Option<TaskView>> {
        let before = self.clone();
        let reply = self.carry_out(command, now);
        if reply.is_err() {
            *self = before;
            return Turn::unchanged(reply);
        }
        // What the reminder has to be follows from the state: nobody forgets to cancel it.
        let effects = self.reminder_since(&before).into_iter().collect();
        Turn {
            reply,
            changed: *self != before,
            effects,
        }
    }

    /// Takes a reminder that has fired, with what it was set for.
    ///
    /// Only one that was set for the armed deadline, and not before it, makes the task overdue.
    #[must_use]
    pub fn remind(&mut self, name: &str, data: &[u8], now: Timestamp) -> Turn<Option<TaskView>> {
        let cancel = Effect::CancelReminder { name: name.into() };
        let armed = match name {
            DEADLINE_REMINDER => self.armed().cloned(),
            _ => None,
        };
        let mut turn = Turn::unchanged(Ok(None));
        match armed {
            None => turn.effects.push(cancel),
            // Too early, or another one: then the armed one is possibly registered no more.
            Some(armed) if now < armed.due || !armed.was_set_as(data) => {
                turn.effects.push(Effect::SetReminder(armed));
            }
            Some(_) => {
                self.overdue(now);
                turn.changed = true;
                turn.effects.push(cancel);
            }
        }
        turn.reply = Ok(self.view());
        turn
    }

    fn overdue(&mut self, now: Timestamp) {
        if let Some(task) = &mut self.task {
            task.status = TaskStatus::Overdue;
            task.disarm();
            task.touch(now);
        }
    }

    fn carry_out(&mut self, command: TaskCommand, now: Timestamp) -> Reply {
        match command {
            TaskCommand::GetTask {} => {
                self.task.as_ref().ok_or_else(not_found)?;
            }
            TaskCommand::CreateTask(create) => self.create(create, now)?,
            TaskCommand::UpdateStatus { status } => {
                let task = self.task.as_mut().ok_or_else(not_found)?;
                task.set_status(status, now);
            }
            TaskCommand::AssignTask { assignee, run } => {
                self.refuse_undone(run.as_ref())?;
                let task = self.task.as_mut().ok_or_else(not_found)?;
                task.assign(assignee, run, now)?;
            }
            TaskCommand::SetDeadlineReminder(set) => {
                self.refuse_undone(set.run.as_ref())?;
                let task = self.task.as_mut().ok_or_else(not_found)?;
                task.set_deadline(set, now)?;
            }
            TaskCommand::CancelDeadlineReminder { run } => {
                if let Some(task) = &mut self.task {
                    task.drop_reminder_of(&run, now);
                }
                self.mark_undone(run);
            }
            TaskCommand::UnassignTask { run } => {
                if let Some(task) = &mut self.task {
                    task.drop_reminder_of(&run, now);
                    task.unassign(&run, now);
                }
                self.mark_undone(run);
            }
            TaskCommand::WithdrawTask { run } => {
                self.task
                    .take_if(|task| task.created_by.as_ref() == Some(&run));
                self.mark_undone(run);
            }
            TaskCommand::ForgetRun { run } => {
                self.undone.take_if(|undone| *undone == run);
            }
        }
        Ok(self.view())
    }

    fn create(&mut self, create: CreateTask, now: Timestamp) -> Result<(), Refusal> {
        self.refuse_undone(create.run.as_ref())?;
        let is_step = create.run.is_some();
        match &mut self.task {
            None => self.task = Some(Task::create(create, now)?),
            Some(task) if is_step && task.created_by == create.run => {}
            // What an earlier run left behind, compensated, is taken up again.
            Some(task) if is_step && task.is_free() && create.assignment.is_none() => {
                task.title = create.title;
                task.description = create.description;
                task.deadline = create.deadline_seconds;
                task.created_by = create.run;
                task.touch(now);
            }
            Some(_) => {
                let what = "Task".to_owned();
                return Err(Refusal::Exists { what });
            }
        }
        Ok(())
    }

    fn refuse_undone(&self, run: Option<&Run>) -> Result<(), Refusal> {
        match (&self.undone, run) {
            (Some(undone), Some(run)) if undone.covers(run) => {
                Err(Refusal::Undone { run: run.clone() })
            }
            (Some(_) | None, _) => Ok(()),
        }
    }

    fn mark_undone(&mut self, run: Run) {
        if !self
            .undone
            .as_ref()
            .is_some_and(|undone| undone.covers(&run))
        {
            self.undone = Some(run);
        }
    }

    fn reminder_since(&self, before: &Self) -> Option<Effect> {
        match (before.armed(), self.armed()) {
            (before, Some(armed)) if before != Some(armed) => {
                Some(Effect::SetReminder(armed.clone()))
            }
            (Some(before), None) => Some(Effect::CancelReminder {
                name: before.name.into(),
            }),
            (Some(_) | None, _) => None,
        }
    }
}

impl Task {
    fn create(create: CreateTask, now: Timestamp) -> Result<Self, Refusal> {
        let mut task = Self {
            title: create.title,
            description: create.description,
            status: TaskStatus::Pending,
            assignee: None,
            deadline: create.deadline_seconds,
            created_at: now,
            updated_at: now,
            created_by: create.run.clone(),
            assigned_by: None,
            reminder: None,
            foreign: Foreign::new(),
        };
        if let Some(assignment) = create.assignment {
            task.assign(assignment.assignee, create.run.clone(), now)?;
            if let Some(deadline_seconds) = create.deadline_seconds {
                let set = SetDeadline {
                    deadline_seconds,
                    from: Some(Moment(assignment.from)),
                    run: create.run,
                };
                task.set_deadline(set, now)?;
            }
        }
        Ok(task)
    }

    fn is_free(&self) -> bool {
        self.status == TaskStatus::Pending && self.assignee.is_none()
    }

    fn set_status(&mut self, status: TaskStatus, now: Timestamp) {
        if self.status == status {
            return;
        }
        self.status = status;
        if status == TaskStatus::Completed {
            self.disarm();
        }
        self.touch(now);
    }

    fn assign(
        &mut self,
        assignee: String,
        run: Option<Run>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let is_step = run.is_some();
        if is_step && self.assigned_by == run {
            return Ok(());
        }
        if self.status == TaskStatus::Completed {
            return Err(Refusal::Completed);
        }
        match &self.assignee {
            // Nobody could give it back to whom a saga takes it from.
            Some(_) if is_step => return Err(Refusal::AssignedElsewhere),
            Some(holder) if *holder == assignee => return Ok(()),
            Some(_) | None => {}
        }
        self.assignee = Some(assignee);
        self.assigned_by = run;
        self.status = TaskStatus::Assigned;
        self.reminder = None;
        self.touch(now);
        Ok(())
    }

    fn set_deadline(&mut self, set: SetDeadline, now: Timestamp) -> Result<(), Refusal> {
        let is_step = set.run.is_some();
        if is_step && self.assigned_by != set.run {
            return Err(Refusal::AssignedElsewhere);
        }
        let is_done = |alarm: &Alarm| alarm.reminder.by == set.run;
        if is_step && self.reminder.as_ref().is_some_and(is_done) {
            return Ok(());
        }
        match self.status {
            // Done sooner than the saga could say until when: there is nothing to be reminded of.
            TaskStatus::Completed if is_step => return Ok(()),
            TaskStatus::Completed => return Err(Refusal::Completed),
            TaskStatus::Pending
            | TaskStatus::Assigned
            | TaskStatus::InProgress
            | TaskStatus::Overdue => {}
        }
        let from = set.from.map_or(now, |Moment(from)| from);
        self.deadline = Some(set.deadline_seconds);
        self.reminder = Some(Alarm {
            reminder: Reminder {
                name: DEADLINE_REMINDER,
                due: from.saturating_add(set.deadline_seconds.duration()),
                by: set.run,
            },
            is_armed: true,
        });
        self.touch(now);
        Ok(())
    }

    fn drop_reminder_of(&mut self, run: &Run, now: Timestamp) {
        let of_run = |alarm: &mut Alarm| alarm.reminder.by.as_ref() == Some(run);
        if self.reminder.take_if(of_run).is_some() {
            self.touch(now);
        }
    }

    fn unassign(&mut self, run: &Run, now: Timestamp) {
        if self.assigned_by.as_ref() != Some(run) {
            return;
        }
        self.assignee = None;
        self.assigned_by = None;
        // What somebody has completed in the meantime stays completed.
        if self.status != TaskStatus::Completed {
            self.status = TaskStatus::Pending;
        }
        self.touch(now);
    }

    fn disarm(&mut self) {
        if let Some(alarm) = &mut self.reminder {
            alarm.is_armed = false;
        }
    }

    fn touch(&mut self, now: Timestamp) {
        self.updated_at = self.updated_at.max(now);
    }
}
