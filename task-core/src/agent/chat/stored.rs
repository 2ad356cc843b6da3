//! A conversation as stores hold it.
//!
//! ```json
//! {"v":1,"messages":12,"revision":13,"entries":[{"role":"user","content":"…","timestamp":"…Z"}]}
//! ```

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{ChatActor, Message};
use crate::agent::record::{self, RecordError};
use crate::agent::values::ActorId;

#[derive(Serialize, Deserialize)]
struct Body {
    messages: u64,
    revision: u64,
    entries: Vec<Message>,
}

pub(super) fn encode(actor: &ChatActor) -> Bytes {
    let body = Body {
        messages: actor.messages,
        revision: actor.revision,
        entries: actor.entries.clone(),
    };
    record::encode(body, &actor.foreign)
}

pub(super) fn decode(id: ActorId, bytes: &[u8]) -> Result<ChatActor, RecordError> {
    let (body, foreign) = record::decode::<Body>(bytes)?;
    Ok(ChatActor {
        id,
        messages: body.messages,
        revision: body.revision,
        entries: body.entries,
        foreign,
    })
}
