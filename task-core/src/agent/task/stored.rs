//! A task's actor as stores hold it.
//!
//! ```json
//! {"v":1,"task":{"title":"…","description":"…","status":"assigned","assignee":"ann","deadline":3600,
//!   "created_at":"…Z","updated_at":"…Z","created_by":"task-workflow-7@…","assigned_by":"task-workflow-7@…",
//!   "reminder":{"due":"…Z","by":"task-workflow-7@…","armed":true}},"undone":"task-workflow-7@…"}
//! ```

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Alarm, Task, TaskActor};
use crate::agent::record::{self, Foreign, RecordError};
use crate::agent::turn::{DEADLINE_REMINDER, Reminder};
use crate::agent::values::{ActorId, Deadline, TaskStatus};
use crate::agent::{Run, as_text};
use crate::domain::Timestamp;

#[derive(Serialize, Deserialize)]
struct Body {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task: Option<StoredTask>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    undone: Option<Run>,
}

#[derive(Serialize, Deserialize)]
struct StoredTask {
    title: String,
    description: String,
    status: TaskStatus,
    assignee: Option<String>,
    deadline: Option<Deadline>,
    #[serde(with = "as_text")]
    created_at: Timestamp,
    #[serde(with = "as_text")]
    updated_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created_by: Option<Run>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    assigned_by: Option<Run>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reminder: Option<StoredAlarm>,
    #[serde(flatten)]
    foreign: Foreign,
}

#[derive(Serialize, Deserialize)]
struct StoredAlarm {
    #[serde(with = "as_text")]
    due: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<Run>,
    armed: bool,
}

pub(super) fn encode(actor: &TaskActor) -> Option<Bytes> {
    if actor.task.is_none() && actor.undone.is_none() {
        return None;
    }
    let body = Body {
        task: actor.task.clone().map(StoredTask::from),
        undone: actor.undone.clone(),
    };
    Some(record::encode(body, &actor.foreign))
}

pub(super) fn decode(id: ActorId, bytes: &[u8]) -> Result<TaskActor, RecordError> {
    let (body, foreign) = record::decode::<Body>(bytes)?;
    Ok(TaskActor {
        id,
        task: body.task.map(Task::from),
        undone: body.undone,
        foreign,
    })
}

impl From<Task> for StoredTask {
    fn from(task: Task) -> Self {
        Self {
            title: task.title,
            description: task.description,
            status: task.status,
            assignee: task.assignee,
            deadline: task.deadline,
            created_at: task.created_at,
            updated_at: task.updated_at,
            created_by: task.created_by,
            assigned_by: task.assigned_by,
            reminder: task.reminder.map(|alarm| StoredAlarm {
                due: alarm.reminder.due,
                by: alarm.reminder.by,
                armed: alarm.is_armed,
            }),
            foreign: task.foreign,
        }
    }
}

impl From<StoredTask> for Task {
    fn from(stored: StoredTask) -> Self {
        Self {
            title: stored.title,
            description: stored.description,
            status: stored.status,
            assignee: stored.assignee,
            deadline: stored.deadline,
            created_at: stored.created_at,
            updated_at: stored.updated_at,
            created_by: stored.created_by,
            assigned_by: stored.assigned_by,
            reminder: stored.reminder.map(|alarm| Alarm {
                reminder: Reminder {
                    name: DEADLINE_REMINDER,
                    due: alarm.due,
                    by: alarm.by,
                },
                is_armed: alarm.armed,
            }),
            foreign: stored.foreign,
        }
    }
}
