//! The actor of a user's conversation.
//!
//! An exchange is what the user says and what the assistant answers. Both are kept, counted and announced in one step, or
//! neither: a responder that fails leaves nothing, and an answer that was given has its event, because the event is an effect of
//! the very turn that changes the state.

mod event;
mod stored;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use event::{AGENT_EVENT_SOURCE, CONVERSATION_EVENTS_TOPIC};

use super::as_text;
use super::record::{Foreign, RecordError};
use super::responder::Question;
use super::turn::{Effect, Refusal, Turn};
use super::values::ActorId;
use crate::domain::Timestamp;

/// Who said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The user.
    User,
    /// The one who answers.
    Assistant,
}

/// One entry of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who said it.
    pub role: Role,
    /// What was said.
    pub content: String,
    /// When it was kept.
    #[serde(with = "as_text")]
    pub timestamp: Timestamp,
}

/// A conversation as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryView {
    /// The user.
    pub user_id: ActorId,
    /// The last entries, oldest first; empty for somebody who never said anything.
    pub messages: Vec<Message>,
}

/// A command of a user's actor; the names of the variants are the names of the methods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", content = "body")]
pub enum ChatCommand {
    /// Answers the user; see [`Actor::perform`](super::Actor::perform).
    ProcessMessage {
        /// What the user says.
        content: String,
    },
    /// Reads the conversation.
    GetHistory {},
    /// Forgets the conversation.
    ClearHistory {},
}

/// The state of one user's conversation.
///
/// ```
/// use task_core::agent::{ActorId, BuiltInResponder, ChatActor, Effect};
/// use task_core::domain::Timestamp;
///
/// let mut actor = ChatActor::load(ActorId::parse("user_id", "ann").unwrap(), None).unwrap();
/// let question = actor.question("hello").unwrap();
/// let answer = BuiltInResponder::answer(&question);
/// let turn = actor.exchange(&question, &answer, Timestamp::from_unix_micros(0));
/// assert_eq!(turn.reply.unwrap().content, answer);
/// assert!(matches!(turn.effects[..], [Effect::Publish(_)]));
/// assert_eq!(actor.history().messages.len(), 2);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ChatActor {
    id: ActorId,
    /// The user's messages since the history was last cleared.
    messages: u64,
    /// Changes so far; never begun again, so that no event has the id of another.
    revision: u64,
    entries: Vec<Message>,
    foreign: Foreign,
}

impl ChatActor {
    /// Entries that are kept: ten exchanges.
    pub const MAX_ENTRIES: usize = 20;

    /// Most Unicode scalar values of a message.
    ///
    /// However they are escaped, all entries of a conversation fit into one value of a state store.
    pub const MAX_MESSAGE_CHARS: usize = 8_000;

    /// The actor of a user, from its record, if it has one.
    ///
    /// # Errors
    /// A record that is not of this version.
    pub fn load(id: ActorId, stored: Option<&[u8]>) -> Result<Self, RecordError> {
        match stored {
            Some(bytes) => stored::decode(id, bytes),
            None => Ok(Self {
                id,
                messages: 0,
                revision: 0,
                entries: Vec::new(),
                foreign: Foreign::new(),
            }),
        }
    }

    /// The record to be stored; `None` when there is nothing to store, or no more.
    #[must_use]
    pub fn store(&self) -> Option<Bytes> {
        (self.revision > 0).then(|| stored::encode(self))
    }

    /// The conversation as clients see it.
    #[must_use]
    pub fn history(&self) -> HistoryView {
        HistoryView {
            user_id: self.id.clone(),
            messages: self.entries.clone(),
        }
    }

    /// What a responder is asked when the user says something. Nothing is kept yet.
    ///
    /// # Errors
    /// `Invalid` when the message is empty or too long.
    pub fn question(&self, content: &str) -> Result<Question, Refusal> {
        let chars = content.chars().count();
        if !(1..=Self::MAX_MESSAGE_CHARS).contains(&chars) {
            let most = Self::MAX_MESSAGE_CHARS;
            return Err(Refusal::Invalid {
                field: "content".to_owned(),
                detail: format!("a message has 1 to {most} characters, this one has {chars}"),
            });
        }
        Ok(Question {
            content: content.to_owned(),
            messages: self.messages + 1,
            history: self.entries.clone(),
        })
    }

    /// Keeps a question and its answer, and announces them.
    #[must_use]
    pub fn exchange(&mut self, question: &Question, answer: &str, now: Timestamp) -> Turn<Message> {
        let message = |role, content: &str| Message {
            role,
            content: content.chars().take(Self::MAX_MESSAGE_CHARS).collect(),
            timestamp: now,
        };
        let said = message(Role::User, &question.content);
        let answered = message(Role::Assistant, answer);
        self.messages = question.messages;
        self.revision += 1;
        let event = event::updated(&self.id, self.revision, &said, &answered);
        self.entries.extend([said, answered.clone()]);
        let surplus = self.entries.len().saturating_sub(Self::MAX_ENTRIES);
        self.entries.drain(..surplus);
        Turn {
            reply: Ok(answered),
            changed: true,
            effects: vec![Effect::Publish(event)],
        }
    }

    /// Forgets the conversation; the next message is the first one again.
    #[must_use]
    pub fn clear(&mut self) -> Turn<()> {
        let mut turn = Turn::unchanged(Ok(()));
        if self.messages > 0 {
            self.messages = 0;
            self.entries.clear();
            self.revision += 1;
            turn.changed = true;
        }
        turn
    }
}
