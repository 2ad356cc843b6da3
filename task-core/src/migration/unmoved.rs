//! A service on one backend that does not write past a move.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::control::unmoved;
use super::sides::KINDS;
use crate::ports::{
    CapabilitySet, Commit, DeleteOptions, ETag, ErrorKind, Key, Kind, Page, PendingEvent,
    PendingId, PortError, PutOptions, StateCapability, StateStore, Stored, Write,
};

/// A [`StateStore`] that is not part of a move, and writes only while none has begun.
///
/// What a move counts on is that nobody changes a record without a mark. So a service that was started with one
/// backend alone, or was left running, is refused as `Fenced` from the first step of the move until everything is
/// `off` again. It reads as ever, and what no move touches, such as a lease, is written as ever.
#[derive(Debug)]
pub struct UnmovedStateStore {
    inner: Arc<dyn StateStore>,
}

impl UnmovedStateStore {
    /// Puts a store behind the fence.
    ///
    /// # Errors
    /// `Unsupported` when it has no guards; then it cannot be the old side of a move either.
    pub fn new(inner: Arc<dyn StateStore>) -> Result<Self, PortError> {
        let capabilities = inner.capabilities();
        capabilities.require(StateCapability::Guards, "unmoved", "open")?;
        Ok(Self { inner })
    }

    async fn write(&self, write: Write) -> Result<Option<ETag>, PortError> {
        let etags = self.guarded(Commit::of(write)).await?;
        Ok(etags.into_iter().next().flatten())
    }

    async fn guarded(&self, commit: Commit) -> Result<Vec<Option<ETag>>, PortError> {
        let written = self.inner.commit(commit.guard(unmoved())).await;
        written.map_err(|error| match error.kind() == ErrorKind::Fenced {
            true => error.context("a migration is under way; start with `--backend parallel`"),
            false => error,
        })
    }
}

fn is_moved(key: &Key) -> bool {
    KINDS.contains(&key.kind)
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl StateStore for UnmovedStateStore {
    fn capabilities(&self) -> CapabilitySet<StateCapability> {
        self.inner.capabilities()
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, PortError> {
        self.inner.get(key).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, PortError> {
        self.inner.get_many(keys).await
    }

    async fn put(
        &self,
        key: &Key,
        value: Bytes,
        options: PutOptions,
    ) -> Result<Option<ETag>, PortError> {
        if !is_moved(key) {
            return self.inner.put(key, value, options).await;
        }
        let key = key.clone();
        self.write(Write::Put {
            key,
            value,
            options,
        })
        .await
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<(), PortError> {
        if !is_moved(key) {
            return self.inner.delete(key, options).await;
        }
        let key = key.clone();
        self.write(Write::Delete { key, options }).await.map(drop)
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<Option<ETag>>, PortError> {
        self.guarded(commit).await
    }

    async fn pending(
        &self,
        after: Option<PendingId>,
        limit: usize,
    ) -> Result<Vec<PendingEvent>, PortError> {
        self.inner.pending(after, limit).await
    }

    async fn settle(&self, events: &[PendingId]) -> Result<(), PortError> {
        self.inner.settle(events).await
    }

    async fn scan(
        &self,
        kind: Kind,
        from: Option<String>,
        limit: usize,
    ) -> Result<Page, PortError> {
        self.inner.scan(kind, from, limit).await
    }

    async fn check(&self) -> Result<(), PortError> {
        self.inner.check().await
    }

    async fn identity(&self) -> Result<Option<Box<str>>, PortError> {
        self.inner.identity().await
    }
}
