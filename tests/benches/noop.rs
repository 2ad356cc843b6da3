//! The bare server: the same axum, the same requests and answers, nothing behind them.
//!
//! It runs in a process of its own, which is this very program started with [`ARGUMENT`].

use std::process::ExitCode;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::serve::ListenerExt;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

/// The hidden argument; the number of workers follows.
pub(crate) const ARGUMENT: &str = "--serve-nothing";

/// An id as long as every other.
const ID: &str = "0199a2d4-5b7c-7d3e-8f10-123456789abc";

/// A time as long as every other.
const TIME: &str = "2026-11-21T02:08:47.911595Z";

#[derive(Deserialize)]
struct Draft {
    title: String,
    description: Option<String>,
    priority: i64,
}

#[derive(Serialize)]
struct Task<'a> {
    id: &'a str,
    title: &'a str,
    description: Option<&'a str>,
    status: &'static str,
    priority: i64,
    created_at: &'static str,
    updated_at: &'static str,
}

impl<'a> Task<'a> {
    fn new(id: &'a str, draft: &'a Draft) -> Self {
        Self {
            id,
            title: &draft.title,
            description: draft.description.as_deref(),
            status: "pending",
            priority: draft.priority,
            created_at: TIME,
            updated_at: TIME,
        }
    }
}

/// Serves until it is killed.
pub(crate) fn serve(workers: &str) -> ExitCode {
    let workers = workers.parse().unwrap_or(1);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let served = runtime
        .worker_threads(workers)
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(listen()));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

async fn listen() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(&listener)?;
    let listener = listener.tap_io(|stream| {
        // As the server does; a refusal shows in the numbers and nowhere else.
        let _ = stream.set_nodelay(true);
    });
    let router = Router::new()
        .route("/tasks", post(create))
        .route("/tasks/{id}", get(read))
        .route("/tasks/{id}/status", put(read))
        .route("/ready", get(async || StatusCode::OK));
    axum::serve(listener, router).await
}

async fn create(Json(draft): Json<Draft>) -> Response {
    let headers = [
        (header::LOCATION, format!("/tasks/{ID}")),
        (header::ETAG, "\"0.1\"".to_owned()),
    ];
    let task = Json(Task::new(ID, &draft));
    (StatusCode::CREATED, headers, task).into_response()
}

async fn read(Path(id): Path<String>) -> Response {
    let draft = Draft {
        title: "write the quarterly report".to_owned(),
        description: Some("two pages, figures included".to_owned()),
        priority: 3,
    };
    let headers = [(header::ETAG, "\"0.1\"")];
    (headers, Json(Task::new(&id, &draft))).into_response()
}

#[expect(clippy::print_stdout, reason = "whoever started it reads the address")]
fn announce(listener: &TcpListener) -> std::io::Result<()> {
    println!("bare axum on http://{}", listener.local_addr()?);
    Ok(())
}

#[expect(clippy::print_stderr, reason = "whoever started it shows the error")]
fn complain(error: &std::io::Error) {
    eprintln!("the bare server: {error}");
}
