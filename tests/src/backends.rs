//! The table of backends: every row runs every case of the ports that it has.
//!
//! A new adapter is one more row. A row states what its adapter declares, so that a capability that
//! gets lost is a failure and not a case that no longer runs.

pub mod dapr;
mod embedded;
mod http;
mod kafka;
mod memory;
mod moves;
mod parallel;
mod parallel_ports;
mod redis;
mod redis_streams;
mod secrets;

use std::sync::Arc;
use std::time::Duration;

use adapters_direct::redis::RedisLayout;
use task_core::migration::NotifierStage;
use task_core::ports::{BusCapability, StateCapability};

use crate::conformance::event_bus::EventBusBackend;
use crate::conformance::notifier::NotifierBackend;
use crate::conformance::secret_store::SecretStoreBackend;
use crate::conformance::state_store::StateStoreBackend;

pub use dapr::DAPR_TABLE;
pub use embedded::{EmbeddedBackends, PublishingBackends};
pub use http::HttpNotifiers;
pub use kafka::KafkaEventBuses;
pub use memory::{MemoryEventBuses, MemoryNotifiers, MemoryStateStores};
pub use moves::{
    BUS_MOVES, BusMove, DAPR_BUS_MOVES, DAPR_STORE_MOVES, MoveRow, STORE_MOVES, StoreMove,
};
pub use parallel::{ParallelBackends, StoreSides};
pub use parallel_ports::{BusSides, ParallelEventBuses, ParallelNotifiers};
pub use redis::{RedisBackends, RestartedRedis};
pub use redis_streams::RedisStreams;
pub use secrets::{DirectorySecrets, EnvironmentSecrets, FileSecrets, MemorySecrets};

/// A backend under test.
#[derive(Debug)]
pub struct Row {
    /// The name under which its trials run.
    pub name: &'static str,
    /// Its state store, if it has one.
    pub state_store: Option<StateStoreRow>,
    /// Its event bus, if it has one.
    pub event_bus: Option<EventBusRow>,
    /// Its notifier, if it has one.
    pub notifier: Option<NotifierRow>,
    /// Its secret store, if it has one.
    pub secret_store: Option<SecretStoreRow>,
}

/// A state store of the table.
#[derive(Debug, Clone, Copy)]
pub struct StateStoreRow {
    /// What the adapter has to declare, no more and no less.
    pub declares: &'static [StateCapability],
    /// Makes a backend for one case.
    pub fresh: fn() -> Arc<dyn StateStoreBackend>,
}

/// An event bus of the table.
#[derive(Debug, Clone, Copy)]
pub struct EventBusRow {
    /// What the adapter has to declare, no more and no less.
    pub declares: &'static [BusCapability],
    /// Makes a backend for one case.
    pub fresh: fn() -> Arc<dyn EventBusBackend>,
}

/// A notifier of the table.
#[derive(Debug, Clone, Copy)]
pub struct NotifierRow {
    /// Whether its receiver ever refuses.
    pub receiver: Receiver,
    /// Makes a backend for one case.
    pub fresh: fn() -> Arc<dyn NotifierBackend>,
}

/// A secret store of the table.
#[derive(Debug, Clone, Copy)]
pub struct SecretStoreRow {
    /// Makes a backend for one case.
    pub fresh: fn() -> Arc<dyn SecretStoreBackend>,
}

/// Whether a receiver can say no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receiver {
    /// It can refuse for good and for now.
    Refuses,
    /// It is part of the adapter and accepts everything, so that no refusal can be told or told apart.
    AcceptsAll,
}

/// Every backend.
pub const TABLE: &[Row] = &[
    Row {
        name: "memory",
        state_store: Some(StateStoreRow {
            declares: memory::DECLARED_STATE,
            fresh: || MemoryStateStores::full(),
        }),
        event_bus: Some(EventBusRow {
            declares: &[BusCapability::OrderedPerKey, BusCapability::DeadLetter],
            fresh: || Arc::new(MemoryEventBuses),
        }),
        notifier: Some(NotifierRow {
            receiver: Receiver::Refuses,
            fresh: || Arc::new(MemoryNotifiers::default()),
        }),
        secret_store: Some(SecretStoreRow {
            fresh: || Arc::new(MemorySecrets),
        }),
    },
    // The same store without any capability: each case that needs one proves its refusal.
    Row {
        name: "bare_memory",
        state_store: Some(StateStoreRow {
            declares: &[],
            fresh: || MemoryStateStores::bare(),
        }),
        event_bus: None,
        notifier: None,
        secret_store: None,
    },
    Row {
        name: "embedded",
        state_store: Some(StateStoreRow {
            declares: embedded::DECLARED_STATE,
            fresh: || EmbeddedBackends::fresh(),
        }),
        event_bus: Some(EventBusRow {
            declares: &[
                BusCapability::OrderedPerKey,
                BusCapability::DeadLetter,
                BusCapability::Durable,
            ],
            fresh: || EmbeddedBackends::fresh(),
        }),
        notifier: Some(NotifierRow {
            receiver: Receiver::AcceptsAll,
            fresh: || EmbeddedBackends::fresh(),
        }),
        secret_store: None,
    },
    // The same file, as the embedded service uses it: a commit is a publication.
    Row {
        name: "embedded_publishing",
        state_store: Some(StateStoreRow {
            declares: embedded::DECLARED_PUBLISHING,
            fresh: || PublishingBackends::fresh(),
        }),
        event_bus: None,
        notifier: None,
        secret_store: None,
    },
    Row {
        name: "http",
        state_store: None,
        event_bus: None,
        notifier: Some(NotifierRow {
            receiver: Receiver::Refuses,
            fresh: || Arc::new(HttpNotifiers::default()),
        }),
        secret_store: None,
    },
    Row {
        name: "kafka",
        state_store: None,
        event_bus: Some(EventBusRow {
            declares: BusCapability::ALL,
            fresh: || Arc::new(KafkaEventBuses::fresh()),
        }),
        notifier: None,
        secret_store: None,
    },
    Row {
        name: "redis_legacy",
        state_store: Some(StateStoreRow {
            declares: redis::DECLARED_LEGACY,
            fresh: || RedisBackends::fresh(RedisLayout::Legacy),
        }),
        event_bus: None,
        notifier: None,
        secret_store: None,
    },
    Row {
        name: "redis_dapr",
        state_store: Some(StateStoreRow {
            declares: redis::DECLARED_DAPR,
            fresh: || RedisBackends::fresh(RedisLayout::Dapr),
        }),
        event_bus: None,
        notifier: None,
        secret_store: None,
    },
    Row {
        name: "redis_streams",
        state_store: None,
        event_bus: Some(EventBusRow {
            declares: &[
                BusCapability::DeadLetter,
                BusCapability::Durable,
                BusCapability::CompetingConsumers,
            ],
            fresh: || Arc::new(RedisStreams::default()),
        }),
        notifier: None,
        secret_store: None,
    },
    notifiers_in_a_move("parallel_notifier_old", || {
        ParallelNotifiers::in_memory(NotifierStage::Old)
    }),
    notifiers_in_a_move("parallel_notifier_new", || {
        ParallelNotifiers::in_memory(NotifierStage::New)
    }),
    secrets("environment", || Arc::new(EnvironmentSecrets)),
    secrets("file", || FileSecrets::fresh()),
    secrets("directory", || DirectorySecrets::fresh()),
];

/// A row of two notifiers in memory, in a stage of a move.
const fn notifiers_in_a_move(name: &'static str, fresh: fn() -> Arc<dyn NotifierBackend>) -> Row {
    Row {
        name,
        state_store: None,
        event_bus: None,
        notifier: Some(NotifierRow {
            receiver: Receiver::Refuses,
            fresh,
        }),
        secret_store: None,
    }
}

/// Lets real time pass: a server's clock cannot be moved.
async fn wait(time: Duration) {
    const MORE: Duration = Duration::from_millis(20);
    tokio::time::sleep(time + MORE).await;
}

/// A row with nothing but a secret store.
const fn secrets(name: &'static str, fresh: fn() -> Arc<dyn SecretStoreBackend>) -> Row {
    Row {
        name,
        state_store: None,
        event_bus: None,
        notifier: None,
        secret_store: Some(SecretStoreRow { fresh }),
    }
}
