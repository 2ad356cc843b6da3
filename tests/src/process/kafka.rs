//! A real Kafka broker, and what may happen to one.

mod secured;
mod wire;

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use tokio::sync::OnceCell;

use super::TestDirectory;
use super::installed::installed;
use super::port::free_port;
use super::supervised::Supervised;
use crate::wait::until;

pub use secured::{Entry, Login, SecuredPort};

/// Any 16 bytes in base64url: what the storage is formatted for.
const CLUSTER_ID: &str = "dGFzay10ZXN0cy1rYWZrYQ";

/// Who may create topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TopicCreation {
    /// [`KafkaBroker::create_topic`] and other administrators.
    #[default]
    Explicit,
    /// Whoever names one.
    Automatic,
}

/// How a [`KafkaBroker`] is started.
#[derive(Debug, Clone, Default)]
pub struct KafkaOptions {
    /// Who may create topics.
    pub topics: TopicCreation,
    /// More of `server.properties`, after the fixture's own.
    pub properties: Vec<(String, String)>,
    /// Who may use a second port, if there is to be one.
    pub secured: Option<Entry>,
}

/// A running Kafka broker, killed and removed when dropped or when the test process ends.
///
/// One node is broker and controller (`KRaft`). It listens on loopback, on a port that it keeps over
/// restarts, and has its data in a directory of its own. A start takes two to ten seconds.
#[derive(Debug)]
pub struct KafkaBroker {
    // Dropped first: it writes to the directory.
    server: Supervised,
    directory: TestDirectory,
    port: u16,
    secured: Option<SecuredPort>,
}

impl KafkaBroker {
    /// The broker of this test process, started on first use with the default options.
    ///
    /// Each case takes topics and groups of its own. Faults are for brokers that a case has started itself.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<KafkaBroker> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// Starts a broker with the default options and waits until it serves.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start() -> Self {
        Self::start_with(KafkaOptions::default()).await
    }

    /// Starts a broker and waits until it serves.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start_with(options: KafkaOptions) -> Self {
        let directory = TestDirectory::new("kafka");
        let port = free_port();
        let entry = options.secured.as_ref();
        let secured = entry.map(|entry| SecuredPort::prepare(entry, directory.path()));
        let ports = (port, free_port(), secured.as_ref());
        let lines = properties(&options, ports, &directory);
        let written = fs::write(directory.path().join("server.properties"), lines.join("\n"));
        written.expect("a test directory can be written");
        format_storage(&directory, secured.as_ref());
        let mut broker = Self {
            server: launch(&directory),
            directory,
            port,
            secured,
        };
        broker.ready().await;
        broker
    }

    /// The port of loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:PORT`, as `bootstrap.servers` takes it.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port that asks who comes.
    ///
    /// # Panics
    /// If it was started without one.
    #[must_use]
    pub fn secured(&self) -> &SecuredPort {
        let secured = self.secured.as_ref();
        secured.expect("it was started with a secured port")
    }

    /// Creates a topic and waits until it can be written.
    ///
    /// # Panics
    /// If it exists or is refused.
    pub async fn create_topic(&self, name: &str, partitions: u16) {
        let created = wire::create_topic(self.port, name, partitions).await;
        created.unwrap_or_else(|error| panic!("topic {name}: {error}\n{}", self.log()));
        until("the topic has leaders", async || {
            let leaders = wire::leaders(self.port, name).await.ok()?;
            (leaders == usize::from(partitions)).then_some(())
        })
        .await;
    }

    /// The broker's process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.server.id()
    }

    /// What it has written so far, over all its starts: warnings and errors.
    #[must_use]
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// Ends it at once, as a power failure would end the process. Its data stay.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Asks it to stop and waits for its end. Its data stay.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn stop(&mut self) {
        self.server.stop().await;
    }

    /// Starts it again on the same ports and data, and waits until it serves. If it runs, it is killed first.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn restart(&mut self) {
        self.server.kill();
        self.server = launch(&self.directory);
        self.ready().await;
    }

    /// Stops it from doing anything; its connections stay open and silent.
    pub fn pause(&self) {
        self.server.signal("STOP");
    }

    /// Lets it go on after [`Self::pause`].
    pub fn resume(&self) {
        self.server.signal("CONT");
    }

    /// Waits until it lists itself as a broker that serves.
    async fn ready(&mut self) {
        until("the Kafka broker serves", async || {
            assert!(
                self.server.is_running(),
                "Kafka does not start:\n{}",
                self.server.log()
            );
            let brokers = wire::brokers(self.port).await.ok()?;
            (brokers > 0).then_some(())
        })
        .await;
    }
}

/// `java` with Kafka's classes and a heap of this many megabytes.
fn java(heap_mb: u32) -> Vec<OsString> {
    static JARS: OnceLock<PathBuf> = OnceLock::new();
    let jars = JARS.get_or_init(|| installed("kafka"));
    vec![
        "java".into(),
        format!("-Xmx{heap_mb}m").into(),
        // One collector thread: brokers share two cores with what they are tested against.
        "-XX:+UseSerialGC".into(),
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".into(),
        "-cp".into(),
        jars.join("*").into(),
    ]
}

fn launch(directory: &TestDirectory) -> Supervised {
    let mut words = java(384);
    words.push("kafka.Kafka".into());
    words.push(directory.path().join("server.properties").into());
    Supervised::start(&words, directory.path())
}

fn format_storage(directory: &TestDirectory, secured: Option<&SecuredPort>) {
    let words = java(64);
    let formatted = Command::new(&words[0])
        .args(&words[1..])
        .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
        .arg(directory.path().join("server.properties"))
        .args(secured.iter().flat_map(|secured| secured.credentials()))
        .output()
        .expect("java runs");
    let error = String::from_utf8_lossy(&formatted.stderr);
    assert!(formatted.status.success(), "{error}");
}

fn properties(
    options: &KafkaOptions,
    (port, controller, secured): (u16, u16, Option<&SecuredPort>),
    directory: &TestDirectory,
) -> Vec<String> {
    let mut listeners = format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}");
    let mut own_of_port = Vec::new();
    if let Some(secured) = secured {
        listeners = format!("{listeners},{}", secured.listener());
        own_of_port.extend(secured.properties(directory.path()));
    }
    let data = directory.path().join("data");
    let automatic = options.topics == TopicCreation::Automatic;
    let own = [
        ("process.roles", "broker,controller".to_owned()),
        ("node.id", "1".to_owned()),
        (
            "controller.quorum.voters",
            format!("1@127.0.0.1:{controller}"),
        ),
        ("listeners", listeners),
        ("controller.listener.names", "CONTROLLER".to_owned()),
        ("log.dirs", data.display().to_string()),
        ("auto.create.topics.enable", automatic.to_string()),
        ("offsets.topic.replication.factor", "1".to_owned()),
        ("offsets.topic.num.partitions", "4".to_owned()),
        ("transaction.state.log.replication.factor", "1".to_owned()),
        ("transaction.state.log.min.isr", "1".to_owned()),
        ("transaction.state.log.num.partitions", "1".to_owned()),
        // After a kill the controller believes for this long that the broker still runs.
        ("broker.session.timeout.ms", "2000".to_owned()),
        ("broker.heartbeat.interval.ms", "500".to_owned()),
        // A group of one consumer waits for no others.
        ("group.initial.rebalance.delay.ms", "0".to_owned()),
    ];
    let own = own.into_iter().chain(own_of_port);
    let own = own.map(|(name, value)| (name.to_owned(), value));
    let all = own.chain(options.properties.iter().cloned());
    all.map(|(name, value)| format!("{name}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_topic_must_be_created_and_can_be_only_once() {
        let broker = KafkaBroker::shared().await;
        let unknown = wire::leaders(broker.port, "unknown").await;
        assert!(unknown.is_err(), "a topic came by itself: {unknown:?}");
        broker.create_topic("created", 3).await;
        assert_eq!(wire::leaders(broker.port, "created").await.ok(), Some(3));
        let again = wire::create_topic(broker.port, "created", 3).await;
        let already_exists = "Kafka answers error 36".to_owned();
        let refused = again.map_err(|error| error.to_string());
        assert_eq!(refused, Err(already_exists));
    }

    #[tokio::test]
    async fn a_broker_can_be_asked_to_create_topics_that_are_named() {
        let options = KafkaOptions {
            topics: TopicCreation::Automatic,
            properties: vec![("num.partitions".to_owned(), "2".to_owned())],
            ..KafkaOptions::default()
        };
        let broker = KafkaBroker::start_with(options).await;
        until("a topic comes by itself", async || {
            let leaders = wire::leaders(broker.port, "unknown").await.ok()?;
            (leaders == 2).then_some(())
        })
        .await;
    }
}
