//! Dapr's resources as texts: components on the servers of the tests, and the self-hosted set of this repository.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use redis::IntoConnectionInfo;

use crate::process::KafkaBroker;

/// A component of Dapr; its text is the YAML that an operator would write.
///
/// ```
/// use task_tests::process::dapr::Component;
/// let store = Component::new("statestore", "state.in-memory").with("actorStateStore", "true");
/// assert!(store.to_string().contains("type: \"state.in-memory\""));
/// ```
#[derive(Debug, Clone)]
pub struct Component {
    name: String,
    kind: String,
    version: &'static str,
    metadata: Vec<(String, String)>,
    scopes: Vec<String>,
}

impl Component {
    /// A component of a type, for example `state.in-memory`, without metadata.
    #[must_use]
    pub fn new(name: &str, kind: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            version: "v1",
            metadata: Vec::new(),
            scopes: Vec::new(),
        }
    }

    /// Adds a field of metadata.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.metadata.push((name.to_owned(), value.into()));
        self
    }

    /// Hides it from every app but those named by this method.
    #[must_use]
    pub fn only_for(mut self, app_id: &str) -> Self {
        self.scopes.push(app_id.to_owned());
        self
    }

    /// State in a Redis database, `redis://127.0.0.1:PORT/DATABASE`.
    ///
    /// # Panics
    /// If it is no such URL.
    #[must_use]
    pub fn redis_state(name: &str, url: &str) -> Self {
        Self::new(name, "state.redis").with_redis(url)
    }

    /// Events in streams of a Redis database, `redis://127.0.0.1:PORT/DATABASE`.
    ///
    /// # Panics
    /// If it is no such URL.
    #[must_use]
    pub fn redis_pubsub(name: &str, url: &str) -> Self {
        Self::new(name, "pubsub.redis").with_redis(url)
    }

    /// Events in topics of Kafka; consumers of a new group start at the oldest.
    #[must_use]
    pub fn kafka_pubsub(name: &str, broker: &KafkaBroker) -> Self {
        Self::new(name, "pubsub.kafka")
            .with("brokers", broker.bootstrap())
            .with("authType", "none")
            .with("initialOffset", "oldest")
    }

    /// State in tables of PostgreSQL, which it creates; takes `PostgresServer::create_database`.
    #[must_use]
    pub fn postgres_state(name: &str, connection: &str) -> Self {
        let mut component = Self::new(name, "state.postgresql");
        // The first version keeps values as JSON, the second as they are.
        component.version = "v2";
        component.with("connectionString", connection)
    }

    /// State that ends with the sidecar.
    #[must_use]
    pub fn in_memory_state(name: &str) -> Self {
        Self::new(name, "state.in-memory")
    }

    /// Events between the subscribers of one sidecar.
    #[must_use]
    pub fn in_memory_pubsub(name: &str) -> Self {
        Self::new(name, "pubsub.in-memory")
    }

    /// Secrets in a file of JSON.
    #[must_use]
    pub fn local_secrets(name: &str, file: &Path) -> Self {
        Self::new(name, "secretstores.local.file").with("secretsFile", file.display().to_string())
    }

    fn with_redis(self, url: &str) -> Self {
        let info = url.into_connection_info();
        let info = info.unwrap_or_else(|error| panic!("{url}: {error}"));
        let settings = info.redis_settings();
        let mut component = self
            .with("redisHost", info.addr().to_string())
            .with("redisDB", settings.db().to_string());
        if let Some(user) = settings.username() {
            component = component.with("redisUsername", user);
        }
        component.with("redisPassword", settings.password().unwrap_or_default())
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "apiVersion: dapr.io/v1alpha1")?;
        writeln!(f, "kind: Component")?;
        writeln!(f, "metadata:\n  name: {}", quoted(&self.name))?;
        writeln!(f, "spec:\n  type: {}", quoted(&self.kind))?;
        writeln!(f, "  version: {}", self.version)?;
        writeln!(f, "  metadata:")?;
        if self.metadata.is_empty() {
            writeln!(f, "    []")?;
        }
        for (name, value) in &self.metadata {
            writeln!(f, "    - name: {}", quoted(name))?;
            writeln!(f, "      value: {}", quoted(value))?;
        }
        if !self.scopes.is_empty() {
            writeln!(f, "scopes:")?;
        }
        for scope in &self.scopes {
            writeln!(f, "  - {}", quoted(scope))?;
        }
        Ok(())
    }
}

/// A text in quotes, which YAML reads as JSON does.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Where the resources for `dapr run` are.
fn self_hosted_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../components/self-hosted")
}

/// The resources of `components/self-hosted` with a Redis of the tests in the place of `localhost:6379`.
///
/// # Panics
/// If they cannot be read, or do not name the server that is to be replaced.
#[must_use]
pub fn self_hosted(redis_port: u16) -> Vec<String> {
    const SERVER: &str = "localhost:6379";
    const FOLDER: &str = "./components/self-hosted/";
    let folder = self_hosted_folder();
    let entries = fs::read_dir(&folder).expect("the resources can be listed");
    let paths = entries.map(|entry| entry.expect("the resources can be listed").path());
    let resources = paths.filter(|path| path.extension().is_some_and(|end| end == "yaml"));
    let resources = resources.map(|path| fs::read_to_string(path).expect("a resource is UTF-8"));
    let resources: Vec<String> = resources.collect();
    let named = resources.iter().filter(|text| text.contains(SERVER));
    assert!(named.count() == 2, "state and events name {SERVER}");
    let here = format!("{}/", folder.display());
    let server = format!("127.0.0.1:{redis_port}");
    resources
        .iter()
        .map(|text| text.replace(SERVER, &server).replace(FOLDER, &here))
        .collect()
}
