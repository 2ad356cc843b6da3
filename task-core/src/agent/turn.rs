//! What a turn of an actor comes to: its answer, and what the world has to do because of it.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Run, as_text};
use crate::domain::Timestamp;
use crate::ports::Event;

/// The name of the reminder of a task's deadline.
pub const DEADLINE_REMINDER: &str = "deadline_reminder";

/// A call that an actor wants to get at a time, or soon after it.
///
/// It carries what it was set for. When it fires, the actor compares that with what it waits for, so one that comes
/// late, twice, or after it was replaced does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reminder {
    /// The name; an actor has one of a name, and a later one replaces it.
    pub name: &'static str,
    /// When it fires.
    pub due: Timestamp,
    /// The workflow's run that set it; `None` for a direct call.
    pub by: Option<Run>,
}

impl Reminder {
    /// Pause after which a reminder comes again until it is cancelled.
    ///
    /// For schedulers that lose one which comes once, while nobody is there to take it. The turn that does a reminder's work
    /// cancels it.
    pub const REPEAT: Duration = Duration::from_secs(5);

    /// What the scheduler keeps for the reminder and hands back when it fires: a JSON object.
    #[must_use]
    pub fn data(&self) -> Bytes {
        let data = ReminderData {
            due: self.due,
            by: self.by.clone(),
        };
        Bytes::from(serde_json::to_vec(&data).expect("texts are JSON"))
    }

    /// Whether this is what a fired reminder was set for; never for what cannot be read.
    pub(super) fn was_set_as(&self, data: &[u8]) -> bool {
        serde_json::from_slice::<ReminderData>(data)
            .is_ok_and(|data| data.due == self.due && data.by == self.by)
    }
}

#[derive(Serialize, Deserialize)]
struct ReminderData {
    #[serde(with = "as_text")]
    due: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<Run>,
}

/// What the world has to do because of a turn.
///
/// All of it and the new state take effect together where one transaction can do that. Where none can, the order is:
/// set reminders, save the state with its events in one step, cancel reminders, answer. So a crash in between leaves
/// a reminder too many, which does no harm, and never one too few.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Registers a reminder in place of any of that name.
    SetReminder(Reminder),
    /// Removes the reminder of this name, if there is one.
    CancelReminder {
        /// The name.
        name: Box<str>,
    },
    /// Publishes an event, at least once.
    Publish(Event),
}

/// Why an actor does not do what it was told. Its state is as before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Refusal {
    /// There is no such task or project.
    #[error("{what} not found")]
    NotFound {
        /// What was looked for, beginning with a capital letter.
        what: String,
    },
    /// There is one already.
    #[error("{what} exists already")]
    Exists {
        /// What was to be created.
        what: String,
    },
    /// The task is done.
    #[error("the task is completed")]
    Completed,
    /// Somebody else has the task.
    #[error("the task is assigned to somebody else")]
    AssignedElsewhere,
    /// The step belongs to a run that was compensated.
    #[error("{run} was compensated")]
    Undone {
        /// The run.
        run: Run,
    },
    /// A value breaks its rule.
    #[error("{field}: {detail}")]
    Invalid {
        /// The field.
        field: String,
        /// What is wrong, with the limit and the value.
        detail: String,
    },
}

/// The outcome of one turn.
///
/// After a refusal nothing has changed, and there are no effects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn<R> {
    /// The answer.
    pub reply: Result<R, Refusal>,
    /// Whether there is a new state to save.
    pub changed: bool,
    /// What else has to be done.
    pub effects: Vec<Effect>,
}

impl<R> Turn<R> {
    /// A turn that changes nothing.
    pub(super) fn unchanged(reply: Result<R, Refusal>) -> Self {
        Self {
            reply,
            changed: false,
            effects: Vec::new(),
        }
    }

    /// The same turn with another type of answer.
    pub(super) fn map<T>(self, into: impl FnOnce(R) -> T) -> Turn<T> {
        Turn {
            reply: self.reply.map(into),
            changed: self.changed,
            effects: self.effects,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_of_a_reminder_is_pinned_and_known_again() {
        let due = Timestamp::from_unix_micros(1_795_228_713_868_859);
        let by = Some(Run::new("task-workflow-7", Timestamp::from_unix_micros(5)));
        let name = DEADLINE_REMINDER;
        let reminder = Reminder { name, due, by };
        assert_eq!(
            reminder.data(),
            r#"{"due":"2026-11-21T02:38:33.868859Z","by":"task-workflow-7@5"}"#
        );
        assert!(reminder.was_set_as(&reminder.data()));
        let by = None;
        let direct = Reminder { name, due, by };
        assert!(!reminder.was_set_as(&direct.data()));
        assert!(!reminder.was_set_as(b"soon"));
    }
}
