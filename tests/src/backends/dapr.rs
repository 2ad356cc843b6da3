//! The sidecar's adapters under test, on real sidecars: one for each group of a case.

mod event_bus;
mod notifier;
mod secrets;
mod state_store;

use std::sync::Arc;

use adapters_dapr::{Events, Sidecar, SidecarConfig, SidecarOptions};
use task_core::ports::BusCapability;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::{EventBusRow, NotifierRow, Receiver, Row, SecretStoreRow, StateStoreRow};
use crate::conformance::Failure;
use crate::process::dapr;

pub use event_bus::{Broker, DaprEventBuses, NOT_KEPT};
pub use notifier::DaprNotifiers;
pub use secrets::DaprSecrets;
pub use state_store::{DaprStateStores, Keeper, open_store};

/// The rows that need real sidecars, which take Dapr's programs to be built.
pub const DAPR_TABLE: &[Row] = &[
    Row {
        name: "dapr_redis",
        state_store: Some(StateStoreRow {
            declares: state_store::DECLARED,
            fresh: || DaprStateStores::fresh(Keeper::Redis, Events::Refused),
        }),
        event_bus: Some(EventBusRow {
            declares: &[BusCapability::DeadLetter, BusCapability::CompetingConsumers],
            fresh: || Arc::new(DaprEventBuses::fresh(Broker::Redis)),
        }),
        notifier: Some(NotifierRow {
            receiver: Receiver::Refuses,
            fresh: || Arc::new(DaprNotifiers::default()),
        }),
        secret_store: Some(SecretStoreRow {
            fresh: || Arc::new(DaprSecrets::default()),
        }),
    },
    Row {
        name: "dapr_kafka",
        state_store: None,
        event_bus: Some(EventBusRow {
            declares: &[BusCapability::OrderedPerKey, BusCapability::DeadLetter],
            fresh: || Arc::new(DaprEventBuses::fresh(Broker::Kafka)),
        }),
        notifier: None,
        secret_store: None,
    },
    Row {
        name: "dapr_in_memory",
        state_store: Some(StateStoreRow {
            declares: state_store::DECLARED_VOLATILE,
            fresh: || DaprStateStores::fresh(Keeper::Memory, Events::Refused),
        }),
        event_bus: Some(EventBusRow {
            declares: &[BusCapability::DeadLetter],
            fresh: || Arc::new(DaprEventBuses::fresh(Broker::InMemory)),
        }),
        notifier: None,
        secret_store: None,
    },
    stored(
        "dapr_postgres",
        StateStoreRow {
            declares: state_store::DECLARED,
            fresh: || DaprStateStores::fresh(Keeper::Postgres, Events::Refused),
        },
    ),
    stored(
        "dapr_redis_outbox",
        StateStoreRow {
            declares: state_store::DECLARED_OUTBOX,
            fresh: || DaprStateStores::fresh(Keeper::Redis, Events::Kept),
        },
    ),
    stored(
        "dapr_postgres_outbox",
        StateStoreRow {
            declares: state_store::DECLARED_OUTBOX,
            fresh: || DaprStateStores::fresh(Keeper::Postgres, Events::Kept),
        },
    ),
    stored(
        "dapr_in_memory_outbox",
        StateStoreRow {
            declares: state_store::DECLARED_VOLATILE_OUTBOX,
            fresh: || DaprStateStores::fresh(Keeper::Memory, Events::Kept),
        },
    ),
];

/// A row with nothing but a state store.
const fn stored(name: &'static str, state_store: StateStoreRow) -> Row {
    Row {
        name,
        state_store: Some(state_store),
        event_bus: None,
        notifier: None,
        secret_store: None,
    }
}

/// Starts a sidecar; a start is no future that could move between threads.
async fn start(options: dapr::SidecarOptions) -> Result<dapr::Sidecar, Failure> {
    let runtime = Handle::current();
    let start = move || runtime.block_on(dapr::Sidecar::start(options));
    Ok(spawn_blocking(start).await?)
}

/// The adapters' way to a sidecar of the tests, with what else is in the environment.
///
/// # Errors
/// What the adapter says.
pub fn connect(
    sidecar: &dapr::Sidecar,
    environment: &[(&str, &str)],
    options: SidecarOptions,
) -> Result<Sidecar, Failure> {
    let ports = [
        ("DAPR_HTTP_PORT", sidecar.http_port()),
        ("DAPR_GRPC_PORT", sidecar.grpc_port()),
    ];
    let ports = ports.map(|(name, port)| (name.to_owned(), port.to_string()));
    let others = environment.iter();
    let others = others.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let config = SidecarConfig::from_env_vars(ports.into_iter().chain(others));
    let config = config.map_err(|error| Failure::new(error.to_string()))?;
    Ok(Sidecar::new(config, options)?)
}

fn plainly(sidecar: &dapr::Sidecar) -> Result<Sidecar, Failure> {
    connect(sidecar, &[], SidecarOptions::default())
}
