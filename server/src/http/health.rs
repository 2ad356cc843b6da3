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
use crate::telemetry;

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
    ) -> Self {
        Self {
            store,
            bus,
            notifier,
            stopping: AtomicBool::new(false),
            seen: Mutex::default(),
        }
    }

    /// From now on the service is not ready.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
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
            check("state store", down, self.store.check()),
            check("event bus", degraded, self.bus.check()),
            check("notifier", degraded, self.notifier.check()),
        );
        let dependencies = Dependencies {
            state_store,
            event_bus,
            notifier,
        };
        *seen = Some((Instant::now(), dependencies.clone()));
        dependencies
    }
}

async fn check(
    name: &'static str,
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
        // What went wrong is for everyone who may ask; its cause is for the log.
        Ok(Err(error)) => {
            telemetry::log_failure("readiness check failed", &error);
            &error.to_string()
        }
        Err(_) => {
            tracing::warn!(
                dependency = name,
                timeout_ms = CHECK_TIMEOUT.as_millis(),
                "readiness check timed out"
            );
            &format_args!("no answer within {} ms", CHECK_TIMEOUT.as_millis())
        }
    };
    Dependency {
        status: otherwise,
        detail: Some(detail.to_string()),
    }
}
