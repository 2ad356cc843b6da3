//! SC-4: a completion calls `notification-service` by its name, wherever it is.

use std::fs;

use task_tests::criteria::Criterion;
use task_tests::wait::until;

use crate::{World, holds};

/// How the sidecar logs that its API was called to invoke.
const INVOCATION: &str = r#"method="POST /notify""#;

pub(crate) async fn check(world: &mut World) -> Criterion {
    let mut criterion = Criterion::new("SC-4");
    let what = "completion calls `notification-service` through Dapr";
    criterion.check(what, calls(world)).await;
    let what = "discovery is automatic";
    criterion.check(what, finds(world)).await;
    let what = "no URL of it anywhere";
    criterion.check(what, async { knows(world) }).await;
    criterion
}

/// Completes a task and waits for its notification; answers the task's id.
async fn notified(world: &World) -> String {
    let id = world.create("to be notified").await;
    world.complete(&id).await;
    until("the completion is notified", async || {
        (world.neighbours.notified(&id).await > 0).then_some(())
    })
    .await;
    id
}

async fn calls(world: &World) -> Result<String, String> {
    let id = notified(world).await;
    let count = world.neighbours.notified(&id).await;
    let log = world.neighbours.ours.log();
    let line = log.lines().rfind(|line| line.contains(INVOCATION));
    let line = line.ok_or("the sidecar does not log the invocation")?;
    let port = world.neighbours.receiver.address().port();
    holds(count == 1, || {
        format!("{count} notification of task {id} at port {port}; the sidecar: {line}")
    })
}

/// The receiver moves to another port, beside another sidecar, and nobody tells the service.
async fn finds(world: &mut World) -> Result<String, String> {
    let before = world.neighbours.receiver.address();
    world.neighbours.replace_receiver().await;
    let after = world.neighbours.receiver.address();
    let id = notified(world).await;
    holds(before != after, || {
        format!("it moved from {before} to {after}, and got the completion of {id} there")
    })
}

/// Whether what the process was told, or what an operator applies, names an address of it.
fn knows(world: &World) -> Result<String, String> {
    let folder = format!("/proc/{}", world.server.id());
    let mut texts = Vec::new();
    for name in ["cmdline", "environ"] {
        let text = fs::read(format!("{folder}/{name}")).map_err(|error| error.to_string())?;
        texts.push(String::from_utf8_lossy(&text).replace('\0', " "));
    }
    let neighbours = &world.neighbours;
    let ports = [
        neighbours.receiver.address().port(),
        neighbours.theirs.http_port(),
        neighbours.theirs.grpc_port(),
    ];
    for text in &texts {
        let named = ports.iter().find(|port| text.contains(&port.to_string()));
        if text.contains("notification") || named.is_some() {
            return Err(format!("the process is told {named:?}"));
        }
    }
    let variables = texts[1].split_whitespace();
    let variables: Vec<&str> = variables.filter_map(|one| one.split('=').next()).collect();
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let mut resources = 0;
    for folder in ["components", "k8s"] {
        let files = fs::read_dir(format!("{root}/{folder}")).map_err(|error| error.to_string())?;
        for file in files.filter_map(Result::ok) {
            let Ok(text) = fs::read_to_string(file.path()) else {
                continue;
            };
            resources += 1;
            if text.contains("://") || text.contains("notification-service:80") {
                return Err(format!("{} names a URL", file.path().display()));
            }
        }
    }
    holds(resources > 5, || {
        format!(
            "the process has the variables {variables:?}, and {resources} resources name no URL"
        )
    })
}
