//! Where the brokers are, who we are to them, and how long things may take.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use task_core::ports::{Secret, Topic};

use crate::config::{ClientCertificate, ConfigProblem, ConfigProblems, Found};

/// Configuration of the Kafka event bus.
///
/// ```
/// use adapters_direct::kafka::{KafkaConfig, Mechanism, Sasl, Transport};
/// use task_core::ports::Secret;
/// let mut config = KafkaConfig::new("kafka-0:9093,kafka-1:9093");
/// config.transport = Transport::Tls { ca_file: None, client_certificate: None };
/// config.sasl = Some(Sasl {
///     mechanism: Mechanism::ScramSha512,
///     user: "tasks".to_owned(),
///     password: Secret::new("hunter2").unwrap(),
/// });
/// config.check().unwrap();
/// assert!(!format!("{config:?}").contains("hunter2"));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct KafkaConfig {
    /// Where to begin: `host:port`, separated by commas. The brokers name the others.
    pub brokers: String,
    /// How the brokers' logs and quotas call this program.
    pub client_id: String,
    /// How bytes travel.
    pub transport: Transport,
    /// Who we are, if the brokers ask.
    pub sasl: Option<Sasl>,
    /// What happens where a topic is missing.
    pub missing_topics: MissingTopics,
    /// What a group has to be that another one begins at.
    pub predecessor: Predecessor,
    /// Topics that [`check`](task_core::ports::EventBus::check) looks for, besides those in use.
    pub topics: Vec<Topic>,
    /// Longest time until an event is acknowledged; then its outcome is unknown.
    pub delivery_timeout: Duration,
    /// Longest time that an event waits for company; whoever awaits the publication pays it.
    pub linger: Duration,
    /// Longest time of one request to a broker.
    pub request_timeout: Duration,
    /// How long a silent member keeps its partitions. After a crash of it, or of the network, its
    /// partitions are not read for that long.
    pub session_timeout: Duration,
    /// Longest time that running calls hold up a rebalance of their group.
    pub release_timeout: Duration,
}

/// How bytes travel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Transport {
    /// In the clear.
    #[default]
    Plaintext,
    /// By TLS; certificate and host name of each broker are verified.
    Tls {
        /// Trusted certificates as a PEM file, instead of the machine's.
        ca_file: Option<PathBuf>,
        /// What to show brokers that ask for a certificate.
        client_certificate: Option<ClientCertificate>,
    },
}

/// Who we are to the brokers.
#[derive(Debug, Clone)]
pub struct Sasl {
    /// How the password is shown.
    pub mechanism: Mechanism,
    /// The user.
    pub user: String,
    /// The user's password.
    pub password: Secret,
}

/// How a password is shown to a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// As it is; without TLS everybody on the way can read it.
    Plain,
    /// By a challenge, SHA-256.
    ScramSha256,
    /// By a challenge, SHA-512.
    ScramSha512,
}

impl Mechanism {
    /// The name in Kafka's own configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// What happens where a topic is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissingTopics {
    /// It is an error: topics belong to who runs the brokers.
    #[default]
    Refuse,
    /// It is made on first use, for tests and first steps.
    Create {
        /// Partitions of a new topic. More of them later would break the order of keys.
        partitions: u16,
        /// Brokers that have a copy of it.
        replication: u16,
    },
}

/// What a group has to be that a new one begins at, by [`StartAt::Group`](task_core::ports::StartAt).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Predecessor {
    /// Anything. A partition in which it has no position begins at its end.
    #[default]
    Any,
    /// Known to the topic and without members, or the subscription is refused, as `NotFound` or `Conflict`.
    ///
    /// So nothing is heard by both, and nothing by none: a partition in which it has no position, because there
    /// was nothing while it ran, begins with what came since the last event that it has finished, or with its oldest
    /// event if that one is beyond retention.
    Stopped,
}

impl KafkaConfig {
    /// Plaintext brokers whose topics exist; 10 s for an event and for a request.
    #[must_use]
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            client_id: "task-server".to_owned(),
            transport: Transport::default(),
            sasl: None,
            missing_topics: MissingTopics::default(),
            predecessor: Predecessor::default(),
            topics: Vec::new(),
            delivery_timeout: Duration::from_secs(10),
            linger: Duration::ZERO,
            request_timeout: Duration::from_secs(10),
            session_timeout: Duration::from_secs(10),
            release_timeout: Duration::from_secs(20),
        }
    }

    /// Says whether everything can be used.
    ///
    /// # Errors
    /// All [`problems`](Self::problems).
    pub fn check(&self) -> Result<(), ConfigProblems> {
        ConfigProblems::refuse(self.problems())
    }

    /// Everything that cannot be used: field, limit and value. It reads the files that are named.
    #[must_use]
    pub fn problems(&self) -> Vec<ConfigProblem> {
        let mut found = Found::default();
        brokers(&self.brokers, &mut found);
        text("client_id", &self.client_id, &mut found);
        files(&self.transport, &mut found);
        if let Some(sasl) = &self.sasl {
            text("sasl.user", &sasl.user, &mut found);
            if sasl.password.expose().contains('\0') {
                found.add("sasl.password", "must not hold a null byte");
            }
        }
        if let MissingTopics::Create {
            partitions,
            replication,
        } = self.missing_topics
        {
            found.count("missing_topics.partitions", partitions, &(1..=1000));
            found.count("missing_topics.replication", replication, &(1..=15));
        }
        for (field, value, least, most) in [
            ("delivery_timeout", self.delivery_timeout, 100, 300_000),
            ("request_timeout", self.request_timeout, 1000, 300_000),
            ("session_timeout", self.session_timeout, 1000, 300_000),
            ("release_timeout", self.release_timeout, 0, 120_000),
            ("linger", self.linger, 0, 100),
        ] {
            let [least, most] = [least, most].map(Duration::from_millis);
            found.time(field, value, &(least..=most));
        }
        found.0
    }
}

fn brokers(brokers: &str, found: &mut Found) {
    for broker in brokers.split(',') {
        let (host, port) = broker.rsplit_once(':').unwrap_or((broker, ""));
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
        let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
        if !host.is_empty() && host.chars().all(plain) && is_port {
            continue;
        }
        // An address may hold a password by mistake, and then it must not be shown.
        let shown = match broker.contains('@') {
            true => "one is not and is not shown".to_owned(),
            false => format!("one is {broker:?}"),
        };
        let problem = format!("must be host:port, separated by commas, {shown}");
        found.add("brokers", problem);
    }
}

fn text(field: &'static str, value: &str, found: &mut Found) {
    let bytes = value.len();
    if !(1..=255).contains(&bytes) {
        found.add(field, format!("must have 1 to 255 bytes, it has {bytes}"));
    }
    if value.chars().any(char::is_control) {
        found.add(field, "must not hold control characters");
    }
}

fn files(transport: &Transport, found: &mut Found) {
    let Transport::Tls {
        ca_file,
        client_certificate,
    } = transport
    else {
        return;
    };
    let mut check = |field, path: &Path, holds: Holds| {
        if let Err(error) = holds.check(path) {
            let path = path.display();
            found.add(field, format!("cannot use {path}: {error}"));
        }
    };
    if let Some(path) = ca_file {
        check("transport.ca_file", path, Holds::Certificate);
    }
    if let Some(ClientCertificate { certificate, key }) = client_certificate {
        let field = "transport.client_certificate.certificate";
        check(field, certificate, Holds::Certificate);
        check("transport.client_certificate.key", key, Holds::Key);
    }
}

/// What a PEM file has to hold; librdkafka reads it.
#[derive(Debug, Clone, Copy)]
enum Holds {
    Certificate,
    Key,
}

impl Holds {
    fn check(self, path: &Path) -> io::Result<()> {
        let content = fs::read(path)?;
        let has = |mark: &str| {
            content
                .windows(mark.len())
                .any(|part| part == mark.as_bytes())
        };
        match self {
            // librdkafka would ask for its password, and there is nobody to answer.
            Self::Key if has("ENCRYPTED") => Err(io::Error::other("its key is encrypted")),
            Self::Key if has("PRIVATE KEY-----") => Ok(()),
            Self::Key => Err(io::Error::other("it holds no private key")),
            Self::Certificate if has("CERTIFICATE-----") => Ok(()),
            Self::Certificate => Err(io::Error::other("it holds no certificate")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut KafkaConfig)) -> String {
        let mut config = KafkaConfig::new("a:1");
        change(&mut config);
        let error = config.check().expect_err("an invalid configuration");
        error.to_string()
    }

    #[test]
    fn a_refusal_names_field_limit_and_value() {
        let create = |partitions, replication| MissingTopics::Create {
            partitions,
            replication,
        };
        for (refused, expected) in [
            (
                refused(|config| config.delivery_timeout = Duration::from_millis(99)),
                "delivery_timeout must be 100 to 300000 ms, it is 99 ms",
            ),
            (
                refused(|config| config.linger = Duration::from_millis(101)),
                "linger must be 0 to 100 ms, it is 101 ms",
            ),
            (
                refused(|config| config.missing_topics = create(0, 16)),
                "missing_topics.partitions must be 1 to 1000, it is 0; \
                 missing_topics.replication must be 1 to 15, it is 16",
            ),
            (
                refused(|config| config.client_id.clear()),
                "client_id must have 1 to 255 bytes, it has 0",
            ),
        ] {
            assert_eq!(refused, expected);
        }
    }

    #[test]
    fn all_problems_are_told_at_once_and_each_names_its_field() {
        let mut config = KafkaConfig::new("a");
        config.client_id = "a\n".to_owned();
        config.transport = Transport::Tls {
            ca_file: Some("no-such.pem".into()),
            client_certificate: Some(ClientCertificate {
                certificate: "no-such.crt".into(),
                key: "no-such.key".into(),
            }),
        };
        config.sasl = Some(Sasl {
            mechanism: Mechanism::Plain,
            user: String::new(),
            password: Secret::new("x").expect("not empty"),
        });
        config.session_timeout = Duration::ZERO;
        let problems = config.problems();
        let fields = [
            "brokers",
            "client_id",
            "transport.ca_file",
            "transport.client_certificate.certificate",
            "transport.client_certificate.key",
            "sasl.user",
            "session_timeout",
        ];
        let found: Vec<&str> = problems.iter().map(|problem| problem.field).collect();
        assert_eq!(found, fields);
        let file = &problems[2].problem;
        assert!(
            file.contains("no-such.pem") && file.contains("No such file"),
            "{file}"
        );
        assert_eq!(config.check().expect_err("problems").all(), problems);
    }

    #[test]
    fn a_file_without_what_it_should_hold_is_a_problem() {
        let refused = |file: &str| {
            let mut config = KafkaConfig::new("a:1");
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
            config.transport = Transport::Tls {
                ca_file: Some(file.clone()),
                client_certificate: Some(ClientCertificate {
                    certificate: file.clone(),
                    key: file,
                }),
            };
            config.problems()
        };
        assert_eq!(refused("src").len(), 3);
        let problems = refused("Cargo.toml");
        for (problem, lacks) in problems
            .iter()
            .zip(["certificate", "certificate", "private key"])
        {
            let expected = format!("it holds no {lacks}");
            assert!(problem.problem.ends_with(&expected), "{problem}");
        }
    }

    #[test]
    fn brokers_are_hosts_with_ports() {
        for brokers in ["a:1", "a-b.c:65535,10.0.0.1:9092", "[::1]:9092"] {
            KafkaConfig::new(brokers).check().expect(brokers);
        }
        for brokers in ["", "a", "a:", "a:0", "a:65536", ":1", "a:1,", "a:1, b:1"] {
            let error = KafkaConfig::new(brokers).check().expect_err(brokers);
            assert!(error.to_string().starts_with("brokers must be"), "{error}");
        }
    }

    #[test]
    fn no_refusal_shows_a_password() {
        let shown = refused(|config| {
            config.brokers = "SASL://u:hunter2@a:1".to_owned();
            config.sasl = Some(Sasl {
                mechanism: Mechanism::Plain,
                user: String::new(),
                password: Secret::new("hunter2\0").expect("not empty"),
            });
        });
        assert!(
            shown.contains("sasl.password must not hold a null byte"),
            "{shown}"
        );
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
