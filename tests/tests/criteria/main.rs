//! SC-2 to SC-5: the build for Dapr, as the image has it, beside a real sidecar, and all of its sockets watched.
//!
//! `tests/criteria` runs it, and SC-1 before it; alone it is
//! `cargo test -p task-tests --all-features --test criteria`. It prints a line for each check.

mod addresses;
mod build;
mod events;
mod notification;
mod state;

use std::process::ExitCode;

use task_tests::criteria::Outcome;
use task_tests::process::dapr::{Neighbours, self_hosted};
use task_tests::process::{RedisServer, TaskServer, Watch};

/// The service and what it stands on.
struct World {
    redis: RedisServer,
    neighbours: Neighbours,
    server: TaskServer,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    match runtime.block_on(check()) {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Makes every check; answers how many have failed.
#[expect(clippy::print_stdout, reason = "the lines are what it is for")]
async fn check() -> usize {
    let program = build::for_dapr();
    let redis = RedisServer::start().await;
    let neighbours = Neighbours::start(self_hosted(redis.port())).await;
    let watch = Watch::new();
    let mut options = neighbours.options();
    options.program = Some(program.path());
    options.before.splice(0..0, watch.words());
    let server = neighbours.serve_with(&options).await;
    let mut world = World {
        redis,
        neighbours,
        server,
    };
    let criteria = [
        state::check(&world).await,
        events::check(&world).await,
        notification::check(&mut world).await,
        addresses::check(world, &watch).await,
    ];
    let mut failed = 0;
    for (number, criterion) in (2..).zip(&criteria) {
        println!("SC-{number}: {}", criterion.summary());
        failed += criterion.count(Outcome::Fail);
    }
    failed
}

/// Answers the evidence, or what is wrong where a condition does not hold.
fn holds(condition: bool, text: impl FnOnce() -> String) -> Result<String, String> {
    if condition { Ok(text()) } else { Err(text()) }
}

impl World {
    /// Makes a task by the API and answers its id.
    async fn create(&self, title: &str) -> String {
        let body = serde_json::json!({ "title": title }).to_string();
        let created = self.server.post("/tasks", &body).await;
        assert_eq!(created.status, 201, "{}", created.text());
        let id = created.json()["id"].as_str().map(str::to_owned);
        id.expect("a task has an id")
    }

    async fn complete(&self, id: &str) {
        let target = format!("/tasks/{id}/status?status=completed");
        let done = self.server.send("PUT", &target, &[], "").await;
        assert_eq!(done.status, 200, "{}", done.text());
    }
}
