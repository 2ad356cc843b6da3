//! SC-5: no client of a backend in the build for Dapr, and no address but the sidecar's.

use std::collections::BTreeSet;
use std::process::Command;

use task_tests::criteria::Criterion;
use task_tests::process::{
    NotificationService, RedisServer, Sockets, TaskServer, TaskServerOptions, TestDirectory, Watch,
};
use task_tests::wait::until;

use crate::build::SELECTION;
use crate::{World, holds};

/// Clients of brokers, stores and databases, by their packages.
const CLIENTS: [&str; 17] = [
    "async-nats",
    "deadpool-redis",
    "fred",
    "kafka",
    "krafka",
    "lapin",
    "libsqlite3-sys",
    "memcache",
    "mongodb",
    "postgres",
    "rdkafka",
    "rdkafka-sys",
    "redis",
    "rskafka",
    "rusqlite",
    "sqlx",
    "tokio-postgres",
];

pub(crate) async fn check(world: World, watch: &Watch) -> Criterion {
    let mut criterion = Criterion::new("SC-5");
    let what = "no client of Redis or Kafka in the dependency tree";
    criterion.check(what, async { depends() }).await;
    let what = "no address but the sidecar's";
    criterion.check(what, talks(world, watch)).await;
    let what = "the watch sees another address";
    criterion.check(what, sees()).await;
    criterion
}

/// The packages that a build of the server needs.
fn packages(selection: &str) -> BTreeSet<String> {
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--locked", "--offline", "--prefix", "none"]);
    tree.args(["--edges", "normal,build", "--format", "{p}"]);
    tree.args(selection.split(' '));
    let output = tree.output().expect("cargo runs");
    assert!(output.status.success(), "cargo tree {selection} fails");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = text.lines().filter_map(|line| line.split(' ').next());
    names.map(str::to_owned).collect()
}

fn depends() -> Result<String, String> {
    let clients = |packages: &BTreeSet<String>| {
        let found = CLIENTS.iter().filter(|name| packages.contains(**name));
        found.copied().collect::<Vec<_>>()
    };
    let packages_of_dapr = packages(SELECTION);
    let found = clients(&packages_of_dapr);
    let others = clients(&packages(&SELECTION.replace("dapr", "direct")));
    // With them the same look finds them.
    let looks = others.contains(&"redis") && others.contains(&"rdkafka");
    let dapr = packages_of_dapr.contains("dapr");
    holds(found.is_empty() && looks && dapr, || {
        format!(
            "cargo tree {SELECTION}: {} packages, of them clients {found:?}; with direct instead {others:?}",
            packages_of_dapr.len()
        )
    })
}

/// What the process has talked to in the whole run, an outage of its sidecar and its own end included.
async fn talks(world: World, watch: &Watch) -> Result<String, String> {
    let World {
        redis: _redis,
        mut neighbours,
        server,
    } = world;
    let sidecar = [neighbours.ours.http_port(), neighbours.ours.grpc_port()];
    neighbours.ours.kill();
    is_ready(&server, 503).await;
    neighbours.ours.restart().await;
    is_ready(&server, 200).await;
    let (id, address) = (server.id(), server.address());
    let status = server.stop();
    holds(status.success(), || format!("it ended as {status}"))?;
    let sockets = until("the report is complete", async || watch.seen(id)).await;
    let expected = sidecar.map(|port| format!("127.0.0.1:{port}"));
    let Sockets {
        towards,
        listens,
        attempts,
    } = sockets;
    let alone = towards == BTreeSet::from(expected.clone())
        && listens == BTreeSet::from([address.to_string()]);
    holds(alone, || {
        format!(
            "{attempts} attempts from the first instruction to the end, an outage included, \
             towards {towards:?}, the sidecar is {expected:?}; listens on {listens:?}"
        )
    })
}

async fn is_ready(server: &TaskServer, status: u16) {
    until(&format!("GET /ready answers {status}"), async || {
        let found = server.get("/ready").await.status;
        (found == status).then_some(())
    })
    .await;
}

/// The same look at a server on Redis itself.
async fn sees() -> Result<String, String> {
    let redis = RedisServer::start().await;
    let receiver = NotificationService::start("127.0.0.1:0");
    let watch = Watch::new();
    let options = TaskServerOptions {
        before: watch.words(),
        ..TaskServerOptions::default()
    };
    let options = [
        "--backend",
        "direct",
        "--bus",
        "redis-streams",
        "--redis-url",
        &redis.url(),
        "--notification-url",
        &format!("http://{}", receiver.address()),
    ]
    .into_iter()
    .fold(options, TaskServerOptions::arg);
    let nowhere = TestDirectory::new("direct");
    let server = TaskServer::start_with(nowhere.path(), &options).await;
    let id = server.id();
    let status = server.stop();
    holds(status.success(), || format!("it ended as {status}"))?;
    let seen = until("the report is complete", async || watch.seen(id)).await;
    let address = format!("127.0.0.1:{}", redis.port());
    holds(seen.towards.contains(&address), || {
        format!(
            "a server on Redis at {address} is seen to talk to {:?}",
            seen.towards
        )
    })
}
