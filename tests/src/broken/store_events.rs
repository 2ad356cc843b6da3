//! Faults of commits and pending events.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use task_core::ports::{
    CapabilitySet, Commit, ETag, PendingEvent, PendingId, PortError, StateCapability, StateStore,
};
use tokio::task::yield_now;

use super::store::StoreFault;

/// Applies the writes of a commit one by one and stops at the first that is refused.
#[derive(Debug)]
pub(super) struct AppliesHalfCommits;

#[async_trait]
impl StoreFault for AppliesHalfCommits {
    async fn commit(
        &self,
        inner: &dyn StateStore,
        commit: Commit,
    ) -> Result<Vec<Option<ETag>>, PortError> {
        commit.check(inner.capabilities(), "broken")?;
        let mut etags = Vec::new();
        for write in commit.writes {
            let mut part = Commit::of(write);
            part.guards.clone_from(&commit.guards);
            etags.append(&mut inner.commit(part).await?);
        }
        inner.commit(only(commit.events)).await?;
        Ok(etags)
    }
}

fn only(events: Vec<task_core::ports::Event>) -> Commit {
    let mut commit = Commit::default();
    commit.events = events;
    commit
}

/// A phantom: records the events of commits that were refused.
#[derive(Debug)]
pub(super) struct RecordsPhantoms;

#[async_trait]
impl StoreFault for RecordsPhantoms {
    async fn commit(
        &self,
        inner: &dyn StateStore,
        commit: Commit,
    ) -> Result<Vec<Option<ETag>>, PortError> {
        let events = commit.events.clone();
        let result = inner.commit(commit).await;
        if let Err(error) = &result
            && error.is_conflict()
        {
            inner.commit(only(events)).await?;
        }
        result
    }
}

/// Records only the first event of a commit.
#[derive(Debug)]
pub(super) struct LosesEvents;

#[async_trait]
impl StoreFault for LosesEvents {
    async fn commit(
        &self,
        inner: &dyn StateStore,
        mut commit: Commit,
    ) -> Result<Vec<Option<ETag>>, PortError> {
        commit.events.truncate(1);
        inner.commit(commit).await
    }
}

/// Writes a record and its events in two steps, between which it can be dropped.
#[derive(Debug)]
pub(super) struct TearsCommits;

#[async_trait]
impl StoreFault for TearsCommits {
    async fn commit(
        &self,
        inner: &dyn StateStore,
        mut commit: Commit,
    ) -> Result<Vec<Option<ETag>>, PortError> {
        commit.check(inner.capabilities(), "broken")?;
        let events = std::mem::take(&mut commit.events);
        let etags = inner.commit(commit).await?;
        yield_now().await;
        inner.commit(only(events)).await?;
        Ok(etags)
    }
}

/// Lists the events of a page in the wrong order.
#[derive(Debug)]
pub(super) struct ListsEventsBackwards;

#[async_trait]
impl StoreFault for ListsEventsBackwards {
    async fn pending(
        &self,
        inner: &dyn StateStore,
        after: Option<PendingId>,
        limit: usize,
    ) -> Result<Vec<PendingEvent>, PortError> {
        let mut page = inner.pending(after, limit).await?;
        if limit > 10 {
            page.reverse();
        }
        Ok(page)
    }
}

/// Answers that events are settled, and keeps them.
#[derive(Debug)]
pub(super) struct KeepsSettledEvents;

#[async_trait]
impl StoreFault for KeepsSettledEvents {
    async fn settle(&self, inner: &dyn StateStore, events: &[PendingId]) -> Result<(), PortError> {
        let first = &events[..events.len().min(1)];
        inner.settle(first).await
    }
}

/// Names the first event of a page once more on the next one, as it was then.
#[derive(Debug, Default)]
pub(super) struct ListsStaleEvents(Mutex<Option<PendingEvent>>);

#[async_trait]
impl StoreFault for ListsStaleEvents {
    async fn pending(
        &self,
        inner: &dyn StateStore,
        after: Option<PendingId>,
        limit: usize,
    ) -> Result<Vec<PendingEvent>, PortError> {
        let goes_on = after.is_some() && limit > 1;
        let limit = limit - usize::from(goes_on);
        let mut page = inner.pending(after, limit).await?;
        if let Some(first) = page.first().cloned() {
            let mut before = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let stale = before.replace(first);
            if goes_on {
                page.splice(0..0, stale);
            }
        }
        Ok(page)
    }
}

/// Settles more than it was told to.
#[derive(Debug)]
pub(super) struct SettlesEverything;

#[async_trait]
impl StoreFault for SettlesEverything {
    async fn settle(&self, inner: &dyn StateStore, _: &[PendingId]) -> Result<(), PortError> {
        let all = inner.pending(None, 1000).await?;
        let ids: Vec<PendingId> = all.into_iter().map(|pending| pending.id).collect();
        inner.settle(&ids).await
    }
}

/// Does not declare what it does.
#[derive(Debug)]
pub(super) struct HidesItsOutbox;

#[async_trait]
impl StoreFault for HidesItsOutbox {
    fn capabilities(&self) -> CapabilitySet<StateCapability> {
        CapabilitySet::of(&[
            StateCapability::ConditionalWrites,
            StateCapability::UniqueVersions,
            StateCapability::Ttl,
            StateCapability::Tombstones,
            StateCapability::Transactions,
            StateCapability::Guards,
            StateCapability::Scan,
            StateCapability::Durable,
        ])
    }
}
