//! The direct backend: tasks in Redis, events in Kafka or in Redis, notifications over HTTP.

use std::sync::Arc;
use std::time::Duration;

use adapters_direct::ClientCertificate;
use adapters_direct::redis::{
    KeyPrefix, OpenError, Password, Redis, RedisConfig, RedisLayout, StreamConfig,
};
use task_core::layer::{GuardedEventBus, GuardedStateStore};
use task_core::migration::UnmovedStateStore;
use task_core::ports::{EventBus, Group, Secret, SecretName, SecretStore, StateStore};

#[cfg(feature = "kafka")]
use super::kafka;
use super::waiting::{Missed, Needed, Patience};
use super::{Backend, Consumer, Hears, Replicas, Role, guards, notifier};
use crate::app::StartError;
use crate::config::{self, BusKind, Config, Conflict, RedisKeys, Shown};
use crate::secrets;

/// Longer than the adapters' own limits, whose errors say more.
pub(super) const MARGIN: Duration = Duration::from_secs(1);

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
    let new = &config.parallel.redis;
    let new = (!new.url.is_empty()).then_some(new);
    let servers = [Some(&config.direct.redis), new].into_iter().flatten();
    let problems = servers.flat_map(conflicts_of_redis);
    problems.chain(conflicts_of_bus(config)).collect()
}

fn conflicts_of_redis(wanted: &config::Redis) -> impl Iterator<Item = Conflict> {
    let password = placeholder(wanted.password.as_ref());
    let redis = adapter_config(wanted, password.map(Password::Fixed));
    let keys = wanted.keys;
    redis.problems().into_iter().map(|problem| Conflict {
        key: key_of(keys, problem.field),
        other: Some(keys.url),
        problem: problem.problem,
    })
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
pub(super) async fn open(
    config: &Config,
    wanted: &config::Redis,
    role: Role<'_>,
) -> Result<Backend, StartError> {
    let patience = Patience::of(role, config.start_timeout);
    let secrets = secrets::open(config).await?;
    let (redis, redis_config) = connect(wanted, &secrets, patience).await?;
    let store: Arc<dyn StateStore> = match role {
        Role::Alone => Arc::new(UnmovedStateStore::new(Arc::new(redis.state_store()))?),
        Role::Side | Role::Known(_) => Arc::new(redis.state_store()),
    };
    let policy = guards::store(time_limit(&redis_config));
    let guarded = |store| Arc::new(GuardedStateStore::new(store, "redis", policy.clone()));
    let bus = match config.direct.bus {
        BusKind::RedisStreams => streams(&redis, &redis_config),
        #[cfg(feature = "kafka")]
        BusKind::Kafka => kafka::open(config, &*secrets, patience).await?,
        #[cfg(not(feature = "kafka"))]
        BusKind::Kafka => unreachable!("kafka is not compiled in, which was checked"),
    };
    let url = config.notification_url.as_ref();
    let url = url.expect("the configuration demands an address with this backend");
    Ok(Backend {
        store: guarded(store),
        bus,
        notifier: notifier::over_http(config, url)?,
        inbox: None,
        replicas: Replicas::Many {
            leases: guarded(Arc::new(redis.lease_store())),
            lease: "relay",
        },
        consumer: consumer(&config.direct),
        callbacks: None,
        parting: None,
        profile: serde_json::Value::Null,
        parallel: None,
        receiver: Some(url.to_string()),
        place: format!("{} ({})", wanted.url, wanted.layout.as_str()),
    })
}

/// Connects to the Redis that `redis_url` names, whatever layout it is to have.
pub(super) async fn open_redis(config: &Config, layout: RedisLayout) -> Result<Redis, StartError> {
    let wanted = config::Redis {
        layout: match layout {
            RedisLayout::Legacy => config::RedisLayout::Legacy,
            RedisLayout::Dapr => config::RedisLayout::Dapr,
        },
        ..config.direct.redis.clone()
    };
    let patience = Patience::of(Role::Alone, config.start_timeout);
    let secrets = secrets::open(config).await?;
    let (redis, _) = connect(&wanted, &secrets, patience).await?;
    Ok(redis)
}

async fn connect(
    wanted: &config::Redis,
    secrets: &Arc<dyn SecretStore>,
    patience: Patience,
) -> Result<(Redis, RedisConfig), StartError> {
    let keys = wanted.keys;
    let name = wanted.password.as_ref();
    // Here it is missed by the name of its key; each connection asks again, because it may change.
    let read = patience.secret(&**secrets, keys.password, name).await;
    patience.or_without(read, || Ok(None))?;
    let password = name.map(|name| Password::Kept {
        store: Arc::clone(secrets),
        name: name.clone(),
    });
    let redis_config = adapter_config(wanted, password);
    let redis = patience.until(needed(keys, &redis_config), async || {
        let opened = Redis::open(&redis_config).await;
        opened.map_err(|error| missed(keys, error))
    });
    let unconnected = || {
        let redis = Redis::unconnected(&redis_config);
        redis.map_err(|error| refused("redis", keys.advice, error))
    };
    let redis = patience.or_without(redis.await, unconnected)?;
    Ok((redis, redis_config))
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

fn needed(keys: &RedisKeys, config: &RedisConfig) -> Needed {
    Needed {
        name: "redis",
        address: config.host_and_port().unwrap_or_default(),
        key: keys.url,
    }
}

/// Only a server that cannot be reached, or that is not ready, is waited for.
fn missed(keys: &RedisKeys, error: OpenError) -> Missed {
    let refused = |error| refused("redis", keys.advice, error);
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

fn adapter_config(wanted: &config::Redis, password: Option<Password>) -> RedisConfig {
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
fn key_of(keys: &RedisKeys, field: &str) -> &'static str {
    match field {
        "password" => keys.password,
        "ca_file" => keys.ca_file,
        "client_certificate" | "client_certificate.certificate" => keys.shown[0],
        "client_certificate.key" => keys.shown[1],
        "key_prefix" => keys.key_prefix,
        _ => keys.url,
    }
}
