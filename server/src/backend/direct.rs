//! The direct backend: tasks in Redis, events in Kafka or in Redis, notifications over HTTP.

use std::sync::Arc;
use std::time::Duration;

use adapters_direct::ClientCertificate;
use adapters_direct::redis::{
    KeyPrefix, OpenError, Password, Redis, RedisConfig, RedisLayout, StreamConfig,
};
use task_core::layer::{GuardedEventBus, GuardedStateStore};
use task_core::ports::{EventBus, Group, Secret, SecretName};

#[cfg(feature = "kafka")]
use super::kafka;
use super::waiting::{Missed, Needed, Patience};
use super::{Backend, Consumer, Hears, Replicas, guards, notifier};
use crate::app::StartError;
use crate::config::{self, BusKind, Config, Conflict, Shown};
use crate::secrets;

/// Longer than the adapters' own limits, whose errors say more.
pub(super) const MARGIN: Duration = Duration::from_secs(1);

const URL: &str = "redis_url";
const ADVICE: &str =
    "check redis_url, redis_password_secret and the keys that begin with redis_ and end in _file";

/// Says what this build lacks for the backend.
pub(super) fn check(config: &Config) -> Result<(), StartError> {
    match config.direct.bus {
        BusKind::RedisStreams => Ok(()),
        #[cfg(feature = "kafka")]
        BusKind::Kafka => Ok(()),
        #[cfg(not(feature = "kafka"))]
        BusKind::Kafka => Err(StartError::NotCompiledIn {
            what: "the bus kafka",
            feature: "direct",
        }),
    }
}

/// What the adapters refuse, without connecting and without reading a secret.
pub(super) fn conflicts(config: &Config) -> Vec<Conflict> {
    let password = placeholder(config.direct.redis.password.as_ref());
    let redis = adapter_config(config, password.map(Password::Fixed));
    let problems = redis.problems().into_iter().map(|problem| Conflict {
        key: key_of(problem.field),
        other: Some(URL),
        problem: problem.problem,
    });
    problems.chain(conflicts_of_bus(config)).collect()
}

fn conflicts_of_bus(config: &Config) -> Vec<Conflict> {
    match config.direct.bus {
        #[cfg(feature = "kafka")]
        BusKind::Kafka => kafka::conflicts(config),
        #[cfg(not(feature = "kafka"))]
        BusKind::Kafka => Vec::new(),
        BusKind::RedisStreams => Vec::new(),
    }
}

/// Stands for a secret that is named and not read.
pub(super) fn placeholder(name: Option<&SecretName>) -> Option<Secret> {
    name.and_then(|name| Secret::new(name.name()))
}

/// The certificate of ours, if both of its files are named.
pub(super) fn certificate(shown: &Shown) -> Option<ClientCertificate> {
    let Shown { certificate, key } = shown.clone();
    let (certificate, key) = certificate.zip(key)?;
    Some(ClientCertificate { certificate, key })
}

/// Connects to everything, and waits for what is not there yet.
pub(super) async fn open(config: &Config) -> Result<Backend, StartError> {
    let direct = &config.direct;
    let secrets = secrets::open(config).await?;
    let name = direct.redis.password.as_ref();
    // Here it is missed by the name of its key; each connection asks again, because it may change.
    secrets::resolve(&*secrets, "redis_password_secret", name).await?;
    let password = name.map(|name| Password::Kept {
        store: Arc::clone(&secrets),
        name: name.clone(),
    });
    let redis_config = adapter_config(config, password);
    let patience = Patience::new(config.start_timeout);
    let redis = patience.until(needed(&redis_config), async || {
        Redis::open(&redis_config).await.map_err(missed)
    });
    let redis = redis.await?;
    let policy = guards::store(time_limit(&redis_config));
    let guarded = |store| {
        Arc::new(GuardedStateStore::new(
            Arc::new(store),
            "redis",
            policy.clone(),
        ))
    };
    let bus = match direct.bus {
        BusKind::RedisStreams => streams(&redis, &redis_config),
        #[cfg(feature = "kafka")]
        BusKind::Kafka => kafka::open(config, &*secrets, patience).await?,
        #[cfg(not(feature = "kafka"))]
        BusKind::Kafka => unreachable!("kafka is not compiled in, which was checked"),
    };
    let url = config.notification_url.as_ref();
    let url = url.expect("the configuration demands an address with this backend");
    Ok(Backend {
        store: guarded(redis.state_store()),
        bus,
        notifier: notifier::over_http(config, url)?,
        inbox: None,
        replicas: Replicas::Many {
            leases: guarded(redis.lease_store()),
            lease: "relay",
        },
        consumer: consumer(direct),
        callbacks: None,
        parting: None,
        receiver: Some(url.to_string()),
        place: format!("{} ({})", direct.redis.url, direct.redis.layout.as_str()),
    })
}

/// Our group, which goes on from another one if that is wanted.
fn consumer(direct: &config::Direct) -> Consumer {
    let other = direct.kafka.start_group.as_deref();
    let other = other.map(|other| Hears::After(Group::new(other)));
    let own = Consumer::default();
    Consumer {
        hears: other.unwrap_or(Hears::News),
        ..own
    }
}

fn needed(config: &RedisConfig) -> Needed {
    Needed {
        name: "redis",
        address: config.host_and_port().unwrap_or_default(),
        key: URL,
    }
}

/// Only a server that cannot be reached, or that is not ready, is waited for.
fn missed(error: OpenError) -> Missed {
    let refused = |error| refused("redis", ADVICE, error);
    if let OpenError::Failed { address, source } = error {
        return Missed::of(source, |source| {
            refused(OpenError::Failed { address, source })
        });
    }
    Missed::ForGood(refused(error))
}

pub(super) fn refused(
    name: &'static str,
    advice: &'static str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StartError {
    let source = source.into();
    StartError::Backend {
        name,
        advice,
        source,
    }
}

/// The bus in the Redis that has the tasks.
fn streams(redis: &Redis, config: &RedisConfig) -> Arc<dyn EventBus> {
    let bus = redis.event_bus(StreamConfig::default());
    let policy = guards::once(time_limit(config));
    Arc::new(GuardedEventBus::new(Arc::new(bus), "redis", policy))
}

fn time_limit(config: &RedisConfig) -> Duration {
    config.longest_call() + MARGIN
}

fn adapter_config(config: &Config, password: Option<Password>) -> RedisConfig {
    let wanted = &config.direct.redis;
    let layout = match wanted.layout {
        config::RedisLayout::Legacy => RedisLayout::Legacy,
        config::RedisLayout::Dapr => RedisLayout::Dapr,
    };
    let mut redis = RedisConfig::new(&wanted.url, layout);
    redis.key_prefix = match &wanted.key_prefix {
        Some(text) => KeyPrefix::Text(text.as_str().into()),
        None => KeyPrefix::None,
    };
    redis.ca_file.clone_from(&wanted.ca_file);
    redis.client_certificate = certificate(&wanted.shown);
    redis.password = password;
    redis
}

/// The key that a field of the adapter's configuration comes from.
fn key_of(field: &str) -> &'static str {
    match field {
        "password" => "redis_password_secret",
        "ca_file" => "redis_ca_file",
        "client_certificate" | "client_certificate.certificate" => "redis_certificate_file",
        "client_certificate.key" => "redis_key_file",
        "key_prefix" => "redis_key_prefix",
        _ => URL,
    }
}
