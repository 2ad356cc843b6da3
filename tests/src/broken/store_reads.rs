//! Faults of reads, keys and scans.

use std::collections::HashSet;

use async_trait::async_trait;
use bytes::Bytes;
use task_core::ports::{ETag, Key, Kind, Page, PortError, PutOptions, StateStore, Stored};

use super::store::StoreFault;

/// Takes every value for text.
#[derive(Debug)]
pub(super) struct ReadsTextOnly;

#[async_trait]
impl StoreFault for ReadsTextOnly {
    async fn get(&self, inner: &dyn StateStore, key: &Key) -> Result<Option<Stored>, PortError> {
        let stored = inner.get(key).await?;
        Ok(
            stored.map(|stored| match std::str::from_utf8(&stored.value) {
                Err(_) if stored.value.len() < 1000 => Stored {
                    value: Bytes::from(String::from_utf8_lossy(&stored.value).into_owned()),
                    ..stored
                },
                Ok(_) | Err(_) => stored,
            }),
        )
    }
}

/// Takes keys that differ in case for one.
#[derive(Debug)]
pub(super) struct FoldsCase;

#[async_trait]
impl StoreFault for FoldsCase {
    async fn get(&self, inner: &dyn StateStore, key: &Key) -> Result<Option<Stored>, PortError> {
        inner.get(&folded(key)).await
    }

    async fn put(
        &self,
        inner: &dyn StateStore,
        key: &Key,
        value: Bytes,
        options: PutOptions,
    ) -> Result<Option<ETag>, PortError> {
        inner.put(&folded(key), value, options).await
    }
}

fn folded(key: &Key) -> Key {
    Key::new(key.kind, key.id.to_lowercase())
}

/// Answers `get_many` in the order of its index.
#[derive(Debug)]
pub(super) struct AnswersInItsOwnOrder;

#[async_trait]
impl StoreFault for AnswersInItsOwnOrder {
    async fn get_many(
        &self,
        inner: &dyn StateStore,
        keys: &[Key],
    ) -> Result<Vec<Option<Stored>>, PortError> {
        let mut keys = keys.to_vec();
        keys.sort();
        inner.get_many(&keys).await
    }
}

/// Answers once for keys that repeat.
#[derive(Debug)]
pub(super) struct DropsRepeatedKeys;

#[async_trait]
impl StoreFault for DropsRepeatedKeys {
    async fn get_many(
        &self,
        inner: &dyn StateStore,
        keys: &[Key],
    ) -> Result<Vec<Option<Stored>>, PortError> {
        let mut seen = HashSet::new();
        let keys: Vec<Key> = keys
            .iter()
            .filter(|key| seen.insert(*key))
            .cloned()
            .collect();
        inner.get_many(&keys).await
    }
}

/// Loses the first key of every page but the first.
#[derive(Debug)]
pub(super) struct SkipsAPage;

#[async_trait]
impl StoreFault for SkipsAPage {
    async fn scan(
        &self,
        inner: &dyn StateStore,
        kind: Kind,
        from: Option<String>,
        limit: usize,
    ) -> Result<Page, PortError> {
        let later = from.is_some();
        let mut page = inner.scan(kind, from, limit).await?;
        if later && !page.entries.is_empty() {
            page.entries.remove(0);
        }
        Ok(page)
    }
}

/// Finds the keys of other kinds as well.
#[derive(Debug)]
pub(super) struct ScansOtherKinds;

#[async_trait]
impl StoreFault for ScansOtherKinds {
    async fn scan(
        &self,
        inner: &dyn StateStore,
        kind: Kind,
        from: Option<String>,
        limit: usize,
    ) -> Result<Page, PortError> {
        let mut page = inner.scan(kind, from, limit).await?;
        if page.next.is_none() {
            let others = inner.scan(Kind::new("other"), None, limit).await?;
            page.entries.extend(others.entries);
        }
        Ok(page)
    }
}

/// Begins again after the last page.
#[derive(Debug)]
pub(super) struct ScansForEver;

#[async_trait]
impl StoreFault for ScansForEver {
    async fn scan(
        &self,
        inner: &dyn StateStore,
        kind: Kind,
        from: Option<String>,
        limit: usize,
    ) -> Result<Page, PortError> {
        let mut page = inner.scan(kind, from, limit).await?;
        page.next = page.next.or_else(|| Some(String::new()));
        Ok(page)
    }
}

/// Counts positions instead of keys, so that a deletion moves the rest of the scan.
#[derive(Debug)]
pub(super) struct ScansByOffset;

#[async_trait]
impl StoreFault for ScansByOffset {
    async fn scan(
        &self,
        inner: &dyn StateStore,
        kind: Kind,
        from: Option<String>,
        limit: usize,
    ) -> Result<Page, PortError> {
        let offset: usize = from.and_then(|from| from.parse().ok()).unwrap_or(0);
        let all = inner.scan(kind, None, 10_000).await?.entries;
        let end = offset.saturating_add(limit);
        Ok(Page {
            next: (end < all.len()).then(|| end.to_string()),
            entries: all.into_iter().skip(offset).take(limit).collect(),
        })
    }
}
