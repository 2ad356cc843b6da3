//! What happened to a task, as the world outside hears it.

use std::fmt;

use uuid::Uuid;

use super::{Revision, Status, Task, TaskId, Timestamp};

/// Namespace of event ids. Changing it makes every consumer see old events as new.
const EVENT_NAMESPACE: Uuid = Uuid::from_u128(0x2f1e_6c0b_5d3a_5b7e_9a44_0c8f_6d21_77e5);

/// What kind of change an event reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// The task was created.
    Created,
    /// The task went back to pending.
    Pending,
    /// The task is being worked on.
    InProgress,
    /// The task was completed.
    Completed,
    /// The title, description or priority changed.
    Updated,
}

impl EventType {
    /// All types.
    pub const ALL: [Self; 5] = [
        Self::Created,
        Self::Pending,
        Self::InProgress,
        Self::Completed,
        Self::Updated,
    ];

    /// The type as it travels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "task.created",
            Self::Pending => "task.pending",
            Self::InProgress => "task.in_progress",
            Self::Completed => "task.completed",
            Self::Updated => "task.updated",
        }
    }

    /// The event of reaching a status.
    #[must_use]
    pub fn of_status(status: Status) -> Self {
        match status {
            Status::Pending => Self::Pending,
            Status::InProgress => Self::InProgress,
            Status::Completed => Self::Completed,
        }
    }

    /// Reads a type; `None` for one that we do not know.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One change of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskEvent {
    /// What happened.
    pub event_type: EventType,
    /// The task.
    pub task_id: TaskId,
    /// Its title after the change.
    pub title: String,
    /// Its status after the change.
    pub status: Status,
    /// When it changed.
    pub timestamp: Timestamp,
}

impl TaskEvent {
    /// Most characters of a title that an event carries. Only a foreign writer stores longer ones.
    pub const MAX_TITLE_CHARS: usize = 10_000;

    /// The event of a task's latest change.
    #[must_use]
    pub fn of(task: &Task, event_type: EventType) -> Self {
        Self {
            event_type,
            task_id: task.id.clone(),
            title: (task.draft.title.as_str().chars())
                .take(Self::MAX_TITLE_CHARS)
                .collect(),
            status: task.status,
            timestamp: task.updated_at,
        }
    }

    /// The event's id: the same change has the same id on every backend and at every attempt.
    #[must_use]
    pub fn id(&self, revision: Revision) -> Uuid {
        let name = format!("{}\n{revision}\n{}", self.task_id, self.event_type);
        Uuid::new_v5(&EVENT_NAMESPACE, name.as_bytes())
    }

    /// The id of an event that came bare, without an envelope, from the replaced service.
    ///
    /// The timestamp counts as the time that it means, however it is written: `2026-11-21T02:08:47.911595`
    /// and the same with `Z` are one event. What is no time counts as it is.
    #[must_use]
    pub fn legacy_id(task_id: &str, event_type: &str, timestamp: &str) -> Uuid {
        let time = timestamp.parse::<Timestamp>();
        let time = time.map_or_else(|_| timestamp.to_owned(), |time| time.to_string());
        let name = format!("{task_id}\n{event_type}\n{time}");
        Uuid::new_v5(&EVENT_NAMESPACE, name.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(event_type: EventType) -> TaskEvent {
        TaskEvent {
            event_type,
            task_id: TaskId::parse("t-1").expect("a valid id"),
            title: "a".to_owned(),
            status: Status::Pending,
            timestamp: Timestamp::from_unix_micros(0),
        }
    }

    #[test]
    fn an_event_id_is_pinned() {
        let revision = Revision { term: 0, rev: 1 };
        assert_eq!(
            event(EventType::Created).id(revision).to_string(),
            "86406e76-afd3-5746-a421-9b2fe3a76a62"
        );
    }

    #[test]
    fn a_bare_event_is_the_same_however_its_time_is_written() {
        let id = |time| TaskEvent::legacy_id("t-1", "task.completed", time).to_string();
        let canonical = id("2026-11-21T02:08:47.911595Z");
        assert_eq!(canonical, "bd03e4cd-2081-5453-81ff-f53f0f5647cc");
        for other in [
            "2026-11-21T02:08:47.911595",
            "2026-11-21T02:08:47.911595+00:00",
            "2026-11-21T04:08:47.911595+02:00",
            "2026-11-21 02:08:47.911595",
        ] {
            assert_eq!(id(other), canonical, "{other}");
        }
        assert_ne!(id("2026-11-21T02:08:47.911596Z"), canonical);
        assert_eq!(id("2026-11-21T02:08:47"), id("2026-11-21T02:08:47.000000Z"));
        assert_ne!(id("yesterday"), id("today"));
    }

    #[test]
    fn another_revision_or_type_is_another_event() {
        let first = Revision { term: 0, rev: 1 };
        let created = event(EventType::Created);
        assert_ne!(created.id(first), created.id(first.next(0)));
        assert_ne!(created.id(first), event(EventType::Updated).id(first));
    }

    #[test]
    fn every_type_reads_back() {
        for kind in EventType::ALL {
            assert_eq!(EventType::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(EventType::parse("task.deleted"), None);
    }
}
