//! The event bus on Redis streams under test: each case gets a database of its own on one server.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adapters_direct::redis::{Redis, RedisConfig, RedisLayout, StreamConfig};
use async_trait::async_trait;
use task_core::ports::EventBus;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use crate::conformance::Failure;
use crate::conformance::event_bus::EventBusBackend;
use crate::process::RedisServer;

/// A database of the server that all cases share.
#[derive(Debug, Default)]
pub struct RedisStreams {
    url: Mutex<String>,
}

impl RedisStreams {
    async fn bus(&self) -> Result<Arc<dyn EventBus>, Failure> {
        let url = self
            .url
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let failed = |error: &dyn std::error::Error| Failure::new(error.to_string());
        let config = RedisConfig::new(&url, RedisLayout::Dapr);
        let redis = Redis::open(&config).await;
        let redis = redis.map_err(|error| failed(&error))?;
        Ok(Arc::new(redis.event_bus(StreamConfig::default())))
    }
}

#[async_trait]
impl EventBusBackend for RedisStreams {
    async fn open(&self) -> Result<Arc<dyn EventBus>, Failure> {
        // Starting a server is no future that could move between threads.
        let runtime = Handle::current();
        let start = move || runtime.block_on(RedisServer::shared()).next_database_url();
        let url = spawn_blocking(start).await?;
        *self.url.lock().unwrap_or_else(PoisonError::into_inner) = url;
        self.bus().await
    }

    async fn reopen(&self, bus: Arc<dyn EventBus>) -> Result<Arc<dyn EventBus>, Failure> {
        drop(bus);
        self.bus().await
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }

    async fn close(&self) {}
}
