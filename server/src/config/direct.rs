//! What the direct backend is told: a Redis, and the bus beside it.
//!
//! It names nothing of the clients, so that a build without them reads the same configuration and
//! can say what it lacks.

use std::path::PathBuf;

use task_core::application::EVENT_SOURCE;
use task_core::ports::SecretName;

use super::Conflict;

const PASSWORD: &str = "kafka_password_secret";
const REDIS_SHOWN: [&str; 2] = ["redis_certificate_file", "redis_key_file"];
const KAFKA_SHOWN: [&str; 2] = ["kafka_certificate_file", "kafka_key_file"];

/// The direct backend's part of the configuration.
#[derive(Debug, Clone)]
pub struct Direct {
    /// Where tasks live.
    pub redis: Redis,
    /// What carries events.
    pub bus: BusKind,
    /// Where events go, unless they go to Redis.
    pub kafka: Kafka,
}

/// A Redis and how tasks lie in it.
#[derive(Debug, Clone)]
pub struct Redis {
    /// `redis[s]://[user@]host[:port][/database]`.
    pub url: String,
    /// How tasks lie in it.
    pub layout: RedisLayout,
    /// What stands before `||` in a key of Dapr's layout; `None` is nothing, without the bars.
    pub key_prefix: Option<String>,
    /// The secret that is the password.
    pub password: Option<SecretName>,
    /// PEM file of whom to trust instead of the machine's roots.
    pub ca_file: Option<PathBuf>,
    /// What to show it if it asks for a certificate.
    pub shown: Shown,
}

/// Kafka brokers and who we are to them.
#[derive(Debug, Clone)]
pub struct Kafka {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// How bytes travel.
    pub security: KafkaSecurity,
    /// PEM file of whom to trust instead of the machine's roots.
    pub ca_file: Option<PathBuf>,
    /// What to show them if they ask for a certificate.
    pub shown: Shown,
    /// The user; without one there is no login.
    pub user: Option<String>,
    /// How the password is shown.
    pub mechanism: KafkaMechanism,
    /// The secret that is the password.
    pub password: Option<SecretName>,
    /// The group at whose position ours begins, when it is new.
    pub start_group: Option<String>,
    /// Partitions of a topic that is made because it is missing; 0 makes none.
    pub create_partitions: u16,
    /// Copies of a topic that is made because it is missing.
    pub create_replication: u16,
}

/// The PEM files of a certificate of ours; one alone is refused.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// The certificate and what signed it.
    pub certificate: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
}

/// Declares a choice by the words of the command line.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)+];

            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

choice! {
    /// How tasks lie in Redis.
    RedisLayout {
        /// Strings of JSON, as the replaced service has them.
        Legacy = "legacy",
        /// Hashes, as a Dapr sidecar has them.
        Dapr = "dapr",
    }
}

choice! {
    /// What carries events.
    BusKind {
        /// Kafka topics.
        Kafka = "kafka",
        /// Streams in the Redis that has the tasks.
        RedisStreams = "redis-streams",
    }
}

choice! {
    /// How bytes travel to Kafka.
    KafkaSecurity {
        /// In the clear.
        Plaintext = "plaintext",
        /// By TLS.
        Tls = "tls",
    }
}

choice! {
    /// How a password is shown to Kafka.
    KafkaMechanism {
        /// As it is.
        Plain = "plain",
        /// By a challenge, SHA-256.
        ScramSha256 = "scram-sha-256",
        /// By a challenge, SHA-512.
        ScramSha512 = "scram-sha-512",
    }
}

impl Direct {
    /// Nothing, until every key has been applied.
    pub(super) fn unset() -> Self {
        Self {
            redis: Redis {
                url: String::new(),
                layout: RedisLayout::Legacy,
                key_prefix: None,
                password: None,
                ca_file: None,
                shown: Shown::default(),
            },
            bus: BusKind::Kafka,
            kafka: Kafka {
                brokers: String::new(),
                security: KafkaSecurity::Plaintext,
                ca_file: None,
                shown: Shown::default(),
                user: None,
                mechanism: KafkaMechanism::Plain,
                password: None,
                start_group: None,
                create_partitions: 0,
                create_replication: 0,
            },
        }
    }

    /// What breaks a rule between keys.
    pub(super) fn conflicts(&self) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        let mut needs = |key, is_set: bool, other, is_met: bool, what: &str| {
            if is_set && !is_met {
                conflicts.push(Conflict {
                    key,
                    other: Some(other),
                    problem: format!("needs {what}"),
                });
            }
        };
        let (redis, kafka) = (&self.redis, &self.kafka);
        let (user, password) = (kafka.user.is_some(), kafka.password.is_some());
        needs("kafka_user", user, PASSWORD, password, PASSWORD);
        needs(PASSWORD, password, "kafka_user", user, "kafka_user");
        for (names, Shown { certificate, key }) in
            [(REDIS_SHOWN, &redis.shown), (KAFKA_SHOWN, &kafka.shown)]
        {
            let (has_certificate, has_key) = (certificate.is_some(), key.is_some());
            let [certificate, key] = names;
            needs(certificate, has_certificate, key, has_key, key);
            needs(key, has_key, certificate, has_certificate, certificate);
        }
        let (tls, what) = (kafka.security == KafkaSecurity::Tls, "kafka_security = tls");
        for (key, file) in [
            ("kafka_ca_file", &kafka.ca_file),
            (KAFKA_SHOWN[0], &kafka.shown.certificate),
        ] {
            needs(key, file.is_some(), "kafka_security", tls, what);
        }
        let on_kafka = self.bus == BusKind::Kafka;
        needs(
            "kafka_start_group",
            kafka.start_group.is_some(),
            "bus",
            on_kafka,
            "bus = kafka",
        );
        let tls = redis.url.starts_with("rediss://");
        for (key, file) in [
            ("redis_ca_file", &redis.ca_file),
            (REDIS_SHOWN[0], &redis.shown.certificate),
        ] {
            let what = "a redis_url that begins with rediss://";
            needs(key, file.is_some(), "redis_url", tls, what);
        }
        conflicts
    }
}

/// Refuses an address whose password would be shown by `config show`.
pub(super) fn redis_url(text: &str) -> Result<String, String> {
    let rest = text
        .strip_prefix("redis://")
        .or_else(|| text.strip_prefix("rediss://"));
    let rest = rest.ok_or("must begin with redis:// or rediss://")?;
    if rest.contains(['?', '#']) {
        return Err("must end after the database: no query and no fragment".to_owned());
    }
    let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
    match user.contains(':') || user.to_ascii_lowercase().contains("%3a") {
        true => Err("must not hold a password, which redis_password_secret names".to_owned()),
        false => Ok(text.to_owned()),
    }
}

/// Reads what the metadata `keyPrefix` of Dapr's state store would say, or its effect.
pub(super) fn key_prefix(text: &str) -> Result<Option<String>, String> {
    match text {
        "" => Err("must not be empty; none stands for no prefix".to_owned()),
        "none" => Ok(None),
        "appid" => Ok(Some(EVENT_SOURCE.to_owned())),
        // Their effect depends on what only the sidecar knows.
        "name" | "namespace" => Err(format!(
            "must be what it stands for: the name of the component, or NAMESPACE.{EVENT_SOURCE}"
        )),
        _ => Ok(Some(text.to_owned())),
    }
}

/// Refuses a list of brokers that begins with somebody's name.
pub(super) fn kafka_brokers(text: &str) -> Result<String, String> {
    let is_address = |broker: &str| !broker.is_empty() && !broker.contains(['@', '/', '?', '#']);
    match text.split(',').all(is_address) {
        true => Ok(text.to_owned()),
        false => Err("must be host:port, separated by commas".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_an_address_is_refused() {
        for good in ["redis://a", "rediss://user@a:6380/2", "redis://[::1]:6379"] {
            assert_eq!(redis_url(good).as_deref(), Ok(good));
        }
        for bad in [
            "redis://u:p@a",
            "redis://:p@a/1",
            "redis://u:p/x@a",
            "redis://u%3Ap@a",
            "redis://a?password=p",
            "redis://u:p#x@a",
            "http://a",
            "a:6379",
            "",
        ] {
            assert!(redis_url(bad).is_err(), "{bad}");
        }
        assert!(kafka_brokers("a:1,b:2").is_ok());
        for bad in ["", "a:1,", "u:p@a:1", "SASL://a:1"] {
            assert!(kafka_brokers(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_prefix_is_a_text_or_a_word_of_dapr() {
        let some = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(key_prefix("appid"), some("task-api"));
        assert_eq!(key_prefix("default.task-api"), some("default.task-api"));
        assert_eq!(key_prefix("none"), Ok(None));
        for bad in ["", "name", "namespace"] {
            assert!(key_prefix(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_belongs_together_is_given_together() {
        let mut direct = Direct::unset();
        assert_eq!(direct.conflicts(), []);
        direct.kafka.user = Some("u".to_owned());
        direct.kafka.ca_file = Some("ca.pem".into());
        direct.redis.ca_file = Some("ca.pem".into());
        direct.kafka.start_group = Some("python".to_owned());
        direct.bus = BusKind::RedisStreams;
        direct.redis.shown.certificate = Some("a.pem".into());
        direct.kafka.shown.key = Some("a.key".into());
        let keys: Vec<_> = direct.conflicts().iter().map(|found| found.key).collect();
        let expected = [
            "kafka_user",
            "redis_certificate_file",
            "kafka_key_file",
            "kafka_ca_file",
            "kafka_start_group",
            "redis_ca_file",
            "redis_certificate_file",
        ];
        assert_eq!(keys, expected);
    }
}
