//! The admin routes: how a move between backends is looked at and driven.
//!
//! They have a listener of their own, on this machine alone unless a token is demanded. A request passes the
//! [`Gate`] with limits of its own, then a look at who asks, then a route that calls one method of the core's `Migration`.

mod access;
mod orders;
mod refusal;
mod routes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use task_core::ports::Secret;
use tokio::net::TcpListener;

use crate::app::StartError;
use crate::backend::Parallel;
use crate::config::{Config, Limits};
use crate::http::{Gate, listener, with_fallbacks};
use crate::secrets;
use crate::shutdown::Stopping;

pub(crate) use orders::{BackfillOrder, Order, Plainly, VerifyOrder};
pub(crate) use refusal::AdminProblem;
use routes::routes;

/// Requests in work at once; people and scripts ask one after the other.
const MAX_CONCURRENCY: usize = 32;

/// Longest time for one request: a step waits for every replica, and for one that is gone.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// The admin routes on their listener.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
    gate: Arc<Gate>,
    waits_for_init: bool,
}

/// An address that was taken, before there is anything to answer.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: TcpListener,
    address: SocketAddr,
    token: Option<Secret>,
}

impl Socket {
    /// Takes the address, and reads the token.
    pub(crate) async fn open(config: &Config) -> Result<Self, StartError> {
        let wanted = &config.admin;
        let store = secrets::open(config).await?;
        let token = secrets::resolve(&*store, "admin_token_secret", wanted.token.as_ref()).await?;
        let listener = listener::bind(wanted.listen, "--admin-listen").await?;
        let address = listener.local_addr().unwrap_or(wanted.listen);
        Ok(Self {
            listener,
            address,
            token,
        })
    }

    /// Puts the routes of a move behind it.
    pub(crate) fn with(self, parallel: &Parallel, config: &Config) -> Admin {
        let limits = Limits {
            max_concurrency: MAX_CONCURRENCY,
            max_connections: MAX_CONCURRENCY,
            request_timeout: REQUEST_TIMEOUT,
            ..config.limits.clone()
        };
        let guarded = access::guarded(with_fallbacks(routes(parallel)), self.token);
        Admin {
            listener: self.listener,
            address: self.address,
            gate: Arc::new(Gate::new(guarded, &limits)),
            waits_for_init: !parallel.has_begun(),
        }
    }
}

impl Admin {
    /// The address that was really taken: port 0 takes a free one.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether there was no move at the start, so that nothing is read and written until there is one.
    #[must_use]
    pub fn waits_for_init(&self) -> bool {
        self.waits_for_init
    }

    /// Answers until told to stop, as the service does.
    pub(crate) async fn serve(self, stopping: Stopping) {
        listener::serve_beside(self.listener, self.gate, stopping).await;
    }
}
