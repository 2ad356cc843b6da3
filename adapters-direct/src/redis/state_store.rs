//! The state store in Redis.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use redis::Value;
use task_core::episode::Episode;
use task_core::ports::{
    CapabilitySet, Clock, Commit, DeleteOptions, ETag, ErrorKind, Key, Kind, Page, PendingEvent,
    PendingId, PortError, PutOptions, StateCapability, StateStore, Stored, SystemClock, Write,
};

use super::commit::Step;
use super::connection::Connection;
use super::error::{BACKEND, Effect, Failure};
use super::layout::Names;
use super::read::Reader;
use super::{check, known, outbox, scan};

/// A [`StateStore`] in one Redis. A clone shares its connection.
///
/// | | round trips |
/// | --- | --- |
/// | `get`, `put`, `delete`, `commit`, `check`, `pending` | 1 |
/// | `get_many` | 1 for each 64 keys |
/// | `settle` | 1 for each 1,000 events |
/// | `scan` | 2 a page, and more where most keys are not ours; of a listed kind 1 more for each 64 that have ended |
///
/// A string in Dapr's layout costs a read one more, and a record that carries events of the adapter for Dapr costs a
/// write two more.
///
/// Expired values are missing by the server's clock. What was acknowledged is as durable as the server
/// is: with `appendfsync always` it survives a loss of power, with `everysec` a kill of the process.
#[derive(Debug, Clone)]
pub struct RedisStateStore {
    connection: Arc<Connection>,
    names: Names,
    /// Entries of the outbox that are no events.
    passed_over: Arc<Mutex<Episode>>,
}

impl RedisStateStore {
    pub(super) fn new(connection: Arc<Connection>, names: Names) -> Self {
        Self {
            connection,
            names,
            passed_over: Arc::default(),
        }
    }

    fn reader(&self) -> Reader<'_> {
        Reader {
            connection: &self.connection,
            names: &self.names,
            now: SystemClock.now(),
        }
    }

    async fn apply(&self, step: Step<'_>) -> Result<Vec<Option<ETag>>, Failure> {
        let script = self.names.commit(self.connection.scripts());
        let call = step.call(&self.names, script, &[]);
        let answer = self.connection.call(script, &call, Effect::Write).await?;
        match known::wanted(&answer) {
            None => step.outcome(&self.names, &answer),
            // Apart on the heap: hardly any write needs it.
            Some(_) => Box::pin(self.apply_over(step, answer)).await,
        }
    }

    /// Writes over records that carry events of the adapter for Dapr.
    async fn apply_over(
        &self,
        step: Step<'_>,
        mut answer: Value,
    ) -> Result<Vec<Option<ETag>>, Failure> {
        let script = self.names.commit(self.connection.scripts());
        for _ in 0..known::MOST_ATTEMPTS {
            let Some(records) = known::wanted(&answer) else {
                return step.outcome(&self.names, &answer);
            };
            let known = known::take_apart(self.reader(), records).await?;
            let call = step.call(&self.names, script, &known);
            answer = self.connection.call(script, &call, Effect::Write).await?;
        }
        Err(known::contended("a record with pending events"))
    }

    /// Refuses what would be taken for something else when it is read.
    fn check_value(&self, value: &[u8], operation: &'static str) -> Result<(), PortError> {
        if !self.names.is_taken(value) {
            return Ok(());
        }
        Err(PortError::new(ErrorKind::Invalid, BACKEND, operation).context(
            "a value must not be one zero byte, begin like a frame of pending events or carry some in a member _pending",
        ))
    }

    async fn apply_one(
        &self,
        operation: &'static str,
        write: &Write,
    ) -> Result<Option<ETag>, PortError> {
        let etags = self.apply(Step::one(write)).await;
        let mut etags = etags.map_err(|failure| failure.into_port(operation))?;
        Ok(etags.pop().flatten())
    }
}

#[async_trait]
impl StateStore for RedisStateStore {
    fn capabilities(&self) -> CapabilitySet<StateCapability> {
        self.names.capabilities()
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, PortError> {
        let stored = self.reader().one(key).await;
        stored.map_err(|failure| failure.into_port("get"))
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, PortError> {
        let stored = self.reader().many(keys).await;
        stored.map_err(|failure| failure.into_port("get_many"))
    }

    /// # Cancel safety
    /// A dropped call has been sent whole or not at all; so for every other write.
    async fn put(
        &self,
        key: &Key,
        value: Bytes,
        options: PutOptions,
    ) -> Result<Option<ETag>, PortError> {
        key.check_with(&value, BACKEND, "put")?;
        options.check(self.capabilities(), BACKEND, "put")?;
        self.check_value(&value, "put")?;
        let write = Write::Put {
            key: key.clone(),
            value,
            options,
        };
        self.apply_one("put", &write).await
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<(), PortError> {
        key.check(BACKEND, "delete")?;
        options.check(self.capabilities(), BACKEND, "delete")?;
        let write = Write::Delete {
            key: key.clone(),
            options,
        };
        self.apply_one("delete", &write).await.map(drop)
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<Option<ETag>>, PortError> {
        commit.check(self.capabilities(), BACKEND)?;
        for write in &commit.writes {
            if let Write::Put { value, .. } = write {
                self.check_value(value, "commit")?;
            }
        }
        let etags = self.apply(Step::of(&commit)).await;
        etags.map_err(|failure| failure.into_port("commit"))
    }

    async fn pending(
        &self,
        after: Option<PendingId>,
        limit: usize,
    ) -> Result<Vec<PendingEvent>, PortError> {
        let stream = self.names.outbox();
        let (connection, told) = (&self.connection, &self.passed_over);
        let pending = outbox::pending(connection, &stream, told, after.as_ref(), limit).await;
        pending.map_err(|failure| failure.into_port("pending"))
    }

    async fn settle(&self, events: &[PendingId]) -> Result<(), PortError> {
        let stream = self.names.outbox();
        let settled = outbox::settle(&self.connection, &stream, events).await;
        settled.map_err(|failure| failure.into_port("settle"))
    }

    async fn scan(
        &self,
        kind: Kind,
        from: Option<String>,
        limit: usize,
    ) -> Result<Page, PortError> {
        let page = scan::page(self.reader(), kind, from.as_deref(), limit).await;
        page.map_err(|failure| failure.into_port("scan"))
    }

    /// Asks whether the server answers and takes writes.
    async fn check(&self) -> Result<(), PortError> {
        let checked = check::takes_writes(&self.connection).await;
        checked.map_err(|failure| failure.into_port("check"))
    }

    /// The server's run id.
    async fn identity(&self) -> Result<Option<Box<str>>, PortError> {
        let server = self.connection.server().await;
        let server = server.map_err(|failure| failure.into_port("identity"))?;
        Ok(server.run_id)
    }
}
