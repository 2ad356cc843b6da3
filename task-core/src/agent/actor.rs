//! Any actor, as a driver sees it: bytes in, a turn, bytes out.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::chat::{ChatActor, ChatCommand, HistoryView, Message};
use super::project::{ProjectActor, ProjectCommand, ProjectView};
use super::record::RecordError;
use super::responder::Responder;
use super::task::{TaskActor, TaskCommand, TaskView};
use super::turn::{Effect, Refusal, Turn};
use super::values::ActorId;
use crate::domain::{FieldError, Timestamp};
use crate::ports::{Clock, PortError};

/// The types of actors, by the names that a driver registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ActorType {
    /// One task.
    Task,
    /// One user's conversation.
    Chat,
    /// One project.
    Project,
}

impl ActorType {
    /// All types.
    pub const ALL: [Self; 3] = [Self::Task, Self::Chat, Self::Project];

    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Task => "TaskActor",
            Self::Chat => "ChatActor",
            Self::Project => "ProjectActor",
        }
    }
}

impl fmt::Display for ActorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ActorType {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|one| one.as_str() == text);
        found.ok_or_else(|| FieldError::new("actor", "there is no actor of this type"))
    }
}

/// A command of any actor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "actor", content = "command")]
pub enum Command {
    /// Of a task.
    #[serde(rename = "TaskActor")]
    Task(TaskCommand),
    /// Of a conversation.
    #[serde(rename = "ChatActor")]
    Chat(ChatCommand),
    /// Of a project.
    #[serde(rename = "ProjectActor")]
    Project(ProjectCommand),
}

impl Command {
    /// Whose command it is.
    #[must_use]
    pub fn actor(&self) -> ActorType {
        match self {
            Self::Task(_) => ActorType::Task,
            Self::Chat(_) => ActorType::Chat,
            Self::Project(_) => ActorType::Project,
        }
    }

    /// Reads a call by the name of its method and its body, which is a JSON object or nothing.
    ///
    /// ```
    /// use task_core::agent::{ActorType, Command, TaskCommand};
    ///
    /// let read = Command::parse(ActorType::Task, "GetTask", b"").unwrap();
    /// assert_eq!(read, Command::Task(TaskCommand::GetTask {}));
    /// assert!(Command::parse(ActorType::Task, "DropTask", b"").is_err());
    /// ```
    ///
    /// # Errors
    /// Names what is wrong with the body, or that there is no such method.
    pub fn parse(actor: ActorType, method: &str, body: &[u8]) -> Result<Self, FieldError> {
        let refused = |error: serde_json::Error| FieldError::new("body", error.to_string());
        let body: Option<Value> = match body.trim_ascii() {
            b"" => None,
            body => serde_json::from_slice(body).map_err(refused)?,
        };
        let body = body.unwrap_or_else(|| json!({}));
        let command = json!({"method": method, "body": body});
        match actor {
            ActorType::Task => serde_json::from_value(command).map(Self::Task),
            ActorType::Chat => serde_json::from_value(command).map(Self::Chat),
            ActorType::Project => serde_json::from_value(command).map(Self::Project),
        }
        .map_err(refused)
    }

    /// The name of the method and the body, as [`parse`](Self::parse) reads them.
    #[must_use]
    pub fn to_call(&self) -> (String, Bytes) {
        let json = match self {
            Self::Task(command) => serde_json::to_value(command),
            Self::Chat(command) => serde_json::to_value(command),
            Self::Project(command) => serde_json::to_value(command),
        };
        let json = json.expect("a command has only string keys");
        let method = json["method"].as_str().unwrap_or_default().to_owned();
        (method, Bytes::from(json["body"].to_string()))
    }
}

/// The answer of any actor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// A task; `None` after it was taken back.
    Task(Option<TaskView>),
    /// What the assistant says.
    Message(Message),
    /// A conversation.
    History(HistoryView),
    /// A project; `None` after it was taken back.
    Project(Option<ProjectView>),
    /// There is nothing to say.
    Done,
}

/// Any actor with its state.
///
/// A driver loads it, lets it have its turn while nobody else does, makes state and effects durable, and only then hands out the
/// answer:
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use task_core::agent::{Actor, ActorId, ActorType, BuiltInResponder, Command, Reply};
/// use task_core::memory::ManualClock;
///
/// let id = ActorId::parse("user_id", "ann").unwrap();
/// let stored = None;
/// let mut actor = Actor::load(ActorType::Chat, id, stored).unwrap();
/// let say = Command::parse(ActorType::Chat, "ProcessMessage", br#"{"content":"hello"}"#).unwrap();
/// let turn = actor.perform(say, &BuiltInResponder, &ManualClock::default()).await.unwrap();
/// assert!(turn.changed);
/// let to_be_stored = actor.store();
/// assert!(to_be_stored.is_some());
/// assert!(matches!(turn.reply, Ok(Reply::Message(_))));
/// # });
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Actor {
    /// One task.
    Task(TaskActor),
    /// One user's conversation.
    Chat(ChatActor),
    /// One project.
    Project(ProjectActor),
}

impl Actor {
    /// An actor from its record, if it has one.
    ///
    /// # Errors
    /// A record that is not of this version.
    pub fn load(actor: ActorType, id: ActorId, stored: Option<&[u8]>) -> Result<Self, RecordError> {
        match actor {
            ActorType::Task => TaskActor::load(id, stored).map(Self::Task),
            ActorType::Chat => ChatActor::load(id, stored).map(Self::Chat),
            ActorType::Project => ProjectActor::load(id, stored).map(Self::Project),
        }
    }

    /// The record to be stored; `None` when there is nothing to store, or no more.
    #[must_use]
    pub fn store(&self) -> Option<Bytes> {
        match self {
            Self::Task(actor) => actor.store(),
            Self::Chat(actor) => actor.store(),
            Self::Project(actor) => actor.store(),
        }
    }

    /// Has a turn. Only a message of a conversation waits for anything: for the responder.
    ///
    /// # Errors
    /// The responder failed; nothing has changed.
    ///
    /// # Cancel safety
    /// A dropped future has changed nothing.
    pub async fn perform(
        &mut self,
        command: Command,
        responder: &dyn Responder,
        clock: &dyn Clock,
    ) -> Result<Turn<Reply>, PortError> {
        let turn = match (self, command) {
            (Self::Task(actor), Command::Task(command)) => {
                actor.turn(command, clock.now()).map(Reply::Task)
            }
            (Self::Project(actor), Command::Project(command)) => {
                actor.turn(command, clock.now()).map(Reply::Project)
            }
            (Self::Chat(actor), Command::Chat(command)) => {
                return converse(actor, command, responder, clock).await;
            }
            (Self::Task(_) | Self::Chat(_) | Self::Project(_), command) => {
                Turn::unchanged(Err(Refusal::Invalid {
                    field: "command".to_owned(),
                    detail: format!("it is one of a {}", command.actor()),
                }))
            }
        };
        Ok(turn)
    }

    /// Takes a reminder that has fired, with the data that it was registered with.
    #[must_use]
    pub fn remind(&mut self, name: &str, data: &[u8], now: Timestamp) -> Turn<Reply> {
        match self {
            Self::Task(actor) => actor.remind(name, data, now).map(Reply::Task),
            // Nobody has set one.
            Self::Chat(_) | Self::Project(_) => Turn {
                reply: Ok(Reply::Done),
                changed: false,
                effects: vec![Effect::CancelReminder { name: name.into() }],
            },
        }
    }
}

async fn converse(
    actor: &mut ChatActor,
    command: ChatCommand,
    responder: &dyn Responder,
    clock: &dyn Clock,
) -> Result<Turn<Reply>, PortError> {
    Ok(match command {
        ChatCommand::ProcessMessage { content } => match actor.question(&content) {
            Ok(question) => {
                let answer = responder.respond(&question).await?;
                let turn = actor.exchange(&question, &answer, clock.now());
                turn.map(Reply::Message)
            }
            Err(refusal) => Turn::unchanged(Err(refusal)),
        },
        ChatCommand::GetHistory {} => Turn::unchanged(Ok(Reply::History(actor.history()))),
        ChatCommand::ClearHistory {} => actor.clear().map(|()| Reply::Done),
    })
}
