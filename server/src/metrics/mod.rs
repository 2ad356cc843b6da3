//! `GET /metrics`: what this process counts, in the text format of Prometheus (`OpenMetrics` 1.0).
//!
//! Counters are those of this replica since its start; Prometheus adds them up. What lies in a store, such as the
//! marks of a move, is read when somebody asks, and left out where it cannot be read in time.

mod moving;

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use crate::http::TaskApi;
pub(crate) use moving::Moving;

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    moving: Option<Moving>,
}

impl Metrics {
    /// Those of a service, and of the move that it takes part in.
    pub(crate) fn of(moving: Option<Moving>) -> Self {
        Self { moving }
    }

    /// Everything as text.
    async fn text(&self) -> String {
        let mut registry = Registry::with_prefix("task");
        if let Some(moving) = &self.moving {
            registry.register_collector(Box::new(moving.numbers().await));
        }
        let mut text = String::new();
        text::encode(&mut text, &registry).expect("a string takes all text");
        text
    }
}

/// What this process counts, for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "probes", operation_id = "metrics",
    responses(
        (status = 200, description = "OpenMetrics 1.0", body = String,
            content_type = "application/openmetrics-text"),
        crate::http::responses::Refused
    ))]
pub(crate) async fn metrics(State(api): State<Arc<TaskApi>>) -> Response {
    const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, FORMAT)], api.metrics.text().await).into_response()
}
