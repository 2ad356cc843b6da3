//! What a task is and what may happen to it.
//!
//! Values are parsed once and are valid from then on. The domain knows no I/O, no wire format and
//! no backend: HTTP has its own request types, stores have [`crate::application::TaskRecord`].

mod entity_tag;
mod error;
mod event;
mod ids;
mod task;
mod timestamp;
mod values;

pub use entity_tag::{EntityTag, Precondition, Revision};
pub use error::{FieldError, ValidationError};
pub use event::{EventType, TaskEvent};
pub use ids::{IdempotencyKey, TaskId};
pub use task::{Draft, Task};
pub use timestamp::{ParseTimestampError, Timestamp};
pub use values::{ParseStatusError, Priority, Status, Title};
