//! What the other replicas have noted.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use task_core::ports::PortError;
use tokio::time::Instant;

use super::documents::{Documents, Done, Garbled, Head, Item, Replicas, Segment, Versioned};
use super::index::Op;
use super::{BEATS_UNTIL_CLOSED, Journal, SEGMENT};
use crate::state_store::calls::Found;

/// Segments of one replica that are read, at most, whatever its head says.
const MOST_SEGMENTS: usize = 65_536;

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
    /// Segments that cannot be read: what was noted there only the records tell.
    pub(super) garbled: BTreeSet<u64>,
    /// Notes with lesser numbers are known or settled, but for those. From here on segments may grow.
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
    segments: Vec<(u64, Segment)>,
    /// Segments that cannot be read.
    garbled: BTreeSet<u64>,
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
        // Before the list is read: so who is known and not in it has been there, and is not just coming.
        let known = self.known();
        let list = self.names().await?;
        let listed: HashSet<Arc<str>> = list.iter().flatten().cloned().collect();
        // Only now: who is read of as another one must not become this one before what is read is taken over,
        // which would drop its notes.
        let own = self.state().name.clone();
        // In the order of the list, which is that of their beginnings, and so of their events.
        let unlisted = known.iter().filter(|id| !listed.contains(*id));
        let others = list.iter().flatten().chain(unlisted).cloned();
        let others: Vec<Arc<str>> = others.filter(|id| own.as_ref() != Some(id)).collect();
        let extent = match within.is_zero() {
            true => Extent::All,
            false => Extent::New,
        };
        let found = self.documented(&others, extent).await?;
        let closable = self.take_over(found, &listed, extent, began);
        self.state().looked = Some(began);
        for (id, head, etag) in closable {
            self.close(&id, head, &etag).await?;
        }
        self.list_again(&known, list.as_deref()).await
    }

    /// The names of all replicas; `None` if there is no list, or none that can be read.
    async fn names(&self) -> Result<Option<Vec<Arc<str>>>, PortError> {
        let name = Documents::replicas();
        let found = self.documents.get::<Replicas>(&name).await?;
        let list = found.and_then(|(list, _)| list.ok());
        Ok(list.map(|list| list.replicas.iter().map(|id| (**id).into()).collect()))
    }

    /// The names that earlier looks have found, those that records tell and no look has found, and the own one.
    fn known(&self) -> HashSet<Arc<str>> {
        let state = self.state();
        let met = state.met.keys().map(|op| &op.replica);
        let own = state.me.as_ref().map(|me| &me.id);
        let watched = state.watched.keys();
        watched.chain(met).chain(own).cloned().collect()
    }

    /// Writes the names down that somebody else has removed from the list.
    async fn list_again(
        &self,
        known: &HashSet<Arc<str>>,
        list: Option<&[Arc<str>]>,
    ) -> Result<(), PortError> {
        let is_lost = |id: &&Arc<str>| list.is_none_or(|list| !list.contains(id));
        let (mut lost, mut is_own_lost) = (Vec::new(), false);
        for id in known.iter().filter(is_lost) {
            let state = self.state();
            let watched = state.watched.get(id);
            let me = state.me.as_ref().filter(|me| me.id == *id);
            is_own_lost |= me.is_some();
            let is_open = watched.is_some_and(|watched| !watched.head.is_closed);
            if is_open || me.is_some_and(|me| list.is_none() || self.is_fresh(me)) {
                lost.push(Arc::clone(id));
            }
        }
        if is_own_lost {
            // Unless its journal was closed.
            self.stay().await;
        }
        if lost.is_empty() {
            return Ok(());
        }
        tracing::error!(
            replicas = lost.len(),
            "somebody has removed names from the list of journals, which get them back"
        );
        let add = |list: &mut Replicas| lost.iter().for_each(|id| list.add(id));
        self.documents.change(&Documents::replicas(), add).await
    }

    /// One read for all of them, and one more where there are segments that were not expected.
    async fn documented(
        &self,
        others: &[Arc<str>],
        extent: Extent,
    ) -> Result<Vec<Documented>, PortError> {
        let mut wanted: Vec<String> = Vec::new();
        for id in others {
            wanted.extend([Documents::head(id), Documents::done(id)]);
            let expected = self.segments_of(id, None, extent).into_iter();
            wanted.extend(expected.map(|number| Documents::segment(id, number)));
        }
        let mut known = self.fetched(wanted).await?;
        let (mut replicas, mut illegible) = (Vec::new(), HashSet::new());
        let (mut more, mut done) = (Vec::new(), HashMap::new());
        for id in others {
            if let Some((Ok(read), _)) = self.document::<Done>(&known, &Documents::done(id)) {
                done.insert(Arc::clone(id), read);
            }
            let head = match self.document::<Head>(&known, &Documents::head(id)) {
                Some((Ok(head), etag)) => Some((head, etag)),
                // Somebody else has written over it or removed it; its replica will write it again.
                Some((Err(Garbled), _)) | None => {
                    illegible.insert(Arc::clone(id));
                    self.last_head(id)
                }
            };
            if let Some((head, etag)) = head {
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
        replicas.retain(|(id, head, _, _)| self.is_sound(id, *head, &known));
        let documented = replicas.into_iter().map(|(id, head, head_etag, segments)| {
            let mut documented = Documented {
                segments: Vec::new(),
                garbled: BTreeSet::new(),
                id,
                head,
                head_etag,
            };
            for number in segments {
                let name = Documents::segment(&documented.id, number);
                match self.document::<Segment>(&known, &name) {
                    Some((Ok(segment), _)) => documented.segments.push((number, segment)),
                    Some((Err(Garbled), _)) => _ = documented.garbled.insert(number),
                    None if self.was_there(&documented.id, head, number) => {
                        documented.garbled.insert(number);
                    }
                    None => documented.segments.push((number, Segment::default())),
                }
            }
            documented
        });
        let documented = documented.collect();
        let mut state = self.state();
        (state.illegible, state.done) = (illegible, done);
        Ok(documented)
    }

    /// Says whether a head may be believed that says of segments that all of them is settled: the last one is there,
    /// which is missing for a moment after it was named.
    fn is_sound(&self, id: &str, head: Head, known: &HashMap<String, Item>) -> bool {
        let state = self.state();
        let watched = state.watched.get(id);
        let last = known.get(&Documents::segment(id, head.last));
        let is_there = last.is_some_and(|last| !matches!(last, Ok(Found { etag: None, .. })));
        let was_full = watched.is_some_and(|watched| watched.empty.contains(&head.last));
        let is_range = head.first <= head.last && head.last < u64::MAX / SEGMENT;
        is_range && (head.first == 0 || head.is_closed || is_there || was_full)
    }

    /// Says whether a segment that is missing was saved once: another one is behind it, or it was read.
    fn was_there(&self, id: &str, head: Head, number: u64) -> bool {
        let state = self.state();
        let watched = state.watched.get(id);
        let was_read = watched.is_some_and(|watched| number * SEGMENT < watched.through);
        !head.is_closed && (number < head.last || was_read)
    }

    fn document<T: DeserializeOwned>(
        &self,
        known: &HashMap<String, Item>,
        name: &str,
    ) -> Versioned<T> {
        self.documents.read(name, known.get(name)?)
    }

    fn last_head(&self, id: &str) -> Option<(Head, Box<str>)> {
        let state = self.state();
        let watched = state.watched.get(id)?;
        Some((watched.head, watched.head_etag.clone()))
    }

    async fn fetched(&self, names: Vec<String>) -> Result<HashMap<String, Item>, PortError> {
        let found = self.documents.get_many(&names).await?;
        Ok(names.into_iter().zip(found).collect())
    }

    /// The segments to read, by this head or by the last one that was seen.
    fn segments_of(&self, id: &str, head: Option<Head>, extent: Extent) -> Vec<u64> {
        let state = self.state();
        let Some(watched) = state.watched.get(id) else {
            let head = head.unwrap_or_default();
            return (head.first..=head.last).take(MOST_SEGMENTS).collect();
        };
        let head = head.unwrap_or(watched.head);
        let from = watched.from.max(head.first);
        let from = match extent {
            Extent::All => from,
            Extent::New => from.max(watched.through / SEGMENT),
        };
        let all = from.min(head.last)..=head.last;
        all.filter(|number| !watched.empty.contains(number))
            .take(MOST_SEGMENTS)
            .collect()
    }

    /// Brings the index up to what was read, and names the replicas that can be closed.
    fn take_over(
        &self,
        found: Vec<Documented>,
        listed: &HashSet<Arc<str>>,
        extent: Extent,
        began: Instant,
    ) -> Vec<(Arc<str>, Head, Box<str>)> {
        let mut state = self.state();
        let mut closable = Vec::new();
        for one in found {
            let done = state.done.get(&one.id).cloned().unwrap_or_default();
            let noted = one.notes(&done);
            let read: HashSet<u64> = one.segments.iter().map(|(number, _)| *number).collect();
            for op in state.index.of(&one.id) {
                let segment = op.number / SEGMENT;
                let is_gone = read.contains(&segment) && !noted.contains(&op.number);
                if is_gone || segment < one.head.first || done.has(op.number) {
                    state.index.remove(&op);
                }
            }
            let watched = one.watched(state.watched.get(&one.id), &done);
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
            let is_legible = watched.garbled.is_empty() && !state.illegible.contains(&one.id);
            let is_empty = is_legible && state.index.of(&one.id).is_empty();
            if is_empty && one.head.is_closed && !listed.contains(&one.id) {
                state.is_over(&one.id);
                continue;
            }
            if is_empty && extent == Extent::All && (one.head.is_closed || is_silent) {
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
        self.state().is_over(id);
        let remove = |all: &mut Replicas| all.replicas.retain(|one| **one != **id);
        self.documents
            .change(&Documents::replicas(), remove)
            .await?;
        let segments = (head.first..=head.last).take(MOST_SEGMENTS);
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
    fn notes(&self, done: &Done) -> HashSet<u64> {
        let notes = self.segments.iter().flat_map(|(_, segment)| &segment.notes);
        let open = notes.filter(|note| !done.has(note.number));
        open.map(|note| note.number).collect()
    }

    fn watched(&self, before: Option<&Watched>, done: &Done) -> Watched {
        let is_empty = |segment: &Segment| {
            let mut notes = segment.notes.iter();
            notes.all(|note| done.has(note.number))
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
        let mut garbled = before.map_or_else(BTreeSet::new, |before| before.garbled.clone());
        garbled.retain(|number| self.segments.iter().all(|(read, _)| read != number));
        garbled.extend(&self.garbled);
        // One that has another one behind it was full before it could not be read.
        let is_passed = |number: u64| {
            empty.contains(&number) || garbled.contains(&number) && number < self.head.last
        };
        let end = |number: u64| match is_passed(number) {
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
            garbled: garbled.split_off(&from),
            through,
        }
    }
}
