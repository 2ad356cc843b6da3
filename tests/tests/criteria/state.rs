//! SC-2: tasks are in `statestore`, and writers there do not overwrite each other.

use std::time::Duration;

use futures_util::future::join;
use redis::from_redis_value;
use serde_json::{Value, json};
use task_tests::criteria::Criterion;

use crate::{World, holds};

const STATE: &str = "/v1.0/state/statestore";

/// Least rounds of the race.
const ROUNDS: u64 = 40;

/// Rounds after which two writers that never met are no race.
const MOST_ROUNDS: u64 = 400;

pub(crate) async fn check(world: &World) -> Criterion {
    let mut criterion = Criterion::new("SC-2");
    let what = "create saves to `statestore`";
    let first = world.create("saved").await;
    criterion.check(what, creates(world, &first)).await;
    criterion.check("get reads from it", reads(world)).await;
    let what = "a stale ETag is refused";
    criterion.check(what, refuses(world)).await;
    let what = "update uses ETag concurrency";
    criterion.check(what, races(world)).await;
    criterion
        .check("delete removes", deletes(world, &first))
        .await;
    criterion
}

async fn creates(world: &World, id: &str) -> Result<String, String> {
    let stored = world.neighbours.stored(id).await;
    let title = stored.as_ref().map(|task| &task["title"]);
    holds(title == Some(&json!("saved")), || {
        format!("{STATE}/task-{id} answers {stored:?}")
    })?;
    let key = format!("task-api||task-{id}");
    let version = world.redis.command(&["HGET", &key, "version"]).await;
    let version: String = from_redis_value(version).map_err(|error| error.to_string())?;
    Ok(format!(
        "the sidecar answers it, and Redis has it as {key} in version {version}"
    ))
}

/// The store is changed behind the service's back, which has to see it.
async fn reads(world: &World) -> Result<String, String> {
    let id = world.create("first").await;
    let (mut task, etag) = load(world, &id).await;
    task["title"] = json!("changed in the store");
    holds(save(world, &id, &task, &etag).await, || {
        format!("the sidecar refuses a save of {id} over version {etag}")
    })?;
    let answer = world.server.get(&format!("/tasks/{id}")).await.json();
    holds(answer["title"] == task["title"], || {
        format!(
            "saved by another client, answered by the API: {}",
            answer["title"]
        )
    })
}

async fn refuses(world: &World) -> Result<String, String> {
    let id = world.create("first").await;
    let (task, etag) = load(world, &id).await;
    let (target, first) = (format!("/tasks/{id}"), [("if-match", "\"0.1\"")]);
    let body = r#"{"title":"second"}"#;
    let accepted = world.server.send("PUT", &target, &first, body).await.status;
    let refused = world.server.send("PUT", &target, &first, body).await.status;
    let foreign = save(world, &id, &task, &etag).await;
    holds((accepted, refused, foreign) == (200, 412, false), || {
        format!(
            "If-Match of the same revision: {accepted}, then {refused}; a save over version {etag}: 409"
        )
    })
}

/// The service and another client change one record at once; each keeps what is the other's.
async fn races(world: &World) -> Result<String, String> {
    let id = world.create("0").await;
    let (mut rounds, mut conflicts) = (0, 0);
    while rounds < ROUNDS || (conflicts == 0 && rounds < MOST_ROUNDS) {
        rounds += 1;
        let body = json!({"title": rounds.to_string()}).to_string();
        let target = format!("/tasks/{id}");
        let ours = world.server.send("PUT", &target, &[], &body);
        // The later it saves what it has read, the surer the service was faster.
        let thinks = Duration::from_micros(500 * (rounds % 20));
        let (ours, refused) = join(ours, add_to_note(world, &id, thinks)).await;
        conflicts += refused;
        let (task, _) = load(world, &id).await;
        let found = json!([ours.status, task["note"], task["title"]]);
        let expected = json!([200, rounds, rounds.to_string()]);
        holds(found == expected, || {
            format!("{found}, expected {expected}")
        })?;
    }
    holds(conflicts > 0, || {
        format!(
            "{rounds} times another client wrote a field while the API wrote another one: \
             neither lost one, {conflicts} saves were refused and made again"
        )
    })
}

/// Adds one to a field that the service does not know, some time after it has read the record; answers how many saves
/// were refused before.
async fn add_to_note(world: &World, id: &str, thinks: Duration) -> u64 {
    let mut refused = 0;
    loop {
        let (mut task, etag) = load(world, id).await;
        task["note"] = json!(task["note"].as_u64().unwrap_or(0) + 1);
        tokio::time::sleep(thinks).await;
        if save(world, id, &task, &etag).await {
            return refused;
        }
        refused += 1;
    }
}

/// Deletes a task whose events have been published.
async fn deletes(world: &World, id: &str) -> Result<String, String> {
    let target = format!("/tasks/{id}");
    let deleted = world.server.send("DELETE", &target, &[], "").await.status;
    let missing = world.server.get(&target).await.status;
    let stored = world.neighbours.stored(id).await;
    let key = format!("task-api||task-{id}");
    let left = world.redis.command(&["PTTL", &key]).await;
    let left: i64 = from_redis_value(left).map_err(|error| error.to_string())?;
    // -2 is a key that is gone, -1 one that stays.
    let gone = (deleted, missing, &stored) == (204, 404, &None) && left != -1;
    holds(gone, || {
        format!(
            "DELETE {deleted}, then GET {missing}; other clients of the sidecar see {stored:?}; \
             what guards the deletion is gone in {left} ms"
        )
    })
}

/// A task as another client of the sidecar reads it, and its version.
async fn load(world: &World, id: &str) -> (Value, String) {
    let path = format!("{STATE}/task-{id}");
    let answer = world.neighbours.ours.send("GET", &path, &[], "").await;
    let etag = answer.header("etag").unwrap_or_default().to_owned();
    (answer.json(), etag)
}

/// Saves a task over a version as another client would; says whether the sidecar took it.
async fn save(world: &World, id: &str, task: &Value, etag: &str) -> bool {
    let body = json!([{"key": format!("task-{id}"), "value": task, "etag": etag}]);
    let ours = &world.neighbours.ours;
    let answer = ours.send("POST", STATE, &[], &body.to_string()).await;
    assert!(matches!(answer.status, 204 | 409), "{}", answer.text());
    answer.status == 204
}
