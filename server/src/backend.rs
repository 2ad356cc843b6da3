//! Opens the backend that the configuration names.

use std::sync::Arc;

use task_core::memory::{MemoryEventBus, MemoryNotifier, MemoryStateStore};
use task_core::ports::{EventBus, Notifier, StateStore, SystemClock};

use crate::app::StartError;
use crate::config::{self, Config};
use crate::http::Inbox;

/// The backends of this build.
const COMPILED_IN: &[&str] = &[
    #[cfg(feature = "embedded")]
    "embedded",
];

/// The driven ports of the Task API.
#[derive(Debug)]
pub struct Backend {
    /// Where tasks live.
    pub store: Arc<dyn StateStore>,
    /// Where events go.
    pub bus: Arc<dyn EventBus>,
    /// Where notifications go.
    pub notifier: Arc<dyn Notifier>,
    /// What was notified, where that stays in this process.
    pub inbox: Option<Arc<dyn Inbox>>,
    /// What a person reads at the start about where tasks live.
    pub place: String,
}

// ============================ TO BE FILLED AT THE MERGE ============================
// The one function that chooses adapters. Until the embedded backend is here it opens the volatile
// ones, so that the rest of the program can be run and tested.

/// Opens the backend that the configuration names.
///
/// # Errors
/// The backend is not compiled in, or cannot be opened.
#[expect(clippy::unused_async, reason = "opening a backend waits for it")]
pub async fn open(config: &Config) -> Result<Backend, StartError> {
    match config.backend {
        config::Backend::Embedded => Ok(Backend {
            store: Arc::new(MemoryStateStore::new(Arc::new(SystemClock))),
            bus: Arc::new(MemoryEventBus::new()),
            notifier: Arc::new(MemoryNotifier::new()),
            inbox: None,
            place: "memory, gone at the end".to_owned(),
        }),
        missing @ (config::Backend::Direct | config::Backend::Dapr | config::Backend::Parallel) => {
            Err(backend_missing(missing.as_str()))
        }
    }
}

// ====================================================================================

/// The refusal of a backend that this build does not have.
#[must_use]
pub fn backend_missing(name: &'static str) -> StartError {
    StartError::BackendMissing {
        name,
        compiled_in: COMPILED_IN,
    }
}
