//! The actors of the Task Agent: tasks, conversations and projects.
//!
//! ```text
//!  record ──load──► Actor ──perform(command) / remind(name, data)──► Turn { reply, changed, effects }
//!                     └──────────────store──► record
//! ```
//!
//! An actor is a pure state machine: from its state, a command and the time follow the next state, an answer, and
//! [`Effect`]s, which are what the world has to do. Which commands count, what a late reminder means and what an exchange leaves
//! behind is decided here. A driver gives an actor one turn at a time, makes state and effects durable before it answers, and
//! decides nothing.
//!
//! - The order of effects where one transaction cannot do all: see [`Effect`].
//! - Records are versioned JSON that keeps fields which this version does not know.
//! - Commands with a [`Run`] are steps of a [saga](crate::saga), and safe to repeat.
//!
//! Nothing here knows a driver, a store or HTTP.

mod actor;
pub(crate) mod as_text;
mod chat;
mod project;
mod record;
mod responder;
mod run;
mod task;
mod turn;
mod values;

pub use actor::{Actor, ActorType, Command, Reply};
pub use chat::{
    AGENT_EVENT_SOURCE, CONVERSATION_EVENTS_TOPIC, ChatActor, ChatCommand, HistoryView, Message,
    Role,
};
pub use project::{ProjectActor, ProjectCommand, ProjectTask, ProjectView};
pub use record::RecordError;
pub use responder::{BuiltInResponder, Question, Responder};
pub use run::{ParseRunError, Run};
pub use task::{Assignment, CreateTask, Moment, SetDeadline, TaskActor, TaskCommand, TaskView};
pub use turn::{DEADLINE_REMINDER, Effect, Refusal, Reminder, Turn};
pub use values::{ActorId, Deadline, TaskStatus};
