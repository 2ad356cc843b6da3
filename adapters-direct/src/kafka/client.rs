//! How librdkafka is configured, and where its voice goes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use tokio::sync::watch;
use tokio::time::Instant;

use super::KafkaConfig;
use super::config::{Sasl, Transport};
use super::error::is_outage;
use crate::config::ClientCertificate;
use crate::trouble::Trouble;

/// Longest time between two looks at a consumer's queue before the group gives it up.
pub(super) const MAX_POLL_INTERVAL: Duration = Duration::from_secs(300);

/// How a group shares its partitions, as in Dapr's component; the members of one group have to agree.
pub(super) const STRATEGY: &str = "range";

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

/// Time between two looks at the connections of a client.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Time without a failure before an outage is over: longer than the pauses between attempts.
const QUIET: Duration = Duration::from_secs(2);

/// What librdkafka says, by its facility, when brokers are away; it goes on trying.
const OUTAGES: &[&str] = &[
    "FAIL",
    "GETPID",
    "ERROR",
    "REQTMOUT",
    "TIMEOUT",
    "SESSTMOUT",
    "COMMITFAIL",
];

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
        Transport::Tls {
            ca_file,
            client_certificate,
        } => {
            if let Some(path) = ca_file {
                client.set("ssl.ca.location", path.to_string_lossy());
            }
            if let Some(ClientCertificate { certificate, key }) = client_certificate {
                client
                    .set("ssl.certificate.location", certificate.to_string_lossy())
                    .set("ssl.key.location", key.to_string_lossy());
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
        .set("statistics.interval.ms", ms(LOOK_EVERY))
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
        // Only where an offset exists no more: then what is left is all that can be had.
        .set("auto.offset.reset", "earliest")
        .set("partition.assignment.strategy", STRATEGY)
        .set("session.timeout.ms", ms(config.session_timeout))
        .set("heartbeat.interval.ms", ms(config.session_timeout / 10))
        .set("statistics.interval.ms", ms(LOOK_EVERY))
        .set("max.poll.interval.ms", ms(MAX_POLL_INTERVAL))
        .set("queued.max.messages.kbytes", MAX_READ_AHEAD_KB.to_string());
    client
}

/// Looks single records up, and is no member of its group.
pub(super) fn log_reader(config: &KafkaConfig, group: &str) -> ClientConfig {
    let mut client = common(config);
    client
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        // A log may be cut off between two questions; then anything but the record is an answer.
        .set("auto.offset.reset", "earliest")
        // At least one batch comes all the same.
        .set("fetch.message.max.bytes", "1");
    client
}

/// Makes topics.
pub(super) fn administrator(config: &KafkaConfig) -> ClientConfig {
    common(config)
}

fn ms(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// What all clients of a bus say, as lines in the log: one for an outage, whoever notices it.
#[derive(Debug, Clone)]
pub(super) struct Voice {
    client: Arc<str>,
    /// Why the brokers refused us, if that is the last that was heard of them.
    refused: watch::Sender<Option<String>>,
    /// How we say who we are, as the configuration calls it.
    login: Arc<str>,
    outage: Arc<Trouble>,
}

impl Voice {
    pub(super) fn new(config: &KafkaConfig) -> Self {
        Self {
            client: config.client_id.as_str().into(),
            refused: watch::Sender::default(),
            login: login(config).into(),
            outage: Arc::default(),
        }
    }

    /// Why the brokers refused us, if that is the last that was heard of them.
    pub(super) fn refused(&self) -> Option<String> {
        self.refused.borrow().clone()
    }

    /// Waits until the brokers refuse us once more.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn refusal(&self) -> String {
        let mut refused = self.refused.subscribe();
        loop {
            // The sender is ours, so that there is always another change to wait for.
            let _ = refused.changed().await;
            if let Some(reason) = refused.borrow_and_update().clone() {
                return reason;
            }
        }
    }

    /// A broker has answered: it refuses us no more.
    pub(super) fn accepted(&self) {
        self.refused
            .send_if_modified(|refused| refused.take().is_some());
    }

    pub(super) fn note(&self, code: Option<RDKafkaErrorCode>, reason: &str) {
        use RDKafkaErrorCode::{
            Authentication, BrokerTransportFailure, SSL, SaslAuthenticationFailed,
        };
        let is_refusal = match code {
            Some(Authentication | SSL | SaslAuthenticationFailed) => true,
            // By TLS 1.3 a client has shaken hands before it hears that its certificate is not taken.
            Some(BrokerTransportFailure) => reason.contains("SSL alert number"),
            Some(_) | None => false,
        };
        if is_refusal {
            let reason = format!("check {}: {reason}", self.login);
            self.refused.send_replace(Some(reason));
        }
    }

    /// The brokers, or some of them, cannot be reached or do not answer.
    pub(super) fn unreachable(&self, reason: &dyn fmt::Display) {
        let client = &*self.client;
        match self.outage.failed(Instant::now()) {
            Some(unsaid) => {
                tracing::warn!(client, %reason, unsaid, "kafka does not answer and is tried again");
            }
            None => tracing::debug!(client, %reason, "kafka does not answer"),
        }
    }

    /// Passes a line of librdkafka on, one level lower where it retries by itself.
    pub(super) fn say(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
        let client = &*self.client;
        match level {
            Emerg | Alert | Critical => {
                tracing::error!(client, facility, message, "librdkafka");
            }
            Error | Warning | Notice | Info if OUTAGES.contains(&facility) => {
                self.unreachable(&message);
            }
            Error | Warning => tracing::warn!(client, facility, message, "librdkafka"),
            Notice | Info => tracing::info!(client, facility, message, "librdkafka"),
            Debug => tracing::debug!(client, facility, message, "librdkafka"),
        }
    }

    /// Looks at a client's connections, and says when an outage is over.
    pub(super) fn look<'a>(&self, states: impl Iterator<Item = (&'a str, Duration)>) {
        let now = Instant::now();
        let Some(since) = self.outage.since(now) else {
            return;
        };
        if !all_answer(states, since) {
            return;
        }
        if let Some(lasted) = self.outage.over(now, QUIET) {
            let lasted_ms = lasted.as_millis();
            tracing::info!(client = &*self.client, lasted_ms, "kafka answers again");
        }
    }
}

/// What the configuration says of who we are, and of whom we trust.
fn login(config: &KafkaConfig) -> String {
    let sasl = match &config.sasl {
        Some(Sasl { mechanism, .. }) => {
            let mechanism = mechanism.as_str();
            format!("sasl.user, sasl.password and sasl.mechanism {mechanism}")
        }
        None => "sasl, of which there is none".to_owned(),
    };
    match config.transport {
        Transport::Plaintext => sasl,
        Transport::Tls { .. } => {
            format!("{sasl}, and transport.ca_file and transport.client_certificate")
        }
    }
}

/// Whether a broker has said something for less than this time, and none is waited for: one that is not
/// needed rests. A connection alone says nothing, it outlives the first minutes of a broker that hangs.
fn all_answer<'a>(mut brokers: impl Iterator<Item = (&'a str, Duration)>, since: Duration) -> bool {
    let mut has_one = false;
    brokers.all(|(state, silent)| {
        has_one |= matches!(state, "UP" | "UPDATE") && silent < since;
        matches!(state, "UP" | "UPDATE" | "INIT" | "DOWN")
    }) && has_one
}

/// Whether this is the end of a partition that nobody waits for any more: who does is told of it by the poll.
fn is_an_end(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF)
}

impl ClientContext for Voice {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.say(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        let brokers = statistics.brokers.values();
        self.look(brokers.map(|broker| {
            let silent = u64::try_from(broker.rxidle).map(Duration::from_micros);
            // It has never said anything.
            let silent = silent.unwrap_or(Duration::MAX);
            (broker.state.as_str(), silent)
        }));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if is_an_end(&error) {
            return;
        }
        self.note(error.rdkafka_error_code(), reason);
        if is_outage(&error) {
            self.unreachable(&reason);
        } else {
            tracing::warn!(client = &*self.client, %error, reason, "kafka client");
        }
    }
}

impl ConsumerContext for Voice {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_partition_is_no_trouble() {
        assert!(is_an_end(&KafkaError::Global(
            RDKafkaErrorCode::PartitionEOF
        )));
        assert!(!is_an_end(&KafkaError::Global(
            RDKafkaErrorCode::AllBrokersDown
        )));
    }

    #[test]
    fn an_outage_is_over_when_one_broker_has_answered_since_and_none_is_waited_for() {
        for (brokers, expected) in [
            (&[("UP", 2)][..], true),
            (&[("UP", 2), ("DOWN", 9), ("INIT", 9)], true),
            (&[("UP", 2), ("UP", 9)], true),
            (&[("UP", 3)], false),
            (&[("UP", 2), ("TRY_CONNECT", 9)], false),
            (&[("UP", 2), ("APIVERSION_QUERY", 9)], false),
            (&[("DOWN", 2)], false),
            (&[], false),
        ] {
            let seconds = Duration::from_secs;
            let all = brokers
                .iter()
                .map(|&(state, silent)| (state, seconds(silent)));
            assert_eq!(all_answer(all, seconds(3)), expected, "{brokers:?}");
        }
    }
}
