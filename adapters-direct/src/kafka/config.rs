//! Where the brokers are, who we are to them, and how long things may take.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use task_core::ports::{Secret, Topic};

/// Configuration of the Kafka event bus.
///
/// ```
/// use adapters_direct::kafka::{KafkaConfig, Mechanism, Sasl, Transport};
/// use task_core::ports::Secret;
/// let mut config = KafkaConfig::new("kafka-0:9093,kafka-1:9093");
/// config.transport = Transport::Tls { ca_file: None };
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

/// Every setting that cannot be used, never only the first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct KafkaConfigError(Vec<String>);

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
            topics: Vec::new(),
            delivery_timeout: Duration::from_secs(10),
            linger: Duration::ZERO,
            request_timeout: Duration::from_secs(10),
            session_timeout: Duration::from_secs(10),
            release_timeout: Duration::from_secs(20),
        }
    }

    /// Says whether everything is within its limits.
    ///
    /// # Errors
    /// Field, limit and value of everything that is not.
    pub fn check(&self) -> Result<(), KafkaConfigError> {
        let mut problems = Problems::default();
        problems.brokers(&self.brokers);
        problems.text("client_id", &self.client_id);
        if let Some(sasl) = &self.sasl {
            problems.text("sasl.user", &sasl.user);
            let shown = "is not shown";
            let holds_null = sasl.password.expose().contains('\0');
            problems.expect(!holds_null, "sasl.password", "holds no null byte", shown);
        }
        if let MissingTopics::Create {
            partitions,
            replication,
        } = self.missing_topics
        {
            problems.count("missing_topics.partitions", partitions, 1000);
            problems.count("missing_topics.replication", replication, 15);
        }
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let millis = Duration::from_millis;
        for (field, value, least, most) in [
            (
                "delivery_timeout",
                self.delivery_timeout,
                millis(100),
                minutes(5),
            ),
            (
                "request_timeout",
                self.request_timeout,
                millis(1000),
                minutes(5),
            ),
            (
                "session_timeout",
                self.session_timeout,
                millis(1000),
                minutes(5),
            ),
            (
                "release_timeout",
                self.release_timeout,
                millis(0),
                minutes(2),
            ),
            ("linger", self.linger, millis(0), millis(100)),
        ] {
            problems.duration(field, value, least, most);
        }
        match problems.0.is_empty() {
            true => Ok(()),
            false => Err(KafkaConfigError(problems.0)),
        }
    }
}

#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn expect(&mut self, holds: bool, field: &str, limit: &str, value: impl fmt::Display) {
        if !holds {
            self.0.push(format!("{field} {limit}, this one {value}"));
        }
    }

    fn brokers(&mut self, brokers: &str) {
        for broker in brokers.split(',') {
            let (host, port) = broker.rsplit_once(':').unwrap_or((broker, ""));
            let plain = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
            let holds = !host.is_empty()
                && host.chars().all(plain)
                && port.parse::<u16>().is_ok_and(|port| port > 0);
            // An address may hold a password by mistake, and then it must not be shown.
            let shown = match broker.contains('@') {
                true => "is not shown".to_owned(),
                false => format!("is {broker:?}"),
            };
            self.expect(
                holds,
                "brokers",
                "are host:port, separated by commas",
                shown,
            );
        }
    }

    fn text(&mut self, field: &str, value: &str) {
        let holds = (1..=255).contains(&value.len()) && !value.chars().any(char::is_control);
        let shown = format!("has {} bytes", value.len());
        self.expect(
            holds,
            field,
            "has 1 to 255 bytes and no control characters",
            shown,
        );
    }

    fn count(&mut self, field: &str, value: u16, most: u16) {
        let holds = (1..=most).contains(&value);
        self.expect(
            holds,
            field,
            &format!("is 1 to {most}"),
            format!("is {value}"),
        );
    }

    fn duration(&mut self, field: &str, value: Duration, least: Duration, most: Duration) {
        let limit = format!("is {} to {} ms", least.as_millis(), most.as_millis());
        let shown = format!("is {} ms", value.as_millis());
        self.expect((least..=most).contains(&value), field, &limit, shown);
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
                "delivery_timeout is 100 to 300000 ms, this one is 99 ms",
            ),
            (
                refused(|config| config.linger = Duration::from_millis(101)),
                "linger is 0 to 100 ms, this one is 101 ms",
            ),
            (
                refused(|config| config.missing_topics = create(0, 16)),
                "missing_topics.partitions is 1 to 1000, this one is 0; \
                 missing_topics.replication is 1 to 15, this one is 16",
            ),
            (
                refused(|config| config.client_id.clear()),
                "client_id has 1 to 255 bytes and no control characters, this one has 0 bytes",
            ),
        ] {
            assert_eq!(refused, expected);
        }
    }

    #[test]
    fn brokers_are_hosts_with_ports() {
        for brokers in ["a:1", "a-b.c:65535,10.0.0.1:9092", "[::1]:9092"] {
            KafkaConfig::new(brokers).check().expect(brokers);
        }
        for brokers in ["", "a", "a:", "a:0", "a:65536", ":1", "a:1,", "a:1, b:1"] {
            let error = KafkaConfig::new(brokers).check().expect_err(brokers);
            assert!(error.to_string().starts_with("brokers are"), "{error}");
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
            shown.contains("sasl.password holds no null byte"),
            "{shown}"
        );
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
