//! What the direct backend is told: a Redis, and the bus beside it.
//!
//! It names nothing of the clients, so that a build without them reads the same configuration and
//! can say what it lacks.

use std::path::PathBuf;

use task_core::application::EVENT_SOURCE;
use task_core::ports::SecretName;

use super::Conflict;

const PASSWORD: &str = "kafka_password_secret";
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
    /// Which keys the values come from.
    pub keys: &'static RedisKeys,
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

/// The keys of one Redis, as messages name them.
#[derive(Debug, PartialEq, Eq)]
pub struct RedisKeys {
    /// The key of the address.
    pub url: &'static str,
    /// The key of what stands before `||`.
    pub key_prefix: &'static str,
    /// The key of the secret that is the password.
    pub password: &'static str,
    /// The key of whom to trust.
    pub ca_file: &'static str,
    /// The keys of what is shown: the certificate, and its private key.
    pub shown: [&'static str; 2],
    /// What to do if it cannot be opened.
    pub advice: &'static str,
}

impl RedisKeys {
    /// Those of the direct backend.
    pub const DIRECT: Self = Self {
        url: "redis_url",
        key_prefix: "redis_key_prefix",
        password: "redis_password_secret",
        ca_file: "redis_ca_file",
        shown: ["redis_certificate_file", "redis_key_file"],
        advice: "check redis_url, redis_password_secret and the keys that begin with redis_ and end in _file",
    };

    /// Those of the new side, where both sides of a move are direct.
    pub const NEW: Self = Self {
        url: "new_redis_url",
        key_prefix: "new_redis_key_prefix",
        password: "new_redis_password_secret",
        ca_file: "new_redis_ca_file",
        shown: ["new_redis_certificate_file", "new_redis_key_file"],
        advice: "check new_redis_url, new_redis_password_secret and the keys that begin with new_redis_ and end in _file",
    };
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

impl Redis {
    /// Nothing, until every key has been applied.
    pub(super) fn unset(keys: &'static RedisKeys) -> Self {
        Self {
            keys,
            url: String::new(),
            layout: RedisLayout::Legacy,
            key_prefix: None,
            password: None,
            ca_file: None,
            shown: Shown::default(),
        }
    }

    /// What breaks a rule between keys.
    pub(super) fn conflicts(&self) -> Vec<Conflict> {
        let keys = self.keys;
        let mut conflicts = self.shown.conflicts(keys.shown);
        let is_tls = self.url.starts_with("rediss://");
        for (key, file) in [
            (keys.ca_file, &self.ca_file),
            (keys.shown[0], &self.shown.certificate),
        ] {
            if file.is_some() && !is_tls {
                let needed = format!("a {} that begins with rediss://", keys.url);
                conflicts.push(needs(key, keys.url, &needed));
            }
        }
        conflicts
    }
}

impl Shown {
    /// One file is nothing without the other.
    fn conflicts(&self, [certificate, key]: [&'static str; 2]) -> Vec<Conflict> {
        match (&self.certificate, &self.key) {
            (Some(_), None) => vec![needs(certificate, key, key)],
            (None, Some(_)) => vec![needs(key, certificate, certificate)],
            (None, None) | (Some(_), Some(_)) => Vec::new(),
        }
    }
}

fn needs(key: &'static str, other: &'static str, what: &str) -> Conflict {
    Conflict {
        key,
        other: Some(other),
        problem: format!("needs {what}"),
    }
}

impl Direct {
    /// Nothing, until every key has been applied.
    pub(super) fn unset() -> Self {
        Self {
            redis: Redis::unset(&RedisKeys::DIRECT),
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
        let mut conflicts = self.redis.conflicts();
        let kafka = &self.kafka;
        match (&kafka.user, &kafka.password) {
            (Some(_), None) => conflicts.push(needs("kafka_user", PASSWORD, PASSWORD)),
            (None, Some(_)) => conflicts.push(needs(PASSWORD, "kafka_user", "kafka_user")),
            (None, None) | (Some(_), Some(_)) => {}
        }
        conflicts.extend(kafka.shown.conflicts(KAFKA_SHOWN));
        for (key, file) in [
            ("kafka_ca_file", &kafka.ca_file),
            (KAFKA_SHOWN[0], &kafka.shown.certificate),
        ] {
            if file.is_some() && kafka.security != KafkaSecurity::Tls {
                conflicts.push(needs(key, "kafka_security", "kafka_security = tls"));
            }
        }
        if kafka.start_group.is_some() && self.bus != BusKind::Kafka {
            conflicts.push(needs("kafka_start_group", "bus", "bus = kafka"));
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
            "redis_certificate_file",
            "redis_ca_file",
            "redis_certificate_file",
            "kafka_user",
            "kafka_key_file",
            "kafka_ca_file",
            "kafka_start_group",
        ];
        assert_eq!(keys, expected);
    }
}
