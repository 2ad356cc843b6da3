//! The embedded backend: state, events and notifications in one SQLite file, no server.
//!
//! ```text
//!             ┌─ EmbeddedStateStore ─┐   writes    ┌────────┐  one transaction, one fsync
//!  requests ──┼─ EmbeddedEventBus ───┼──(queue)──► │ writer │ ───────────────────────────► tasks.db
//!             └─ EmbeddedNotifier ───┘             └────────┘
//!                       └──────────── reads ─────► readers ◄── snapshot ──────────────────────┘
//! ```
//!
//! One writer thread owns the only writing connection. It takes everything that is queued into one
//! transaction, so many requests share one fsync, and answers them after the commit is on disk: the
//! journal is a write-ahead log with `synchronous=FULL`. Work that nobody waits for (publishing,
//! positions) lingers a moment to share the fsync of a request.
//!
//! One process owns a data directory. A second one is refused at [`Embedded::open`] by a file lock
//! that ends with the process, however it ends.
//!
//! *Source:* <https://sqlite.org/wal.html>, <https://sqlite.org/pragma.html#pragma_synchronous>.

mod config;
mod database;
mod error;
mod event_bus;
mod events;
mod ledger;
mod notifier;
mod reader;
mod records;
mod schema;
mod state_store;
mod subscription;
mod writer;

#[cfg(test)]
#[expect(
    clippy::clone_on_ref_ptr,
    reason = "a test keeps the handler that it hands over"
)]
mod tests;

use std::sync::Arc;

use task_core::ports::{Clock, PortError};

pub use config::EmbeddedConfig;
pub use error::OpenError;
pub use event_bus::EmbeddedEventBus;
pub use notifier::{EmbeddedNotifier, Received};
pub use state_store::EmbeddedStateStore;

use database::Database;

/// An open data directory. The file closes when the last adapter made from it is dropped.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use std::sync::Arc;
/// use adapters_direct::embedded::{Embedded, EmbeddedConfig};
/// use task_core::ports::{Key, Kind, PutOptions, StateStore, SystemClock};
///
/// # let directory = std::env::temp_dir().join(format!("embedded-doc-{}", std::process::id()));
/// let embedded = Embedded::open(&EmbeddedConfig::new(&directory), Arc::new(SystemClock)).unwrap();
/// let store = embedded.state_store();
/// let key = Key::new(Kind::TASK, "t-1");
/// store.put(&key, "durable".into(), PutOptions::default()).await.unwrap();
/// assert_eq!(store.get(&key).await.unwrap().unwrap().value, "durable");
/// # drop((store, embedded));
/// # std::fs::remove_dir_all(directory).unwrap();
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct Embedded {
    database: Arc<Database>,
}

impl Embedded {
    /// Opens a data directory, and makes it if it does not exist.
    ///
    /// It blocks for a few milliseconds; after a crash for the time that the journal takes to recover.
    ///
    /// # Errors
    /// Says which path is in use, cannot be written, or is not ours, and what to do about it.
    pub fn open(config: &EmbeddedConfig, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let database = Database::open(config, clock)?;
        Ok(Self {
            database: Arc::new(database),
        })
    }

    /// The state store in this file, whose events wait in its outbox for a relay to any bus.
    #[must_use]
    pub fn state_store(&self) -> EmbeddedStateStore {
        EmbeddedStateStore::with_outbox(Arc::clone(&self.database))
    }

    /// The state store in this file, whose events are on [`event_bus`](Self::event_bus) with the commit.
    ///
    /// It saves each event its second transaction. What an outbox in this file still holds is published
    /// first; no relay must run beside it.
    ///
    /// # Errors
    /// As the file.
    pub async fn publishing_state_store(&self) -> Result<EmbeddedStateStore, PortError> {
        EmbeddedStateStore::publishing(Arc::clone(&self.database)).await
    }

    /// Moves what is in the journal beside the file into the file, so that it alone is a whole copy.
    ///
    /// The journal is emptied with the last handle as well; who ends a process that may not get so far calls this.
    ///
    /// # Errors
    /// As the file.
    pub async fn checkpoint(&self) -> Result<(), PortError> {
        self.database.checkpoint().await
    }

    /// The event bus in this file.
    #[must_use]
    pub fn event_bus(&self) -> EmbeddedEventBus {
        EmbeddedEventBus::new(Arc::clone(&self.database))
    }

    /// The notification inbox in this file.
    #[must_use]
    pub fn notifier(&self) -> EmbeddedNotifier {
        EmbeddedNotifier::new(Arc::clone(&self.database))
    }
}
