//! The state store that is two of them.

use std::num::NonZeroU64;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::compare::ReadComparison;
use super::marker::{DIRTY, REVERSE, mark_of};
use super::mirror::Mirror;
use super::sides::{BACKEND, KINDS, Sides};
use super::sync::{MOST_ATTEMPTS, restless};
use super::write::Change;
use super::{Member, Mismatch, Pin, Recorder, Side, Stage, Synced, gone};
use crate::application::{Outbox, Relay};
use crate::background::Background;
use crate::ports::{
    CapabilitySet, Clock, Commit, DeleteOptions, ETag, Entropy, EventBus, Key, Kind, Page,
    PendingEvent, PendingId, PortError, PutOptions, StateCapability, StateStore, Stored, Write,
};

/// What the old side must be able to do.
const OLD_NEEDS: &[StateCapability] = &[
    StateCapability::ConditionalWrites,
    StateCapability::Tombstones,
    StateCapability::Transactions,
    StateCapability::Outbox,
    StateCapability::Guards,
    StateCapability::Scan,
];

/// What the new side must be able to do.
///
/// A version that comes back would let a late copy take effect.
const NEW_NEEDS: &[StateCapability] = &[
    StateCapability::ConditionalWrites,
    StateCapability::UniqueVersions,
    StateCapability::Outbox,
];

/// A [`StateStore`] on two sides, of which the stage of each record says who reads and who writes.
///
/// To the core it is an adapter like any other, one that [publishes](StateCapability::Publishes) by its
/// [`relays`](Self::relays). Its versions are of contents, the same on both sides, so that
/// what was read before a step of the move may be written after it. A value with a limit ends on the other side when
/// it does here, in the units of that side: a copy on Dapr may live a second longer.
#[derive(Debug)]
pub struct ParallelStateStore {
    sides: Arc<Sides>,
    outboxes: [Arc<Outbox>; 2],
    mirror: Mirror,
    comparison: Arc<ReadComparison>,
    capabilities: CapabilitySet<StateCapability>,
}

impl ParallelStateStore {
    /// A store on two sides, moved by what this replica has adopted.
    ///
    /// # Errors
    /// `Unsupported`, naming what a side would have to be able to do.
    pub fn new(
        old: Arc<dyn StateStore>,
        new: Arc<dyn StateStore>,
        member: Arc<Member>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, PortError> {
        Self::of_kinds(KINDS, old, new, member, clock)
    }

    /// The same for records of other kinds than those of a task service.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of_kinds(
        kinds: &'static [Kind],
        old: Arc<dyn StateStore>,
        new: Arc<dyn StateStore>,
        member: Arc<Member>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, PortError> {
        for needed in OLD_NEEDS {
            old.capabilities().require(*needed, "old side", "open")?;
        }
        for needed in NEW_NEEDS {
            new.capabilities().require(*needed, "new side", "open")?;
        }
        let capabilities = common(old.capabilities(), new.capabilities());
        let outboxes = [&old, &new].map(|side| Outbox::new(Arc::clone(side)).map(Arc::new));
        let [old_outbox, new_outbox] = outboxes;
        let sides = Arc::new(Sides::new(old, new, member, clock, kinds));
        Ok(Self {
            outboxes: [old_outbox?, new_outbox?],
            mirror: Mirror::new(Arc::clone(&sides)),
            comparison: Arc::new(ReadComparison::new(Arc::clone(&sides))),
            sides,
            capabilities,
        })
    }

    pub(super) fn sides(&self) -> &Arc<Sides> {
        &self.sides
    }

    /// This replica's part in the move.
    #[must_use]
    pub fn member(&self) -> &Arc<Member> {
        &self.sides.member
    }

    /// What both sides take, counted here and by whatever else is given it.
    #[must_use]
    pub fn recorder(&self) -> &Arc<Recorder> {
        &self.sides.recorder
    }

    /// Compares one of so many reads in `shadow` and `live`; without this it is one of ten.
    pub fn compare_one_of(&self, reads: NonZeroU64) {
        self.comparison.sample(reads);
    }

    /// The latest records that the new side was found to hold wrong; the last one last, at most 20.
    #[must_use]
    pub fn mismatches(&self) -> Vec<Mismatch> {
        self.comparison.mismatches()
    }

    /// Lets the new side follow, and compares reads, in the background.
    pub fn start(&self) -> Background {
        let comparison = ReadComparison::start(&self.comparison);
        Background::of("parallel store", vec![self.mirror.start(), comparison])
    }

    /// The relays of both sides, old and new, each with the lease of this name in the store beside it.
    ///
    /// Each side's events are published by its own relay, as without a move, so that a service that runs on one
    /// side alone takes turns with those that run on both. What is written in `rampdown` is pending on both, and
    /// published by both: neither side may be lost with the event.
    ///
    /// # Errors
    /// As [`Relay::shared`].
    pub fn relays(
        &self,
        bus: &Arc<dyn EventBus>,
        leases: [(&Arc<dyn StateStore>, &str); 2],
        entropy: &dyn Entropy,
    ) -> Result<[Relay; 2], PortError> {
        let relay = |outbox: &Arc<Outbox>, (store, name): (&Arc<dyn StateStore>, &str)| {
            let (clock, store) = (Arc::clone(&self.sides.clock), Arc::clone(store));
            let (outbox, bus) = (Arc::clone(outbox), Arc::clone(bus));
            Relay::shared(outbox, bus, store, name, clock, entropy)
        };
        let ([old, new], [of_old, of_new]) = (&self.outboxes, leases);
        Ok([relay(old, of_old)?, relay(new, of_new)?])
    }

    /// Makes both sides of a record equal, in the direction that its stage has.
    ///
    /// # Errors
    /// As the sides.
    pub async fn sync(&self, key: &Key) -> Result<Synced, PortError> {
        self.sides.forward(key).await
    }

    async fn change(&self, change: Change) -> Result<Option<ETag>, PortError> {
        let key = change.write.as_ref().map(|write| write.key().clone());
        let has_events = !change.events.is_empty();
        let result = self.sides.write(change).await;
        if let Some(key) = key {
            // An unknown outcome may have left a mark as well.
            self.mirror.follow(key);
        }
        if has_events {
            self.outboxes.iter().for_each(|outbox| outbox.announce());
        }
        result
    }

    async fn read(&self, pin: &Pin, key: &Key) -> Result<(Side, Option<Stored>), PortError> {
        match pin.stage_of(key) {
            Stage::Off | Stage::DualWrite | Stage::Shadow => {
                Ok((Side::Old, self.sides.old.get(key).await?))
            }
            Stage::Live | Stage::Handoff if pin.control().new_is_lost => {
                Ok((Side::Old, self.sides.old.get(key).await?))
            }
            Stage::Live => self.read_overlaid(key).await,
            Stage::Handoff => self.read_handed(key).await,
            Stage::RampDown => Ok((Side::New, self.read_finished(key).await?)),
            Stage::Complete => Ok((Side::New, self.sides.new.get(key).await?)),
        }
    }

    /// The mark first: what was acknowledged before it was read is on the new side, or marked.
    async fn read_overlaid(&self, key: &Key) -> Result<(Side, Option<Stored>), PortError> {
        let mark = self.sides.old.get(&mark_of(DIRTY, key)).await?;
        if mark.is_none() {
            match self.sides.new.get(key).await {
                Ok(found) => return Ok((Side::New, found)),
                Err(error) => tracing::debug!(%error, %key, "read from the old side instead"),
            }
        }
        Ok((Side::Old, self.sides.old.get(key).await?))
    }

    /// Others may be in `live`, and others in `rampdown`.
    async fn read_handed(&self, key: &Key) -> Result<(Side, Option<Stored>), PortError> {
        let mark = self.sides.old.get(&mark_of(DIRTY, key)).await?;
        if mark.is_none() {
            match self.read_finished(key).await {
                Ok(found) => return Ok((Side::New, found)),
                // It has all that anybody was told.
                Err(error) => tracing::debug!(%error, %key, "read from the old side instead"),
            }
        }
        Ok((Side::Old, self.sides.old.get(key).await?))
    }

    /// The record first: what it says is on the old side too, or there is still a note of it.
    async fn read_finished(&self, key: &Key) -> Result<Option<Stored>, PortError> {
        let mut alone = None;
        for _ in 0..MOST_ATTEMPTS {
            let found = self.sides.new.get(key).await?;
            let note = self.sides.old.get(&mark_of(REVERSE, key)).await?;
            if note.is_none() {
                return Ok(found);
            }
            if alone.is_none() {
                alone = Some(self.sides.alone(key).await);
            }
            self.sides.backward(key).await?;
        }
        Err(restless(key))
    }
}

/// What both sides can do, and a move between them does not take away.
fn common(
    old: CapabilitySet<StateCapability>,
    new: CapabilitySet<StateCapability>,
) -> CapabilitySet<StateCapability> {
    use StateCapability as C;
    const ALWAYS: [C; 3] = [C::ConditionalWrites, C::Tombstones, C::Publishes];
    const SETS: [&[C]; 8] = [
        &[ALWAYS[0], ALWAYS[1], ALWAYS[2]],
        &[ALWAYS[0], ALWAYS[1], ALWAYS[2], C::Ttl],
        &[ALWAYS[0], ALWAYS[1], ALWAYS[2], C::Scan],
        &[ALWAYS[0], ALWAYS[1], ALWAYS[2], C::Ttl, C::Scan],
        &[ALWAYS[0], ALWAYS[1], ALWAYS[2], C::Durable],
        &[ALWAYS[0], ALWAYS[1], ALWAYS[2], C::Ttl, C::Durable],
        &[ALWAYS[0], ALWAYS[1], ALWAYS[2], C::Scan, C::Durable],
        &[ALWAYS[0], ALWAYS[1], ALWAYS[2], C::Ttl, C::Scan, C::Durable],
    ];
    let both = |capability| usize::from(old.has(capability) && new.has(capability));
    let set = both(C::Ttl) + 2 * both(C::Scan) + 4 * both(C::Durable);
    CapabilitySet::of(SETS[set])
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl StateStore for ParallelStateStore {
    fn capabilities(&self) -> CapabilitySet<StateCapability> {
        self.capabilities
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, PortError> {
        key.check(BACKEND, "get")?;
        self.sides.check(key.kind, "get")?;
        let pin = self.sides.member.pin()?;
        let (side, found) = self.read(&pin, key).await?;
        pin.check()?;
        self.comparison.offer(pin.stage_of(key), key);
        let found = found.filter(|stored| side == Side::Old || !gone::is_left(&stored.value));
        Ok(found.map(|stored| self.sides.shown(side, key, stored)))
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Stored>>, PortError> {
        let reads = keys.iter().map(|key| self.get(key));
        futures_util::future::try_join_all(reads).await
    }

    async fn put(
        &self,
        key: &Key,
        value: Bytes,
        options: PutOptions,
    ) -> Result<Option<ETag>, PortError> {
        key.check_with(&value, BACKEND, "put")?;
        self.sides.check(key.kind, "put")?;
        options.check(self.capabilities, BACKEND, "put")?;
        let write = Write::Put {
            key: key.clone(),
            value,
            options,
        };
        self.change(Change::of(write)).await
    }

    async fn delete(&self, key: &Key, options: DeleteOptions) -> Result<(), PortError> {
        key.check(BACKEND, "delete")?;
        self.sides.check(key.kind, "delete")?;
        options.check(self.capabilities, BACKEND, "delete")?;
        let write = Write::Delete {
            key: key.clone(),
            options,
        };
        self.change(Change::of(write)).await.map(drop)
    }

    async fn commit(&self, commit: Commit) -> Result<Vec<Option<ETag>>, PortError> {
        commit.check(self.capabilities, BACKEND)?;
        for write in &commit.writes {
            self.sides.check(write.key().kind, "commit")?;
        }
        let Commit { writes, events, .. } = commit;
        let is_empty = writes.is_empty() && events.is_empty();
        if is_empty {
            return Ok(Vec::new());
        }
        let write = writes.into_iter().next();
        let answers = usize::from(write.is_some());
        let etag = self.change(Change { write, events }).await?;
        Ok(vec![etag; answers])
    }

    async fn pending(
        &self,
        _: Option<PendingId>,
        _: usize,
    ) -> Result<Vec<PendingEvent>, PortError> {
        self.capabilities
            .require(StateCapability::Outbox, BACKEND, "pending")?;
        Ok(Vec::new())
    }

    async fn settle(&self, _: &[PendingId]) -> Result<(), PortError> {
        self.capabilities
            .require(StateCapability::Outbox, BACKEND, "settle")
    }

    async fn scan(
        &self,
        kind: Kind,
        from: Option<String>,
        limit: usize,
    ) -> Result<Page, PortError> {
        self.capabilities
            .require(StateCapability::Scan, BACKEND, "scan")?;
        self.sides.check(kind, "scan")?;
        let pin = self.sides.member.pin()?;
        // The old side has every answered write until nobody writes there any more.
        let all = super::Bucket::COUNT;
        let side = match pin.control().state.reached(Stage::Complete) == all {
            true => Side::New,
            false => Side::Old,
        };
        let page = self.sides.of(side).scan(kind, from, limit).await?;
        pin.check()?;
        let entries = page.entries.into_iter();
        let entries =
            entries.filter(|(_, stored)| side == Side::Old || !gone::is_left(&stored.value));
        let entries = entries.map(|(key, stored)| {
            let shown = self.sides.shown(side, &key, stored);
            (key, shown)
        });
        Ok(Page {
            entries: entries.collect(),
            next: page.next,
        })
    }

    async fn check(&self) -> Result<(), PortError> {
        drop(self.sides.member.pin()?);
        self.sides.old.check().await
    }

    async fn identity(&self) -> Result<Option<Box<str>>, PortError> {
        self.sides.old.identity().await
    }
}
