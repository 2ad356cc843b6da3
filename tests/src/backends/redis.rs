//! Redis under test: each case gets a database of a real server, or a server of its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adapters_direct::redis::{Redis, RedisConfig, RedisLayout};
use async_trait::async_trait;
use task_core::ports::{StateCapability, StateStore};
use tokio::runtime::Handle;

use crate::conformance::Failure;
use crate::conformance::state_store::{StateStoreBackend, Time};
use crate::process::RedisServer;
use crate::process::redis::{AppendOnly, RedisOptions, command};

/// What the layout of the replaced service declares.
pub(super) const DECLARED_LEGACY: &[StateCapability] = &[
    StateCapability::ConditionalWrites,
    StateCapability::Ttl,
    StateCapability::Tombstones,
    StateCapability::Transactions,
    StateCapability::Outbox,
    StateCapability::Guards,
    StateCapability::Scan,
    StateCapability::Durable,
];

/// What Dapr's layout declares.
pub(super) const DECLARED_DAPR: &[StateCapability] = &[
    StateCapability::ConditionalWrites,
    StateCapability::UniqueVersions,
    StateCapability::Ttl,
    StateCapability::Tombstones,
    StateCapability::Transactions,
    StateCapability::Outbox,
    StateCapability::Guards,
    StateCapability::Scan,
    StateCapability::Durable,
];

/// Databases that a case has emptied and given back; a server has a few thousand only.
static EMPTIED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A database of the shared server, emptied and given back at the end.
#[derive(Debug)]
pub struct RedisBackends {
    layout: RedisLayout,
    database: tokio::sync::Mutex<Option<String>>,
}

impl RedisBackends {
    /// A backend without a database yet.
    #[must_use]
    pub fn fresh(layout: RedisLayout) -> Arc<Self> {
        Arc::new(Self {
            layout,
            database: tokio::sync::Mutex::default(),
        })
    }
}

async fn connect(address: &str, layout: RedisLayout) -> Result<Arc<dyn StateStore>, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::new(error.to_string());
    let mut config = RedisConfig::new(address, layout);
    // A case is about promises; a busy machine may answer late.
    config.connect_timeout = Duration::from_secs(10);
    config.response_timeout = Duration::from_secs(20);
    let redis = Redis::open(&config).await;
    let redis = redis.map_err(|error| failed(&error))?;
    Ok(Arc::new(redis.state_store()))
}

/// Runs what another thread cannot take over in its middle, as the suite's own tasks have to allow.
async fn on_a_thread<T: Send + 'static>(
    body: impl AsyncFnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let runtime = Handle::current();
    let run = tokio::task::spawn_blocking(move || runtime.block_on(body()));
    Ok(run.await?)
}

#[async_trait]
impl StateStoreBackend for RedisBackends {
    async fn open(&self) -> Result<Arc<dyn StateStore>, Failure> {
        let emptied = EMPTIED.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let address = match emptied {
            Some(address) => address,
            None => on_a_thread(async || RedisServer::shared().await.next_database_url()).await?,
        };
        *self.database.lock().await = Some(address.clone());
        connect(&address, self.layout).await
    }

    /// Opens a new connection; [`RestartedRedis`] restarts a server.
    async fn reopen(&self, store: Arc<dyn StateStore>) -> Result<Arc<dyn StateStore>, Failure> {
        drop(store);
        let database = self.database.lock().await;
        let address = database.as_deref();
        let address = address.ok_or_else(|| Failure::new("no database is open"))?;
        connect(address, self.layout).await
    }

    async fn elapse(&self, time: Duration) {
        super::wait(time).await;
    }

    fn time(&self) -> Time {
        Time::Waited
    }

    async fn close(&self) {
        if let Some(address) = self.database.lock().await.take() {
            command(&address, &["FLUSHDB"]).await;
            let mut emptied = EMPTIED.lock().unwrap_or_else(PoisonError::into_inner);
            emptied.push(address);
        }
    }
}

/// A server of its own that is killed and started again whenever the store is opened again.
#[derive(Debug)]
pub struct RestartedRedis {
    layout: RedisLayout,
    server: tokio::sync::Mutex<Option<RedisServer>>,
}

impl RestartedRedis {
    /// A backend without a server yet.
    #[must_use]
    pub fn fresh(layout: RedisLayout) -> Arc<Self> {
        Arc::new(Self {
            layout,
            server: tokio::sync::Mutex::default(),
        })
    }
}

#[async_trait]
impl StateStoreBackend for RestartedRedis {
    async fn open(&self) -> Result<Arc<dyn StateStore>, Failure> {
        let options = RedisOptions {
            append_only: AppendOnly::Always,
            ..RedisOptions::default()
        };
        let server = on_a_thread(async || RedisServer::start_with(options).await).await?;
        let address = server.url();
        *self.server.lock().await = Some(server);
        connect(&address, self.layout).await
    }

    async fn reopen(&self, store: Arc<dyn StateStore>) -> Result<Arc<dyn StateStore>, Failure> {
        drop(store);
        let mut place = self.server.lock().await;
        let server = place.take();
        let mut server = server.ok_or_else(|| Failure::new("no server runs"))?;
        let restarted = on_a_thread(async move || {
            server.restart().await;
            server
        });
        let address = place.insert(restarted.await?).url();
        connect(&address, self.layout).await
    }

    async fn elapse(&self, time: Duration) {
        super::wait(time).await;
    }

    fn time(&self) -> Time {
        Time::Waited
    }

    async fn close(&self) {
        drop(self.server.lock().await.take());
    }
}
