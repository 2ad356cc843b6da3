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

/// Says whether this build has what the configuration asks for.
///
/// # Errors
/// The backend, or the way to notify, is not compiled in.
pub fn check(config: &Config) -> Result<(), StartError> {
    if config.notification_url.is_some() && cfg!(not(feature = "http")) {
        return Err(StartError::NotCompiledIn {
            what: "notification_url",
            feature: "http",
        });
    }
    match config.backend {
        config::Backend::Embedded if cfg!(feature = "embedded") => Ok(()),
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

/// Opens the backend that the configuration names.
///
/// # Errors
/// The backend is not compiled in, or cannot be opened.
#[cfg_attr(
    not(feature = "embedded"),
    expect(clippy::unused_async, reason = "opening a backend waits for it")
)]
pub async fn open(config: &Config) -> Result<Backend, StartError> {
    check(config)?;
    #[cfg(feature = "embedded")]
    return embedded::open(config).await;
    #[cfg(not(feature = "embedded"))]
    unreachable!("no backend is compiled in, which was checked");
}
