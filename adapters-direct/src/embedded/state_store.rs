//! The state store in the file.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use task_core::ports::{
    CapabilitySet, Commit, DeleteOptions, ETag, Key, Kind, Page, PendingEvent, PendingId,
    PortError, PutOptions, StateCapability, StateStore, Stored,
};

use super::database::Database;
use super::error::BACKEND;
use super::writer::Urgency;
use super::{events, records};

const WITH_OUTBOX: CapabilitySet<StateCapability> = CapabilitySet::of(&[
    StateCapability::ConditionalWrites,
    StateCapability::UniqueVersions,
    StateCapability::Ttl,
    StateCapability::Tombstones,
    StateCapability::Transactions,
    StateCapability::Outbox,
    StateCapability::Guards,
    StateCapability::Scan,
    StateCapability::Durable,
]);

const PUBLISHING: CapabilitySet<StateCapability> = CapabilitySet::of(&[
    StateCapability::ConditionalWrites,
    StateCapability::UniqueVersions,
    StateCapability::Ttl,
    StateCapability::Tombstones,
    StateCapability::Transactions,
    StateCapability::Publishes,
    StateCapability::Guards,
    StateCapability::Scan,
    StateCapability::Durable,
]);

/// A [`StateStore`] in one SQLite file, with every capability but one of two: its events wait for a relay, or
/// are published with the commit. A write is answered once it is on disk.
#[derive(Debug, Clone)]
pub struct EmbeddedStateStore {
    database: Arc<Database>,
    events: Events,
}

/// Where the events of a commit go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Events {
    /// Into the outbox, for a relay to whichever bus.
    Pending,
    /// Onto the bus in the same file.
    Published,
}

impl EmbeddedStateStore {
    pub(super) fn with_outbox(database: Arc<Database>) -> Self {
        let events = Events::Pending;
        Self { database, events }
    }

    /// A store that publishes, after it has published what an outbox in this file still holds.
    pub(super) async fn publishing(database: Arc<Database>) -> Result<Self, PortError> {
        let move_pending = events::publish_pending;
        database
            .write("open", Urgency::Request, move_pending)
            .await?;
        database.published().notify_waiters();
        let events = Events::Published;
        Ok(Self { database, events })
    }

    fn require_outbox(&self, operation: &'static str) -> Result<(), PortError> {
        self.capabilities()
            .require(StateCapability::Outbox, BACKEND, operation)
    }
}

#[async_trait]
impl StateStore for EmbeddedStateStore {
    fn capabilities(&self) -> CapabilitySet<StateCapability> {
        match self.events {
            Events::Pending => WITH_OUTBOX,
            Events::Published => PUBLISHING,
        }
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, PortError> {
        let (key, now) = (key.clone(), self.database.clock().now());
        self.database
            .read("get", move |connection| records::get(connection, &key, now))
            .await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, PortError> {
        let (keys, now) = (keys.to_vec(), self.database.clock().now());
        self.database
            .read("get_many", move |connection| {
                keys.iter()
                    .map(|key| records::get(connection, key, now))
                    .collect()
            })
            .await
    }

    async fn put(
        &self,
        key: &Key,
        value: Bytes,
        options: PutOptions,
    ) -> Result<Option<ETag>, PortError> {
        key.check_with(&value, BACKEND, "put")?;
        let (key, now) = (key.clone(), self.database.clock().now());
        self.database
            .write("put", Urgency::Request, move |session| {
                records::put(session, &key, &value, &options, now).map(Some)
            })
            .await
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<(), PortError> {
        key.check(BACKEND, "delete")?;
        let (key, now) = (key.clone(), self.database.clock().now());
        self.database
            .write("delete", Urgency::Request, move |session| {
                records::delete(session, &key, &options, now)
            })
            .await
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<Option<ETag>>, PortError> {
        commit.check(self.capabilities(), BACKEND)?;
        let (now, events) = (self.database.clock().now(), self.events);
        let publishes = events == Events::Published && !commit.events.is_empty();
        let etags = self
            .database
            .write("commit", Urgency::Request, move |session| {
                records::check(session, &commit.guards, now)?;
                let etags = records::write_all(session, &commit.writes, now)?;
                match events {
                    Events::Pending => events::record_pending(session, &commit.events)?,
                    Events::Published => events::publish_all(session, &commit.events)?,
                }
                Ok(etags)
            })
            .await?;
        if publishes {
            self.database.published().notify_waiters();
        }
        Ok(etags)
    }

    async fn pending(
        &self,
        after: Option<PendingId>,
        limit: usize,
    ) -> Result<Vec<PendingEvent>, PortError> {
        self.require_outbox("pending")?;
        let after = after.map_or(Ok(0), |id| id.as_number(BACKEND, "pending"))?;
        self.database
            .read("pending", move |connection| {
                events::pending(connection, after, limit)
            })
            .await
    }

    async fn settle(&self, events: &[PendingId]) -> Result<(), PortError> {
        self.require_outbox("settle")?;
        let places = events
            .iter()
            .map(|id| id.as_number(BACKEND, "settle"))
            .collect::<Result<Vec<_>, _>>()?;
        self.database
            .write("settle", Urgency::Background, move |session| {
                events::settle(session, &places)
            })
            .await
    }

    async fn scan(
        &self,
        kind: Kind,
        from: Option<String>,
        limit: usize,
    ) -> Result<Page, PortError> {
        let now = self.database.clock().now();
        let from = from.unwrap_or_default();
        self.database
            .read("scan", move |connection| {
                records::scan(connection, kind, &from, limit, now)
            })
            .await
    }

    async fn check(&self) -> Result<(), PortError> {
        self.database.check().await
    }

    /// None: what was answered is on disk, so that a restart loses nothing.
    async fn identity(&self) -> Result<Option<Box<str>>, PortError> {
        Ok(None)
    }
}
