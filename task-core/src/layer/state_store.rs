//! A state store behind a policy.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{CallKind, Operation, Policy};
use crate::ports::{
    CapabilitySet, Commit, DeleteOptions, ETag, Key, Kind, Page, PendingEvent, PendingId,
    PortError, PutOptions, StateCapability, StateStore, Stored,
};

/// A [`StateStore`] whose calls are limited, repeated, broken off and observed.
///
/// A write is copied for every attempt; its bytes are shared.
#[derive(Debug)]
pub struct GuardedStateStore {
    inner: Arc<dyn StateStore>,
    backend: &'static str,
    policy: Policy,
}

impl GuardedStateStore {
    /// Guards a store; `backend` names it in errors and observations.
    #[must_use]
    pub fn new(inner: Arc<dyn StateStore>, backend: &'static str, policy: Policy) -> Self {
        Self {
            inner,
            backend,
            policy,
        }
    }

    async fn call<T: Send, F: Future<Output = Result<T, PortError>> + Send>(
        &self,
        kind: CallKind,
        name: &'static str,
        attempt: impl FnMut() -> F + Send,
    ) -> Result<T, PortError> {
        let operation = Operation {
            port: "state",
            backend: self.backend,
            name,
            kind,
        };
        self.policy.call(operation, attempt).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl StateStore for GuardedStateStore {
    fn capabilities(&self) -> CapabilitySet<StateCapability> {
        self.inner.capabilities()
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, PortError> {
        self.call(CallKind::Read, "get", || self.inner.get(key))
            .await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, PortError> {
        self.call(CallKind::Read, "get_many", || self.inner.get_many(keys))
            .await
    }

    async fn put(
        &self,
        key: &Key,
        value: Bytes,
        options: PutOptions,
    ) -> Result<Option<ETag>, PortError> {
        self.call(CallKind::Write, "put", || {
            self.inner.put(key, value.clone(), options.clone())
        })
        .await
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<(), PortError> {
        self.call(CallKind::Write, "delete", || {
            self.inner.delete(key, options.clone())
        })
        .await
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<Option<ETag>>, PortError> {
        self.call(CallKind::Write, "commit", || {
            self.inner.commit(commit.clone())
        })
        .await
    }

    async fn pending(
        &self,
        after: Option<PendingId>,
        limit: usize,
    ) -> Result<Vec<PendingEvent>, PortError> {
        self.call(CallKind::Read, "pending", || {
            self.inner.pending(after.clone(), limit)
        })
        .await
    }

    async fn settle(&self, events: &[PendingId]) -> Result<(), PortError> {
        self.call(CallKind::IdempotentWrite, "settle", || {
            self.inner.settle(events)
        })
        .await
    }

    async fn scan(
        &self,
        kind: Kind,
        from: Option<String>,
        limit: usize,
    ) -> Result<Page, PortError> {
        self.call(CallKind::Read, "scan", || {
            self.inner.scan(kind, from.clone(), limit)
        })
        .await
    }

    async fn check(&self) -> Result<(), PortError> {
        self.call(CallKind::Probe, "check", || self.inner.check())
            .await
    }

    async fn identity(&self) -> Result<Option<Box<str>>, PortError> {
        self.call(CallKind::Read, "identity", || self.inner.identity())
            .await
    }
}

#[cfg(all(test, feature = "mock"))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::layer::{CountingObserver, RetryPolicy};
    use crate::ports::{ErrorKind, MockStateStore, Outcome, Retry, Write, WriteMode};

    fn unavailable() -> PortError {
        PortError::new(ErrorKind::Unavailable, "mock", "call")
    }

    fn guarded(mock: MockStateStore) -> GuardedStateStore {
        let retry = RetryPolicy {
            attempts: 2,
            ..RetryPolicy::default()
        };
        let policy = Policy {
            retry,
            ..Policy::default()
        };
        GuardedStateStore::new(Arc::new(mock), "mock", policy)
    }

    fn key() -> Key {
        Key::new(Kind::TASK, "t-1")
    }

    fn matching() -> PutOptions {
        PutOptions {
            mode: WriteMode::Match(ETag::new("7")),
            ttl: Some(Duration::from_secs(9)),
        }
    }

    fn commit() -> Commit {
        Commit::of(Write::Put {
            key: key(),
            value: "a".into(),
            options: matching(),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_repeated_write_is_the_same_write() {
        let mut mock = MockStateStore::new();
        let mut failures = 1;
        mock.expect_put()
            .withf(|k, value, options| *k == key() && value == "a" && *options == matching())
            .times(2)
            .returning(move |_, _, _| match failures {
                0 => Ok(Some(ETag::new("8"))),
                _ => {
                    failures -= 1;
                    Err(unavailable())
                }
            });
        let etag = guarded(mock).put(&key(), "a".into(), matching()).await;
        assert_eq!(etag.expect("the second attempt"), Some(ETag::new("8")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_conditional_write_with_an_unknown_outcome_is_made_once() {
        let mut mock = MockStateStore::new();
        let unknown = || unavailable().unknown_outcome();
        mock.expect_put()
            .withf(|k, value, options| *k == key() && value == "a" && *options == matching())
            .times(1)
            .returning(move |_, _, _| Err(unknown()));
        mock.expect_delete()
            .withf(|k, options| *k == key() && *options == DeleteOptions::default())
            .times(1)
            .returning(move |_, _| Err(unknown()));
        mock.expect_commit()
            .withf(|given| *given == commit())
            .times(1)
            .returning(move |_| Err(unknown()));
        let store = guarded(mock);
        let errors = [
            store.put(&key(), "a".into(), matching()).await.map(drop),
            store.delete(&key(), DeleteOptions::default()).await,
            store.commit(commit()).await.map(drop),
        ];
        for error in errors {
            assert_eq!(error.expect_err("unknown").outcome(), Outcome::Unknown);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn reads_and_settlements_are_repeated_with_their_arguments() {
        let mut mock = MockStateStore::new();
        let place = || PendingId::new("5");
        mock.expect_get()
            .withf(|k| *k == key())
            .times(2)
            .returning(|_| Err(unavailable()));
        mock.expect_get_many()
            .withf(|keys| keys == [key()])
            .times(2)
            .returning(|_| Err(unavailable()));
        mock.expect_pending()
            .withf(move |after, limit| *after == Some(place()) && *limit == 3)
            .times(2)
            .returning(|_, _| Err(unavailable()));
        mock.expect_settle()
            .withf(move |events| events == [place()])
            .times(2)
            .returning(|_| Err(unavailable().unknown_outcome()));
        mock.expect_scan()
            .withf(|kind, from, limit| {
                *kind == Kind::TASK && from.as_deref() == Some("f") && *limit == 4
            })
            .times(2)
            .returning(|_, _, _| Err(unavailable()));
        mock.expect_check()
            .times(2)
            .returning(|| Err(unavailable()));
        let store = guarded(mock);
        store.get(&key()).await.expect_err("get");
        store.get_many(&[key()]).await.expect_err("get_many");
        store.pending(Some(place()), 3).await.expect_err("pending");
        store.settle(&[place()]).await.expect_err("settle");
        store
            .scan(Kind::TASK, Some("f".into()), 4)
            .await
            .expect_err("scan");
        store.check().await.expect_err("check");
    }

    #[tokio::test(start_paused = true)]
    async fn every_operation_is_observed_as_what_it_does() {
        let mut mock = MockStateStore::new();
        mock.expect_get().times(1).returning(|_| Ok(None));
        mock.expect_get_many()
            .times(1)
            .returning(|_| Ok(Vec::new()));
        mock.expect_put().times(1).returning(|_, _, _| Ok(None));
        mock.expect_delete().times(1).returning(|_, _| Ok(()));
        mock.expect_commit().times(1).returning(|_| Ok(Vec::new()));
        mock.expect_pending()
            .times(1)
            .returning(|_, _| Ok(Vec::new()));
        mock.expect_settle().times(1).returning(|_| Ok(()));
        mock.expect_scan()
            .times(1)
            .returning(|_, _, _| Err(unavailable().retry(Retry::Never)));
        mock.expect_check().times(1).returning(|| Ok(()));
        mock.expect_identity().times(1).returning(|| Ok(None));
        let counts = Arc::new(CountingObserver::default());
        let observer = Arc::<CountingObserver>::clone(&counts);
        let policy = Policy {
            observer,
            ..Policy::default()
        };
        let store = GuardedStateStore::new(Arc::new(mock), "mock", policy);
        drop(store.get(&key()).await);
        drop(store.get_many(&[key()]).await);
        drop(store.put(&key(), "a".into(), matching()).await);
        drop(store.delete(&key(), DeleteOptions::default()).await);
        drop(store.commit(commit()).await);
        drop(store.pending(None, 3).await);
        drop(store.settle(&[PendingId::new("5")]).await);
        drop(store.scan(Kind::TASK, None, 4).await);
        drop(store.check().await);
        drop(store.identity().await);
        let seen = counts.snapshot();
        let named = |wanted: &[CallKind]| -> Vec<&str> {
            let operations = seen.iter().map(|count| count.operation);
            let wanted = operations.filter(|operation| wanted.contains(&operation.kind));
            wanted.map(|operation| operation.name).collect()
        };
        let writes = ["commit", "delete", "put", "settle"];
        let reads = ["get", "get_many", "identity", "pending", "scan"];
        assert_eq!(
            named(&[CallKind::Write, CallKind::IdempotentWrite]),
            writes,
            "writes"
        );
        assert_eq!(named(&[CallKind::Read]), reads, "reads");
        assert_eq!(named(&[CallKind::Probe]), ["check"]);
    }

    #[test]
    fn the_capabilities_are_those_of_the_adapter() {
        const ONLY: &[StateCapability] = &[StateCapability::Scan];
        let mut mock = MockStateStore::new();
        mock.expect_capabilities()
            .times(1)
            .return_const(CapabilitySet::of(ONLY));
        let capabilities: Vec<_> = guarded(mock).capabilities().iter().collect();
        assert_eq!(capabilities, ONLY);
    }
}
