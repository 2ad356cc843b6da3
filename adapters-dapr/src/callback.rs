//! What the sidecar calls on us, as a router for the service's own port.
//!
//! | Route | For |
//! | --- | --- |
//! | `GET /dapr/subscribe` | the topics that the sidecar is to deliver: none with [`Intake::Streams`] |
//! | `GET /dapr/config` | no actors |
//! | `POST /events/{topic}` | one event, of a subscription that an operator declares or that the first route named |
//!
//! A body is what is in the broker: an envelope, or whatever a foreign publisher sent. It is answered when it
//! is done with, retries included: `SUCCESS`, `RETRY` to have it again, or `DROP` if it is beyond every limit.
//! **A 404 would count as success**: the sidecar forgets the event. So the router belongs to the port from
//! its first moment, and a topic that nobody subscribes to yet is answered `RETRY`.
//!
//! With an app token, a caller that does not show it is answered 401, before its body is read. A declared
//! subscription needs no dead-letter topic: the service buries by itself, and the sidecar would bury
//! whatever comes while the service is down.
//!
//! *Source:* <https://docs.dapr.io/reference/api/pubsub_api/>; daprd 1.16, `subscription/postman/http`.

use std::fmt;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use task_core::ports::Topic;

use crate::config::{SidecarConfig, Token};
use crate::event_bus::{DaprEventBus, Intake, MAX_MESSAGE_BYTES, Reply, Subscribers};
use crate::sidecar::{API_TOKEN, CurrentTrace, Sidecar};

/// Where events come in, before the topic's name.
const EVENTS: &str = "/events";

/// Every route of [`callbacks`], as axum writes paths: all that the sidecar calls.
pub const CALLBACK_PATHS: [&str; 3] = ["/dapr/subscribe", "/dapr/config", "/events/{topic}"];

#[derive(Clone)]
struct Callbacks {
    subscribers: Arc<Subscribers>,
    pubsub: Arc<str>,
    intake: Intake,
    trace: CurrentTrace,
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks").finish_non_exhaustive()
    }
}

#[derive(Debug, Serialize)]
struct SubscribedTopic {
    pubsubname: String,
    topic: String,
    route: String,
}

#[derive(Debug, Serialize)]
struct ActorConfig {
    entities: [&'static str; 0],
}

#[derive(Debug, Serialize)]
struct Answered {
    status: &'static str,
}

/// The routes; merge them into the router of the port that the sidecar knows (`app-port`).
///
/// They take events for the running subscriptions of this bus and its clones.
///
/// *Source:* <https://docs.dapr.io/reference/api/pubsub_api/>.
pub fn callbacks(sidecar: &Sidecar, bus: &DaprEventBus) -> Router {
    let callbacks = Callbacks {
        subscribers: Arc::clone(bus.subscribers()),
        pubsub: bus.pubsub().into(),
        intake: bus.intake(),
        trace: sidecar.tracing().0,
    };
    // Without another way to add a route, none can be forgotten where they are walked: by
    // `every_route_refuses_a_caller_without_the_app_token`, here and in the tests of the service.
    let handlers = [get(subscribe), get(config), post(event)];
    let routes = CALLBACK_PATHS.into_iter().zip(handlers);
    let router = routes.fold(Router::new(), |router, (path, handler)| {
        router.route(path, handler)
    });
    with_app_token(router.with_state(callbacks), sidecar.config())
}

/// Lets only callers who show the app token through to a router's routes, if there is one.
///
/// All others are answered 401, before their body is read.
///
/// *Source:* <https://docs.dapr.io/operations/security/app-api-token/>.
pub fn with_app_token(router: Router, config: &SidecarConfig) -> Router {
    match config.app_token.clone() {
        Some(token) => router.route_layer(from_fn_with_state(token, authorize)),
        None => router,
    }
}

async fn authorize(State(token): State<Token>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(API_TOKEN);
    let shown = shown.and_then(|value| value.to_str().ok());
    if shown.is_some_and(|shown| token.matches(shown)) {
        return next.run(request).await;
    }
    tracing::warn!(
        path = request.uri().path(),
        "a caller does not show the app token"
    );
    StatusCode::UNAUTHORIZED.into_response()
}

async fn subscribe(State(callbacks): State<Callbacks>) -> Json<Vec<SubscribedTopic>> {
    let topics = match callbacks.intake {
        Intake::Streams => Vec::new(),
        Intake::Callbacks => callbacks.subscribers.topics(),
    };
    let subscribed = topics.iter().map(|topic| SubscribedTopic {
        pubsubname: callbacks.pubsub.to_string(),
        topic: topic.to_string(),
        route: format!("{EVENTS}/{topic}"),
    });
    Json(subscribed.collect())
}

async fn config() -> Json<ActorConfig> {
    Json(ActorConfig { entities: [] })
}

async fn event(
    State(callbacks): State<Callbacks>,
    Path(topic): Path<String>,
    body: Body,
) -> Json<Answered> {
    let topic = Topic::new(topic);
    let reply = match to_bytes(body, MAX_MESSAGE_BYTES).await {
        Ok(message) => {
            let trace = (callbacks.trace)();
            let delivered = callbacks.subscribers.deliver(&topic, message, trace);
            delivered.await
        }
        Err(error) => too_large_or_torn(&topic, &error),
    };
    let status = reply.as_str();
    Json(Answered { status })
}

/// What is too large stays too large; what broke off comes again whole.
fn too_large_or_torn(topic: &Topic, error: &axum::Error) -> Reply {
    let source = std::error::Error::source(error);
    let too_large = source.is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
    if !too_large {
        return Reply::Retry;
    }
    tracing::error!(%topic, limit_bytes = MAX_MESSAGE_BYTES, "an event is too large and was dropped");
    Reply::Drop
}

#[cfg(test)]
mod tests;
