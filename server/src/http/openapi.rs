//! The description of the API in `OpenAPI` 3.1, built from the routes and the types that they use.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use utoipa::openapi::{InfoBuilder, OpenApi};

use super::description;

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    let json = serde_json::to_vec(&description());
    json.expect("a description has only strings and numbers")
        .into()
});

/// This description
#[utoipa::path(get, path = "/openapi.json", tag = "description", operation_id = "describe",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
pub(super) async fn document() -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        DOCUMENT.clone(),
    )
        .into_response()
}

/// The description as indented JSON.
#[must_use]
pub fn description_text() -> String {
    serde_json::to_string_pretty(&description())
        .expect("a description has only strings and numbers")
}

/// Adds what no route says: the title, the version, the words for people.
pub(super) fn finished(mut document: OpenApi) -> OpenApi {
    document.info = InfoBuilder::new()
        .title("Task API")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Tasks with events and notifications. Unknown fields of a request are ignored. \
             Refusals are problem details (RFC 9457); `detail` is a sentence for people.",
        ))
        .build();
    document
}
