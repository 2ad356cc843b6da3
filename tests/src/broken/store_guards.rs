//! Faults of guards and ordered values.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use task_core::ports::{
    Commit, DeleteMode, DeleteOptions, ETag, Key, PortError, PutOptions, StateStore, WriteMode,
};

use super::store::StoreFault;
use super::store_writes::wait_for_others;

/// Commits whatever the guards say.
#[derive(Debug)]
pub(super) struct IgnoresGuards;

#[async_trait]
impl StoreFault for IgnoresGuards {
    async fn commit(
        &self,
        inner: &dyn StateStore,
        mut commit: Commit,
    ) -> Result<Vec<Option<ETag>>, PortError> {
        commit.guards.clear();
        inner.commit(commit).await
    }
}

/// Looks at the guards and then commits, without a lock around both.
#[derive(Debug)]
pub(super) struct ChecksGuardsFirst;

#[async_trait]
impl StoreFault for ChecksGuardsFirst {
    async fn commit(
        &self,
        inner: &dyn StateStore,
        mut commit: Commit,
    ) -> Result<Vec<Option<ETag>>, PortError> {
        for guard in std::mem::take(&mut commit.guards) {
            let found = inner.get(&guard.key).await?.map(|stored| stored.value);
            if !guard.expect.accepts(found.as_deref()) {
                return Err(guard.refusal("broken"));
            }
        }
        wait_for_others().await;
        inner.commit(commit).await
    }
}

/// Takes a guard on a missing value for one that holds.
#[derive(Debug)]
pub(super) struct PassesMissingGuards;

#[async_trait]
impl StoreFault for PassesMissingGuards {
    async fn commit(
        &self,
        inner: &dyn StateStore,
        mut commit: Commit,
    ) -> Result<Vec<Option<ETag>>, PortError> {
        let mut present = Vec::new();
        for guard in std::mem::take(&mut commit.guards) {
            if inner.get(&guard.key).await?.is_some() {
                present.push(guard);
            }
        }
        commit.guards = present;
        inner.commit(commit).await
    }
}

/// Writes a lesser value over a greater one.
#[derive(Debug)]
pub(super) struct LowersRaisedValues;

#[async_trait]
impl StoreFault for LowersRaisedValues {
    async fn put(
        &self,
        inner: &dyn StateStore,
        key: &Key,
        value: Bytes,
        mut options: PutOptions,
    ) -> Result<Option<ETag>, PortError> {
        if options.mode == WriteMode::Raise {
            options.mode = WriteMode::Overwrite;
        }
        inner.put(key, value, options).await
    }
}

/// Removes a mark that was raised meanwhile.
#[derive(Debug)]
pub(super) struct ClearsNewerMarks;

#[async_trait]
impl StoreFault for ClearsNewerMarks {
    async fn delete(
        &self,
        inner: &dyn StateStore,
        key: &Key,
        mut options: DeleteOptions,
    ) -> Result<(), PortError> {
        if matches!(options.mode, DeleteMode::AtMost(_)) {
            options.mode = DeleteMode::Any;
        }
        inner.delete(key, options).await
    }
}

/// Has another name each time it is asked.
#[derive(Debug, Default)]
pub(super) struct RenamesItself(AtomicU64);

#[async_trait]
impl StoreFault for RenamesItself {
    async fn identity(&self, _: &dyn StateStore) -> Result<Option<Box<str>>, PortError> {
        let name = self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Some(name.to_string().into()))
    }
}
