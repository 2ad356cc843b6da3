//! The event of an exchange.

use serde::Serialize;
use uuid::Uuid;

use super::Message;
use crate::agent::values::ActorId;
use crate::application::Envelope;
use crate::ports::{Event, Topic};

/// The topic of conversation events.
pub const CONVERSATION_EVENTS_TOPIC: &str = "conversation-events";

/// The `source` of the agent's events: its app id.
pub const AGENT_EVENT_SOURCE: &str = "task-agent-system";

const EVENT_TYPE: &str = "conversation.updated";

/// Namespace of event ids. Changing it makes every consumer see old events as new.
const EVENT_NAMESPACE: Uuid = Uuid::from_u128(0x9d4b_2f70_61c8_5e3a_b1d7_4a0e_83f2_5c16);

#[derive(Serialize)]
struct Data<'a> {
    event_type: &'static str,
    user_id: &'a str,
    user_message: &'a str,
    assistant_message: &'a str,
    timestamp: String,
}

/// The event of the exchange that made this revision: the same bytes at every attempt.
pub(super) fn updated(
    user_id: &ActorId,
    revision: u64,
    said: &Message,
    answered: &Message,
) -> Event {
    let user_id = user_id.as_str();
    let name = format!("{user_id}\n{revision}\n{EVENT_TYPE}");
    let envelope = Envelope {
        id: Uuid::new_v5(&EVENT_NAMESPACE, name.as_bytes()),
        source: AGENT_EVENT_SOURCE,
        r#type: EVENT_TYPE,
        subject: user_id,
        time: answered.timestamp,
        topic: CONVERSATION_EVENTS_TOPIC,
        revision: None,
        data: Data {
            event_type: EVENT_TYPE,
            user_id,
            user_message: &said.content,
            assistant_message: &answered.content,
            timestamp: answered.timestamp.to_string(),
        },
    };
    Event {
        topic: Topic::new(CONVERSATION_EVENTS_TOPIC),
        key: user_id.into(),
        payload: envelope.to_bytes(),
    }
}
