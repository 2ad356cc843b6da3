//! A project as stores hold it.
//!
//! ```json
//! {"v":1,"project":{"title":"…","assignee":"ann","tasks":[{"task_id":"p-1","title":"…"}],"created_at":"…Z",
//!   "created_by":"project-workflow-p@…"},"undone":"project-workflow-p@…"}
//! ```

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Project, ProjectActor, ProjectTask};
use crate::agent::record::{self, Foreign, RecordError};
use crate::agent::values::ActorId;
use crate::agent::{Run, as_text};
use crate::domain::Timestamp;

#[derive(Serialize, Deserialize)]
struct Body {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    project: Option<StoredProject>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    undone: Option<Run>,
}

#[derive(Serialize, Deserialize)]
struct StoredProject {
    title: String,
    assignee: String,
    tasks: Vec<ProjectTask>,
    #[serde(with = "as_text")]
    created_at: Timestamp,
    created_by: Run,
    #[serde(flatten)]
    foreign: Foreign,
}

pub(super) fn encode(actor: &ProjectActor) -> Option<Bytes> {
    if actor.project.is_none() && actor.undone.is_none() {
        return None;
    }
    let body = Body {
        project: actor.project.clone().map(|project| StoredProject {
            title: project.title,
            assignee: project.assignee,
            tasks: project.tasks,
            created_at: project.created_at,
            created_by: project.created_by,
            foreign: project.foreign,
        }),
        undone: actor.undone.clone(),
    };
    Some(record::encode(body, &actor.foreign))
}

pub(super) fn decode(id: ActorId, bytes: &[u8]) -> Result<ProjectActor, RecordError> {
    let (body, foreign) = record::decode::<Body>(bytes)?;
    Ok(ProjectActor {
        id,
        project: body.project.map(|stored| Project {
            title: stored.title,
            assignee: stored.assignee,
            tasks: stored.tasks,
            created_at: stored.created_at,
            created_by: stored.created_by,
            foreign: stored.foreign,
        }),
        undone: body.undone,
        foreign,
    })
}
