//! Events in Kafka.

use std::sync::Arc;

use adapters_direct::kafka::{
    KafkaConfig, KafkaEventBus, Mechanism, MissingTopics, Predecessor, Sasl, Transport,
};
use task_core::application::TASK_EVENTS_TOPIC;
use task_core::layer::GuardedEventBus;
use task_core::ports::{ErrorKind, EventBus, PortError, Secret, SecretStore, Subscription, Topic};

use super::direct::{MARGIN, certificate, placeholder, refused};
use super::waiting::{Missed, Needed, Patience};
use super::{Consumer, guards};
use crate::app::StartError;
use crate::config::{Config, Conflict, KafkaMechanism, KafkaSecurity};

const BROKERS: &str = "kafka_brokers";
const ADVICE: &str = "check kafka_brokers and the other keys that begin with kafka_";
const LOGIN_ADVICE: &str = "check kafka_user, kafka_password_secret, kafka_mechanism, kafka_security, kafka_ca_file, \
     kafka_certificate_file and kafka_key_file";
const TOPICS_ADVICE: &str =
    "make the topics task-events and task-events.dead, or set kafka_create_partitions";

/// What the adapter refuses, without connecting and without reading a secret.
pub(super) fn conflicts(config: &Config) -> Vec<Conflict> {
    let password = placeholder(config.direct.kafka.password.as_ref());
    let problems = adapter_config(config, password).problems();
    let conflicts = problems.into_iter().map(|problem| Conflict {
        key: key_of(problem.field),
        other: None,
        problem: problem.problem,
    });
    conflicts.collect()
}

/// The key that a field of the adapter's configuration comes from.
fn key_of(field: &str) -> &'static str {
    match field {
        "transport.ca_file" => "kafka_ca_file",
        "transport.client_certificate.certificate" => "kafka_certificate_file",
        "transport.client_certificate.key" => "kafka_key_file",
        "sasl.user" => "kafka_user",
        "sasl.password" => "kafka_password_secret",
        "missing_topics.partitions" => "kafka_create_partitions",
        "missing_topics.replication" => "kafka_create_replication",
        _ => BROKERS,
    }
}

/// Opens the bus, and waits until its brokers answer.
pub(super) async fn open(
    config: &Config,
    secrets: &dyn SecretStore,
    patience: Patience,
) -> Result<Arc<dyn EventBus>, StartError> {
    let wanted = config.direct.kafka.password.as_ref();
    let password = patience.secret(secrets, "kafka_password_secret", wanted);
    let password = password.await?;
    let kafka = adapter_config(config, password);
    // The client tries again within its own limit, and the relay after that.
    let policy = guards::once(kafka.delivery_timeout.max(kafka.request_timeout) + MARGIN);
    let refused = |error: PortError| refused("kafka", advice(error.kind()), error);
    let bus = KafkaEventBus::open(kafka).map_err(refused)?;
    let needed = Needed {
        name: "kafka",
        address: config.direct.kafka.brokers.clone(),
        key: BROKERS,
    };
    let checked = patience.until(needed, async || {
        let checked = bus.check().await;
        checked.map_err(|error| Missed::of(error, refused))
    });
    patience.or_without(checked.await, || Ok(()))?;
    Ok(Arc::new(GuardedEventBus::new(
        Arc::new(bus),
        "kafka",
        policy,
    )))
}

fn advice(kind: ErrorKind) -> &'static str {
    if kind == ErrorKind::Denied {
        LOGIN_ADVICE
    } else if kind == ErrorKind::NotFound {
        TOPICS_ADVICE
    } else {
        ADVICE
    }
}

fn adapter_config(config: &Config, password: Option<Secret>) -> KafkaConfig {
    let wanted = &config.direct.kafka;
    let mut kafka = KafkaConfig::new(&wanted.brokers);
    // Without a place for dead letters the first of them would hold up its key.
    let heard = Subscription::new(Topic::new(TASK_EVENTS_TOPIC), Consumer::default().group);
    kafka.topics = vec![heard.topic, heard.dead_letter];
    kafka.transport = match wanted.security {
        KafkaSecurity::Plaintext => Transport::Plaintext,
        KafkaSecurity::Tls => Transport::Tls {
            ca_file: wanted.ca_file.clone(),
            client_certificate: certificate(&wanted.shown),
        },
    };
    let login = wanted.user.clone().zip(password);
    kafka.sasl = login.map(|(user, password)| Sasl {
        mechanism: match wanted.mechanism {
            KafkaMechanism::Plain => Mechanism::Plain,
            KafkaMechanism::ScramSha256 => Mechanism::ScramSha256,
            KafkaMechanism::ScramSha512 => Mechanism::ScramSha512,
        },
        user,
        password,
    });
    if wanted.start_group.is_some() {
        kafka.predecessor = Predecessor::Stopped;
    }
    if wanted.create_partitions > 0 {
        kafka.missing_topics = MissingTopics::Create {
            partitions: wanted.create_partitions,
            replication: wanted.create_replication,
        };
    }
    kafka
}
