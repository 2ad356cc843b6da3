//! The probes: alive, and ready.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use task_core::ports::{EventBus, Notifier, PortError, StateStore};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use utoipa::ToSchema;

use super::TaskApi;
use crate::events::Hearing;

/// Longest wait for one dependency.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a look at the dependencies serves every probe, so that many probes are one look.
const FRESH: Duration = Duration::from_millis(200);

/// What readiness depends on.
#[derive(Debug)]
pub(crate) struct Readiness {
    store: Arc<dyn StateStore>,
    bus: Arc<dyn EventBus>,
    notifier: Arc<dyn Notifier>,
    hearing: Arc<Hearing>,
    stopping: AtomicBool,
    /// The last look, and when it ended. Locked by whoever looks.
    seen: Mutex<Option<(Instant, Dependencies)>>,
}

/// Whether the service is ready, and why not.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Ready {
    status: ReadyStatus,
    dependencies: Dependencies,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
enum ReadyStatus {
    #[serde(rename = "ready")]
    Ready,
    #[serde(rename = "not ready")]
    NotReady,
    #[serde(rename = "stopping")]
    Stopping,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
struct Dependencies {
    /// Without it nothing works.
    state_store: Dependency,
    /// Without it events wait; the service stays ready.
    event_bus: Dependency,
    /// Without it notifications wait; the service stays ready.
    notifier: Dependency,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
struct Dependency {
    status: DependencyStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum DependencyStatus {
    Up,
    /// Down, and the service can do without it for now.
    Degraded,
    Down,
}

/// The service is alive.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Healthy {
    /// Always `healthy`.
    #[schema(example = "healthy")]
    status: &'static str,
}

/// Says that the process is alive
#[utoipa::path(get, path = "/health", tag = "probes", operation_id = "health",
    responses((status = 200, description = "Alive", body = Healthy)))]
pub(crate) async fn health() -> Response {
    let json = r#"{"status":"healthy"}"#;
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}

/// Says whether requests can be served, and the state of each dependency
#[utoipa::path(get, path = "/ready", tag = "probes", operation_id = "ready", responses(
    (status = 200, description = "Ready", body = Ready),
    (status = 503, description = "Not ready, or stopping", body = Ready)))]
pub(super) async fn ready(State(api): State<Arc<TaskApi>>) -> Response {
    let report = api.readiness.report().await;
    let status = match report.status {
        ReadyStatus::Ready => StatusCode::OK,
        ReadyStatus::NotReady | ReadyStatus::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, axum::Json(report)).into_response()
}

impl Readiness {
    pub(crate) fn new(
        store: Arc<dyn StateStore>,
        bus: Arc<dyn EventBus>,
        notifier: Arc<dyn Notifier>,
        hearing: Arc<Hearing>,
    ) -> Self {
        Self {
            store,
            bus,
            notifier,
            hearing,
            stopping: AtomicBool::new(false),
            seen: Mutex::default(),
        }
    }

    /// From now on the service is not ready.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    async fn event_bus(&self) -> Result<(), PortError> {
        self.bus.check().await?;
        self.hearing.check()
    }

    async fn report(&self) -> Ready {
        let dependencies = self.dependencies().await;
        let status = if self.stopping.load(Ordering::Relaxed) {
            ReadyStatus::Stopping
        } else if dependencies.state_store.status == DependencyStatus::Down {
            ReadyStatus::NotReady
        } else {
            ReadyStatus::Ready
        };
        Ready {
            status,
            dependencies,
        }
    }

    async fn dependencies(&self) -> Dependencies {
        let mut seen = self.seen.lock().await;
        if let Some((at, dependencies)) = &*seen
            && at.elapsed() < FRESH
        {
            return dependencies.clone();
        }
        let (down, degraded) = (DependencyStatus::Down, DependencyStatus::Degraded);
        let (state_store, event_bus, notifier) = tokio::join!(
            check(down, self.store.check()),
            check(degraded, self.event_bus()),
            check(degraded, self.notifier.check()),
        );
        let dependencies = Dependencies {
            state_store,
            event_bus,
            notifier,
        };
        dependencies.log_changes(seen.as_ref().map(|(_, before)| before));
        *seen = Some((Instant::now(), dependencies.clone()));
        dependencies
    }
}

impl Dependencies {
    fn named(&self) -> [(&'static str, &Dependency); 3] {
        [
            ("state store", &self.state_store),
            ("event bus", &self.event_bus),
            ("notifier", &self.notifier),
        ]
    }

    /// Tells of each that is other than it was, and not of what lasts.
    fn log_changes(&self, before: Option<&Self>) {
        for (at, (dependency, now)) in self.named().into_iter().enumerate() {
            let was_up = before.is_none_or(|before| before.named()[at].1.is_up());
            match (was_up, now.is_up()) {
                (true, false) => {
                    let detail = now.detail.as_deref().unwrap_or_default();
                    tracing::warn!(dependency, detail, "not up");
                }
                (false, true) => tracing::info!(dependency, "up again"),
                (true, true) | (false, false) => {}
            }
        }
    }
}

impl Dependency {
    fn is_up(&self) -> bool {
        self.status == DependencyStatus::Up
    }
}

async fn check(
    otherwise: DependencyStatus,
    checking: impl Future<Output = Result<(), PortError>> + Send,
) -> Dependency {
    let detail: &dyn fmt::Display = match timeout(CHECK_TIMEOUT, checking).await {
        Ok(Ok(())) => {
            return Dependency {
                status: DependencyStatus::Up,
                detail: None,
            };
        }
        Ok(Err(error)) => &error.to_string(),
        Err(_) => &format_args!("no answer within {} ms", CHECK_TIMEOUT.as_millis()),
    };
    Dependency {
        status: otherwise,
        detail: Some(detail.to_string()),
    }
}
