//! How librdkafka is configured, and where its voice goes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::KafkaConfig;
use super::config::{Sasl, Transport};

/// Longest time between two looks at a consumer's queue before the group gives it up.
pub(super) const MAX_POLL_INTERVAL: Duration = Duration::from_secs(300);

/// Longest pause before a broker is tried again.
const RECONNECT_WITHIN: Duration = Duration::from_secs(1);

/// Events that wait in one producer; beyond that a publication is refused as throttled.
const MAX_QUEUED_EVENTS: usize = 10_000;

/// Kilobytes that wait in one producer.
const MAX_QUEUED_KB: usize = 64 * 1024;

/// Kilobytes that one consumer reads ahead.
const MAX_READ_AHEAD_KB: usize = 16 * 1024;

/// Largest request, in bytes: the largest event, its key and headers, and as much again.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// What every client has in common.
fn common(config: &KafkaConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", &config.brokers)
        .set("client.id", &config.client_id)
        .set("socket.timeout.ms", ms(config.request_timeout))
        .set("socket.nagle.disable", "true")
        .set("socket.keepalive.enable", "true")
        .set("reconnect.backoff.max.ms", ms(RECONNECT_WITHIN))
        .set("message.max.bytes", MAX_MESSAGE_BYTES.to_string())
        // A topic appears because somebody makes it, never because somebody asks for it.
        .set("allow.auto.create.topics", "false");
    let tls = match &config.transport {
        Transport::Plaintext => false,
        Transport::Tls { ca_file } => {
            if let Some(path) = ca_file {
                client.set("ssl.ca.location", path.to_string_lossy());
            }
            true
        }
    };
    let protocol = match (tls, &config.sasl) {
        (false, None) => "plaintext",
        (true, None) => "ssl",
        (false, Some(_)) => "sasl_plaintext",
        (true, Some(_)) => "sasl_ssl",
    };
    client.set("security.protocol", protocol);
    if let Some(Sasl {
        mechanism,
        user,
        password,
    }) = &config.sasl
    {
        client
            .set("sasl.mechanism", mechanism.as_str())
            .set("sasl.username", user)
            .set("sasl.password", password.expose());
    }
    client
}

/// A producer that neither reorders nor doubles what it sends, and forgets nothing unsaid.
pub(super) fn producer(config: &KafkaConfig) -> ClientConfig {
    let mut client = common(config);
    client
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // What Dapr's component does, so that a key has one partition whoever publishes.
        .set("partitioner", "fnv1a_random")
        .set("message.timeout.ms", ms(config.delivery_timeout))
        .set(
            "request.timeout.ms",
            ms(config.delivery_timeout.min(config.request_timeout)),
        )
        .set("linger.ms", ms(config.linger))
        .set(
            "queue.buffering.max.messages",
            MAX_QUEUED_EVENTS.to_string(),
        )
        .set("queue.buffering.max.kbytes", MAX_QUEUED_KB.to_string());
    client
}

/// A member of a group that commits by hand.
pub(super) fn consumer(config: &KafkaConfig, group: &str) -> ClientConfig {
    let mut client = common(config);
    client
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // Only where a committed offset exists no more: then what is left is all that can be had.
        .set("auto.offset.reset", "earliest")
        // What Dapr's component does; members of one group have to agree.
        .set("partition.assignment.strategy", "range")
        .set("session.timeout.ms", ms(config.session_timeout))
        .set("heartbeat.interval.ms", ms(config.session_timeout / 10))
        .set("max.poll.interval.ms", ms(MAX_POLL_INTERVAL))
        .set("queued.max.messages.kbytes", MAX_READ_AHEAD_KB.to_string());
    client
}

/// Makes topics.
pub(super) fn administrator(config: &KafkaConfig) -> ClientConfig {
    common(config)
}

fn ms(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// What a client says: into `tracing`, and why it cannot reach the brokers.
#[derive(Debug, Clone, Default)]
pub(super) struct Voice {
    refused: Arc<Mutex<Option<String>>>,
}

impl Voice {
    /// Why the brokers refused us, if that is the last that was heard of them.
    pub(super) fn refused(&self) -> Option<String> {
        let refused = self.refused.lock();
        refused.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A broker has answered: it refuses us no more.
    pub(super) fn accepted(&self) {
        let refused = self.refused.lock();
        *refused.unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn note(&self, code: Option<RDKafkaErrorCode>, reason: &str) {
        use RDKafkaErrorCode::{Authentication, SSL, SaslAuthenticationFailed};
        if matches!(code, Some(Authentication | SSL | SaslAuthenticationFailed)) {
            let refused = self.refused.lock();
            *refused.unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
    }
}

impl ClientContext for Voice {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.note(error.rdkafka_error_code(), reason);
        tracing::warn!(%error, reason, "kafka client");
    }
}

impl ConsumerContext for Voice {}

/// Passes a line of librdkafka on, one level lower where it retries by itself.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
    match level {
        Emerg | Alert | Critical => tracing::error!(facility, message, "librdkafka"),
        Error | Warning => tracing::warn!(facility, message, "librdkafka"),
        Notice | Info => tracing::info!(facility, message, "librdkafka"),
        Debug => tracing::debug!(facility, message, "librdkafka"),
    }
}
