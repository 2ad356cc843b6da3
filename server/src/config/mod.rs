//! The configuration: typed values, and where each one came from.
//!
//! A flag beats a `TASK_…` variable, a variable beats the TOML file, the file beats the default. All
//! problems are reported at once. This folder is the only place that reads the environment.

mod admin;
mod direct;
mod keys;
mod parallel;
mod secrets;
mod sidecar;
mod sources;
mod suggest;
mod url;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use adapters_direct::secrets::Variables;
use task_core::ports::Redelivery;

pub use admin::{Admin, AdminVariables};
pub use direct::{
    BusKind, Direct, Kafka, KafkaMechanism, KafkaSecurity, Redis, RedisKeys, RedisLayout, Shown,
};
pub(crate) use keys::{KEYS, Key, Scope};
pub use parallel::Parallel;
pub use secrets::SecretSource;
pub use sidecar::SidecarVariables;
pub use sources::{ConfigError, Effective, Origin, Problem, Sources};
pub use url::NotificationUrl;

/// What the program runs with. Every value is within the limits of its key.
#[derive(Debug, Clone)]
pub struct Config {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// Where tasks live.
    pub backend: Backend,
    /// The directory of the embedded data file.
    pub data_dir: PathBuf,
    /// The store of the secrets that other keys name.
    pub secrets: SecretSource,
    /// The secrets of the environment; used if they are to come from there.
    pub secret_variables: Variables,
    /// Redis and the event bus of the direct backend.
    pub direct: Direct,
    /// What a move goes from and to.
    pub parallel: Parallel,
    /// The routes of who runs the service.
    pub admin: Admin,
    /// The variables with which a Dapr sidecar tells where it is.
    pub sidecar_variables: SidecarVariables,
    /// The receiver of notifications; `None` is the local inbox.
    pub notification_url: Option<NotificationUrl>,
    /// The longest wait at the start for what the service cannot do without.
    pub start_timeout: Duration,
    /// The longest wait for the receiver of a notification.
    pub notification_timeout: Duration,
    /// How failed deliveries of events are tried again.
    pub redelivery: Redelivery,
    /// What the HTTP side takes and how long it waits.
    pub limits: Limits,
    /// Threads that serve requests; 0 is one per core.
    pub worker_threads: usize,
    /// The least level that is logged.
    pub log: tracing::Level,
    /// The shape of log lines.
    pub log_format: LogFormat,
}

/// What the HTTP side takes and how long it waits.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest request body, in bytes.
    pub max_body_bytes: usize,
    /// Requests in work before further ones are refused.
    pub max_concurrency: usize,
    /// Connections before further ones wait to be accepted.
    pub max_connections: usize,
    /// Longest wait for a request's head.
    pub header_timeout: Duration,
    /// Longest time for one request, its body included.
    pub request_timeout: Duration,
    /// How long a stopping service is not ready and still takes requests.
    pub shutdown_grace: Duration,
    /// Longest wait for running requests when stopping.
    pub shutdown_timeout: Duration,
}

/// Where tasks live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// One file on this machine.
    Embedded,
    /// Redis, Kafka and HTTP, without a sidecar.
    Direct,
    /// The Dapr sidecar.
    Dapr,
    /// Two of the others side by side, while moving from one to the other.
    Parallel,
}

impl Backend {
    /// All backends that this program knows, compiled in or not.
    pub const ALL: [Self; 4] = [Self::Embedded, Self::Direct, Self::Dapr, Self::Parallel];

    /// Those that a move can go from or to.
    pub const SIDES: [Self; 3] = [Self::Embedded, Self::Direct, Self::Dapr];

    /// The backend as the command line writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Direct => "direct",
            Self::Dapr => "dapr",
            Self::Parallel => "parallel",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The shape of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for programs.
    Json,
}

impl LogFormat {
    const ALL: [Self; 2] = [Self::Text, Self::Json];

    fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// A value that is within its own limits and cannot be used all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The key at fault.
    pub key: &'static str,
    /// A key without whose value nothing can be said.
    pub other: Option<&'static str>,
    /// What the key has to be, and what it is, to stand behind its name.
    pub problem: String,
}

impl Config {
    /// The defaults of every key, for tests and for programs that embed the service.
    #[must_use]
    pub fn defaults() -> Self {
        let resolved = Sources::default().resolve();
        resolved
            .expect("defaults are valid, as a test shows")
            .config
    }

    /// A configuration that no key has been applied to yet.
    fn unset() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            backend: Backend::Embedded,
            data_dir: PathBuf::new(),
            secrets: SecretSource::Environment,
            secret_variables: Variables::default(),
            direct: Direct::unset(),
            parallel: Parallel::unset(),
            admin: Admin::unset(),
            sidecar_variables: SidecarVariables::default(),
            notification_url: None,
            start_timeout: Duration::ZERO,
            notification_timeout: Duration::ZERO,
            redelivery: Redelivery::default(),
            limits: Limits {
                max_body_bytes: 0,
                max_concurrency: 0,
                max_connections: 0,
                header_timeout: Duration::ZERO,
                request_timeout: Duration::ZERO,
                shutdown_grace: Duration::ZERO,
                shutdown_timeout: Duration::ZERO,
            },
            worker_threads: 0,
            log: tracing::Level::INFO,
            log_format: LogFormat::Text,
        }
    }

    /// Says whether tasks live in a backend, or on one side of a move in it.
    #[must_use]
    pub fn uses(&self, backend: Backend) -> bool {
        match self.backend == Backend::Parallel {
            true => self.parallel.names(backend),
            false => self.backend == backend,
        }
    }

    /// The Redis of a move's new side, if that is direct.
    #[must_use]
    pub fn redis_of_new(&self) -> &Redis {
        match self.parallel.old == self.parallel.new {
            true => &self.parallel.redis,
            false => &self.direct.redis,
        }
    }

    /// What breaks a rule between keys.
    fn conflicts(&self) -> Vec<Conflict> {
        let Redelivery {
            first_pause,
            longest_pause,
            ..
        } = self.redelivery;
        let mut conflicts = self.direct.conflicts();
        conflicts.extend(self.parallel.conflicts(self.backend));
        conflicts.extend(self.admin.conflicts());
        // A build without the backend says that it lacks it instead.
        let is_built = cfg!(all(feature = "redis", feature = "http"));
        if is_built && self.uses(Backend::Direct) && self.notification_url.is_none() {
            let problem = "must be set with the backend direct, which has no local inbox";
            conflicts.push(Conflict {
                key: "notification_url",
                other: Some("backend"),
                problem: problem.to_owned(),
            });
        }
        if first_pause > longest_pause {
            conflicts.push(Conflict {
                key: "redelivery_first_pause_ms",
                other: Some("redelivery_longest_pause_ms"),
                problem: format!(
                    "must not exceed redelivery_longest_pause_ms, which is {}, it is {}",
                    longest_pause.as_millis(),
                    first_pause.as_millis()
                ),
            });
        }
        conflicts
    }
}
