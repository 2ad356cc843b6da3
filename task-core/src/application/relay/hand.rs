//! The events in hand: which key has its turn, which one waits behind its own failure.
//!
//! It holds no more than [`IN_HAND`] events of keys that work and the first event each of at most
//! [`FAILING`] keys that fail. What it lets go of stays in the outbox and is read again.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::ports::{Event, PendingEvent, PendingId, Redelivery};

/// Publications under way at once, each of another key.
pub(super) const CONCURRENCY: usize = 64;

/// How many of them may be of keys that failed the last time: slow failures leave room for others.
const RETRIES: usize = 16;

/// Events that are read and not settled, those of failing keys apart.
pub(super) const IN_HAND: usize = 1024;

/// Events of one key that wait behind its first one.
const BEHIND: usize = 256;

/// Failing keys whose first event and pause are remembered; the others are tried as they are read.
pub(super) const FAILING: usize = 1024;

/// The pauses of a failing key. Nothing spreads them: one relay works on an outbox, and the retries
/// that fall due together share a few places.
const PAUSES: Redelivery = Redelivery {
    max_deliveries: u32::MAX,
    first_pause: Duration::from_millis(100),
    longest_pause: Duration::from_secs(5),
};

/// The events in hand.
#[derive(Debug, Default)]
pub(super) struct Hand {
    /// Every key with an event in hand. Its first one is in exactly one of the next three, or running.
    chains: HashMap<Box<str>, Chain>,
    ready: VecDeque<Event>,
    retries: VecDeque<Event>,
    /// Those that wait for their time, by it; the number keeps equal times apart.
    paused: BTreeMap<(Instant, u64), Event>,
    pauses: u64,
    running: usize,
    retrying: usize,
    failing: usize,
    held: usize,
    /// The keys that failed since the last acceptance, as many as there may be at once.
    refused: HashSet<Box<str>>,
}

/// The events of one key.
#[derive(Debug)]
struct Chain {
    first: PendingId,
    /// Since the last acceptance.
    failures: u32,
    is_running: bool,
    /// The lease was lost while it ran: what becomes of it is no longer ours to repeat.
    is_forgotten: bool,
    behind: VecDeque<PendingEvent>,
    /// Later events of the key were read and passed over.
    has_more: bool,
}

/// What an event is that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// It may be taken.
    Free,
    /// It is in hand.
    Known,
    /// Its key fails or was passed over.
    Blocked,
    /// Its key has as many events in hand as it may.
    Full,
}

/// An event that the bus has accepted.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) id: PendingId,
    /// The key had failed.
    pub(super) recovered: bool,
    /// Nothing of the key is in hand any more, and more of it is in the outbox.
    pub(super) wants_more: bool,
    /// The key had its hands full, and has emptied half of them.
    pub(super) has_room: bool,
}

/// What a failure let go of.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    pub(super) events: usize,
    /// The key itself is not remembered either.
    pub(super) is_forgotten: bool,
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
        let PendingEvent { id, event } = pending;
        self.chains.insert(event.key.clone(), Chain::of(id));
        self.ready.push_back(event);
    }

    /// Leaves an event in the outbox whose key was passed over.
    pub(super) fn pass(&mut self, pending: &PendingEvent) -> Look {
        let chain = self.chains.get_mut(&pending.event.key);
        chain.map_or(Look::Blocked, Chain::pass)
    }

    /// The next event to publish, if there is one and a place for it.
    pub(super) fn next(&mut self, now: Instant) -> Option<Event> {
        while let Some(first) = self.paused.first_entry().filter(|e| e.key().0 <= now) {
            self.retries.push_back(first.remove());
        }
        if self.running >= CONCURRENCY {
            return None;
        }
        let retry = match self.retrying < RETRIES {
            true => self.retries.pop_front(),
            false => None,
        };
        self.retrying += usize::from(retry.is_some());
        let event = retry.or_else(|| self.ready.pop_front())?;
        if let Some(chain) = self.chains.get_mut(&event.key) {
            chain.is_running = true;
        }
        self.running += 1;
        Some(event)
    }

    /// Ends a publication that the bus has accepted; the next event of the key has its turn.
    pub(super) fn accept(&mut self, event: Event) -> Accepted {
        let Entry::Occupied(mut entry) = self.chains.entry(event.key) else {
            unreachable!("a running key has its chain");
        };
        self.running -= 1;
        self.refused.clear();
        let chain = entry.get_mut();
        let recovered = chain.failures > 0;
        if recovered {
            self.retrying -= 1;
            self.failing -= 1;
        } else {
            self.held -= 1;
        }
        let Some(next) = chain.behind.pop_front() else {
            let chain = entry.remove();
            return Accepted {
                id: chain.first,
                recovered,
                wants_more: chain.has_more,
                has_room: false,
            };
        };
        chain.is_running = false;
        let has_room = chain.has_more && chain.behind.len() == BEHIND / 2;
        let id = std::mem::replace(&mut chain.first, next.id);
        self.ready.push_back(next.event);
        Accepted {
            id,
            recovered,
            wants_more: false,
            has_room,
        }
    }

    /// Ends a publication that failed: its key pauses, and keeps no more than this event in hand.
    pub(super) fn fail(&mut self, event: Event, now: Instant) -> Dropped {
        self.running -= 1;
        if !self.bus_is_down() && !self.refused.contains(&event.key) {
            self.refused.insert(event.key.clone());
        }
        let chain = self.chains.get_mut(&event.key);
        let chain = chain.expect("a running key has its chain");
        chain.is_running = false;
        if chain.failures > 0 {
            self.retrying -= 1;
        } else {
            self.held -= 1 + chain.behind.len();
            self.failing += 1;
        }
        let mut events = chain.behind.len();
        chain.behind = VecDeque::new();
        chain.has_more |= events > 0;
        chain.failures = chain.failures.saturating_add(1);
        let is_forgotten = chain.is_forgotten || self.failing > FAILING;
        if is_forgotten {
            self.chains.remove(&event.key);
            self.failing -= 1;
            events += 1;
        } else {
            self.pauses += 1;
            let due = now + PAUSES.pause_after(chain.failures);
            self.paused.insert((due, self.pauses), event);
        }
        Dropped {
            events,
            is_forgotten,
        }
    }

    /// Lets go of everything that is not running.
    pub(super) fn forget(&mut self) {
        self.ready.clear();
        self.retries.clear();
        self.paused.clear();
        self.refused.clear();
        self.chains.retain(|_, chain| chain.is_running);
        for chain in self.chains.values_mut() {
            chain.is_forgotten = true;
            chain.behind = VecDeque::new();
        }
        let failing = |chain: &&Chain| chain.failures > 0;
        self.failing = self.chains.values().filter(failing).count();
        self.held = self.chains.len() - self.failing;
    }

    /// Ends all pauses.
    pub(super) fn hurry(&mut self) {
        let paused = std::mem::take(&mut self.paused);
        self.retries.extend(paused.into_values());
    }

    /// When the first pause ends.
    pub(super) fn due(&self) -> Option<Instant> {
        self.paused.first_key_value().map(|((due, _), _)| *due)
    }

    /// Events in hand, those of failing keys apart.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Keys whose first event failed and is in hand.
    pub(super) fn failing(&self) -> usize {
        self.failing
    }

    /// Says whether nothing runs or could run without a pause.
    pub(super) fn is_idle(&self) -> bool {
        self.running == 0 && self.ready.is_empty() && self.retries.is_empty()
    }

    /// Says whether so many keys have failed since the last acceptance as there may be at once.
    pub(super) fn bus_is_down(&self) -> bool {
        self.refused.len() >= CONCURRENCY
    }

    /// Says whether a publication failed since the last one was accepted.
    pub(super) fn has_failed(&self) -> bool {
        !self.refused.is_empty()
    }
}

impl Chain {
    fn of(first: PendingId) -> Self {
        Self {
            first,
            failures: 0,
            is_running: false,
            is_forgotten: false,
            behind: VecDeque::new(),
            has_more: false,
        }
    }

    fn is_blocked(&self) -> bool {
        self.failures > 0 || self.is_forgotten
    }

    fn pass(&mut self) -> Look {
        self.has_more = true;
        match self.is_blocked() {
            true => Look::Blocked,
            false => Look::Full,
        }
    }
}
