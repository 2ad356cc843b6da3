//! The Dapr backend: everything through the sidecar, whose components say what is behind it.

use std::sync::Arc;
use std::time::Duration;

use adapters_dapr::{
    ConfigError, DaprEventBus, DaprNotifier, DaprStateStore, EventBusOptions, Events, NewGroups,
    Sidecar, SidecarConfig, SidecarOptions, StateStoreOptions, TraceParent, callbacks,
};
use task_core::layer::{GuardedEventBus, GuardedStateStore};
use task_core::ports::{Group, PortError};

use super::waiting::{Missed, Needed, Patience};
use super::{Backend, Consumer, Hears, Parting, Replicas, guards, notifier};
use crate::app::StartError;
use crate::config::{Config, Conflict};
use crate::trace;

const BACKEND: &str = "dapr";

const ADVICE: &str = "check the sidecar's variables DAPR_... and the components that it has loaded";

/// Longest time of one call of the store: a few calls of the sidecar, each with a limit of its own.
const STORE_TIMEOUT: Duration = Duration::from_secs(15);

/// Longer than the adapters' own limits, whose errors say more.
const MARGIN: Duration = Duration::from_secs(1);

/// What the sidecar's variables break.
pub(super) fn conflicts(config: &Config) -> Vec<Conflict> {
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
    SidecarConfig::from_env_vars(config.sidecar_variables.pairs().iter().cloned())
}

/// Waits for the sidecar and opens its components.
pub(super) async fn open(config: &Config) -> Result<Backend, StartError> {
    let sidecar_config = sidecar_config(config).map_err(refused)?;
    let place = format!("Dapr sidecar at {}", sidecar_config.http_endpoint);
    let receiver = format!("app {} by invocation", sidecar_config.notification_app);
    let needed = Needed {
        name: "Dapr sidecar",
        address: sidecar_config.http_endpoint.clone(),
        key: "DAPR_HTTP_PORT",
    };
    let mut options = SidecarOptions::default();
    options.trace = || {
        let call = trace::next_call();
        TraceParent::new(call.trace_id, call.span_id, call.flags)
    };
    let call_limit = options.call_timeout + MARGIN;
    let sidecar = Sidecar::new(sidecar_config, options).map_err(refused)?;
    let patience = Patience::new(config.start_timeout);
    let ready = patience.until(needed.clone(), async || {
        sidecar.metadata().await.map_err(missed)
    });
    ready.await?;

    let mut options = StateStoreOptions::default();
    options.events = Events::Kept;
    let store = patience.until(needed, async || {
        let opened = DaprStateStore::open(&sidecar, options.clone()).await;
        opened.map_err(missed)
    });
    let store = store.await?;
    let options = EventBusOptions {
        // The consumer tells history from news by itself.
        new_groups: Some(NewGroups::Exist),
        ..EventBusOptions::default()
    };
    let bus = DaprEventBus::open(&sidecar, options)
        .await
        .map_err(refused)?;
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
        place,
        receiver: Some(receiver),
    })
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
