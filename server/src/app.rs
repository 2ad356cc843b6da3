//! Wires the adapters, the use cases and the routes into one running service.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use task_core::application::{
    CompletionNotifier, GroupStart, Outbox, TASK_EVENTS_TOPIC, TaskService,
};
use task_core::background::Background;
use task_core::ports::{PortError, StartAt, Subscription, SystemClock, SystemEntropy, Topic};
use tokio::net::TcpListener;

use crate::admin::{self, Admin};
use crate::backend::{self, Backend, Consumer, Hears, Parallel, Parting, Running};
use crate::config::{self, Config, ConfigError};
use crate::events::{Delivers, Events, Hearing};
use crate::http::{self, Gate, TaskApi, listener};
use crate::metrics::Metrics;
use crate::shutdown::Stopping;

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A part of the program that the configuration asks for is not part of this build.
    #[error(
        "this build does not have {what}; run: cargo run --release -p task-server --features {feature}"
    )]
    NotCompiledIn {
        /// What was asked for.
        what: &'static str,
        /// The Cargo feature that has it.
        feature: &'static str,
    },
    /// The backend cannot be opened.
    #[error("cannot open the backend {name}")]
    Backend {
        /// The backend.
        name: &'static str,
        /// What the reader can do.
        advice: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something that the service cannot do without did not come in time.
    #[error("no {needed} within {} ms", limit.as_millis())]
    Missing {
        /// What it is, where it should be, and which configuration key says so.
        needed: String,
        /// How long it was waited for.
        limit: Duration,
        /// Why the last attempt failed, if it ended.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The store that the key `secrets` names cannot be used.
    #[error("cannot open the store of secrets")]
    Secrets {
        /// Why.
        source: PortError,
    },
    /// A secret that the configuration names cannot be read.
    #[error("cannot read the secret that {key} names")]
    Secret {
        /// The configuration key.
        key: &'static str,
        /// Why.
        source: PortError,
    },
    /// The backend is open and cannot do what the service needs.
    #[error("the backend cannot serve tasks")]
    Unfit(#[from] PortError),
    /// The address cannot be had.
    #[error(
        "cannot listen on {address}: {}; choose another with {flag}",
        listen_reason(error)
    )]
    Listen {
        /// The flag that chooses it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why, in the words of the operating system.
        error: io::Error,
    },
}

impl StartError {
    /// What the reader can do about it, where the message does not say so itself.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Backend { advice, .. } => Some(advice),
            Self::Missing { .. } => {
                Some("start it, correct the key, or wait longer with --start-timeout-ms")
            }
            Self::Secrets { .. } => {
                Some("check the key secrets, and the components that the sidecar has loaded")
            }
            Self::Secret { .. } => {
                Some("check the key, and the store that the key secrets chooses")
            }
            Self::Config(_) | Self::NotCompiledIn { .. } | Self::Unfit(_) | Self::Listen { .. } => {
                None
            }
        }
    }
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

/// What a consumer hears, and who handles it.
fn heard_by(
    consumer: Consumer,
    handler: CompletionNotifier,
    start: GroupStart,
) -> (CompletionNotifier, Subscription) {
    let subscription = Subscription::new(Topic::new(TASK_EVENTS_TOPIC), consumer.group);
    let (handler, start) = match consumer.hears {
        Hears::News => (handler, StartAt::End),
        Hears::After(other) => (handler, StartAt::Group(other)),
        Hears::History => (handler.since(start), StartAt::End),
    };
    let subscription = Subscription {
        start,
        ..subscription
    };
    (handler, subscription)
}

/// The Task API, ready to serve.
#[derive(Debug)]
pub struct App {
    gate: Arc<Gate>,
    api: Arc<TaskApi>,
    place: String,
    receiver: Option<String>,
    events: Background,
    parting: Option<Parting>,
    running: Option<Running>,
    admin: Option<Admin>,
}

impl App {
    /// Opens the backend and builds the service. Only the admin routes of a move have their address yet.
    ///
    /// # Errors
    /// The backend is not part of this build, or cannot be opened.
    pub async fn build(config: &Config) -> Result<Self, StartError> {
        // The address first: it is the quickest to refuse.
        let admin = match config.backend {
            config::Backend::Parallel => Some(admin::Socket::open(config).await?),
            config::Backend::Embedded | config::Backend::Direct | config::Backend::Dapr => None,
        };
        let backend = Box::pin(backend::open(config)).await?;
        let admin = admin.zip(backend.parallel.as_ref());
        let admin = admin.map(|(socket, parallel)| socket.with(parallel, config));
        let app = Self::over(backend, config).await?;
        Ok(Self { admin, ..app })
    }

    /// Builds the service over a backend that is open already, and begins to publish and to consume.
    ///
    /// It has no admin routes.
    ///
    /// # Errors
    /// The backend cannot do what the service needs.
    pub async fn over(backend: Backend, config: &Config) -> Result<Self, StartError> {
        let Backend {
            store,
            bus,
            notifier,
            inbox,
            replicas,
            consumer,
            callbacks,
            parting,
            profile: _,
            parallel,
            place,
            receiver,
        } = backend;
        let running = parallel.as_ref().map(Parallel::start).transpose()?;
        let outbox = Arc::new(Outbox::new(Arc::clone(&store))?);
        let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
        let service = TaskService::new(Arc::clone(&outbox), clock, entropy)?;
        let service = match &parallel {
            Some(parallel) => service.in_terms(parallel.terms()),
            None => service,
        };
        let relays = match &parallel {
            Some(parallel) => parallel.relays(&bus)?,
            None if outbox.needs_relay() => vec![replicas.relay(outbox, Arc::clone(&bus))?],
            None => Vec::new(),
        };
        // The group's position is fixed before the first event is published.
        let history = parallel.as_ref().map(Parallel::history);
        let history = history.unwrap_or_else(|| Arc::clone(&store));
        let start = GroupStart::of(&consumer.group, &*history, &SystemClock).await?;
        let (marks, to) = (Arc::clone(&store), Arc::clone(&notifier));
        let handler = CompletionNotifier::new(consumer.group.clone(), marks, to);
        let (handler, subscription) = heard_by(consumer, handler, start);
        let events = Events {
            bus: Arc::clone(&bus),
            subscription: Subscription {
                redelivery: config.redelivery,
                ..subscription
            },
            handler: Arc::new(handler),
            relays,
            finish_within: config.limits.shutdown_timeout,
        };
        // A sidecar asks the service for its routes and lets nobody subscribe until it has the answer.
        let delivers = Delivers::with(callbacks.as_ref());
        let hearing = Arc::new(Hearing::default());
        let events = events.start(delivers, Arc::clone(&hearing)).await?;

        let api = Arc::new(TaskApi {
            service: Arc::new(service),
            readiness: http::health::Readiness::new(store, bus, notifier, hearing),
            metrics: Metrics::of(parallel.as_ref().map(Parallel::numbers)),
            inbox,
        });
        let router = http::router(Arc::clone(&api), callbacks);
        Ok(Self {
            gate: Arc::new(Gate::new(router, &config.limits)),
            api,
            place,
            receiver,
            events,
            parting,
            running,
            admin: None,
        })
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

    /// Where notifications go, in words for people; `None` if they stay in this process, where
    /// `GET /notifications` shows them.
    #[must_use]
    pub fn receiver(&self) -> Option<&str> {
        self.receiver.as_deref()
    }

    /// The admin routes, if there are any.
    #[must_use]
    pub fn admin(&self) -> Option<&Admin> {
        self.admin.as_ref()
    }

    /// From now on `GET /ready` answers that the service is stopping.
    pub fn stop_being_ready(&self) {
        self.api.readiness.stop();
    }

    /// Serves until told to stop: not ready, drain, publish what is pending, finish what is in hand, leave the move,
    /// save what is left.
    pub async fn serve(mut self, listener: TcpListener, stopping: Stopping) {
        let admin = self.admin.take();
        let mut noticed = stopping.clone();
        let not_ready = async {
            noticed.raised().await;
            self.stop_being_ready();
        };
        let asked = async {
            if let Some(admin) = admin {
                admin.serve(stopping.clone()).await;
            }
        };
        let serving = listener::serve(listener, Arc::clone(&self.gate), stopping.clone());
        tokio::join!(not_ready, asked, serving);
        self.events.stop().await;
        if let Some(running) = self.running {
            running.stop().await;
        }
        if let Some(parting) = self.parting {
            parting.save().await;
        }
    }
}
