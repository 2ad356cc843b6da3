//! The Dapr backend: everything through the sidecar, whose components say what is behind it.

use std::sync::Arc;
use std::time::Duration;

use adapters_dapr::{
    ConfigError, DaprEventBus, DaprNotifier, DaprSecretStore, DaprStateStore, EventBusOptions,
    EventBusProfile, Events, NewGroups, Sidecar, SidecarConfig, SidecarOptions, StateStoreOptions,
    StateStoreProfile, TraceParent, callbacks,
};
use axum::Router;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use task_core::layer::{GuardedEventBus, GuardedStateStore};
use task_core::ports::{Answer, Group, PortError, SecretStore};

use super::waiting::{Missed, Needed, Patience};
use super::{Backend, Consumer, Hears, Parting, Replicas, Role, guards, notifier};
use crate::app::StartError;
use crate::config::{self, Config, Conflict, SecretSource};
use crate::trace;

const BACKEND: &str = "dapr";

const ADVICE: &str = "check the sidecar's variables DAPR_... and the components that it has loaded";

/// Longest time of one call of the store: a few calls of the sidecar, each with a limit of its own.
const STORE_TIMEOUT: Duration = Duration::from_secs(15);

/// Longer than the adapters' own limits, whose errors say more.
const MARGIN: Duration = Duration::from_secs(1);

/// What the sidecar's variables break, if there is to be one.
pub(super) fn conflicts(config: &Config) -> Vec<Conflict> {
    let has_secrets = matches!(config.secrets, SecretSource::Sidecar(_));
    if config.backend != config::Backend::Dapr && !has_secrets {
        return Vec::new();
    }
    let Err(error) = sidecar_config(config) else {
        return Vec::new();
    };
    let problems = error.problems().iter().map(|problem| Conflict {
        key: problem.variable,
        other: None,
        problem: problem.detail.clone(),
    });
    problems.collect()
}

fn sidecar_config(config: &Config) -> Result<SidecarConfig, ConfigError> {
    let variables = config.sidecar_variables.pairs().iter().cloned();
    let mut sidecar = SidecarConfig::from_env_vars(variables)?;
    if let SecretSource::Sidecar(component) = &config.secrets {
        sidecar.components.secret_store = component.to_string();
    }
    Ok(sidecar)
}

/// What was found out about the components that are open.
#[derive(Debug, Serialize, Deserialize)]
struct Profile {
    state_store: StateStoreProfile,
    event_bus: EventBusProfile,
}

/// Lets only a sidecar that shows the app token through, if there is one.
pub(super) fn with_app_token(router: Router, config: &Config) -> Result<Router, StartError> {
    let variables = config.sidecar_variables.app_token();
    let sidecar = SidecarConfig::from_env_vars(variables.pairs().iter().cloned());
    Ok(adapters_dapr::with_app_token(
        router,
        &sidecar.map_err(refused)?,
    ))
}

/// The sidecar of the configuration, to which nobody has connected yet.
fn sidecar(config: &Config) -> Result<(Sidecar, Needed), StartError> {
    let sidecar_config = sidecar_config(config).map_err(refused)?;
    let needed = Needed {
        name: "Dapr sidecar",
        address: sidecar_config.http_endpoint.clone(),
        key: "DAPR_HTTP_PORT",
    };
    let sidecar = Sidecar::new(sidecar_config, options()).map_err(refused)?;
    Ok((sidecar, needed))
}

fn options() -> SidecarOptions {
    let mut options = SidecarOptions::default();
    options.trace = || {
        let call = trace::next_call();
        TraceParent::new(call.trace_id, call.span_id, call.flags)
    };
    options.within = within;
    options
}

fn within(caller: TraceParent, work: BoxFuture<'_, Answer>) -> BoxFuture<'_, Answer> {
    let caller = trace::Context {
        trace_id: caller.trace_id(),
        span_id: caller.span_id(),
        flags: caller.flags(),
    };
    Box::pin(trace::within(Some(caller), work))
}

/// Waits for the sidecar and opens its store of secrets.
pub(super) async fn secrets(config: &Config) -> Result<Arc<dyn SecretStore>, StartError> {
    let (sidecar, needed) = sidecar(config)?;
    let open = async || {
        let opened = DaprSecretStore::open(&sidecar).await;
        opened.map_err(|error| Missed::of(error, |source| StartError::Secrets { source }))
    };
    let store = Patience::of(Role::Alone, config.start_timeout).until(needed, open);
    Ok(Arc::new(store.await?))
}

/// Waits for the sidecar and opens its components.
pub(super) async fn open(config: &Config, role: Role<'_>) -> Result<Backend, StartError> {
    let (sidecar, needed) = sidecar(config)?;
    let place = format!("Dapr sidecar at {}", sidecar.config().http_endpoint);
    let receiver = format!("app {} by invocation", sidecar.config().notification_app);
    let call_limit = options().call_timeout + MARGIN;
    let patience = Patience::of(role, config.start_timeout);
    // Nothing of this backend is secret. A store that is named is there all the same.
    let is_named = matches!(config.secrets, SecretSource::Sidecar(_));
    if is_named && !matches!(role, Role::Known(_)) {
        secrets(config).await?;
    }
    let opened = patience.until(needed, async || components(&sidecar).await.map_err(missed));
    let known = || match role {
        Role::Known(profile) => known_components(&sidecar, profile),
        Role::Alone | Role::Side => unreachable!("only what is known can be away"),
    };
    let (store, bus) = patience.or_without(opened.await, known)?;
    let profile = Profile {
        state_store: store.profile(),
        event_bus: bus.profile().clone(),
    };
    let profile = serde_json::to_value(profile).expect("a profile is JSON");
    let consumer = Consumer {
        group: Group::new(bus.group()),
        hears: Hears::History,
    };
    let callbacks = callbacks(&sidecar, &bus);
    let deadline = config.notification_timeout;
    let notifier = DaprNotifier::new(sidecar).within(deadline);
    let kept = store.clone();
    let parting = Parting::new(async move { kept.flush().await });
    let policy = guards::store(STORE_TIMEOUT);
    let store = Arc::new(GuardedStateStore::new(Arc::new(store), BACKEND, policy));
    Ok(Backend {
        store: Arc::clone(&store) as _,
        bus: Arc::new(GuardedEventBus::new(
            Arc::new(bus),
            BACKEND,
            guards::once(call_limit),
        )),
        notifier: notifier::guarded(Arc::new(notifier), BACKEND, deadline),
        inbox: None,
        replicas: Replicas::Many {
            leases: store,
            lease: "relay-dapr",
        },
        consumer,
        callbacks: Some(callbacks),
        parting: Some(parting),
        profile,
        parallel: None,
        place,
        receiver: Some(receiver),
    })
}

fn store_options() -> StateStoreOptions {
    let mut options = StateStoreOptions::default();
    options.events = Events::Kept;
    options
}

fn bus_options() -> EventBusOptions {
    EventBusOptions {
        // The consumer tells history from news by itself.
        new_groups: Some(NewGroups::Exist),
        ..EventBusOptions::default()
    }
}

async fn components(sidecar: &Sidecar) -> Result<(DaprStateStore, DaprEventBus), PortError> {
    let store = DaprStateStore::open(sidecar, store_options()).await?;
    let bus = DaprEventBus::open(sidecar, bus_options()).await?;
    Ok((store, bus))
}

/// The components as an earlier start found them.
fn known_components(
    sidecar: &Sidecar,
    profile: &Value,
) -> Result<(DaprStateStore, DaprEventBus), StartError> {
    let profile = Profile::deserialize(profile).map_err(refused)?;
    let store = DaprStateStore::known(sidecar, profile.state_store, store_options());
    let bus = DaprEventBus::known(sidecar, profile.event_bus, bus_options());
    Ok((store, bus))
}

fn missed(error: PortError) -> Missed {
    Missed::of(error, refused)
}

fn refused(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StartError {
    StartError::Backend {
        name: BACKEND,
        advice: ADVICE,
        source: source.into(),
    }
}
