//! What stands around the Task API on Dapr: its sidecar, and the notification service beside a sidecar of its own.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use redis::from_redis_value;
use serde_json::Value;

use super::{Names, Readiness};
use crate::process::{
    NotificationService, RedisServer, Sidecar, SidecarOptions, StartingServer, TaskServer,
    TaskServerOptions, TestDirectory, free_port,
};
use crate::wait::until;

/// What the sidecar of the Task API asks of its callers.
pub const API_TOKEN: &str = "sidecartoken";

/// What the sidecar of the Task API shows it.
pub const APP_TOKEN: &str = "apptoken";

/// What the sidecar of the receiver asks of its callers.
const THEIR_API_TOKEN: &str = "theirsidecartoken";

/// What the sidecar of the receiver shows it.
pub const THEIR_APP_TOKEN: &str = "theirapptoken";

/// Everything that runs beside the Task API, with tokens on both sides of each sidecar.
///
/// The service itself is started by [`Neighbours::serve`], always with the same words: what is behind its
/// sidecar, it is not told.
#[derive(Debug)]
pub struct Neighbours {
    /// Where notifications arrive.
    pub receiver: NotificationService,
    /// The sidecar of the receiver.
    pub theirs: Sidecar,
    /// The sidecar of the Task API.
    pub ours: Sidecar,
    /// Where that one finds the Task API.
    pub port: u16,
    nowhere: TestDirectory,
    names: Names,
}

impl Neighbours {
    /// Starts them, with these resources of Dapr for the Task API.
    ///
    /// # Panics
    /// If one of them does not start.
    pub async fn start(resources: impl IntoIterator<Item = impl ToString>) -> Self {
        Self::start_with(resources, "", |receiver| receiver.port()).await
    }

    /// Starts them; the receiver's sidecar calls the port that a function answers for the receiver's address, and ours
    /// has more lines of [`SidecarOptions::configuration`].
    ///
    /// # Panics
    /// If one of them does not start.
    pub async fn start_with(
        resources: impl IntoIterator<Item = impl ToString>,
        configuration: &str,
        way: impl FnOnce(SocketAddr) -> u16,
    ) -> Self {
        let names = Names::new();
        let receiver = receiver();
        let theirs = beside_receiver(&names, way(receiver.address())).await;
        let port = free_port();
        let ours = SidecarOptions {
            configuration: configuration.to_owned(),
            ..of_task_api(&names, resources)
        };
        let ours = Sidecar::start(ours.beside(port)).await;
        Self {
            receiver,
            theirs,
            ours,
            port,
            nowhere: TestDirectory::new("dapr-service"),
            names,
        }
    }

    /// What the service is started with: the sidecar's variables and no others, and the name of the backend.
    #[must_use]
    pub fn options(&self) -> TaskServerOptions {
        Self::options_beside(&self.ours, self.port)
    }

    /// The same for a replica beside another sidecar, which finds it at this port.
    #[must_use]
    pub fn options_beside(sidecar: &Sidecar, port: u16) -> TaskServerOptions {
        let variables = [
            ("DAPR_HTTP_PORT", sidecar.http_port().to_string()),
            ("DAPR_GRPC_PORT", sidecar.grpc_port().to_string()),
            ("DAPR_API_TOKEN", API_TOKEN.to_owned()),
            ("APP_API_TOKEN", APP_TOKEN.to_owned()),
        ];
        let mut before = vec!["env".to_owned(), "-i".to_owned()];
        before.extend(variables.map(|(name, value)| format!("{name}={value}")));
        let options = TaskServerOptions {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            before,
            ..TaskServerOptions::default()
        };
        options.arg("--backend").arg("dapr")
    }

    /// Starts another sidecar of the Task API; answers where that one finds its replica, too.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn another(&self, resources: Vec<String>) -> (Sidecar, u16) {
        let port = free_port();
        let options = of_task_api(&self.names, resources).beside(port);
        (Sidecar::start(options).await, port)
    }

    /// Begins to start the service with options that [`Self::options`] began.
    #[must_use]
    pub fn begin(&self, options: &TaskServerOptions) -> StartingServer {
        TaskServer::begin(self.nowhere.path(), options)
    }

    /// Starts the service and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready.
    pub async fn serve(&self) -> TaskServer {
        self.serve_with(&self.options()).await
    }

    /// Starts the service with options that [`Self::options`] began, and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready.
    pub async fn serve_with(&self, options: &TaskServerOptions) -> TaskServer {
        let started = self.begin(options).ready().await;
        started.unwrap_or_else(|log| panic!("{log}\n{}", self.ours.log()))
    }

    /// What a client of the sidecar sees of a task; `None` if there is none.
    ///
    /// # Panics
    /// If the sidecar answers neither; right after a deletion it may be an event that is still to be published.
    pub async fn stored(&self, id: &str) -> Option<Value> {
        let path = format!("/v1.0/state/statestore/task-{id}");
        let answer = self.ours.send("GET", &path, &[], "").await;
        match answer.status {
            // A deletion leaves an empty value behind for a while.
            200 if answer.body.is_empty() => None,
            200 => Some(answer.json()),
            204 => None,
            other => panic!("{path}: {other} {}", answer.text()),
        }
    }

    /// How often a task was notified as completed.
    ///
    /// # Panics
    /// If the receiver does not answer.
    pub async fn notified(&self, id: &str) -> usize {
        let received = self.receiver.received().await;
        let all = received["notifications"].as_array().into_iter().flatten();
        all.filter(|one| one["notification"]["task_id"] == id)
            .count()
    }

    /// Puts another receiver with another sidecar, on other ports, in the place of the first.
    ///
    /// # Panics
    /// If one of them does not start.
    pub async fn replace_receiver(&mut self) {
        self.theirs.stop().await;
        self.receiver = receiver();
        self.theirs = beside_receiver(&self.names, self.receiver.address().port()).await;
    }
}

fn receiver() -> NotificationService {
    let token = format!("APP_API_TOKEN={THEIR_APP_TOKEN}");
    NotificationService::start_with(&["env", &token], "127.0.0.1:0")
}

fn of_task_api(
    names: &Names,
    resources: impl IntoIterator<Item = impl ToString>,
) -> SidecarOptions {
    SidecarOptions {
        names: Some(names.path()),
        readiness: Readiness::Outbound,
        api_token: Some(API_TOKEN.to_owned()),
        app_token: Some(APP_TOKEN.to_owned()),
        arguments: vec!["--enable-api-logging".to_owned()],
        ..SidecarOptions::of("task-api", resources)
    }
}

async fn beside_receiver(names: &Names, port: u16) -> Sidecar {
    let options = SidecarOptions {
        names: Some(names.path()),
        api_token: Some(THEIR_API_TOKEN.to_owned()),
        app_token: Some(THEIR_APP_TOKEN.to_owned()),
        ..SidecarOptions::of("notification-service", [""; 0])
    };
    Sidecar::start(options.beside(port)).await
}

/// The envelopes that are in a stream of `pubsub.redis`, oldest first.
///
/// # Panics
/// If Redis does not answer, or an entry is none of Dapr's.
pub async fn published(redis: &RedisServer, topic: &str) -> Vec<Value> {
    let entries = redis.command(&["XRANGE", topic, "-", "+"]).await;
    let entries: Vec<(String, Vec<(String, String)>)> =
        from_redis_value(entries).expect("a stream has entries of fields");
    let fields = entries.into_iter().flat_map(|(_, fields)| fields);
    let envelopes = fields.filter(|(name, _)| name == "data");
    let parsed = envelopes.map(|(_, text)| serde_json::from_str(&text));
    parsed
        .map(|envelope| envelope.expect("an envelope is JSON"))
        .collect()
}

/// Waits until the only group of a stream of `pubsub.redis` has taken everything that is in it; answers its name.
///
/// # Panics
/// If it does not within a minute.
pub async fn everything_taken(server: &RedisServer, topic: &str) -> String {
    until("nothing is left to be delivered", async || {
        let groups = server.command(&["XINFO", "GROUPS", topic]).await;
        let groups: Vec<HashMap<String, redis::Value>> = from_redis_value(groups).ok()?;
        let [group] = groups.as_slice() else {
            return None;
        };
        let none = |name: &str| group.get(name) == Some(&redis::Value::Int(0));
        let name = group.get("name").cloned()?;
        (none("pending") && none("lag")).then(|| from_redis_value(name).ok())?
    })
    .await
}
