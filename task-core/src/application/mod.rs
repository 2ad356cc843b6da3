//! The use cases of the Task API, and what keeps its events honest.
//!
//! ```text
//!  TaskService ──commit(record + event)──► StateStore ──pending──► Relay ──publish──► EventBus
//!                                                                                        │
//!                        Notifier ◄──notify── CompletionNotifier ◄──────deliver──────────┘
//! ```
//!
//! A change and its event are written in one atomic step, so an acknowledged change has its event
//! even if the process dies at any instruction, and a refused one never has. [`Relay`] publishes
//! what is pending, at least once. [`CompletionNotifier`] drops the ids it has seen.
//!
//! Nothing here knows a backend or HTTP.

mod completion;
mod envelope;
mod error;
mod history;
mod incoming;
mod lease;
mod outbox;
mod record;
mod relay;
mod tasks;
mod turns;

#[cfg(test)]
mod tests;

pub use completion::CompletionNotifier;
pub(crate) use completion::SEEN_TTL;
pub(crate) use envelope::Envelope;
pub use envelope::{EVENT_SOURCE, PUBSUB_NAME, TASK_EVENTS_TOPIC, task_event};
pub use error::TaskError;
pub use history::GroupStart;
pub use incoming::{IncomingEvent, PoisonError};
pub use lease::Lease;
pub use outbox::Outbox;
use record::is_nothing;
pub use record::{Origin, RecordError, TaskRecord};
pub use relay::{Relay, RelayReport};
pub use tasks::{TaskService, TaskView, Terms};
