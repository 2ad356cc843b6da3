//! Redis: a state store whose every write is one atomic step and one round trip, and an event bus.
//!
//! ```text
//!                         one EVALSHA
//!  commit ─► script: guards ─► writes on a copy ─► all hold? ─► outbox, then keys ─► versions
//!                                                   └─ no ────► nothing
//! ```
//!
//! A record, its pending events and what they depend on are judged and written by one script, on one
//! connection that all tasks share. There are two layouts ([`RedisLayout`]): strings, which the replaced service
//! reads and writes with plain `GET` and `SET`, and the hashes of Dapr's `state.redis`, so that this
//! adapter and a sidecar can work on the same keys at the same time. [`RedisConverter`] turns one into the other.
//!
//! The event bus is on streams that a sidecar reads and writes as well, see [`RedisEventBus`]. Each of its
//! subscriptions waits for events on a connection of its own.
//!
//! # Working together with others
//! - A foreign `SET task:{id}` between a read and a `Match` is found: the version is a digest of the value. One that
//!   sets the very same bytes again is not.
//! - Dapr accepts a version of ours, and this adapter one of Dapr's. Where Dapr is lax, this adapter is not: it refuses a
//!   `Match` of a missing key, and it never overwrites a key of another type. As in Dapr, a hash that was written
//!   *first-write* refuses writers without a version.
//! - A deleted value in Dapr's layout is a hash with empty data for as long as its tombstone lives, which Dapr's readers take
//!   for missing, too. Without a tombstone one zero byte is left for 5 minutes, since a sidecar takes every version of a key
//!   that is gone; the adapter for Dapr does the same.
//! - A string in Dapr's layout is a value without a version, as it is to a sidecar; its next write makes it a hash. A key of any
//!   other type is `Corrupt`, and can be deleted without a condition.
//! - Dapr refuses `||` in a key: in an id `|` is written `%7C` and `%` is `%25`.
//! - The version of a new hash begins at the server's time in microseconds, so that it does not come back after a
//!   deletion, unless the server's clock was set back in between. A sidecar compares versions as texts and counts on in
//!   integers of 64 bits; this adapter takes those below 2^53, which the time reaches in the year 2255.
//!
//! # Beside the adapter for Dapr
//! Replicas of this adapter in Dapr's layout and of `DaprStateStore` may work on the same records at the same time. They
//! count versions together and agree on what is deleted and on what has a limit. Both relays have to run:
//!
//! | | its events lie | and are published by |
//! | --- | --- | --- |
//! | a commit of this adapter | in the outbox, a stream | a relay of this adapter |
//! | a commit of `DaprStateStore` | inside the record, noted in its journal | a relay of that adapter |
//! | a deletion by this adapter, or a put with a limit, over such a record | moved to the outbox, in the same step | a relay of this adapter |
//!
//! The two relays need leases of different names. A write of this adapter keeps the events that wait in a record and drops
//! those that the journal does not note any more, which costs it two round trips more. A moved event that the other relay
//! has in hand at that moment is published twice, with the same id. Each relay keeps the order of its own events; across the two
//! there is none. Before one of the two sides is ended, its relay has to have published everything.
//!
//! # The server
//! Redis 6.2 or newer, or what speaks like it; no Cluster and no Sentinel, since a record and its event must lie on one
//! node; not a replica. One that refuses writes later, as a replica, without memory or without a disk, fails each
//! check of the state store. Without an append-only file, or with a `maxmemory-policy` that evicts, a warning says that
//! acknowledged writes may be lost. A user needs
//! `+@connection +@read +@write +@scripting +@keyspace` on the keys of [`RedisLayout`], and `+info` for the identity of the
//! server and the warning.
//!
//! *Source:* <https://redis.io/docs/latest/develop/programmability/eval-intro/>; for Dapr's layout see
//! `layout/dapr.rs`.

mod answer;
mod check;
mod commit;
mod config;
mod connection;
mod convert;
mod dedicated;
mod dialer;
mod error;
mod event_bus;
mod journal;
mod known;
mod layout;
mod outbox;
mod protocol;
mod read;
mod scan;
mod script;
mod server;
mod state_store;
mod tls;

use std::sync::Arc;

use task_core::ports::SystemEntropy;

pub use config::{KeyPrefix, Password, RedisConfig, RedisLayout};
pub use convert::{Converted, FoundKeys, RedisConverter};
pub use error::OpenError;
pub use event_bus::{RedisEventBus, StreamConfig, Trimming};
pub use state_store::RedisStateStore;

use connection::Connection;
use error::Failure;
use layout::Names;
use script::Scripts;
use server::Server;

/// A Redis that answers. The connection closes when the last adapter made from it is dropped.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use adapters_direct::redis::{Redis, RedisConfig, RedisLayout};
/// use task_core::ports::{Key, Kind, PutOptions, StateStore};
///
/// let config = RedisConfig::new("redis://127.0.0.1:6379", RedisLayout::Legacy);
/// let store = Redis::open(&config).await?.state_store();
/// let key = Key::new(Kind::TASK, "t-1");
/// store.put(&key, "{}".into(), PutOptions::default()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Redis {
    connection: Arc<Connection>,
    names: Names,
}

impl Redis {
    /// Connects, and makes sure that the server will do.
    ///
    /// It warns once about a server without an append-only file, or that evicts data. Later the connection is made again whenever it
    /// breaks.
    ///
    /// # Errors
    /// Says what is wrong with the configuration or the server, or why it cannot be reached.
    pub async fn open(config: &RedisConfig) -> Result<Self, OpenError> {
        let redis = Self::unconnected(config)?;
        let address = redis.connection.address().to_string();
        let server = match redis.connection.server().await {
            Ok(server) => server,
            Err(Failure::Unfit { address, reason }) => {
                return Err(OpenError::Unfit { address, reason });
            }
            Err(failure) => {
                let source = failure.into_port("open");
                return Err(OpenError::Failed { address, source });
            }
        };
        warn(&address, &server);
        Ok(redis)
    }

    /// Connects when it is used first: for a server that may be away and was found fit before.
    ///
    /// A server that is not fit is refused by every call then.
    ///
    /// # Errors
    /// Says what is wrong with the configuration.
    pub fn unconnected(config: &RedisConfig) -> Result<Self, OpenError> {
        Ok(Self {
            connection: Arc::new(Connection::new(config, Scripts::new())?),
            names: Names::new(config),
        })
    }

    /// The state store in the configured layout.
    #[must_use]
    pub fn state_store(&self) -> RedisStateStore {
        RedisStateStore::new(Arc::clone(&self.connection), self.names.clone())
    }

    /// The store of the leases, which every replica with the same prefix shares, whatever its layout.
    ///
    /// What is put here is written without memory left, too: the relay that makes room works under a lease.
    /// (`a_full_server_takes_leases_and_settlements_and_nothing_else`)
    #[must_use]
    pub fn lease_store(&self) -> RedisStateStore {
        RedisStateStore::new(Arc::clone(&self.connection), self.names.of_leases())
    }

    /// The event bus on streams, in the format of Dapr's `pubsub.redis`.
    #[must_use]
    pub fn event_bus(&self, config: StreamConfig) -> RedisEventBus {
        RedisEventBus::new(
            Arc::clone(&self.connection),
            config,
            Arc::new(SystemEntropy),
        )
    }

    /// What turns keys of one layout into the other.
    #[must_use]
    pub fn converter(&self) -> RedisConverter {
        RedisConverter::new(Arc::clone(&self.connection), &self.names)
    }

    /// The identity of the server at the other end, which changes when it restarts or another takes over.
    ///
    /// `None` while there is no connection, and where the server does not tell.
    #[must_use]
    pub fn run_id(&self) -> Option<Box<str>> {
        self.connection.run_id()
    }
}

/// Says what may be lost with this server.
fn warn(address: &str, server: &Server) {
    match server.append_only {
        Some(true) => {}
        Some(false) => tracing::warn!(
            address,
            "redis has no append-only file: acknowledged writes may be lost in a crash"
        ),
        None => tracing::warn!(
            address,
            "redis does not tell whether it has an append-only file, without which acknowledged writes may be lost"
        ),
    }
    if let Some(policy) = server.eviction() {
        tracing::warn!(
            address,
            maxmemory_policy = policy,
            "redis evicts data when its memory is full: acknowledged writes may be lost, unless maxmemory-policy is noeviction"
        );
    }
}
