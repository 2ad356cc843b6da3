//! State stores on real sidecars: each case has a sidecar and an empty component.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adapters_dapr::{DaprStateStore, Events, SidecarOptions, StateStoreOptions};
use async_trait::async_trait;
use task_core::ports::{StateCapability, StateStore};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::{connect, start};
use crate::conformance::Failure;
use crate::conformance::state_store::{StateStoreBackend, Time};
use crate::process::dapr::{self, Component, Sidecar};
use crate::process::{PostgresServer, RedisServer, postgres, redis};

/// What a component that keeps its data declares.
pub(super) const DECLARED: &[StateCapability] = &[
    StateCapability::ConditionalWrites,
    StateCapability::UniqueVersions,
    StateCapability::Ttl,
    StateCapability::Tombstones,
    StateCapability::Durable,
];

/// The same where events are kept.
pub(super) const DECLARED_OUTBOX: &[StateCapability] = &[
    StateCapability::ConditionalWrites,
    StateCapability::UniqueVersions,
    StateCapability::Ttl,
    StateCapability::Tombstones,
    StateCapability::Outbox,
    StateCapability::Durable,
];

/// What the memory of a sidecar declares.
pub(super) const DECLARED_VOLATILE: &[StateCapability] = &[
    StateCapability::ConditionalWrites,
    StateCapability::UniqueVersions,
    StateCapability::Ttl,
    StateCapability::Tombstones,
];

/// The same where events are kept.
pub(super) const DECLARED_VOLATILE_OUTBOX: &[StateCapability] = &[
    StateCapability::ConditionalWrites,
    StateCapability::UniqueVersions,
    StateCapability::Ttl,
    StateCapability::Tombstones,
    StateCapability::Outbox,
];

/// What keeps the values behind the sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// A database of a real Redis.
    Redis,
    /// A database of a real PostgreSQL.
    Postgres,
    /// The sidecar itself.
    Memory,
}

/// A sidecar and what it keeps its values in.
#[derive(Debug)]
struct Kept {
    keeper: Keeper,
    sidecar: Sidecar,
    /// The database's address; nothing in memory.
    database: String,
}

/// Sidecars that a case has emptied and given back.
static EMPTIED: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

/// A sidecar with an empty component, given back at the end.
#[derive(Debug)]
pub struct DaprStateStores {
    keeper: Keeper,
    events: Events,
    kept: tokio::sync::Mutex<Option<Kept>>,
    store: tokio::sync::Mutex<Option<DaprStateStore>>,
}

impl DaprStateStores {
    /// A backend without a sidecar yet.
    #[must_use]
    pub fn fresh(keeper: Keeper, events: Events) -> Arc<Self> {
        Arc::new(Self {
            keeper,
            events,
            kept: tokio::sync::Mutex::default(),
            store: tokio::sync::Mutex::default(),
        })
    }

    async fn store(&self, sidecar: &Sidecar) -> Result<Arc<dyn StateStore>, Failure> {
        let store = open_store(sidecar, self.events).await?;
        *self.store.lock().await = Some(store.clone());
        Ok(Arc::new(store))
    }
}

/// Opens the adapter on a sidecar of the tests; a busy machine may answer late.
///
/// # Errors
/// What the adapter says.
pub async fn open_store(sidecar: &Sidecar, events: Events) -> Result<DaprStateStore, Failure> {
    let mut options = SidecarOptions::default();
    options.call_timeout = Duration::from_secs(20);
    let sidecar = connect(sidecar, &[], options)?;
    let mut options = StateStoreOptions::default();
    options.events = events;
    Ok(DaprStateStore::open(&sidecar, options).await?)
}

fn emptied(keeper: Keeper) -> Option<Kept> {
    let mut emptied = EMPTIED.lock().unwrap_or_else(PoisonError::into_inner);
    let at = emptied.iter().position(|kept| kept.keeper == keeper)?;
    Some(emptied.swap_remove(at))
}

async fn new(keeper: Keeper) -> Result<Kept, Failure> {
    const NAME: &str = "statestore";
    let runtime = Handle::current();
    let prepare = move || match keeper {
        Keeper::Redis => {
            let database = runtime.block_on(RedisServer::shared()).next_database_url();
            (Component::redis_state(NAME, &database), database)
        }
        Keeper::Postgres => {
            let server = runtime.block_on(PostgresServer::shared());
            let database = runtime.block_on(server.create_database());
            (Component::postgres_state(NAME, &database), database)
        }
        Keeper::Memory => (Component::in_memory_state(NAME), String::new()),
    };
    let (component, database) = spawn_blocking(prepare).await?;
    let sidecar = start(dapr::SidecarOptions::of("task-api", [component])).await?;
    Ok(Kept {
        keeper,
        sidecar,
        database,
    })
}

#[async_trait]
impl StateStoreBackend for DaprStateStores {
    async fn open(&self) -> Result<Arc<dyn StateStore>, Failure> {
        let kept = match emptied(self.keeper) {
            Some(kept) => kept,
            None => new(self.keeper).await?,
        };
        let store = self.store(&kept.sidecar).await?;
        *self.kept.lock().await = Some(kept);
        Ok(store)
    }

    /// Kills the sidecar and starts it again; what is settled was saved before, as at an orderly end.
    async fn reopen(&self, store: Arc<dyn StateStore>) -> Result<Arc<dyn StateStore>, Failure> {
        drop(store);
        if let Some(store) = self.store.lock().await.take() {
            store.flush().await?;
        }
        let mut place = self.kept.lock().await;
        let kept = place.take();
        let mut kept = kept.ok_or_else(|| Failure::new("no sidecar runs"))?;
        let runtime = Handle::current();
        let restart = move || {
            runtime.block_on(kept.sidecar.restart());
            kept
        };
        let kept = place.insert(spawn_blocking(restart).await?);
        self.store(&kept.sidecar).await
    }

    /// Lets real time pass: nobody's clock can be moved.
    async fn elapse(&self, time: Duration) {
        const MORE: Duration = Duration::from_millis(50);
        tokio::time::sleep(time + MORE).await;
    }

    fn time(&self) -> Time {
        Time::Waited
    }

    async fn close(&self) {
        let Some(kept) = self.kept.lock().await.take() else {
            return;
        };
        match kept.keeper {
            Keeper::Redis => drop(redis::command(&kept.database, &["FLUSHDB"]).await),
            Keeper::Postgres => drop(postgres::query(&kept.database, "DELETE FROM state").await),
            // Nothing empties it but its end.
            Keeper::Memory => return,
        }
        let mut emptied = EMPTIED.lock().unwrap_or_else(PoisonError::into_inner);
        emptied.push(kept);
    }
}
