//! The routes of tasks: header, query and body in, one use case, one answer out.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, RawQuery, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use task_core::application::{TaskError, TaskService, TaskView};
use task_core::domain::{FieldError, IdempotencyKey, Status, TaskId};

use super::body::JsonText;
use super::dto::{DraftBody, StatusName, TaskBody, parse_draft};
use super::error::Problem;
use super::responses::{Conditional, Create, Refused, RefusedBody};
use super::{TaskApi, conditional};

/// Header of a create that may be repeated.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

type Answer = Result<Response, Problem>;

/// Creates a task
///
/// With an `Idempotency-Key` the request may be repeated: the same key and body give the same answer.
#[utoipa::path(
    post, path = "/tasks", tag = "tasks", operation_id = "createTask",
    params(("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 255,
        description = "Makes the request repeatable: 1 to 255 visible ASCII characters or spaces")),
    request_body = DraftBody,
    responses(
        (status = 201, description = "Created", body = TaskBody<'_>, headers(
            ("Location" = String, description = "The task's address"),
            ("ETag" = String, description = "The task's revision"))),
        Create, RefusedBody, Refused
    )
)]
pub(super) async fn create(
    State(api): State<Arc<TaskApi>>,
    headers: HeaderMap,
    body: JsonText,
) -> Answer {
    let key = idempotency_key(&headers)?;
    let draft = parse_draft(body.as_str())?;
    let view = service(&api).create(draft, key.as_ref()).await?;
    let mut response = task_response(StatusCode::CREATED, &view);
    let location = format!("/tasks/{}", view.task.id);
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(location)) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    Ok(response)
}

/// Reads a task
#[utoipa::path(
    get, path = "/tasks/{id}", tag = "tasks", operation_id = "getTask",
    params(
        ("id" = String, Path, max_length = 128, description = "The task's id"),
        ("If-None-Match" = Option<String>, Header,
            description = "Tags that the client has, or `*`; one of them current is answered 304"),
    ),
    responses(
        (status = 200, description = "The task", body = TaskBody<'_>, headers(
            ("ETag" = String, description = "The task's revision"))),
        (status = 304, description = "The client has the current state", headers(
            ("ETag" = String, description = "The task's revision"))),
        (status = 400, description = "A malformed header", body = super::error::ProblemBody<'_>,
            content_type = "application/problem+json"),
        (status = 404, description = "Task not found", body = super::error::ProblemBody<'_>,
            content_type = "application/problem+json"),
        Refused
    )
)]
pub(super) async fn get(State(api): State<Arc<TaskApi>>, id: Id, headers: HeaderMap) -> Answer {
    let view = service(&api).get(&id.0).await.map_err(id.refusal())?;
    if conditional::is_known(&headers, &view.tag)? {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        set_tag(&mut response, &view);
        return Ok(response);
    }
    Ok(task_response(StatusCode::OK, &view))
}

/// Moves a task to a status
///
/// The status that a task already has changes nothing and publishes nothing.
#[utoipa::path(
    put, path = "/tasks/{id}/status", tag = "tasks", operation_id = "setTaskStatus",
    params(
        ("id" = String, Path, max_length = 128, description = "The task's id"),
        ("status" = inline(StatusName), Query, description = "The new status"),
        ("If-Match" = Option<String>, Header, description = "Tags of which one must be current, or `*`"),
    ),
    responses(
        (status = 200, description = "The task after the change", body = TaskBody<'_>, headers(
            ("ETag" = String, description = "The task's new revision"))),
        (status = 422, description = "The status is missing or unknown",
            body = super::error::ProblemBody<'_>, content_type = "application/problem+json"),
        Conditional, Refused
    )
)]
pub(super) async fn set_status(
    State(api): State<Arc<TaskApi>>,
    id: Id,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Answer {
    let precondition = conditional::if_match(&headers)?;
    let status = status_of(query.as_deref().unwrap_or(""))?;
    let view = service(&api)
        .set_status(&id.0, status, &precondition)
        .await
        .map_err(id.refusal())?;
    Ok(task_response(StatusCode::OK, &view))
}

/// Replaces what a client may edit
#[utoipa::path(
    put, path = "/tasks/{id}", tag = "tasks", operation_id = "editTask",
    params(
        ("id" = String, Path, max_length = 128, description = "The task's id"),
        ("If-Match" = Option<String>, Header, description = "Tags of which one must be current, or `*`"),
    ),
    request_body = DraftBody,
    responses(
        (status = 200, description = "The task after the change", body = TaskBody<'_>, headers(
            ("ETag" = String, description = "The task's new revision"))),
        Conditional, RefusedBody, Refused
    )
)]
pub(super) async fn edit(
    State(api): State<Arc<TaskApi>>,
    id: Id,
    headers: HeaderMap,
    body: JsonText,
) -> Answer {
    let precondition = conditional::if_match(&headers)?;
    let draft = parse_draft(body.as_str())?;
    let edited = service(&api).edit(&id.0, draft, &precondition).await;
    let view = edited.map_err(id.refusal())?;
    Ok(task_response(StatusCode::OK, &view))
}

/// Deletes a task
///
/// A deletion is final: the id is never used again.
#[utoipa::path(
    delete, path = "/tasks/{id}", tag = "tasks", operation_id = "deleteTask",
    params(
        ("id" = String, Path, max_length = 128, description = "The task's id"),
        ("If-Match" = Option<String>, Header, description = "Tags of which one must be current, or `*`"),
    ),
    responses((status = 204, description = "Deleted"), Conditional, Refused)
)]
pub(super) async fn delete(State(api): State<Arc<TaskApi>>, id: Id, headers: HeaderMap) -> Answer {
    let precondition = conditional::if_match(&headers)?;
    let deleted = service(&api).delete(&id.0, &precondition).await;
    deleted.map_err(id.refusal())?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The id of the path. One that no task can have is the id of no task.
#[derive(Debug)]
pub(super) struct Id(TaskId);

impl Id {
    /// Turns what a use case on this task refuses into an answer.
    fn refusal(&self) -> impl FnOnce(TaskError) -> Problem {
        |error| Problem::of_task(&self.0, error)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let id = path.ok().and_then(|Path(text)| TaskId::parse(&text).ok());
        id.map(Self).ok_or_else(Problem::task_not_found)
    }
}

fn service(api: &TaskApi) -> &TaskService {
    &api.service
}

pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Problem::bad_request(
            "Idempotency-Key must be sent once, not several times",
        ));
    }
    let text = String::from_utf8_lossy(value.as_bytes());
    match IdempotencyKey::parse(&text) {
        Ok(key) => Ok(Some(key)),
        Err(error) => Err(Problem::bad_request(error.to_string())),
    }
}

/// Of a repeated parameter the last one counts, as of a repeated field.
fn status_of(query: &str) -> Result<Status, Problem> {
    let pairs = form_urlencoded::parse(query.as_bytes());
    let given = pairs.filter(|(name, _)| name == "status").last();
    let refused = |detail: String| Problem::invalid(vec![FieldError::new("status", detail)]);
    let Some((_, value)) = given else {
        let detail = "the query parameter status is required: pending, in_progress or completed";
        return Err(refused(detail.to_owned()));
    };
    value
        .parse::<Status>()
        .map_err(|error| refused(error.to_string()))
}

fn task_response(status: StatusCode, view: &TaskView) -> Response {
    let draft = &view.task.draft;
    let texts = draft.title.as_str().len() + draft.description.as_deref().map_or(0, str::len);
    // The rest of a task, names and times included, takes less than 256 bytes.
    let mut bytes = Vec::with_capacity(texts + 256);
    serde_json::to_writer(&mut bytes, &TaskBody::from(&view.task))
        .expect("a task has only strings and numbers");
    let mut response = (status, bytes).into_response();
    let media_type = HeaderValue::from_static("application/json");
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, media_type);
    set_tag(&mut response, view);
    response
}

fn set_tag(response: &mut Response, view: &TaskView) {
    if let Some(tag) = conditional::header_value(&view.tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
}
