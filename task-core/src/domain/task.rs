//! The task and its lifecycle.

use super::{EventType, Priority, Status, TaskId, Timestamp, Title};

/// What a client may say about a task: everything else is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The title.
    pub title: Title,
    /// A longer text, if any.
    pub description: Option<String>,
    /// The priority.
    pub priority: Priority,
}

/// A task.
///
/// ```
/// use task_core::domain::{Draft, EventType, Priority, Status, Task, TaskId, Timestamp, Title};
///
/// let draft = Draft {
///     title: Title::parse("write the report".to_owned()).unwrap(),
///     description: None,
///     priority: Priority::default(),
/// };
/// let noon = Timestamp::from_unix_micros(0);
/// let mut task = Task::create(TaskId::parse("t-1").unwrap(), draft, noon);
/// assert_eq!(task.set_status(Status::Completed, noon), Some(EventType::Completed));
/// assert_eq!(task.set_status(Status::Completed, noon), None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The identity, fixed for ever.
    pub id: TaskId,
    /// The part that a client may edit.
    pub draft: Draft,
    /// Where the task stands.
    pub status: Status,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last changed; never before an earlier change, even if the clock steps back.
    pub updated_at: Timestamp,
}

impl Task {
    /// Makes a pending task.
    #[must_use]
    pub fn create(id: TaskId, draft: Draft, now: Timestamp) -> Self {
        Self {
            id,
            draft,
            status: Status::Pending,
            created_at: now,
            updated_at: now,
        }
    }

    /// Moves the task to a status; `None` when it has that status already.
    #[must_use]
    pub fn set_status(&mut self, status: Status, now: Timestamp) -> Option<EventType> {
        if self.status == status {
            return None;
        }
        self.status = status;
        self.touch(now);
        Some(EventType::of_status(status))
    }

    /// Replaces what a client may edit; `None` when nothing differs.
    #[must_use]
    pub fn edit(&mut self, draft: Draft, now: Timestamp) -> Option<EventType> {
        if self.draft == draft {
            return None;
        }
        self.draft = draft;
        self.touch(now);
        Some(EventType::Updated)
    }

    fn touch(&mut self, now: Timestamp) {
        self.updated_at = self.updated_at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> Task {
        let draft = Draft {
            title: Title::stored("a".to_owned()),
            description: None,
            priority: Priority::default(),
        };
        let id = TaskId::parse("t").expect("a valid id");
        Task::create(id, draft, Timestamp::from_unix_micros(100))
    }

    #[test]
    fn every_status_leads_to_every_other_and_says_so() {
        for from in Status::ALL {
            for to in Status::ALL {
                let mut task = Task {
                    status: from,
                    ..task()
                };
                let event = task.set_status(to, Timestamp::from_unix_micros(200));
                assert_eq!(event, (from != to).then(|| EventType::of_status(to)));
                assert_eq!(task.status, to);
            }
        }
    }

    #[test]
    fn a_clock_that_steps_back_does_not_take_the_task_back() {
        let mut task = task();
        let _ = task.set_status(Status::Completed, Timestamp::from_unix_micros(50));
        assert_eq!(task.updated_at, Timestamp::from_unix_micros(100));
    }

    #[test]
    fn an_edit_that_changes_nothing_is_no_event() {
        let mut task = task();
        let same = task.draft.clone();
        assert_eq!(task.edit(same, Timestamp::from_unix_micros(200)), None);
        assert_eq!(task.updated_at, task.created_at);
    }
}
