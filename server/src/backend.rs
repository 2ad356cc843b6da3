//! Opens the backend that the configuration names: adapters, and what guards them.

use std::sync::Arc;

use task_core::ports::{EventBus, Notifier, StateStore};

use crate::app::StartError;
use crate::config::{self, Config};
use crate::http::Inbox;

#[cfg(feature = "embedded")]
mod embedded;

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

/// Opens the backend that the configuration names.
///
/// # Errors
/// The backend is not compiled in, or cannot be opened.
#[cfg_attr(
    not(feature = "embedded"),
    expect(clippy::unused_async, reason = "opening a backend waits for it")
)]
pub async fn open(config: &Config) -> Result<Backend, StartError> {
    match config.backend {
        #[cfg(feature = "embedded")]
        config::Backend::Embedded => embedded::open(config).await,
        #[cfg(not(feature = "embedded"))]
        config::Backend::Embedded => Err(StartError::NotCompiledIn {
            what: "the backend embedded",
            feature: "embedded",
        }),
        other @ (config::Backend::Direct | config::Backend::Dapr | config::Backend::Parallel) => {
            Err(StartError::BackendMissing {
                name: other.as_str(),
                compiled_in: COMPILED_IN,
            })
        }
    }
}
