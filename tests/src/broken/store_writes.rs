//! Faults of puts, deletions, versions and time.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use task_core::ports::{
    Commit, DeleteMode, DeleteOptions, ETag, ErrorKind, Key, PortError, PutOptions, StateStore,
    Stored, Write, WriteMode,
};
use tokio::task::yield_now;

use super::store::StoreFault;

fn conflict(operation: &'static str) -> PortError {
    PortError::new(ErrorKind::Conflict, "broken", operation)
}

/// A lost update: writes over versions that it was not told to replace.
#[derive(Debug)]
pub(super) struct IgnoresMatch;

#[async_trait]
impl StoreFault for IgnoresMatch {
    async fn put(
        &self,
        inner: &dyn StateStore,
        key: &Key,
        value: Bytes,
        mut options: PutOptions,
    ) -> Result<Option<ETag>, PortError> {
        if matches!(options.mode, WriteMode::Match(_)) {
            options.mode = WriteMode::Overwrite;
        }
        inner.put(key, value, options).await
    }
}

/// Deletes versions that it was not told to delete.
#[derive(Debug)]
pub(super) struct DeletesRegardless;

#[async_trait]
impl StoreFault for DeletesRegardless {
    async fn delete(
        &self,
        inner: &dyn StateStore,
        key: &Key,
        mut options: DeleteOptions,
    ) -> Result<(), PortError> {
        options.mode = DeleteMode::Any;
        inner.delete(key, options).await
    }
}

/// Creates what exists, unless it is buried.
#[derive(Debug)]
pub(super) struct OverwritesOnCreate;

#[async_trait]
impl StoreFault for OverwritesOnCreate {
    async fn put(
        &self,
        inner: &dyn StateStore,
        key: &Key,
        value: Bytes,
        mut options: PutOptions,
    ) -> Result<Option<ETag>, PortError> {
        if options.mode == WriteMode::Create && inner.get(key).await?.is_some() {
            options.mode = WriteMode::Overwrite;
        }
        inner.put(key, value, options).await
    }
}

/// Looks whether the key is free and then writes, without a lock around both.
#[derive(Debug)]
pub(super) struct ChecksThenCreates;

#[async_trait]
impl StoreFault for ChecksThenCreates {
    async fn put(
        &self,
        inner: &dyn StateStore,
        key: &Key,
        value: Bytes,
        mut options: PutOptions,
    ) -> Result<Option<ETag>, PortError> {
        if options.mode == WriteMode::Create && inner.get(key).await?.is_none() {
            wait_for_others().await;
            if inner.get(key).await?.is_some() {
                options.mode = WriteMode::Overwrite;
            }
        }
        inner.put(key, value, options).await
    }
}

/// Compares the version and then writes, without a lock around both.
#[derive(Debug)]
pub(super) struct ChecksThenWrites;

#[async_trait]
impl StoreFault for ChecksThenWrites {
    async fn put(
        &self,
        inner: &dyn StateStore,
        key: &Key,
        value: Bytes,
        mut options: PutOptions,
    ) -> Result<Option<ETag>, PortError> {
        if let WriteMode::Match(etag) = &options.mode
            && inner
                .get(key)
                .await?
                .is_some_and(|stored| stored.etag == *etag)
        {
            wait_for_others().await;
            options.mode = WriteMode::Overwrite;
        }
        inner.put(key, value, options).await
    }
}

/// Long enough for every writer of a race to have checked as well.
pub(super) async fn wait_for_others() {
    for _ in 0..100 {
        yield_now().await;
    }
}

/// An error that is swallowed: a put that was refused answers the version that it found.
#[derive(Debug)]
pub(super) struct SwallowsConflicts;

#[async_trait]
impl StoreFault for SwallowsConflicts {
    async fn put(
        &self,
        inner: &dyn StateStore,
        key: &Key,
        value: Bytes,
        options: PutOptions,
    ) -> Result<Option<ETag>, PortError> {
        match inner.put(key, value, options).await {
            Err(error) if error.is_conflict() => {
                let found = inner.get(key).await?;
                Ok(Some(
                    found.map_or_else(|| ETag::new("none"), |stored| stored.etag),
                ))
            }
            result => result,
        }
    }
}

/// Refuses as it should, and has written all the same.
#[derive(Debug)]
pub(super) struct WritesThenRefuses;

#[async_trait]
impl StoreFault for WritesThenRefuses {
    async fn delete(
        &self,
        inner: &dyn StateStore,
        key: &Key,
        options: DeleteOptions,
    ) -> Result<(), PortError> {
        let result = inner.delete(key, options).await;
        if let Err(error) = &result
            && error.is_conflict()
            && let Some(stored) = inner.get(key).await?
        {
            // The value stays, its version does not.
            inner.put(key, stored.value, PutOptions::default()).await?;
        }
        result
    }
}

/// Answers `Ok` to what is too large, and keeps nothing of it.
#[derive(Debug)]
pub(super) struct SwallowsLimits;

#[async_trait]
impl StoreFault for SwallowsLimits {
    async fn put(
        &self,
        inner: &dyn StateStore,
        key: &Key,
        value: Bytes,
        options: PutOptions,
    ) -> Result<Option<ETag>, PortError> {
        match inner.put(key, value, options).await {
            Err(error) if error.kind() == ErrorKind::Invalid => Ok(Some(ETag::new("none"))),
            result => result,
        }
    }
}

/// Calls the deletion of a missing key an error.
#[derive(Debug)]
pub(super) struct MissesMissingKeys;

#[async_trait]
impl StoreFault for MissesMissingKeys {
    async fn delete(
        &self,
        inner: &dyn StateStore,
        key: &Key,
        options: DeleteOptions,
    ) -> Result<(), PortError> {
        let free = options == DeleteOptions::default();
        if free && !key.id.is_empty() && inner.get(key).await?.is_none() {
            let missing = PortError::new(ErrorKind::NotFound, "broken", "delete");
            inner.delete(key, options).await?;
            return Err(missing);
        }
        inner.delete(key, options).await
    }
}

/// Answers a version that no read will show.
#[derive(Debug)]
pub(super) struct AnswersAWrongETag;

#[async_trait]
impl StoreFault for AnswersAWrongETag {
    async fn get_many(
        &self,
        inner: &dyn StateStore,
        keys: &[Key],
    ) -> Result<Vec<Option<Stored>>, PortError> {
        let mut answers = inner.get_many(keys).await?;
        for stored in answers.iter_mut().flatten() {
            stored.etag = ETag::new(format!("\"{}\"", stored.etag.as_str()));
        }
        Ok(answers)
    }
}

/// Takes the content for the version, so that the same bytes have the same one.
#[derive(Debug)]
pub(super) struct HashesContent;

impl HashesContent {
    fn seal(stored: Stored) -> Stored {
        let etag = Self::etag(&stored.value);
        Stored { etag, ..stored }
    }

    fn etag(value: &Bytes) -> ETag {
        ETag::new(format!("{value:?}"))
    }
}

#[async_trait]
impl StoreFault for HashesContent {
    async fn get(&self, inner: &dyn StateStore, key: &Key) -> Result<Option<Stored>, PortError> {
        Ok(inner.get(key).await?.map(Self::seal))
    }

    async fn get_many(
        &self,
        inner: &dyn StateStore,
        keys: &[Key],
    ) -> Result<Vec<Option<Stored>>, PortError> {
        let answers = inner.get_many(keys).await?;
        Ok(answers.into_iter().map(|one| one.map(Self::seal)).collect())
    }

    async fn put(
        &self,
        inner: &dyn StateStore,
        key: &Key,
        value: Bytes,
        mut options: PutOptions,
    ) -> Result<Option<ETag>, PortError> {
        if let WriteMode::Match(etag) = &options.mode {
            options.mode = WriteMode::Match(unseal(inner, key, etag, Self::etag).await?);
        }
        let written = inner.put(key, value.clone(), options).await?;
        let kept = inner.get(key).await?;
        let kept = kept.filter(|kept| Some(&kept.etag) == written.as_ref());
        Ok(Some(Self::etag(&kept.map_or(value, |kept| kept.value))))
    }

    async fn delete(
        &self,
        inner: &dyn StateStore,
        key: &Key,
        mut options: DeleteOptions,
    ) -> Result<(), PortError> {
        if let DeleteMode::Match(etag) = &options.mode {
            options.mode = DeleteMode::Match(unseal(inner, key, etag, Self::etag).await?);
        }
        inner.delete(key, options).await
    }

    async fn commit(
        &self,
        inner: &dyn StateStore,
        mut commit: Commit,
    ) -> Result<Vec<Option<ETag>>, PortError> {
        let mut etags = Vec::with_capacity(commit.writes.len());
        for write in &mut commit.writes {
            match write {
                Write::Put {
                    key,
                    options,
                    value,
                } => {
                    if let WriteMode::Match(etag) = &options.mode {
                        let etag = unseal(inner, key, etag, Self::etag).await?;
                        options.mode = WriteMode::Match(etag);
                    }
                    etags.push(Some(Self::etag(value)));
                }
                Write::Delete { key, options } => {
                    if let DeleteMode::Match(etag) = &options.mode {
                        let etag = unseal(inner, key, etag, Self::etag).await?;
                        options.mode = DeleteMode::Match(etag);
                    }
                    etags.push(None);
                }
            }
        }
        inner.commit(commit).await.map(|_| etags)
    }

    async fn scan(
        &self,
        inner: &dyn StateStore,
        kind: task_core::ports::Kind,
        from: Option<String>,
        limit: usize,
    ) -> Result<task_core::ports::Page, PortError> {
        let mut page = inner.scan(kind, from, limit).await?;
        for (_, stored) in &mut page.entries {
            stored.etag = Self::etag(&stored.value);
        }
        Ok(page)
    }
}

/// The inner version of a value whose outer version is the given one.
async fn unseal(
    inner: &dyn StateStore,
    key: &Key,
    etag: &ETag,
    outer: impl Fn(&Bytes) -> ETag + Send,
) -> Result<ETag, PortError> {
    match inner.get(key).await? {
        Some(stored) if outer(&stored.value) == *etag => Ok(stored.etag),
        Some(_) | None => Err(conflict("match")),
    }
}

/// Gives the first version of a key again when the key is created anew.
#[derive(Debug, Default)]
pub(super) struct RestartsVersions {
    created: Mutex<HashSet<Key>>,
}

impl RestartsVersions {
    const FIRST: &str = "first";
}

#[async_trait]
impl StoreFault for RestartsVersions {
    async fn put(
        &self,
        inner: &dyn StateStore,
        key: &Key,
        value: Bytes,
        mut options: PutOptions,
    ) -> Result<Option<ETag>, PortError> {
        let again = options.mode == WriteMode::Create && {
            let created = self.created.lock().unwrap_or_else(PoisonError::into_inner);
            created.contains(key)
        };
        if options.mode == WriteMode::Match(ETag::new(Self::FIRST))
            && let Some(stored) = inner.get(key).await?
        {
            options.mode = WriteMode::Match(stored.etag);
        }
        let create = options.mode == WriteMode::Create;
        let etag = inner.put(key, value, options).await?;
        if create {
            let mut created = self.created.lock().unwrap_or_else(PoisonError::into_inner);
            created.insert(key.clone());
        }
        // Reads do not show it, which is for S7 to notice and not for S10.
        Ok(if again {
            Some(ETag::new(Self::FIRST))
        } else {
            etag
        })
    }
}

/// Keeps for ever what should expire.
#[derive(Debug)]
pub(super) struct NeverExpires;

#[async_trait]
impl StoreFault for NeverExpires {
    async fn put(
        &self,
        inner: &dyn StateStore,
        key: &Key,
        value: Bytes,
        mut options: PutOptions,
    ) -> Result<Option<ETag>, PortError> {
        options.ttl = None;
        inner.put(key, value, options).await
    }
}

/// Lets the limit of a replaced value go on for the new one.
#[derive(Debug, Default)]
pub(super) struct KeepsOldTtl {
    limits: Mutex<HashMap<Key, Duration>>,
}

#[async_trait]
impl StoreFault for KeepsOldTtl {
    async fn put(
        &self,
        inner: &dyn StateStore,
        key: &Key,
        value: Bytes,
        mut options: PutOptions,
    ) -> Result<Option<ETag>, PortError> {
        {
            let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
            match options.ttl {
                Some(ttl) => {
                    limits.insert(key.clone(), ttl);
                }
                None if options.mode == WriteMode::Overwrite => {
                    options.ttl = limits.get(key).copied();
                }
                None => {}
            }
        }
        inner.put(key, value, options).await
    }
}

/// Deletes without a tombstone.
#[derive(Debug)]
pub(super) struct ForgetsTombstones;

#[async_trait]
impl StoreFault for ForgetsTombstones {
    async fn delete(
        &self,
        inner: &dyn StateStore,
        key: &Key,
        mut options: DeleteOptions,
    ) -> Result<(), PortError> {
        options.tombstone = None;
        inner.delete(key, options).await
    }
}
