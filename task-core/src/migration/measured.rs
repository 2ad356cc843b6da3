//! A side of the move whose calls are counted.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Member, MovedCall, Recorder, Side, Stage};
use crate::ports::{
    CapabilitySet, Commit, DeleteOptions, ETag, Key, Kind, Page, PendingEvent, PendingId,
    PortError, PutOptions, StateCapability, StateStore, Stored, Write,
};

/// A [`StateStore`] that counts what is done with records that move, by the stage of each.
///
/// The stage is that which this replica has adopted. Marks, leases and what else the move keeps are not counted.
#[derive(Debug)]
pub(super) struct MeasuredStore {
    pub(super) inner: Arc<dyn StateStore>,
    pub(super) side: Side,
    pub(super) kinds: &'static [Kind],
    pub(super) member: Arc<Member>,
    pub(super) recorder: Arc<Recorder>,
}

impl MeasuredStore {
    async fn measured<T: Send>(
        &self,
        what: MovedCall,
        key: Option<&Key>,
        call: impl Future<Output = Result<T, PortError>> + Send,
    ) -> Result<T, PortError> {
        match key.and_then(|key| self.stage_of(key)) {
            Some(stage) => self.recorder.time(what, self.side, stage, call).await,
            None => call.await,
        }
    }

    fn stage_of(&self, key: &Key) -> Option<Stage> {
        if !self.kinds.contains(&key.kind) {
            return None;
        }
        let control = self.member.control()?;
        Some(control.stage_of(key))
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl StateStore for MeasuredStore {
    fn capabilities(&self) -> CapabilitySet<StateCapability> {
        self.inner.capabilities()
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, PortError> {
        let call = self.inner.get(key);
        self.measured(MovedCall::Read, Some(key), call).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, PortError> {
        let call = self.inner.get_many(keys);
        self.measured(MovedCall::Read, keys.first(), call).await
    }

    async fn put(
        &self,
        key: &Key,
        value: Bytes,
        options: PutOptions,
    ) -> Result<Option<ETag>, PortError> {
        let call = self.inner.put(key, value, options);
        self.measured(MovedCall::Write, Some(key), call).await
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<(), PortError> {
        let call = self.inner.delete(key, options);
        self.measured(MovedCall::Write, Some(key), call).await
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<Option<ETag>>, PortError> {
        let mut keys = commit.writes.iter().map(Write::key);
        let moved = keys.find(|key| self.kinds.contains(&key.kind)).cloned();
        let call = self.inner.commit(commit);
        self.measured(MovedCall::Write, moved.as_ref(), call).await
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
