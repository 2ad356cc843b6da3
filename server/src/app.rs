//! Wires the adapters, the use cases and the routes into one running service.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use task_core::application::TaskService;
use task_core::ports::{PortError, SystemClock, SystemEntropy};
use tokio::net::TcpListener;

use crate::backend::{self, Backend};
use crate::config::{Config, ConfigError};
use crate::http::{self, Gate, TaskApi, listener};
use crate::shutdown::Stopping;

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The backend is known, and not part of this build.
    #[error("this build does not have the backend {name}; it has: {}", compiled_in.join(", "))]
    BackendMissing {
        /// The backend that was asked for.
        name: &'static str,
        /// The backends of this build.
        compiled_in: &'static [&'static str],
    },
    /// The backend cannot be opened.
    #[error("cannot open the backend {name}")]
    Backend {
        /// The backend.
        name: &'static str,
        /// Why.
        source: PortError,
    },
    /// The address cannot be had.
    #[error(
        "cannot listen on {address}: {}; choose another with --listen",
        listen_reason(source)
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why, in the words of the operating system.
        source: io::Error,
    },
}

fn listen_reason(error: &io::Error) -> String {
    let known = [
        (io::ErrorKind::AddrInUse, "address in use"),
        (
            io::ErrorKind::AddrNotAvailable,
            "not an address of this machine",
        ),
        (io::ErrorKind::PermissionDenied, "permission denied"),
    ];
    let found = known.iter().find(|(kind, _)| *kind == error.kind());
    found.map_or_else(|| error.to_string(), |(_, words)| (*words).to_owned())
}

/// The Task API, ready to serve.
#[derive(Debug)]
pub struct App {
    gate: Arc<Gate>,
    api: Arc<TaskApi>,
    place: String,
}

impl App {
    /// Opens the backend and builds the service. Nothing listens yet.
    ///
    /// # Errors
    /// The backend is not part of this build, or cannot be opened.
    pub async fn build(config: &Config) -> Result<Self, StartError> {
        let backend = backend::open(config).await?;
        Ok(Self::over(backend, config))
    }

    /// Builds the service over a backend that is open already.
    #[must_use]
    pub fn over(backend: Backend, config: &Config) -> Self {
        let Backend {
            store,
            bus,
            notifier,
            inbox,
            place,
        } = backend;
        let service = TaskService::new(
            Arc::clone(&store),
            Arc::new(SystemClock),
            Arc::new(SystemEntropy),
        );
        let api = Arc::new(TaskApi {
            service: Arc::new(service),
            readiness: http::health::Readiness::new(store, bus, notifier),
            inbox,
        });
        let gate = Gate::new(http::router(Arc::clone(&api)), &config.limits);
        Self {
            gate: Arc::new(gate),
            api,
            place,
        }
    }

    /// The routes behind their limits, to be called without a network.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Where tasks live, in words for people.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Says whether notifications stay in this process, where `GET /notifications` shows them.
    #[must_use]
    pub fn has_inbox(&self) -> bool {
        self.api.inbox.is_some()
    }

    /// From now on `GET /ready` answers that the service is stopping.
    pub fn stop_being_ready(&self) {
        self.api.readiness.stop();
    }

    /// Serves until told to stop: not ready, drain, flush.
    pub async fn serve(self, listener: TcpListener, stopping: Stopping) {
        let mut noticed = stopping.clone();
        let not_ready = async {
            noticed.raised().await;
            self.stop_being_ready();
        };
        let serving = listener::serve(listener, Arc::clone(&self.gate), stopping);
        tokio::join!(not_ready, serving);
    }
}
