//! The two sides of a move, and the versions that callers see.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::marker::tag_of;
use super::measured::MeasuredStore;
use super::queue::{Place, Queues};
use super::{Member, Recorder, Side};
use crate::memory::lock;
use crate::ports::{Clock, ETag, ErrorKind, Key, Kind, PortError, StateStore, Stored};

pub(super) const BACKEND: &str = "parallel";

/// The kinds whose records are moved.
pub(super) const KINDS: &[Kind] = &[Kind::TASK, Kind::SEEN, Kind::GROUP];

/// Most versions that are remembered between a read and the write that follows, twice.
const MOST_REMEMBERED: usize = 4096;

/// What every part of the parallel run works with.
#[derive(Debug)]
pub(super) struct Sides {
    pub(super) old: Arc<dyn StateStore>,
    pub(super) new: Arc<dyn StateStore>,
    pub(super) member: Arc<Member>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) kinds: &'static [Kind],
    pub(super) recorder: Arc<Recorder>,
    /// The records with unfinished writes of this replica.
    unfinished: Queues,
    writes: AtomicU64,
    seen: Mutex<Seen>,
}

/// The version that a side gave a content, so that a write need not read it again.
#[derive(Debug, Default)]
struct Seen {
    young: HashMap<(Side, Key), (ETag, ETag)>,
    old: HashMap<(Side, Key), (ETag, ETag)>,
}

impl Sides {
    pub(super) fn new(
        old: Arc<dyn StateStore>,
        new: Arc<dyn StateStore>,
        member: Arc<Member>,
        clock: Arc<dyn Clock>,
        kinds: &'static [Kind],
    ) -> Self {
        let recorder = Arc::<Recorder>::default();
        let measured = |side, inner| {
            Arc::new(MeasuredStore {
                inner,
                side,
                kinds,
                member: Arc::clone(&member),
                recorder: Arc::clone(&recorder),
            })
        };
        Self {
            old: measured(Side::Old, old),
            new: measured(Side::New, new),
            member,
            clock,
            kinds,
            recorder,
            unfinished: Queues::default(),
            writes: AtomicU64::new(0),
            seen: Mutex::default(),
        }
    }

    /// Refuses what is not moved, and would stay behind.
    pub(super) fn check(&self, kind: Kind, operation: &'static str) -> Result<(), PortError> {
        if self.kinds.contains(&kind) {
            return Ok(());
        }
        Err(
            PortError::new(ErrorKind::Unsupported, BACKEND, operation).context(format!(
                "records of the kind {} are not moved",
                kind.as_str()
            )),
        )
    }

    pub(super) fn of(&self, side: Side) -> &dyn StateStore {
        match side {
            Side::Old => &*self.old,
            Side::New => &*self.new,
        }
    }

    /// Waits until nobody else here is at an unfinished write of a record.
    ///
    /// Whoever meets one finishes it, so without this those who write one record would disturb each other until
    /// none gets on (`writers_of_one_record_in_one_replica_are_not_sent_away`).
    pub(super) async fn alone(&self, key: &Key) -> Place<'_> {
        self.unfinished.enter(&key.to_string()).await
    }

    /// A name that no other write has.
    pub(super) fn name_of_write(&self) -> String {
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        format!("{}.{number}", self.member.id())
    }

    /// What a caller is told of a record: the version is of the content, the same on both sides.
    pub(super) fn shown(&self, side: Side, key: &Key, stored: Stored) -> Stored {
        let tag = tag_of(&stored.value);
        self.remember(side, key, tag.clone(), stored.etag);
        Stored {
            value: stored.value,
            etag: tag,
        }
    }

    /// The version that a write gave, as a caller is told.
    pub(super) fn written(&self, side: Side, key: &Key, value: &Bytes, etag: Option<ETag>) -> ETag {
        let tag = tag_of(value);
        if let Some(etag) = etag {
            self.remember(side, key, tag.clone(), etag);
        }
        tag
    }

    /// The side's own version of a content, if the record holds that very content.
    ///
    /// # Errors
    /// `Conflict` if it holds another one; as the side.
    pub(super) async fn version(
        &self,
        side: Side,
        key: &Key,
        tag: &ETag,
        look: Look,
    ) -> Result<ETag, PortError> {
        if look == Look::Remember
            && let Some(etag) = self.recall(side, key, tag)
        {
            return Ok(etag);
        }
        match self.of(side).get(key).await? {
            Some(stored) if tag_of(&stored.value) == *tag => Ok(stored.etag),
            _ => Err(PortError::new(ErrorKind::Conflict, BACKEND, "match")
                .context(format!("{key} has changed"))),
        }
    }

    fn remember(&self, side: Side, key: &Key, tag: ETag, etag: ETag) {
        let mut seen = lock(&self.seen);
        if seen.young.len() >= MOST_REMEMBERED {
            seen.old = std::mem::take(&mut seen.young);
        }
        seen.young.insert((side, key.clone()), (tag, etag));
    }

    fn recall(&self, side: Side, key: &Key, tag: &ETag) -> Option<ETag> {
        let place = (side, key.clone());
        let seen = lock(&self.seen);
        let (known, etag) = seen.young.get(&place).or_else(|| seen.old.get(&place))?;
        (known == tag).then(|| etag.clone())
    }
}

/// Where a side's version of a content comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// From the last read, if it is remembered.
    Remember,
    /// From the side.
    Read,
}
