//! Where the outbox is read next, and how soon.
//!
//! A sweep reads it from its beginning to its end, past whatever is blocked. Between and beside sweeps
//! the tail is read: what was committed after the end that the last sweep has seen, so that new events
//! do not wait until a sweep has made its way through those that are blocked.
//!
//! Of a key that was passed over nothing later may be taken: by the sweep until the next one begins,
//! and by readers of the tail until a whole sweep has not passed it over
//! (`what_comes_while_a_long_key_drains_stays_behind_what_was_there`).

use std::time::Duration;

use tokio::time::Instant;

use super::finished::Finished;
use super::hand::{Hand, Look};
use super::passed::Passed;
use crate::ports::{PendingEvent, PendingId, Redelivery};

/// Pending events read at once.
pub(super) const PAGE: usize = 256;

/// Between two reads while the bus takes nothing, and after a page of a sweep that gave nothing: at
/// most 10 reads a second then, of 2,560 events.
const SLOW_READ: Duration = Duration::from_millis(100);

/// After a page of a sweep that gave nothing only because keys have their hands full.
const FULL_READ: Duration = Duration::from_millis(20);

/// Between two reads of the tail, so that a busy store is asked for many events at once.
const TAIL_READ: Duration = Duration::from_millis(2);

/// Between a sweep that left events behind and the next one, unless a key asks for it.
const LEFT_BEHIND: Duration = Duration::from_secs(1);

/// How long after its beginning a sweep waits at an event whose key has its hands full, rather than to
/// read on and to come back for it. The first sweep does not wait: nobody knows what is behind.
const WAIT: Duration = Duration::from_secs(2);

/// Between times at which a sweep that gives nothing may begin again because a key asks for it. They
/// double until one has come to its end, so one does, whatever asks.
const RESTARTS: Redelivery = Redelivery {
    max_deliveries: u32::MAX,
    first_pause: Duration::from_secs(1),
    longest_pause: Duration::from_secs(3600),
};

/// Pauses after a read that failed.
const PAUSES: Redelivery = Redelivery {
    max_deliveries: u32::MAX,
    first_pause: Duration::from_millis(100),
    longest_pause: Duration::from_secs(5),
};

/// Which reader a page is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    Sweep,
    Tail,
}

#[derive(Debug)]
enum Sweep {
    /// The next one begins at this time.
    Due(Instant),
    /// Under way, after this place.
    After(Option<PendingId>),
}

/// The readers of one outbox.
#[derive(Debug)]
pub(super) struct Reading {
    poll: Duration,
    sweep: Sweep,
    /// The end of the outbox as it was last seen; nothing before the first sweep has seen an event.
    end: Option<PendingId>,
    has_news: bool,
    /// A key wants the next sweep at once.
    is_asked: bool,
    /// The keys that this sweep has passed over.
    passed: Passed,
    /// Those, and the ones that the sweep before or a reader of the tail has passed over.
    behind: Passed,
    /// Events that this sweep has passed over.
    left: usize,
    left_before: usize,
    /// Keys that fail and are not remembered, in this sweep and in the one before.
    forgets: (bool, bool),
    last: Reader,
    last_read: Option<Instant>,
    last_sweep: Option<Instant>,
    last_tail: Option<Instant>,
    /// After the last page of the sweep; none unless it gave nothing.
    pause: Duration,
    /// The sweep may wait for full keys until then.
    may_wait: Option<Instant>,
    /// The sweep waits for a full key, at most until then.
    waits: Option<Instant>,
    /// How often a sweep was broken off since one came to its end, and when the next one may be.
    restarts: u32,
    may_restart: Option<Instant>,
    failures: u32,
    not_before: Option<Instant>,
}

impl Reading {
    /// Begins with a sweep, and looks again after this time without being told of anything.
    pub(super) fn new(poll: Duration, now: Instant) -> Self {
        Self {
            poll,
            sweep: Sweep::Due(now),
            end: None,
            has_news: false,
            is_asked: false,
            passed: Passed::default(),
            behind: Passed::default(),
            left: 0,
            left_before: 0,
            forgets: (false, false),
            last: Reader::Sweep,
            last_read: None,
            last_sweep: None,
            last_tail: None,
            pause: Duration::ZERO,
            may_wait: None,
            waits: None,
            restarts: 0,
            may_restart: None,
            failures: 0,
            not_before: None,
        }
    }

    /// Something was committed.
    pub(super) fn notice(&mut self) {
        self.has_news = true;
    }

    /// The next sweep is to begin at once.
    pub(super) fn ask(&mut self) {
        self.is_asked = true;
    }

    /// A full key has room again.
    pub(super) fn go_on(&mut self) {
        self.waits = None;
    }

    /// Events of this key were let go of and are in the outbox.
    pub(super) fn let_go(&mut self, key: &str, events: usize, is_forgotten: bool) {
        self.pass(Reader::Sweep, key);
        self.left += events;
        self.forgets.0 |= is_forgotten;
    }

    /// The reader and the place of the next page, if it is time for one.
    pub(super) fn next(
        &mut self,
        now: Instant,
        bus_is_down: bool,
    ) -> Option<(Reader, Option<PendingId>)> {
        let since = |last: Option<Instant>, pause| last.is_none_or(|last| last + pause <= now);
        let is_early = self.not_before.is_some_and(|time| now < time);
        if is_early || bus_is_down && !since(self.last_read, SLOW_READ) {
            return None;
        }
        self.restart_if_useless(now);
        // Others commit without telling us, and a sweep may be slow.
        let may_miss = self.about_left() > 0 && since(self.last_tail, self.poll);
        let has_news = self.has_news && since(self.last_tail, TAIL_READ);
        let tail = self.end.is_some() && (has_news || may_miss);
        let sweep = match &self.sweep {
            Sweep::After(_) if self.waits.is_some_and(|until| now < until) => false,
            Sweep::After(_) => since(self.last_sweep, self.pause),
            Sweep::Due(due) => *due <= now || self.is_asked || self.end.is_none() && self.has_news,
        };
        let reader = match (tail, sweep) {
            (true, true) if self.last == Reader::Tail => Reader::Sweep,
            (true, _) => Reader::Tail,
            (false, true) => Reader::Sweep,
            (false, false) => return None,
        };
        self.last = reader;
        self.last_read = Some(now);
        match reader {
            Reader::Sweep => self.last_sweep = Some(now),
            Reader::Tail => self.last_tail = Some(now),
        }
        Some((reader, self.begin(reader, now)))
    }

    /// A sweep that gives nothing, while a key behind it has room, begins again: after an outage it has
    /// passed over nearly all keys. No page is under way here, and what was passed over stays behind.
    fn restart_if_useless(&mut self, now: Instant) {
        let may_now = self.may_restart.is_none_or(|time| time <= now);
        let is_under_way = matches!(self.sweep, Sweep::After(Some(_)));
        if !(may_now && is_under_way && self.is_asked && !self.pause.is_zero()) {
            return;
        }
        self.restarts = self.restarts.saturating_add(1);
        self.may_restart = Some(now + RESTARTS.pause_after(self.restarts));
        self.sweep = Sweep::Due(now);
        self.passed.clear();
        self.left = self.about_left();
        self.forgets.0 |= self.forgets.1;
    }

    fn begin(&mut self, reader: Reader, now: Instant) -> Option<PendingId> {
        if reader == Reader::Tail {
            self.has_news = false;
            return self.end.clone();
        }
        if let Sweep::After(place) = &self.sweep {
            return place.clone();
        }
        self.sweep = Sweep::After(None);
        self.is_asked = false;
        self.has_news &= self.end.is_some();
        self.left_before = std::mem::take(&mut self.left);
        self.forgets = (false, self.forgets.0);
        self.pause = Duration::ZERO;
        self.waits = None;
        self.may_wait = self.end.as_ref().map(|_| now + WAIT);
        None
    }

    /// Takes a page in hand.
    pub(super) fn take(
        &mut self,
        reader: Reader,
        page: Vec<PendingEvent>,
        hand: &mut Hand,
        finished: &mut Finished,
        now: Instant,
    ) {
        self.failures = 0;
        self.not_before = None;
        let has_more = page.len() * 2 > PAGE;
        let may_wait = reader == Reader::Sweep && self.may_wait.is_some_and(|until| now < until);
        if page.is_empty() && reader == Reader::Sweep {
            self.end_sweep(now);
            finished.age();
        }
        let mut place = None;
        let mut pause = SLOW_READ;
        for pending in page {
            let id = pending.id.clone();
            if may_wait && self.is_full(&pending, hand, finished) {
                self.waits = self.may_wait;
                pause = Duration::ZERO;
                break;
            }
            if !finished.knows(&id) {
                pause = pause.min(self.take_one(reader, pending, hand));
            }
            place = Some(id);
        }
        match reader {
            Reader::Tail if place.is_some() => {
                self.end = place;
                self.has_news |= has_more;
            }
            Reader::Sweep if place.is_some() => {
                self.sweep = Sweep::After(place);
                self.pause = pause;
            }
            Reader::Sweep => self.pause = Duration::ZERO,
            Reader::Tail => {}
        }
    }

    /// Says whether an event would be taken if its key had room.
    fn is_full(&self, pending: &PendingEvent, hand: &mut Hand, finished: &Finished) -> bool {
        let is_open = !self.passed.has(&pending.event.key) && !finished.knows(&pending.id);
        is_open && hand.look(pending) == Look::Full
    }

    /// Answers how soon more such events are worth a read.
    fn take_one(&mut self, reader: Reader, pending: PendingEvent, hand: &mut Hand) -> Duration {
        let passed = match reader {
            Reader::Sweep => &self.passed,
            Reader::Tail => &self.behind,
        };
        let look = match passed.has(&pending.event.key) {
            true => hand.pass(&pending),
            false => hand.look(&pending),
        };
        match look {
            Look::Free => {
                hand.take(pending);
                Duration::ZERO
            }
            Look::Known => SLOW_READ,
            Look::Blocked | Look::Full => {
                self.pass(reader, &pending.event.key);
                self.left += usize::from(reader == Reader::Sweep);
                match look {
                    Look::Full if self.end.is_none() => Duration::ZERO,
                    Look::Full => FULL_READ,
                    Look::Free | Look::Known | Look::Blocked => SLOW_READ,
                }
            }
        }
    }

    fn pass(&mut self, reader: Reader, key: &str) {
        self.behind.insert(key);
        if reader == Reader::Sweep {
            self.passed.insert(key);
        }
    }

    fn end_sweep(&mut self, now: Instant) {
        if let Sweep::After(Some(place)) = &self.sweep {
            self.end = Some(place.clone());
        }
        let pause = match self.left {
            0 => self.poll,
            _ => LEFT_BEHIND,
        };
        self.sweep = Sweep::Due(now + pause);
        self.restarts = 0;
        self.may_restart = None;
        std::mem::swap(&mut self.passed, &mut self.behind);
        self.passed.clear();
    }

    /// A read failed: the next one waits.
    pub(super) fn fail(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + PAUSES.pause_after(self.failures));
        self.has_news |= self.last == Reader::Tail;
    }

    /// Says whether the last read failed.
    pub(super) fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// Says whether a sweep has come to its end and none is asked for.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.sweep, Sweep::Due(_)) && !self.is_asked
    }

    /// Events in the outbox that the last sweep has passed over so far.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// About how many events in the outbox are passed over, also while a sweep has not seen them yet.
    pub(super) fn about_left(&self) -> usize {
        self.left.max(self.left_before)
    }

    /// Says whether keys fail that are not remembered.
    pub(super) fn forgets(&self) -> bool {
        self.forgets.0 || self.forgets.1
    }

    /// The times at which it may be time for a page.
    pub(super) fn due(&self) -> [Option<Instant>; 7] {
        let after = |last: Option<Instant>, pause| last.map(|last| last + pause);
        let sweep = match &self.sweep {
            Sweep::Due(due) => Some(*due),
            Sweep::After(_) => after(self.last_sweep, self.pause),
        };
        let news = after(self.last_tail, TAIL_READ);
        let look = after(self.last_tail, self.poll);
        let slow = after(self.last_read, SLOW_READ);
        let restart = self.may_restart.filter(|_| self.is_asked);
        let waits = self.waits;
        [sweep, news, look, slow, waits, restart, self.not_before]
    }
}
