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
//! # What a driver does
//!
//! 1. One turn at a time for each actor. [`Actor::load`] from its record, then [`Actor::perform`] or [`Actor::remind`].
//! 2. A turn that [changed](Turn::changed) something is stored: what [`Actor::store`] says takes the place of the record, and where it
//!    says nothing the record goes. A turn that changed nothing stores nothing, and may have effects all the same.
//! 3. State and effects take effect together, or in the order of [`Effect`]. The answer is given afterwards.
//! 4. After a save whose outcome is not known it forgets what it has loaded, and sets the reminder again that
//!    [`TaskActor::armed`] tells of.
//! 5. A reminder fires at its time or later, also when nobody was there at its time; how often does not matter. It hands back the
//!    [data](Reminder::data) of its registration, byte for byte.
//!
//! Records are versioned JSON that keeps fields which this version does not know. Commands with a [`Run`] are steps of a
//! [saga](crate::saga), and safe to repeat.
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
