//! The routes: each one calls one method of the core's `Migration`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::future::{BoxFuture, FutureExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use task_core::migration::{
    Advance, DifferencesRequest, JobKind, Migration, MigrationError, Port, Rollback, Status,
    VerifyRequest,
};
use tokio::time::{Instant, sleep};

use super::orders::{BackfillOrder, Order, Plainly, VerifyOrder};
use super::refusal::Refusal;
use crate::backend::Parallel;
use crate::http::JsonText;

/// Longest time for which one request copies what is marked.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);

/// Guards of what comes by itself in a moment: every replica follows the last step, and what waits to be
/// published is published.
const PASSING: [&str; 2] = [ADOPTED, "old_events_published"];

/// Every replica has followed the last step.
const ADOPTED: &str = "replicas_adopted";

/// Longest wait for that.
const PASSING_LIMIT: Duration = Duration::from_secs(5);

/// Longest wait of a look for replicas that follow.
const SETTLING_LIMIT: Duration = Duration::from_secs(1);

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

type Asked = State<Arc<Migration>>;
type Answered = Result<Response, Refusal>;

/// The routes of a move.
pub(super) fn routes(parallel: &Parallel) -> Router {
    Router::new()
        .route("/migration", get(status))
        .route("/migration/init", post(init))
        .route("/migration/plan", get(plan))
        .route("/migration/advance", post(advance))
        .route("/migration/rollback", post(rollback))
        .route("/migration/backfill", get(last_backfill).post(backfill))
        .route("/migration/verify", get(last_verify).post(verify))
        .route("/migration/repair", get(marks).post(drain))
        .route("/migration/diffs", get(differences))
        .route("/migration/report", get(report))
        .route("/migration/audit", get(audit))
        .with_state(parallel.migration())
}

async fn status(State(migration): Asked) -> Answered {
    answer(settled(&migration).await)
}

async fn init(State(migration): Asked, body: JsonText) -> Answered {
    let Plainly { cause } = read(&body)?;
    to_the_end(async move {
        let begun = migration.init(cause).await?;
        // So that who asked may go on at once.
        settled(&migration).await?;
        Ok(begun)
    })
    .await
}

/// The status, after a moment in which replicas may follow the last step.
async fn settled(migration: &Migration) -> Result<Status, MigrationError> {
    let began = Instant::now();
    loop {
        let status = migration.status().await?;
        let next = status.ports.iter().filter_map(|port| port.next.as_ref());
        let mut failing = next.flat_map(|next| &next.failing);
        if !failing.any(|guard| guard == ADOPTED) || began.elapsed() >= SETTLING_LIMIT {
            return Ok(status);
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn plan(State(migration): Asked, RawQuery(query): RawQuery) -> Answered {
    let wanted = |name| {
        let found = parameter(query.as_deref(), name);
        found.ok_or_else(|| Refusal::malformed(format!("the query parameter {name} is required")))
    };
    let (port, to) = (wanted("port")?, wanted("to")?);
    let port = Port::parse(&port)
        .ok_or_else(|| Refusal::malformed(format!("there is no port {port:?}")))?;
    answer(migration.plan(port, &to).await)
}

async fn advance(State(migration): Asked, body: JsonText) -> Answered {
    let step: Advance = read(&body)?;
    to_the_end(async move {
        let moved = patiently(|| migration.advance(step.clone()).boxed()).await?;
        in_effect(&migration).await;
        Ok(moved)
    })
    .await
}

async fn rollback(State(migration): Asked, body: JsonText) -> Answered {
    let back: Rollback = read(&body)?;
    to_the_end(async move {
        let moved = patiently(|| migration.rollback(back.clone()).boxed()).await?;
        in_effect(&migration).await;
        Ok(moved)
    })
    .await
}

/// Waits a moment for the replicas: what is asked next is worked on by the new stage.
async fn in_effect(migration: &Migration) {
    if let Err(error) = settled(migration).await {
        tracing::debug!(%error, "the step is made; it is not known who has followed");
    }
}

async fn last_backfill(State(migration): Asked) -> Answered {
    answer(migration.job(JobKind::Backfill).await)
}

async fn backfill(State(migration): Asked, body: JsonText) -> Answered {
    const KIND: JobKind = JobKind::Backfill;
    let BackfillOrder {
        order,
        pacing,
        cause,
    } = read(&body)?;
    to_the_end(async move {
        match order {
            Order::Start => {
                let pacing = pacing.unwrap_or_default();
                patiently(|| migration.backfill_start(pacing).boxed()).await
            }
            Order::Pause => migration.pause(KIND).await,
            Order::Resume => migration.resume(KIND, pacing).await,
            Order::Abort => migration.abort(KIND, cause).await,
        }
    })
    .await
}

async fn last_verify(State(migration): Asked) -> Answered {
    answer(migration.job(JobKind::Verify).await)
}

async fn verify(State(migration): Asked, body: JsonText) -> Answered {
    const KIND: JobKind = JobKind::Verify;
    let VerifyOrder {
        order,
        scope,
        fix,
        pacing,
        cause,
    } = read(&body)?;
    let request = VerifyRequest { scope, fix, pacing };
    to_the_end(async move {
        match order {
            Order::Start => migration.verify_start(request).await,
            Order::Pause => migration.pause(KIND).await,
            Order::Resume => migration.resume(KIND, Some(pacing)).await,
            Order::Abort => migration.abort(KIND, cause).await,
        }
    })
    .await
}

async fn marks(State(migration): Asked) -> Answered {
    answer(migration.repair_status().await)
}

async fn drain(State(migration): Asked, body: JsonText) -> Answered {
    let Plainly { .. } = read(&body)?;
    to_the_end(async move { migration.repair_drain(DRAIN_LIMIT).await }).await
}

async fn differences(State(migration): Asked, RawQuery(query): RawQuery) -> Answered {
    let request = DifferencesRequest {
        field: parameter(query.as_deref(), "field"),
        limit: limit(query.as_deref())?,
    };
    answer(migration.differences(&request).await)
}

async fn report(State(migration): Asked) -> Answered {
    answer(migration.report().await)
}

async fn audit(State(migration): Asked, RawQuery(query): RawQuery) -> Answered {
    let limit = limit(query.as_deref())?.unwrap_or(usize::MAX);
    answer(migration.audit(limit).await)
}

fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let found = pairs.find(|(key, _)| key == name);
    found.map(|(_, value)| value.into_owned())
}

fn limit(query: Option<&str>) -> Result<Option<usize>, Refusal> {
    let limit = parameter(query, "limit").map(|text| text.parse());
    let limit = limit.transpose();
    limit.map_err(|_| Refusal::malformed("the query parameter limit must be a number"))
}

fn read<T: DeserializeOwned>(body: &JsonText) -> Result<T, Refusal> {
    let read = serde_json::from_str(body.as_str());
    read.map_err(|error| Refusal::malformed(format!("the body is not what is asked for: {error}")))
}

/// Goes on when who asked is gone: half a step would leave everybody waiting until somebody takes it back.
async fn to_the_end<T: Serialize + Send + 'static>(
    work: impl Future<Output = Result<T, MigrationError>> + Send + 'static,
) -> Answered {
    match tokio::spawn(work).await {
        Ok(done) => answer(done),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Asks again while something is in the way that goes by itself.
async fn patiently<'a, T>(
    mut step: impl FnMut() -> BoxFuture<'a, Result<T, MigrationError>>,
) -> Result<T, MigrationError> {
    let began = Instant::now();
    loop {
        match step().await {
            Err(MigrationError::Refused(refusal))
                if PASSING.contains(&&*refusal.guard) && began.elapsed() < PASSING_LIMIT =>
            {
                sleep(LOOK_EVERY).await;
            }
            done => return done,
        }
    }
}

fn answer<T: Serialize>(asked: Result<T, MigrationError>) -> Answered {
    Ok((StatusCode::OK, Json(asked?)).into_response())
}
