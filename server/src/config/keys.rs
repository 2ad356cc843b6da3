//! The table of configuration keys: flags, variables and file keys all derive from it.

use std::net::SocketAddr;
use std::time::Duration;

use task_core::ports::SecretName;

use super::direct::{self, BusKind, KafkaMechanism, KafkaSecurity, RedisLayout};
use super::{Backend, Config, LogFormat, NotificationUrl, SecretSource};

/// One configuration key.
pub(crate) struct Key {
    /// The key as the file writes it; the flag and the variable derive from it.
    pub(crate) name: &'static str,
    /// What stands for the value in the help.
    pub(crate) value: &'static str,
    /// The value where nothing else is given; empty for "not set".
    pub(crate) default: &'static str,
    /// What it is for, in one line.
    pub(crate) help: &'static str,
    /// Which services have it.
    pub(crate) scope: Scope,
    /// Parses a value into the configuration, or says the limit that it breaks.
    pub(crate) set: fn(&mut Config, &str) -> Result<(), String>,
}

/// Which services have a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The Task API and the notification service.
    Both,
    /// The Task API alone.
    TaskApi,
}

impl Key {
    /// The flag, without the dashes.
    pub(crate) fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The environment variable.
    pub(crate) fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.name.to_uppercase())
    }
}

/// How every variable of ours begins.
pub(crate) const VARIABLE_PREFIX: &str = "TASK_";

/// Builds a row: the name, the value's placeholder, the default, the scope, the help, the parser.
macro_rules! keys {
    ($($name:literal $value:literal = $default:literal, $scope:ident, $help:expr, $set:expr;)+) => {
        &[$(Key {
            name: $name,
            value: $value,
            default: $default,
            scope: Scope::$scope,
            help: $help,
            set: $set,
        }),+]
    };
}

/// Every key, in the order of the help.
#[rustfmt::skip] // One row a key reads as the table that it is.
pub(crate) static KEYS: &[Key] = keys! {
    "listen" "IP:PORT" = "127.0.0.1:8000", Both, "Address to listen on; port 0 takes a free one",
        |c, v| store(&mut c.listen, address(v));
    "backend" "BACKEND" = "embedded", TaskApi, "Where tasks live: embedded, direct, dapr or parallel",
        |c, v| store(&mut c.backend, choice(v, &Backend::ALL, Backend::as_str));
    "old" "BACKEND" = "", TaskApi, "Backend that a move leaves: embedded, direct or dapr; parallel needs it",
        |c, v| store(&mut c.parallel.old, choice(v, &Backend::SIDES, Backend::as_str).map(Some));
    "new" "BACKEND" = "", TaskApi, "Backend that a move goes to: embedded, direct or dapr; parallel needs it",
        |c, v| store(&mut c.parallel.new, choice(v, &Backend::SIDES, Backend::as_str).map(Some));
    "data_dir" "DIR" = "data", TaskApi, "Directory of the embedded data file",
        |c, v| store(&mut c.data_dir, filled(v).map(Into::into));
    "secrets" "SOURCE" = "env", TaskApi, "Where secrets are: env (TASK_SECRET_NAME), file:PATH (JSON), dir:PATH (a file each) or dapr:COMPONENT",
        |c, v| store(&mut c.secrets, SecretSource::parse(v));
    "redis_url" "URL" = "redis://127.0.0.1:6379", TaskApi, "Redis of the direct backend: redis[s]://[user@]host[:port][/database]",
        |c, v| store(&mut c.direct.redis.url, direct::redis_url(v));
    "redis_layout" "LAYOUT" = "legacy", TaskApi, "How tasks lie in Redis: legacy (strings) or dapr (hashes)",
        |c, v| store(&mut c.direct.redis.layout, choice(v, RedisLayout::ALL, RedisLayout::as_str));
    "redis_key_prefix" "TEXT" = "task-api", TaskApi, "What Redis keys begin with, outbox and lease too (Dapr's keyPrefix); none for nothing. It separates services",
        |c, v| store(&mut c.direct.redis.key_prefix, direct::key_prefix(v));
    "redis_password_secret" "NAME" = "", TaskApi, "Secret that is the password of Redis",
        |c, v| store(&mut c.direct.redis.password, secret(v));
    "redis_ca_file" "FILE" = "", TaskApi, "PEM file of whom to trust as Redis, instead of the machine's roots",
        |c, v| store(&mut c.direct.redis.ca_file, filled(v).map(|v| Some(v.into())));
    "redis_certificate_file" "FILE" = "", TaskApi, "PEM file of the certificate that is shown to a Redis which asks for one",
        |c, v| store(&mut c.direct.redis.shown.certificate, filled(v).map(|v| Some(v.into())));
    "redis_key_file" "FILE" = "", TaskApi, "PEM file of the private key of redis_certificate_file, not encrypted",
        |c, v| store(&mut c.direct.redis.shown.key, filled(v).map(|v| Some(v.into())));
    "new_redis_url" "URL" = "", TaskApi, "Redis of the new side, where a move goes from direct to direct",
        |c, v| store(&mut c.parallel.redis.url, direct::redis_url(v));
    "new_redis_layout" "LAYOUT" = "dapr", TaskApi, "How tasks lie in the Redis of the new side, which needs versions: dapr",
        |c, v| store(&mut c.parallel.redis.layout, choice(v, RedisLayout::ALL, RedisLayout::as_str));
    "new_redis_key_prefix" "TEXT" = "task-api", TaskApi, "As redis_key_prefix, of the new side",
        |c, v| store(&mut c.parallel.redis.key_prefix, direct::key_prefix(v));
    "new_redis_password_secret" "NAME" = "", TaskApi, "Secret that is the password of the Redis of the new side",
        |c, v| store(&mut c.parallel.redis.password, secret(v));
    "new_redis_ca_file" "FILE" = "", TaskApi, "PEM file of whom to trust as the Redis of the new side",
        |c, v| store(&mut c.parallel.redis.ca_file, filled(v).map(|v| Some(v.into())));
    "new_redis_certificate_file" "FILE" = "", TaskApi, "As redis_certificate_file, of the new side",
        |c, v| store(&mut c.parallel.redis.shown.certificate, filled(v).map(|v| Some(v.into())));
    "new_redis_key_file" "FILE" = "", TaskApi, "As redis_key_file, of the new side",
        |c, v| store(&mut c.parallel.redis.shown.key, filled(v).map(|v| Some(v.into())));
    "bus" "BUS" = "kafka", TaskApi, "What carries events of the direct backend: kafka or redis-streams",
        |c, v| store(&mut c.direct.bus, choice(v, BusKind::ALL, BusKind::as_str));
    "kafka_brokers" "HOST:PORT,.." = "127.0.0.1:9092", TaskApi, "Kafka brokers to begin with",
        |c, v| store(&mut c.direct.kafka.brokers, direct::kafka_brokers(v));
    "kafka_security" "HOW" = "plaintext", TaskApi, "How bytes travel to Kafka: plaintext or tls",
        |c, v| store(&mut c.direct.kafka.security, choice(v, KafkaSecurity::ALL, KafkaSecurity::as_str));
    "kafka_ca_file" "FILE" = "", TaskApi, "PEM file of whom to trust as Kafka, instead of the machine's roots",
        |c, v| store(&mut c.direct.kafka.ca_file, filled(v).map(|v| Some(v.into())));
    "kafka_certificate_file" "FILE" = "", TaskApi, "PEM file of the certificate that is shown to a Kafka which asks for one",
        |c, v| store(&mut c.direct.kafka.shown.certificate, filled(v).map(|v| Some(v.into())));
    "kafka_key_file" "FILE" = "", TaskApi, "PEM file of the private key of kafka_certificate_file, not encrypted",
        |c, v| store(&mut c.direct.kafka.shown.key, filled(v).map(|v| Some(v.into())));
    "kafka_user" "NAME" = "", TaskApi, "User of Kafka; without one there is no login",
        |c, v| store(&mut c.direct.kafka.user, filled(v).map(|v| Some(v.to_owned())));
    "kafka_mechanism" "HOW" = "scram-sha-512", TaskApi, "How the password is shown to Kafka: plain, scram-sha-256 or scram-sha-512",
        |c, v| store(&mut c.direct.kafka.mechanism, choice(v, KafkaMechanism::ALL, KafkaMechanism::as_str));
    "kafka_password_secret" "NAME" = "", TaskApi, "Secret that is the password of the Kafka user",
        |c, v| store(&mut c.direct.kafka.password, secret(v));
    "kafka_start_group" "GROUP" = "", TaskApi, "Consumer group, stopped before, at whose position this service begins at its first start; refused if Kafka knows none",
        |c, v| store(&mut c.direct.kafka.start_group, filled(v).map(|v| Some(v.to_owned())));
    "kafka_create_partitions" "N" = "0", TaskApi, "Partitions of a Kafka topic that is made because it is missing; 0 makes none",
        |c, v| store(&mut c.direct.kafka.create_partitions, integer(v, 0, 1_000));
    "kafka_create_replication" "N" = "1", TaskApi, "Copies of a Kafka topic that is made because it is missing",
        |c, v| store(&mut c.direct.kafka.create_replication, integer(v, 1, 15));
    "start_timeout_ms" "MS" = "30000", TaskApi, "Longest wait at the start for the servers that the backend needs; 0 tries each once",
        |c, v| store(&mut c.start_timeout, millis(v, 0, 600_000));
    "notification_url" "URL" = "", TaskApi, "Receiver of notifications (POST URL/notify); direct needs it, embedded has a local inbox without it",
        |c, v| store(&mut c.notification_url, NotificationUrl::parse(v).map(Some));
    "notification_timeout_ms" "MS" = "5000", TaskApi, "Longest wait for the receiver of a notification",
        |c, v| store(&mut c.notification_timeout, millis(v, 1, 300_000));
    "redelivery_max" "N" = "20", TaskApi, "Deliveries of one event before it is dead-lettered",
        |c, v| store(&mut c.redelivery.max_deliveries, integer(v, 1, 1_000));
    "redelivery_first_pause_ms" "MS" = "1000", TaskApi, "Pause before the second delivery of an event; it doubles each time",
        |c, v| store(&mut c.redelivery.first_pause, millis(v, 1, 3_600_000));
    "redelivery_longest_pause_ms" "MS" = "60000", TaskApi, "Longest pause between two deliveries of an event",
        |c, v| store(&mut c.redelivery.longest_pause, millis(v, 1, 3_600_000));
    "admin_listen" "IP:PORT" = "127.0.0.1:9800", TaskApi, "Address of the admin routes, which parallel has; port 0 takes a free one",
        |c, v| store(&mut c.admin.listen, address(v));
    "admin_token_secret" "NAME" = "", TaskApi, "Secret that admin requests have to show; needed where admin_listen is not loopback",
        |c, v| store(&mut c.admin.token, secret(v));
    "max_body_bytes" "BYTES" = "262144", Both, "Largest request body",
        |c, v| store(&mut c.limits.max_body_bytes, integer(v, 1_024, 524_288));
    "max_concurrency" "N" = "512", Both, "Requests in work before further ones are refused with 503",
        |c, v| store(&mut c.limits.max_concurrency, integer(v, 1, 100_000));
    "max_connections" "N" = "4096", Both, "Connections before further ones wait to be accepted",
        |c, v| store(&mut c.limits.max_connections, integer(v, 1, 1_000_000));
    "header_timeout_ms" "MS" = "10000", Both, "Longest wait for a request's head; idle connections are closed after it",
        |c, v| store(&mut c.limits.header_timeout, millis(v, 10, 600_000));
    "request_timeout_ms" "MS" = "30000", Both, "Longest time for one request, its body included",
        |c, v| store(&mut c.limits.request_timeout, millis(v, 10, 600_000));
    "shutdown_grace_ms" "MS" = "0", Both, "How long a stopping service is not ready and still takes requests",
        |c, v| store(&mut c.limits.shutdown_grace, millis(v, 0, 600_000));
    "shutdown_timeout_ms" "MS" = "20000", Both, "Longest wait for running requests when stopping",
        |c, v| store(&mut c.limits.shutdown_timeout, millis(v, 0, 600_000));
    "worker_threads" "N" = "0", Both, "Threads that serve requests; 0 is one per core",
        |c, v| store(&mut c.worker_threads, integer(v, 0, 1_024));
    "log" "LEVEL" = "info", Both, "Least level to log: error, warn, info, debug or trace",
        |c, v| store(&mut c.log, choice(v, &LEVELS, level_name));
    "log_format" "FORMAT" = "text", Both, "Shape of log lines: text or json",
        |c, v| store(&mut c.log_format, choice(v, &LogFormat::ALL, LogFormat::as_str));
};

/// The log levels, loudest last.
const LEVELS: [tracing::Level; 5] = [
    tracing::Level::ERROR,
    tracing::Level::WARN,
    tracing::Level::INFO,
    tracing::Level::DEBUG,
    tracing::Level::TRACE,
];

/// The key of this name.
pub(crate) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

fn store<T>(field: &mut T, parsed: Result<T, String>) -> Result<(), String> {
    *field = parsed?;
    Ok(())
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "must be IP:PORT with a port of 0 to 65535, for example 0.0.0.0:8000".to_owned()
    })
}

fn filled(text: &str) -> Result<&str, String> {
    match text {
        "" => Err("must not be empty".to_owned()),
        _ => Ok(text),
    }
}

fn integer<T: TryFrom<u64>>(text: &str, min: u64, max: u64) -> Result<T, String> {
    let refused = || format!("must be an integer of {min} to {max}");
    match text.parse::<u64>() {
        Ok(value) if (min..=max).contains(&value) => T::try_from(value).map_err(|_| refused()),
        _ => Err(refused()),
    }
}

fn millis(text: &str, min: u64, max: u64) -> Result<Duration, String> {
    integer(text, min, max).map(Duration::from_millis)
}

fn choice<T: Copy>(text: &str, all: &[T], name: impl Fn(T) -> &'static str) -> Result<T, String> {
    let found = all.iter().copied().find(|choice| name(*choice) == text);
    found.ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|choice| name(*choice)).collect();
        format!("must be one of {}", names.join(", "))
    })
}

fn secret(text: &str) -> Result<Option<SecretName>, String> {
    SecretName::parse(text)
        .map(Some)
        .map_err(|error| error.detail)
}

fn level_name(level: tracing::Level) -> &'static str {
    match level {
        tracing::Level::ERROR => "error",
        tracing::Level::WARN => "warn",
        tracing::Level::INFO => "info",
        tracing::Level::DEBUG => "debug",
        tracing::Level::TRACE => "trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_within_its_own_limits() {
        let mut config = Config::unset();
        for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
            assert_eq!((key.set)(&mut config, key.default), Ok(()), "{}", key.name);
        }
        assert_eq!(config.limits.max_body_bytes, 256 * 1024);
    }

    #[test]
    fn names_are_unique_and_spell_flags_and_variables() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(KEYS[..index].iter().all(|other| other.name != key.name));
        }
        let key = find("max_body_bytes").expect("a known key");
        assert_eq!(key.flag(), "max-body-bytes");
        assert_eq!(key.variable(), "TASK_MAX_BODY_BYTES");
    }

    #[test]
    fn limits_are_inclusive_and_named() {
        let mut config = Config::unset();
        let set = find("max_body_bytes").expect("a known key").set;
        assert_eq!(set(&mut config, "1024"), Ok(()));
        assert_eq!(set(&mut config, "524288"), Ok(()));
        for bad in ["1023", "524289", "-1", "1e3", "", "99999999999999999999"] {
            let refused = set(&mut config, bad).expect_err("outside the limits");
            assert_eq!(refused, "must be an integer of 1024 to 524288");
        }
    }
}
