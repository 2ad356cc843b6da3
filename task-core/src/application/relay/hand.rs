//! The events in hand: which key has its turn, which one waits behind its own failure.
//!
//! What it lets go of stays in the outbox and is read again. So it is bounded: [`IN_HAND`] events of keys
//! that work, and the first event each of [`FAILING`] keys that fail, of [`TAKEN_UP`] that failed and were
//! forgotten, and of [`LAGGING`] whose publication takes unusually long.
//!
//! A key that was never tried may fail slowly, as all keys of a partition without a leader do. So its
//! publication gives its place back once it lags while the bus accepts others, and is given up when too
//! many lag: others go on however large the share of such keys is
//! (`new_keys_that_fail_slowly_delay_no_others_whatever_their_share`). A bus that accepts nothing is
//! given no more than [`PLACES`] of them, and one that is slow with all of them little more.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use futures_util::future::{AbortHandle, AbortRegistration};
use tokio::time::Instant;

use super::PAUSES;
use super::passed::Passed;
use crate::ports::{PendingEvent, PendingId};

/// First attempts under way at once, each of another key, those that lag apart.
const PLACES: usize = 64;

/// Attempts under way of keys that have failed. They run to their end, however long that takes.
const RETRIES: usize = 32;

/// First attempts that lag.
const LAGGING: usize = 1024;

/// An attempt lags when it takes this long, and [`UNUSUAL`] times as long as usual.
const LAGS_AFTER: Duration = Duration::from_millis(50);

/// How many times as long as usual is unusual: a bus that is slow with everything is not hurried.
const UNUSUAL: u32 = 8;

/// How long ago the bus may have accepted something if it is thought to work.
const WORKS: Duration = Duration::from_millis(200);

/// Before this time no attempt is given up for others.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(1);

/// Events that are read and not settled, those of keys that fail or lag apart.
pub(super) const IN_HAND: usize = 1024;

/// Events of one key that wait behind its first one.
const BEHIND: usize = 256;

/// Failing keys whose first event and pause are remembered; the others are forgotten.
const FAILING: usize = 1024;

/// Forgotten keys that are tried again at once.
const TAKEN_UP: usize = 256;

/// Failures that are assumed of a forgotten key: as many as make its pause the longest.
const LONG_FAILED: u32 = 6;

/// The events in hand.
#[derive(Debug, Default)]
pub(super) struct Hand {
    /// Every key with an event in hand. Its first one is in exactly one of the next six.
    chains: HashMap<Box<str>, Chain>,
    ready: VecDeque<PendingEvent>,
    retries: VecDeque<PendingEvent>,
    /// Those that wait for their time, by it; the number keeps equal times apart.
    paused: BTreeMap<(Instant, u64), PendingEvent>,
    /// Attempts under way, in the order in which they began.
    first: BTreeMap<u64, Attempt>,
    lagging: BTreeMap<u64, Attempt>,
    retrying: BTreeMap<u64, Attempt>,
    numbers: u64,
    /// About how long the bus takes to accept an event.
    usual: Duration,
    accepted_at: Option<Instant>,
    failing: usize,
    /// Keys that failed and are not in hand, since one that failed has recovered.
    forgotten: Passed,
    held: usize,
    /// The keys that failed since the last acceptance, as many as there are places.
    refused: HashSet<Box<str>>,
}

/// The events of one key.
#[derive(Debug)]
struct Chain {
    first: PendingId,
    /// Since the last acceptance.
    failures: u32,
    lags: bool,
    behind: VecDeque<PendingEvent>,
    /// Later events of the key were read and passed over.
    has_more: bool,
}

/// A publication under way.
#[derive(Debug)]
struct Attempt {
    key: Box<str>,
    began: Instant,
    handle: AbortHandle,
}

/// A publication to begin: its number, and what ends it early.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) number: u64,
    pub(super) pending: PendingEvent,
    pub(super) registration: AbortRegistration,
}

/// What an event is that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing of its key fails or is too much.
    Free,
    /// It is in hand.
    Known,
    /// Its key fails, or lags.
    Blocked,
    /// Its key has as many events in hand as it may.
    Full,
}

/// An event that the bus has accepted.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) id: PendingId,
    /// There may be something in the outbox that can be taken now.
    pub(super) wants_more: bool,
    /// The key had its hands full, and has emptied half of them.
    pub(super) has_room: bool,
}

/// So many events of a key were let go of.
#[derive(Debug)]
pub(super) struct LetGo {
    pub(super) key: Box<str>,
    pub(super) events: usize,
}

impl Hand {
    /// Says whether an event may be taken; one that may not stays in the outbox.
    pub(super) fn look(&mut self, pending: &PendingEvent) -> Look {
        let Some(chain) = self.chains.get_mut(&pending.event.key) else {
            return Look::Free;
        };
        let is_it = |other: &PendingEvent| other.id == pending.id;
        if chain.first == pending.id || chain.behind.iter().any(is_it) {
            return Look::Known;
        }
        match chain.is_blocked() || chain.behind.len() >= BEHIND {
            true => chain.pass(),
            false => Look::Free,
        }
    }

    /// Takes an event in hand, behind those of its key.
    pub(super) fn take(&mut self, pending: PendingEvent) {
        self.held += 1;
        if let Some(chain) = self.chains.get_mut(&pending.event.key) {
            return chain.behind.push_back(pending);
        }
        self.add(&pending, 0);
        self.ready.push_back(pending);
    }

    /// Says whether an event's key has failed and is not in hand.
    pub(super) fn has_forgotten(&self, pending: &PendingEvent) -> bool {
        let key = &pending.event.key;
        self.forgotten.has(key) && !self.chains.contains_key(key)
    }

    /// Takes the first event of a forgotten key, unless there are too many of them.
    pub(super) fn take_up(&mut self, pending: PendingEvent) -> bool {
        let has_room = self.failing < FAILING + TAKEN_UP;
        if has_room {
            self.failing += 1;
            self.add(&pending, LONG_FAILED);
            self.retries.push_back(pending);
        }
        has_room
    }

    fn add(&mut self, pending: &PendingEvent, failures: u32) {
        let chain = Chain {
            first: pending.id.clone(),
            failures,
            lags: false,
            behind: VecDeque::new(),
            has_more: false,
        };
        self.chains.insert(pending.event.key.clone(), chain);
    }

    /// Leaves an event in the outbox whose key was passed over.
    pub(super) fn pass(&mut self, pending: &PendingEvent) -> Look {
        let chain = self.chains.get_mut(&pending.event.key);
        chain.map_or(Look::Blocked, Chain::pass)
    }

    /// The next event to publish, if there is one and a place for it.
    pub(super) fn next(&mut self, now: Instant) -> Option<Turn> {
        while let Some(first) = self.paused.first_entry().filter(|e| e.key().0 <= now) {
            self.retries.push_back(first.remove());
        }
        let may_retry = self.retrying.len() < RETRIES && !self.retries.is_empty();
        let (queue, places) = match may_retry {
            true => (&mut self.retries, &mut self.retrying),
            false if self.first.len() >= PLACES || self.lagging.len() >= LAGGING => return None,
            false => (&mut self.ready, &mut self.first),
        };
        let pending = queue.pop_front()?;
        let (handle, registration) = AbortHandle::new_pair();
        self.numbers += 1;
        let attempt = Attempt {
            key: pending.event.key.clone(),
            began: now,
            handle,
        };
        places.insert(self.numbers, attempt);
        Some(Turn {
            number: self.numbers,
            pending,
            registration,
        })
    }

    /// Takes the places of attempts that lag, and gives one up where too many do.
    pub(super) fn let_lag(&mut self, now: Instant) -> Option<LetGo> {
        if self.lagging.len() >= LAGGING
            && let Some(oldest) = self.lagging.values().next()
            && oldest.began + GIVEN_UP_AFTER <= now
        {
            oldest.handle.abort();
        }
        let works = self.accepted_at.is_some_and(|at| now <= at + WORKS);
        let patience = self.patience();
        let oldest = self.first.first_entry()?;
        if !works || now < oldest.get().began + patience {
            return None;
        }
        let (number, attempt) = oldest.remove_entry();
        let key = attempt.key.clone();
        self.lagging.insert(number, attempt);
        let chain = under_way(&mut self.chains, &key);
        chain.lags = true;
        let events = chain.let_go();
        self.held -= 1 + events;
        Some(LetGo { key, events })
    }

    fn patience(&self) -> Duration {
        LAGS_AFTER.max(UNUSUAL * self.usual)
    }

    /// Frees the place of an attempt; nothing if it was let go of since it began.
    fn end(&mut self, number: u64) -> Option<Attempt> {
        let first = self.first.remove(&number);
        let other = || self.lagging.remove(&number);
        let attempt = first.or_else(other);
        attempt.or_else(|| self.retrying.remove(&number))
    }

    /// Ends a publication that the bus has accepted; the next event of the key has its turn.
    pub(super) fn accept(&mut self, number: u64, event: PendingEvent, now: Instant) -> Accepted {
        let nothing = Accepted {
            id: event.id,
            wants_more: false,
            has_room: false,
        };
        let Some(attempt) = self.end(number) else {
            return nothing;
        };
        let took = (now - attempt.began).min(GIVEN_UP_AFTER);
        self.usual = (self.usual * 15 + took) / 16;
        self.accepted_at = Some(now);
        self.refused.clear();
        let chain = under_way(&mut self.chains, &attempt.key);
        let has_failed = chain.failures > 0;
        self.failing -= usize::from(has_failed);
        self.held -= usize::from(!chain.is_blocked());
        // Perhaps they all work again: they are tried as if they were new.
        let forgot = has_failed && !self.forgotten.is_empty();
        if forgot {
            self.forgotten.clear();
        }
        let Some(next) = chain.behind.pop_front() else {
            let wants_more = chain.has_more || forgot;
            self.chains.remove(&attempt.key);
            return Accepted {
                wants_more,
                ..nothing
            };
        };
        chain.first = next.id.clone();
        let has_room = chain.has_more && chain.behind.len() == BEHIND / 2;
        self.ready.push_back(next);
        Accepted {
            has_room,
            ..nothing
        }
    }

    /// Ends a publication that failed: its key pauses, and keeps no more than this event in hand.
    pub(super) fn fail(
        &mut self,
        number: u64,
        pending: PendingEvent,
        now: Instant,
    ) -> Option<LetGo> {
        let key = self.end(number)?.key;
        if !self.bus_is_down() && !self.refused.contains(&key) {
            self.refused.insert(key.clone());
        }
        let chain = under_way(&mut self.chains, &key);
        let mut events = chain.let_go();
        if !chain.is_blocked() {
            self.held -= 1 + events;
        }
        self.failing += usize::from(chain.failures == 0);
        chain.lags = false;
        chain.failures = chain.failures.saturating_add(1);
        if self.failing > FAILING {
            self.chains.remove(&key);
            self.failing -= 1;
            self.forgotten.insert(&key);
            events += 1;
        } else {
            self.numbers += 1;
            let due = now + PAUSES.pause_after(chain.failures);
            self.paused.insert((due, self.numbers), pending);
        }
        Some(LetGo { key, events })
    }

    /// Lets go of everything, also of what is under way.
    pub(super) fn forget(&mut self) {
        let under_way = self.first.values().chain(self.lagging.values());
        let under_way = under_way.chain(self.retrying.values());
        under_way.for_each(|attempt| attempt.handle.abort());
        *self = Self {
            // What ends later is not taken for something that begins later.
            numbers: self.numbers,
            ..Self::default()
        };
    }

    /// Ends all pauses.
    pub(super) fn hurry(&mut self) {
        let paused = std::mem::take(&mut self.paused);
        self.retries.extend(paused.into_values());
    }

    /// When the first pause ends, an attempt may lag, and one may be given up.
    pub(super) fn due(&self) -> [Option<Instant>; 3] {
        let began = |attempts: &BTreeMap<u64, Attempt>| {
            let oldest = attempts.values().next();
            oldest.map(|attempt| attempt.began)
        };
        let pause = self.paused.first_key_value().map(|((due, _), _)| *due);
        let lags = began(&self.first).map(|began| began + self.patience());
        let given_up = began(&self.lagging).filter(|_| self.lagging.len() >= LAGGING);
        [pause, lags, given_up.map(|began| began + GIVEN_UP_AFTER)]
    }

    /// Events in hand, those of keys that fail or lag apart.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Keys that fail or lag, and whose first event is in hand.
    pub(super) fn failing(&self) -> usize {
        self.failing + self.lagging.len()
    }

    /// Says whether keys have failed that are not remembered.
    pub(super) fn forgets(&self) -> bool {
        !self.forgotten.is_empty()
    }

    /// Says whether nothing is under way or could be without a pause.
    pub(super) fn is_idle(&self) -> bool {
        let under_way = self.first.len() + self.lagging.len() + self.retrying.len();
        under_way == 0 && self.ready.is_empty() && self.retries.is_empty()
    }

    /// Says whether as many keys have failed since the last acceptance as there are places.
    pub(super) fn bus_is_down(&self) -> bool {
        self.refused.len() >= PLACES
    }

    /// Says whether a publication failed since the last one was accepted.
    pub(super) fn has_failed(&self) -> bool {
        !self.refused.is_empty()
    }
}

fn under_way<'a>(chains: &'a mut HashMap<Box<str>, Chain>, key: &str) -> &'a mut Chain {
    let chain = chains.get_mut(key);
    chain.expect("a key under way has its chain")
}

impl Chain {
    fn is_blocked(&self) -> bool {
        self.failures > 0 || self.lags
    }

    fn pass(&mut self) -> Look {
        self.has_more = true;
        match self.is_blocked() {
            true => Look::Blocked,
            false => Look::Full,
        }
    }

    /// Lets go of all events but the first.
    fn let_go(&mut self) -> usize {
        let events = std::mem::take(&mut self.behind).len();
        self.has_more |= events > 0;
        events
    }
}
