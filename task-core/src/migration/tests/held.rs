//! A store whose calls can be held, so that a test decides what happens meanwhile.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::memory::lock;
use crate::ports::{
    CapabilitySet, Commit, DeleteOptions, ETag, Key, Kind, Page, PendingEvent, PendingId,
    PortError, PutOptions, StateCapability, StateStore, Stored,
};

/// Where a call is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// It has not reached the store.
    Before,
    /// The store has answered, and nobody has heard of it.
    After,
}

/// A call of a store, by what it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Get(Kind),
    /// A write or several, of which the first is of this kind.
    Write(Kind),
}

#[derive(Debug)]
struct Hold {
    call: Call,
    moment: Moment,
    reached: oneshot::Sender<()>,
    released: oneshot::Receiver<()>,
}

/// A call that is held once it comes.
#[derive(Debug)]
pub(super) struct Held {
    reached: oneshot::Receiver<()>,
    release: oneshot::Sender<()>,
}

impl Held {
    /// Waits until it is there.
    pub(super) async fn reached(&mut self) {
        let reached = &mut self.reached;
        reached.await.expect("the call comes");
    }

    pub(super) fn release(self) {
        self.release.send(()).expect("somebody waits");
    }
}

pub(super) struct HeldStore {
    inner: Arc<dyn StateStore>,
    holds: Mutex<Vec<Hold>>,
}

impl HeldStore {
    pub(super) fn new(inner: Arc<dyn StateStore>) -> Self {
        Self {
            inner,
            holds: Mutex::default(),
        }
    }

    /// Holds the next such call.
    pub(super) fn hold(&self, moment: Moment, call: Call) -> Held {
        let (reached, was_reached) = oneshot::channel();
        let (release, released) = oneshot::channel();
        lock(&self.holds).push(Hold {
            call,
            moment,
            reached,
            released,
        });
        Held {
            reached: was_reached,
            release,
        }
    }

    async fn pass<T>(
        &self,
        call: Call,
        work: impl Future<Output = Result<T, PortError>> + Send,
    ) -> Result<T, PortError> {
        self.wait(call, Moment::Before).await;
        let answer = work.await;
        self.wait(call, Moment::After).await;
        answer
    }

    async fn wait(&self, call: Call, moment: Moment) {
        let hold = {
            let mut holds = lock(&self.holds);
            let place = holds
                .iter()
                .position(|hold| hold.call == call && hold.moment == moment);
            place.map(|place| holds.remove(place))
        };
        if let Some(hold) = hold {
            hold.reached.send(()).expect("the test waits");
            hold.released.await.expect("the test releases it");
        }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl StateStore for HeldStore {
    fn capabilities(&self) -> CapabilitySet<StateCapability> {
        self.inner.capabilities()
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, PortError> {
        self.pass(Call::Get(key.kind), self.inner.get(key)).await
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
        let put = self.inner.put(key, value, options);
        self.pass(Call::Write(key.kind), put).await
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<(), PortError> {
        let delete = self.inner.delete(key, options);
        self.pass(Call::Write(key.kind), delete).await
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<Option<ETag>>, PortError> {
        match commit.writes.first().map(|write| write.key().kind) {
            Some(kind) => {
                self.pass(Call::Write(kind), self.inner.commit(commit))
                    .await
            }
            None => self.inner.commit(commit).await,
        }
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

impl fmt::Debug for HeldStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldStore").finish_non_exhaustive()
    }
}
