//! What the other replicas have noted.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use task_core::ports::PortError;
use tokio::time::Instant;

use super::documents::{Documents, Done, Head, Replicas, Segment, read};
use super::index::Op;
use super::{BEATS_UNTIL_CLOSED, Journal, SEGMENT};
use crate::state_store::calls::Found;

/// What is known of another replica.
///
/// A segment that is full only shrinks. So those are read again at the beginning of a listing, and never when they
/// were empty once. One that is not full may still grow, also if there is another one behind it: whatever it is that
/// another replica does at this moment, a read of several documents sees some of them before it and some after it.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    head: Head,
    head_etag: Box<str>,
    /// Since when its head is known to be as it is.
    since: Instant,
    /// First segment that may hold notes, also if the head names an earlier one.
    from: u64,
    /// Later ones that never will again.
    empty: BTreeSet<u64>,
    /// Notes with lesser numbers are known or settled. From here on segments may grow.
    pub(super) through: u64,
}

/// How much of the others' journals is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    All,
    /// What may have grown since the last look.
    New,
}

/// The documents of one replica, as far as they were read.
struct Documented {
    id: Arc<str>,
    head: Head,
    head_etag: Box<str>,
    done: Done,
    segments: Vec<(u64, Segment)>,
}

impl Journal {
    /// Reads the journals of the others, unless that was done within this time.
    pub(in crate::state_store) async fn look(&self, within: Duration) -> Result<(), PortError> {
        let asked = Instant::now();
        let is_known = |looked: Option<Instant>| {
            looked.is_some_and(|looked| looked >= asked || asked - looked < within)
        };
        if is_known(self.state().looked) {
            return Ok(());
        }
        let _looking = self.looking.lock().await;
        if is_known(self.state().looked) {
            return Ok(());
        }
        let began = Instant::now();
        let registry = self
            .documents
            .get::<Replicas>(&Documents::replicas())
            .await?;
        let all = registry.map_or_else(Vec::new, |(registry, _)| registry.replicas);
        // Only now: who is read of as another one must not become this one before what is read is taken over,
        // which would drop its notes.
        let own = self.state().name.clone();
        let others = all.into_iter().filter(|id| own.as_deref() != Some(&**id));
        let others: Vec<Arc<str>> = others.map(Arc::from).collect();
        let extent = match within.is_zero() {
            true => Extent::All,
            false => Extent::New,
        };
        let found = self.documented(&others, extent).await?;
        let closable = self.take_over(found, extent, began);
        self.state().looked = Some(began);
        for (id, head, etag) in closable {
            self.close(&id, head, &etag).await?;
        }
        Ok(())
    }

    /// One read for all of them, and one more where there are segments that were not expected.
    async fn documented(
        &self,
        others: &[Arc<str>],
        extent: Extent,
    ) -> Result<Vec<Documented>, PortError> {
        if others.is_empty() {
            return Ok(Vec::new());
        }
        let mut wanted: Vec<String> = Vec::new();
        for id in others {
            wanted.extend([Documents::head(id), Documents::done(id)]);
            let expected = self.segments_of(id, None, extent).into_iter();
            wanted.extend(expected.map(|number| Documents::segment(id, number)));
        }
        let mut known = self.fetched(wanted).await?;
        let mut replicas = Vec::new();
        let mut more = Vec::new();
        for id in others {
            // Without a head, somebody is closing it.
            if let Some((head, etag)) = document::<Head>(&known, &Documents::head(id))? {
                let segments = self.segments_of(id, Some(head), extent);
                let names = segments
                    .iter()
                    .map(|number| Documents::segment(id, *number));
                more.extend(names.filter(|name| !known.contains_key(name)));
                replicas.push((Arc::clone(id), head, etag, segments));
            }
        }
        if !more.is_empty() {
            known.extend(self.fetched(more).await?);
        }
        let documented = replicas.into_iter().map(|(id, head, head_etag, segments)| {
            let done = document::<Done>(&known, &Documents::done(&id))?;
            let segments = segments.into_iter().map(|number| {
                let segment = document::<Segment>(&known, &Documents::segment(&id, number))?;
                Ok((
                    number,
                    segment.map_or_else(Segment::default, |(one, _)| one),
                ))
            });
            Ok(Documented {
                segments: segments.collect::<Result<_, PortError>>()?,
                done: done.map_or_else(Done::default, |(done, _)| done),
                id,
                head,
                head_etag,
            })
        });
        documented.collect()
    }

    async fn fetched(&self, names: Vec<String>) -> Result<HashMap<String, Found>, PortError> {
        let found = self.documents.get_many(&names).await?;
        Ok(names.into_iter().zip(found).collect())
    }

    /// The segments to read, by this head or by the last one that was seen.
    fn segments_of(&self, id: &str, head: Option<Head>, extent: Extent) -> Vec<u64> {
        let state = self.state();
        let Some(watched) = state.watched.get(id) else {
            let head = head.unwrap_or_default();
            return (head.first..=head.last).collect();
        };
        let head = head.unwrap_or(watched.head);
        let from = watched.from.max(head.first);
        let from = match extent {
            Extent::All => from,
            Extent::New => from.max(watched.through / SEGMENT),
        };
        let all = from.min(head.last)..=head.last;
        all.filter(|number| !watched.empty.contains(number))
            .collect()
    }

    /// Brings the index up to what was read, and names the replicas that can be closed.
    fn take_over(
        &self,
        found: Vec<Documented>,
        extent: Extent,
        began: Instant,
    ) -> Vec<(Arc<str>, Head, Box<str>)> {
        let mut state = self.state();
        let mut closable = Vec::new();
        let ids: HashSet<Arc<str>> = found.iter().map(|one| Arc::clone(&one.id)).collect();
        let gone = state
            .watched
            .keys()
            .filter(|id| !ids.contains(*id))
            .cloned();
        for id in gone.collect::<Vec<_>>() {
            state.watched.remove(&id);
            for op in state.index.of(&id) {
                state.index.remove(&op);
            }
        }
        for one in found {
            let noted = one.notes();
            let read: HashSet<u64> = one.segments.iter().map(|(number, _)| *number).collect();
            for op in state.index.of(&one.id) {
                let was_read = read.contains(&(op.number / SEGMENT));
                if was_read && !noted.contains(&op.number) || one.done.has(op.number) {
                    state.index.remove(&op);
                }
            }
            let watched = one.watched(state.watched.get(&one.id));
            for (_, segment) in one.segments {
                for note in segment.notes {
                    if noted.contains(&note.number) {
                        let op = Op::new(&one.id, note.number);
                        let from = note.moved_from.as_deref().and_then(Op::parse);
                        state
                            .index
                            .add_other(op.clone(), note.record.into(), note.etag);
                        state.index.moves(&op, from);
                    }
                }
            }
            // By the time before it was read: what is read late does not tell what is noted now.
            let silence = began.saturating_duration_since(watched.since);
            let is_silent = silence >= self.beat_every * BEATS_UNTIL_CLOSED;
            let is_empty = extent == Extent::All && state.index.of(&one.id).is_empty();
            if one.head.is_closed || is_silent && is_empty {
                let etag = watched.head_etag.clone();
                closable.push((Arc::clone(&one.id), one.head, etag));
            }
            state.watched.insert(one.id, watched);
        }
        closable
    }

    /// Ends the journal of a replica that is gone.
    async fn close(&self, id: &Arc<str>, head: Head, etag: &str) -> Result<(), PortError> {
        let name = Documents::head(id);
        if !head.is_closed {
            let closed = Head {
                is_closed: true,
                ..head
            };
            if !self.documents.end(&name, &closed, etag).await? {
                // It lives.
                return Ok(());
            }
        }
        tracing::debug!(replica = %id, "the journal of a replica that is gone was closed");
        let remove = |all: &mut Replicas| all.replicas.retain(|one| **one != **id);
        self.documents
            .change(&Documents::replicas(), remove)
            .await?;
        let segments = head.first..=head.last;
        let mut names: Vec<String> = segments
            .map(|number| Documents::segment(id, number))
            .collect();
        names.push(Documents::done(id));
        self.documents.remove(&names).await;
        Ok(())
    }
}

impl Documented {
    /// The numbers that are noted and not done.
    fn notes(&self) -> HashSet<u64> {
        let notes = self.segments.iter().flat_map(|(_, segment)| &segment.notes);
        let open = notes.filter(|note| !self.done.has(note.number));
        open.map(|note| note.number).collect()
    }

    fn watched(&self, before: Option<&Watched>) -> Watched {
        let is_empty = |segment: &Segment| {
            let mut notes = segment.notes.iter();
            notes.all(|note| self.done.has(note.number))
        };
        let is_full = |number: u64, segment: &Segment| segment.through >= (number + 1) * SEGMENT;
        let sealed = self
            .segments
            .iter()
            .filter(|(number, segment)| is_full(*number, segment) && is_empty(segment));
        let mut empty = before.map_or_else(BTreeSet::new, |before| before.empty.clone());
        empty.extend(sealed.map(|(number, _)| *number));
        let mut from = before.map_or(0, |before| before.from).max(self.head.first);
        while empty.remove(&from) {
            from += 1;
        }
        // What lies before the first segment that may hold notes is settled. Behind one that is not full nothing is
        // complete, whatever was read of it.
        let mut through = before.map_or(0, |before| before.through);
        through = through.max(from * SEGMENT);
        let end = |number: u64| match empty.contains(&number) {
            true => Some((number + 1) * SEGMENT),
            false => {
                let mut read = self.segments.iter();
                let found = read.find(|(one, _)| *one == number);
                found.map(|(_, segment)| segment.through)
            }
        };
        while let Some(further) = end(through / SEGMENT).filter(|end| *end > through) {
            through = further;
        }
        let unchanged = before.filter(|before| before.head_etag == self.head_etag);
        Watched {
            head: self.head,
            head_etag: self.head_etag.clone(),
            since: unchanged.map_or_else(Instant::now, |before| before.since),
            from,
            empty: empty.split_off(&from),
            through,
        }
    }
}

fn document<T: serde::de::DeserializeOwned>(
    known: &HashMap<String, Found>,
    name: &str,
) -> Result<Option<(T, Box<str>)>, PortError> {
    let Some(found) = known.get(name) else {
        return Ok(None);
    };
    read(name, found).map_err(|failure| failure.into_port("journal"))
}
