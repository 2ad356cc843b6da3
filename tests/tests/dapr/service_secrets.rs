//! Secrets that a configuration names, from the sidecar's store of secrets.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use task_tests::process::dapr::Component;
use task_tests::process::redis::RedisOptions;
use task_tests::process::{
    RedisServer, Sidecar, SidecarOptions, StartingServer, TaskServer, TaskServerOptions,
    TestDirectory,
};
use task_tests::wait::until;

const PASSWORD: &str = "canary3f81";
const API_TOKEN: &str = "apitoken";

/// A Redis with a password, and a sidecar that knows it.
struct World {
    redis: RedisServer,
    sidecar: Sidecar,
    directory: TestDirectory,
}

impl World {
    async fn start() -> Self {
        let options = RedisOptions {
            password: Some(PASSWORD.to_owned()),
            ..RedisOptions::default()
        };
        let redis = RedisServer::start_with(options).await;
        let directory = TestDirectory::new("secrets");
        let file = directory.path().join("secrets.json");
        let secrets =
            format!(r#"{{"redis": {{"password": "{PASSWORD}"}}, "other": "{PASSWORD}"}}"#);
        fs::write(&file, secrets).unwrap();
        let in_file = Component::local_secrets("in-file", &file).with("multiValued", "true");
        let in_environment = Component::new("in-environment", "secretstores.local.env");
        let state = Component::in_memory_state("statestore");
        let sidecar = Sidecar::start(SidecarOptions {
            api_token: Some(API_TOKEN.to_owned()),
            environment: vec![("REDIS_PASSWORD".to_owned(), PASSWORD.to_owned())],
            ..SidecarOptions::of("task-api", [in_file, in_environment, state])
        })
        .await;
        Self {
            redis,
            sidecar,
            directory,
        }
    }

    fn begin(&self, arguments: &[&str]) -> StartingServer {
        let before = [
            "env".to_owned(),
            format!("DAPR_HTTP_PORT={}", self.sidecar.http_port()),
            format!("DAPR_GRPC_PORT={}", self.sidecar.grpc_port()),
            format!("DAPR_API_TOKEN={API_TOKEN}"),
        ];
        let options = TaskServerOptions {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
            before: before.to_vec(),
            ..TaskServerOptions::default()
        };
        TaskServer::begin(self.directory.path(), &options)
    }

    /// Starts the service on that Redis, whose password is this secret of this store.
    fn begin_on_redis(&self, store: &str, secret: &str) -> StartingServer {
        let url = format!("redis://127.0.0.1:{}", self.redis.port());
        let store = format!("dapr:{store}");
        self.begin(&[
            "--backend=direct",
            "--bus=redis-streams",
            "--notification-url=http://127.0.0.1:9",
            "--redis-url",
            &url,
            "--redis-password-secret",
            secret,
            "--secrets",
            &store,
        ])
    }
}

#[tokio::test]
async fn the_password_of_redis_may_be_in_a_store_of_the_sidecar() {
    let world = World::start().await;
    for (store, secret) in [
        ("in-file", "redis/password"),
        ("in-environment", "REDIS_PASSWORD"),
    ] {
        let started = world.begin_on_redis(store, secret).ready().await;
        let server = started.unwrap_or_else(|log| panic!("{store}: {log}"));
        let created = server.post("/tasks", r#"{"title":"kept"}"#).await;
        assert_eq!(created.status, 201, "{}", created.text());
        let log = server.log();
        assert!(!log.contains(PASSWORD) && !log.contains(API_TOKEN), "{log}");
    }
}

#[tokio::test]
async fn a_sidecar_that_is_away_takes_no_redis_with_it() {
    let mut world = World::start().await;
    let started = world
        .begin_on_redis("in-file", "redis/password")
        .ready()
        .await;
    let server = started.unwrap_or_else(|log| panic!("{log}"));
    world.sidecar.kill();
    let all = ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
    world.redis.command(&all).await;
    until("a task is created", async || {
        let created = server.post("/tasks", r#"{"title":"kept"}"#).await;
        (created.status == 201).then_some(())
    })
    .await;
    let log = server.log();
    assert!(!log.contains(PASSWORD), "{log}");
}

#[tokio::test]
async fn a_store_or_a_secret_that_is_missing_is_named_and_nothing_starts() {
    let world = World::start().await;
    let no_store = "cannot open the store of secrets: \
         dapr open: not found: the sidecar has no component \"nowhere\"";
    let no_secret = |name: &str| {
        format!(
            "cannot read the secret that redis_password_secret names: \
             dapr get: not found: secret {name}"
        )
    };
    for (store, secret, expected) in [
        ("nowhere", "redis/password", no_store.to_owned()),
        (
            "statestore",
            "redis/password",
            "cannot open the store of secrets: dapr open: invalid: \
             the component statestore (state.in-memory v1) is no store of secrets"
                .to_owned(),
        ),
        ("in-file", "redis/user", no_secret("redis/user")),
        ("in-file", "nobody", no_secret("nobody")),
        ("in-environment", "NOBODY", no_secret("NOBODY")),
    ] {
        let (status, log) = world.begin_on_redis(store, secret).wait();
        assert_eq!(status.code(), Some(2), "{log}");
        assert!(log.contains(&expected), "{store} {secret}: {log}");
        assert!(!log.contains(PASSWORD), "{log}");
    }
    // With this backend it is looked for before anything needs it.
    let begun = world.begin(&["--backend=dapr", "--secrets=dapr:nowhere"]);
    let (status, log) = begun.wait();
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(log.contains(no_store), "{log}");
}
