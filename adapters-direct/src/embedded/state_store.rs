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

/// A [`StateStore`] in one SQLite file, with every capability. A write is answered once it is on disk.
#[derive(Debug, Clone)]
pub struct EmbeddedStateStore {
    database: Arc<Database>,
}

impl EmbeddedStateStore {
    pub(super) fn new(database: Arc<Database>) -> Self {
        Self { database }
    }
}

#[async_trait]
impl StateStore for EmbeddedStateStore {
    fn capabilities(&self) -> CapabilitySet<StateCapability> {
        CapabilitySet::of(StateCapability::ALL)
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

    async fn put(&self, key: &Key, value: Bytes, options: PutOptions) -> Result<ETag, PortError> {
        key.check_limits(&value, BACKEND, "put")?;
        let (key, now) = (key.clone(), self.database.clock().now());
        self.database
            .write("put", Urgency::Request, move |session| {
                records::put(session, &key, &value, &options, now)
            })
            .await
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<(), PortError> {
        key.check_limits(&[], BACKEND, "delete")?;
        let (key, now) = (key.clone(), self.database.clock().now());
        self.database
            .write("delete", Urgency::Request, move |session| {
                records::delete(session, &key, &options, now)
            })
            .await
    }

    async fn commit(&self, commit: Commit) -> Result<(), PortError> {
        commit.check(self.capabilities(), BACKEND)?;
        let now = self.database.clock().now();
        self.database
            .write("commit", Urgency::Request, move |session| {
                match commit.writes.as_slice() {
                    // A single write that is refused has changed nothing that would need undoing.
                    [] => {}
                    [write] => records::write(session, write, now)?,
                    writes => session.all_or_nothing(|session| {
                        writes
                            .iter()
                            .try_for_each(|write| records::write(session, write, now))
                    })?,
                }
                events::record_pending(session, &commit.events)
            })
            .await
    }

    async fn pending(
        &self,
        after: Option<PendingId>,
        limit: usize,
    ) -> Result<Vec<PendingEvent>, PortError> {
        let after = after.map_or(Ok(0), |id| id.as_number(BACKEND, "pending"))?;
        self.database
            .read("pending", move |connection| {
                events::pending(connection, after, limit)
            })
            .await
    }

    async fn settle(&self, events: &[PendingId]) -> Result<(), PortError> {
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
}
