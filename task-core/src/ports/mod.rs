//! The ports: what the core needs from the world, each a contract of numbered promises.
//!
//! A promise that an adapter MUST keep names the conformance case that checks it. The cases are
//! library code in the package `task-tests`; an adapter in another crate runs the same ones.
//!
//! Driven ports are held as `Arc<dyn Port>`: the backend is chosen at run time. A clone of that
//! `Arc` shares the backend. All of them answer with the one [`PortError`].

mod capability;
mod clock;
mod commit;
mod entropy;
mod error;
mod event_bus;
mod key;
mod notifier;
mod secret_store;
mod state_store;

pub use capability::{BusCapability, CapabilitySet, StateCapability};
pub use clock::{Clock, SystemClock};
pub use commit::{Commit, DeleteMode, DeleteOptions, Expect, Guard, PutOptions, Write, WriteMode};
pub use entropy::{Entropy, SystemEntropy};
pub use error::{ErrorKind, Outcome, PortError, Retry};
#[cfg(feature = "mock")]
pub use event_bus::MockEventBus;
pub use event_bus::{
    Answer, Delivery, DropReason, Event, EventBus, EventHandler, Group, Redelivery, StartAt,
    Subscription, Topic,
};
pub use key::{ETag, Key, Kind, MAX_KEY_BYTES, MAX_VALUE_BYTES, Stored};
#[cfg(feature = "mock")]
pub use notifier::MockNotifier;
pub use notifier::{Notification, Notifier};
#[cfg(feature = "mock")]
pub use secret_store::MockSecretStore;
pub use secret_store::{Secret, SecretName, SecretStore};
#[cfg(feature = "mock")]
pub use state_store::MockStateStore;
pub use state_store::{Page, PendingEvent, PendingId, StateStore};
