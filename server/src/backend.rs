//! Opens the backend that the configuration names: adapters, and what guards them.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use futures_util::future::BoxFuture;
use task_core::application::{Outbox, Relay};
#[cfg(feature = "dapr")]
use task_core::ports::SecretStore;
use task_core::ports::{EventBus, Group, Notifier, PortError, StateStore, SystemEntropy};

use crate::app::StartError;
use crate::clock::MachineClock;
use crate::config::{self, Config, Conflict, SecretSource};
use crate::http::Inbox;

#[cfg(all(feature = "redis", feature = "http"))]
pub mod convert;
#[cfg(feature = "dapr")]
mod dapr;
#[cfg(all(feature = "redis", feature = "http"))]
mod direct;
#[cfg(feature = "embedded")]
mod embedded;
#[cfg(any(
    feature = "embedded",
    feature = "dapr",
    all(feature = "redis", feature = "http")
))]
mod guards;
#[cfg(all(feature = "redis", feature = "http", feature = "kafka"))]
mod kafka;
mod known;
#[cfg(any(
    feature = "embedded",
    feature = "dapr",
    all(feature = "redis", feature = "http")
))]
mod notifier;
mod pairs;
mod parallel;
#[cfg(any(feature = "dapr", all(feature = "redis", feature = "http")))]
mod waiting;

pub use parallel::Parallel;
pub(crate) use parallel::Running;

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
    /// Whether other processes may serve the same tasks.
    pub replicas: Replicas,
    /// Who hears the events.
    pub consumer: Consumer,
    /// Routes that the backend calls on this service.
    pub callbacks: Option<Router>,
    /// What is saved after everything else has ended.
    pub parting: Option<Parting>,
    /// What was asked of the backend to open it, to be kept for a start without it.
    pub profile: serde_json::Value,
    /// The move that the service takes part in; its store is the one above.
    pub parallel: Option<Parallel>,
    /// What a person reads at the start about where tasks live.
    pub place: String,
    /// What a person reads at the start about where notifications go; `None` is the local inbox.
    pub receiver: Option<String>,
}

/// What a backend saves at the end, so that the next start need not.
// Only a lock makes it one that several may look at.
pub struct Parting(Mutex<BoxFuture<'static, Result<(), PortError>>>);

impl Parting {
    /// What is to be awaited at the end.
    pub fn new(saving: impl Future<Output = Result<(), PortError>> + Send + 'static) -> Self {
        Self(Mutex::new(Box::pin(saving)))
    }

    async fn saved(self) -> Result<(), PortError> {
        let saving = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        saving.await
    }

    pub(crate) async fn save(self) {
        if let Err(error) = self.saved().await {
            tracing::warn!(%error, "not everything was tidied up; the next start does it");
        }
    }
}

impl fmt::Debug for Parting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parting").finish_non_exhaustive()
    }
}

/// The consumer of the task events.
#[derive(Debug)]
pub struct Consumer {
    /// Its group.
    pub group: Group,
    /// What the group hears first if the bus does not know it.
    pub hears: Hears,
}

impl Default for Consumer {
    /// The group `task-api`, which hears what is new.
    fn default() -> Self {
        let group = Group::new("task-api");
        let hears = Hears::News;
        Self { group, hears }
    }
}

/// What a new group hears first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hears {
    /// What is published from now on.
    News,
    /// What this other group has left.
    After(Group),
    /// Everything that the bus still has.
    History,
}

/// How many processes may serve the same tasks.
#[derive(Debug)]
pub enum Replicas {
    /// This one alone.
    One,
    /// Any number, which take turns at what only one may do.
    Many {
        /// Where the lease of their relay lies: one place for each outbox.
        leases: Arc<dyn StateStore>,
        /// The name of their relay's lease. On one Redis the direct backend and that of Dapr serve the same tasks
        /// and have each an outbox of their own, so each has a name of its own.
        lease: &'static str,
    },
}

impl Replicas {
    /// The relay of an outbox that these have.
    pub(crate) fn relay(
        self,
        outbox: Arc<Outbox>,
        bus: Arc<dyn EventBus>,
    ) -> Result<Relay, PortError> {
        match self {
            Self::One => Ok(Relay::new(outbox, bus)),
            Self::Many { leases, lease } => {
                let clock = Arc::new(MachineClock);
                Relay::shared(outbox, bus, leases, lease, clock, &SystemEntropy)
            }
        }
    }
}

/// What a backend is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role<'a> {
    /// To serve tasks by itself. It does not write past a move that somebody else has begun.
    Alone,
    /// To be one side of a move, which decides what is written and published.
    Side,
    /// To be the side of a move that may be away, with the profile that it had at an earlier start.
    Known(&'a serde_json::Value),
}

/// What a build without Dapr says to the secrets of a sidecar.
pub(crate) const NO_SIDECAR_SECRETS: StartError = StartError::NotCompiledIn {
    what: "secrets of a Dapr sidecar",
    feature: "dapr",
};

/// The store of secrets in the sidecar that the configuration names, once it is there.
///
/// # Errors
/// It does not come, or has no such component.
#[cfg(feature = "dapr")]
pub(crate) async fn secrets_of_sidecar(
    config: &Config,
) -> Result<Arc<dyn SecretStore>, StartError> {
    dapr::secrets(config).await
}

/// Says whether this build has what the configuration asks for.
///
/// # Errors
/// The backend, or the way to notify, is not compiled in.
pub fn check(config: &Config) -> Result<(), StartError> {
    if config.notification_url.is_some() && cfg!(not(feature = "http")) {
        return lacks("notification_url", "http");
    }
    if matches!(config.secrets, SecretSource::Sidecar(_)) && cfg!(not(feature = "dapr")) {
        return Err(NO_SIDECAR_SECRETS);
    }
    for backend in config::Backend::SIDES {
        if config.uses(backend) {
            check_one(config, backend)?;
        }
    }
    Ok(())
}

fn lacks(what: &'static str, feature: &'static str) -> Result<(), StartError> {
    Err(StartError::NotCompiledIn { what, feature })
}

fn check_one(config: &Config, backend: config::Backend) -> Result<(), StartError> {
    match backend {
        config::Backend::Embedded if cfg!(not(feature = "embedded")) => {
            lacks("the backend embedded", "embedded")
        }
        config::Backend::Direct => check_direct(config),
        config::Backend::Dapr if cfg!(not(feature = "dapr")) => lacks("the backend dapr", "dapr"),
        config::Backend::Embedded | config::Backend::Dapr | config::Backend::Parallel => Ok(()),
    }
}

#[cfg(all(feature = "redis", feature = "http"))]
fn check_direct(config: &Config) -> Result<(), StartError> {
    direct::check(config)
}

#[cfg(not(all(feature = "redis", feature = "http")))]
fn check_direct(_: &Config) -> Result<(), StartError> {
    lacks("the backend direct", "direct")
}

/// Lets only a sidecar that shows the app token through to a router's routes, if the environment has one.
///
/// # Errors
/// That token is none.
#[cfg(feature = "dapr")]
pub(crate) fn with_app_token(router: Router, config: &Config) -> Result<Router, StartError> {
    dapr::with_app_token(router, config)
}

/// Lets everybody through, unless the environment has an app token.
///
/// # Errors
/// It has one: then who cannot ask for it must not listen.
#[cfg(not(feature = "dapr"))]
pub(crate) fn with_app_token(router: Router, config: &Config) -> Result<Router, StartError> {
    match config.sidecar_variables.has_app_token() {
        false => Ok(router),
        true => Err(StartError::NotCompiledIn {
            what: "the app token of a Dapr sidecar",
            feature: "dapr",
        }),
    }
}

/// What the adapters of the configured backend refuse, as far as this build has them, and which moves there are not.
#[must_use]
pub fn conflicts(config: &Config) -> Vec<Conflict> {
    let used = config::Backend::SIDES.into_iter();
    let used = used.filter(|backend| config.uses(*backend));
    let of_adapters = used.flat_map(|backend| match backend {
        #[cfg(all(feature = "redis", feature = "http"))]
        config::Backend::Direct => direct::conflicts(config),
        _ => Vec::new(),
    });
    let of_pair = pairs::conflicts(config).into_iter();
    let of_adapters = of_adapters.chain(of_sidecar(config));
    of_pair.chain(of_adapters).collect()
}

#[cfg(feature = "dapr")]
fn of_sidecar(config: &Config) -> Vec<Conflict> {
    dapr::conflicts(config)
}

#[cfg(not(feature = "dapr"))]
fn of_sidecar(_: &Config) -> Vec<Conflict> {
    Vec::new()
}

/// Opens the backend that the configuration names.
///
/// # Errors
/// The backend is not compiled in, or cannot be opened.
pub async fn open(config: &Config) -> Result<Backend, StartError> {
    check(config)?;
    match config.backend {
        config::Backend::Parallel => Box::pin(parallel::open(config)).await,
        alone @ (config::Backend::Embedded | config::Backend::Direct | config::Backend::Dapr) => {
            open_one(config, alone, &config.direct.redis, Role::Alone).await
        }
    }
}

/// Opens one backend, which was checked; a direct one on this Redis.
#[cfg_attr(
    not(all(feature = "redis", feature = "http")),
    expect(unused_variables, reason = "what only one backend needs")
)]
async fn open_one(
    config: &Config,
    backend: config::Backend,
    redis: &config::Redis,
    role: Role<'_>,
) -> Result<Backend, StartError> {
    match backend {
        #[cfg(feature = "embedded")]
        config::Backend::Embedded => embedded::open(config, role).await,
        #[cfg(all(feature = "redis", feature = "http"))]
        config::Backend::Direct => direct::open(config, redis, role).await,
        #[cfg(feature = "dapr")]
        config::Backend::Dapr => dapr::open(config, role).await,
        _ => unreachable!("the backend is not compiled in, which was checked"),
    }
}
