//! The HTTP side: routes, request and response types, refusals, limits.
//!
//! A request passes, in this order:
//! 1. the [`listener`]: connections, time for the head;
//! 2. the [`Gate`]: load shedding, the request's deadline and trace, panics;
//! 3. the router: 404 and 405 as problems;
//! 4. a handler: headers, then media type, size and time of the body, then its fields;
//! 5. one use case of [`TaskService`].
//!
//! Nothing here decides anything about tasks. Every route is registered together with its
//! description, so the two cannot differ.

mod body;
mod conditional;
mod dto;
pub(crate) mod error;
mod gate;
pub(crate) mod health;
pub mod listener;
pub(crate) mod notifications;
mod openapi;
pub(crate) mod responses;
mod tasks;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;
use task_core::application::TaskService;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::metrics::{self, Metrics};
pub(crate) use body::JsonText;
pub use error::Problem;
pub use gate::Gate;
pub use notifications::{Inbox, Received, ReceivedNotification};
pub use openapi::description_text;
pub(crate) use tasks::idempotency_key;

/// What the routes of the Task API share.
#[derive(Debug)]
pub(crate) struct TaskApi {
    pub(crate) service: Arc<TaskService>,
    pub(crate) readiness: health::Readiness,
    pub(crate) metrics: Metrics,
    pub(crate) inbox: Option<Arc<dyn Inbox>>,
}

/// The routes of the Task API, and what the backend calls on us.
pub(crate) fn router(api: Arc<TaskApi>, callbacks: Option<Router>) -> Router {
    let (router, _) = described().with_state(api).split_for_parts();
    with_fallbacks(match callbacks {
        Some(callbacks) => router.merge(callbacks),
        None => router,
    })
}

/// The description of the Task API, from the routes themselves.
#[must_use]
pub fn description() -> OpenApi {
    openapi::finished(described().into_openapi())
}

fn described() -> OpenApiRouter<Arc<TaskApi>> {
    OpenApiRouter::new()
        .routes(routes!(tasks::create))
        .routes(routes!(tasks::get, tasks::edit, tasks::delete))
        .routes(routes!(tasks::set_status))
        .routes(routes!(notifications))
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::metrics))
        .routes(routes!(openapi::document))
}

/// Lists the latest notifications of the local inbox
#[utoipa::path(get, path = "/notifications", tag = "notifications", operation_id = "listNotifications",
    responses(
        (status = 200, description = "The latest 1000, oldest first", body = Received),
        (status = 404, description = "Notifications go to another service",
            body = error::ProblemBody<'_>, content_type = "application/problem+json"),
        responses::Refused
    ))]
async fn notifications(State(api): State<Arc<TaskApi>>) -> Result<Response, Problem> {
    match &api.inbox {
        Some(inbox) => notifications::list(&**inbox).await,
        None => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "there is no local inbox: notifications go to another service",
        )),
    }
}

/// Makes the answers to unknown paths and methods problems like all others.
pub(crate) fn with_fallbacks(router: Router) -> Router {
    router
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
}

async fn unknown_path(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(128).collect();
    Problem::new(StatusCode::NOT_FOUND, format!("there is no route {path:?}"))
}

async fn unknown_method(method: Method) -> Problem {
    let detail = format!("the method {method} is not allowed here, see the header Allow");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

#[cfg(test)]
mod tests;
