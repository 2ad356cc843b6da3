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

use super::PAUSES;
use super::finished::Finished;
use super::hand::{Hand, LetGo, Look};
use super::passed::Passed;
use crate::ports::{PendingEvent, PendingId};

/// Pending events read at once.
pub(super) const PAGE: usize = 256;

/// Between two reads while the bus takes nothing, and after a page of a sweep that gave nothing: at
/// most 10 reads a second then, of 2,560 events.
const SLOW_READ: Duration = Duration::from_millis(100);

/// The same while a key wants the next sweep, which begins where this one ends.
const ASKED_READ: Duration = Duration::from_millis(5);

/// Between two reads of the tail, so that a busy store is asked for many events at once.
const TAIL_READ: Duration = Duration::from_millis(2);

/// Between a sweep that left events behind and the next one, unless a key asks for it.
const LEFT_BEHIND: Duration = Duration::from_secs(1);

/// How long after its beginning a sweep waits at an event whose key has its hands full, rather than to
/// read on and to come back for it. The first sweep does not wait: nobody knows what is behind.
const WAIT: Duration = Duration::from_secs(2);

/// Which reader a page is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    Sweep,
    Tail,
}

/// Where the sweep is.
#[derive(Debug)]
enum Sweep {
    /// The next one is to begin.
    Due,
    /// Under way, after this place.
    After(Option<PendingId>),
}

/// The readers of one outbox.
#[derive(Debug)]
pub(super) struct Reading {
    poll: Duration,
    sweep: Sweep,
    /// When the sweep's next page, or the next sweep, is read.
    sweep_at: Instant,
    /// The sweep may wait for full keys until then; it does if the flag is set.
    may_wait: Option<Instant>,
    waits: bool,
    /// The end of the outbox as it was last seen; nothing before the first sweep has seen an event.
    end: Option<PendingId>,
    /// When the tail may be read.
    tail_at: Instant,
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
    /// Where this sweep begins to take up forgotten keys, and where it had to stop.
    take_up_from: Option<PendingId>,
    took_up_to: Option<PendingId>,
    last: Reader,
    failures: u32,
    /// Nothing is read before.
    not_before: Instant,
}

impl Reading {
    /// Begins with a sweep, and looks again after this time without being told of anything.
    pub(super) fn new(poll: Duration, now: Instant) -> Self {
        Self {
            poll,
            sweep: Sweep::Due,
            sweep_at: now,
            may_wait: None,
            waits: false,
            end: None,
            tail_at: now,
            has_news: false,
            is_asked: false,
            passed: Passed::default(),
            behind: Passed::default(),
            left: 0,
            left_before: 0,
            take_up_from: None,
            took_up_to: None,
            last: Reader::Sweep,
            failures: 0,
            not_before: now,
        }
    }

    /// Something was committed.
    pub(super) fn notice(&mut self, now: Instant) {
        self.has_news = true;
        if self.end.is_none() && matches!(self.sweep, Sweep::Due) {
            self.sweep_at = now;
        }
    }

    /// The next sweep is to begin at once, and the one under way is to come to its end.
    pub(super) fn ask(&mut self, now: Instant) {
        self.is_asked = true;
        self.sweep_at = match self.sweep {
            Sweep::Due => now,
            Sweep::After(_) if self.waits => self.sweep_at,
            Sweep::After(_) => self.sweep_at.min(now + ASKED_READ),
        };
    }

    /// A full key has room again.
    pub(super) fn go_on(&mut self, now: Instant) {
        if std::mem::take(&mut self.waits) {
            self.sweep_at = now;
        }
    }

    /// Events of a key were let go of and are in the outbox.
    pub(super) fn let_go(&mut self, gone: &LetGo) {
        if gone.events > 0 {
            self.pass(Reader::Sweep, &gone.key);
            self.left += gone.events;
        }
    }

    /// The reader and the place of the next page, if it is time for one.
    pub(super) fn next(
        &mut self,
        now: Instant,
        bus_is_down: bool,
    ) -> Option<(Reader, Option<PendingId>)> {
        if now < self.not_before {
            return None;
        }
        let tail = self.tail_due().is_some_and(|due| due <= now);
        let sweep = self.sweep_at <= now;
        let reader = match (tail, sweep) {
            (true, true) if self.last == Reader::Tail => Reader::Sweep,
            (true, _) => Reader::Tail,
            (false, true) => Reader::Sweep,
            (false, false) => return None,
        };
        self.last = reader;
        if bus_is_down {
            self.not_before = now + SLOW_READ;
        }
        if reader == Reader::Tail {
            self.has_news = false;
            self.tail_at = now + TAIL_READ;
            return Some((reader, self.end.clone()));
        }
        if matches!(self.sweep, Sweep::Due) {
            self.begin_sweep(now);
        }
        match &self.sweep {
            Sweep::After(place) => Some((reader, place.clone())),
            Sweep::Due => None,
        }
    }

    /// When the tail is to be read: others commit without telling us, and a sweep may be slow.
    fn tail_due(&self) -> Option<Instant> {
        self.end.as_ref()?;
        match self.has_news {
            true => Some(self.tail_at),
            false => (self.about_left() > 0).then(|| self.tail_at + self.poll),
        }
    }

    fn begin_sweep(&mut self, now: Instant) {
        self.sweep = Sweep::After(None);
        self.is_asked = false;
        self.has_news &= self.end.is_some();
        self.left_before = std::mem::take(&mut self.left);
        self.take_up_from = self.took_up_to.take();
        self.may_wait = self.end.as_ref().map(|_| now + WAIT);
    }

    /// Takes a page in hand.
    pub(super) fn take(
        &mut self,
        reader: Reader,
        page: Vec<PendingEvent>,
        hand: &mut Hand,
        finished: &Finished,
        now: Instant,
    ) {
        self.failures = 0;
        self.waits = false;
        let has_more = page.len() * 2 > PAGE;
        let is_end = page.is_empty();
        let mut place = None;
        let mut gave = false;
        for pending in page {
            if finished.knows(&pending.id) {
                place = Some(pending.id);
                continue;
            }
            if reader == Reader::Sweep && self.waits_for(&pending, hand, now) {
                self.waits = true;
                break;
            }
            place = Some(pending.id.clone());
            gave |= self.take_one(reader, pending, hand);
        }
        match reader {
            Reader::Tail if place.is_some() => {
                self.end = place;
                self.has_news |= has_more;
            }
            Reader::Tail => {}
            Reader::Sweep if is_end => self.end_sweep(now),
            Reader::Sweep => {
                if place.is_some() {
                    self.sweep = Sweep::After(place);
                }
                self.sweep_at = match (self.may_wait, gave) {
                    (Some(until), _) if self.waits => until,
                    (_, true) => now,
                    (_, false) if self.is_asked => now + ASKED_READ,
                    (_, false) => now + SLOW_READ,
                };
            }
        }
    }

    /// Says whether an event would be taken if its key had room, and is worth waiting for.
    fn waits_for(&self, pending: &PendingEvent, hand: &mut Hand, now: Instant) -> bool {
        self.may_wait.is_some_and(|until| now < until)
            && !self.passed.has(&pending.event.key)
            && hand.look(pending) == Look::Full
    }

    /// Takes an event in hand or passes it over; says whether more such events are worth a read.
    fn take_one(&mut self, reader: Reader, pending: PendingEvent, hand: &mut Hand) -> bool {
        if self.take_up_from.as_ref() == Some(&pending.id) {
            self.take_up_from = None;
        }
        let (passed, is_sweep) = match reader {
            Reader::Sweep => (&self.passed, true),
            Reader::Tail => (&self.behind, false),
        };
        let look = match passed.has(&pending.event.key) {
            true => hand.pass(&pending),
            false => hand.look(&pending),
        };
        match look {
            Look::Known => return false,
            Look::Free if is_sweep && hand.has_forgotten(&pending) => {
                if self.take_up(&pending, hand) {
                    return false;
                }
            }
            Look::Free => {
                hand.take(pending);
                return true;
            }
            Look::Blocked | Look::Full => {}
        }
        self.pass(reader, &pending.event.key);
        self.left += usize::from(is_sweep);
        false
    }

    /// Takes up a forgotten key. Where there are too many, the next sweep goes on with them.
    fn take_up(&mut self, pending: &PendingEvent, hand: &mut Hand) -> bool {
        if self.take_up_from.is_some() {
            return false;
        }
        let is_taken = hand.take_up(pending.clone());
        if !is_taken {
            self.took_up_to.get_or_insert_with(|| pending.id.clone());
        }
        is_taken
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
        self.sweep = Sweep::Due;
        let is_early = self.end.is_none() && self.has_news;
        self.sweep_at = match (self.is_asked || is_early, self.left) {
            (true, _) => now,
            (false, 0) => now + self.poll,
            (false, _) => now + LEFT_BEHIND,
        };
        std::mem::swap(&mut self.passed, &mut self.behind);
        self.passed.clear();
    }

    /// A read failed: the next one waits.
    pub(super) fn fail(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + PAUSES.pause_after(self.failures);
        self.has_news |= self.last == Reader::Tail;
    }

    /// Says whether the last read failed.
    pub(super) fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// Says whether a sweep has come to its end and none is asked for.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.sweep, Sweep::Due) && !self.is_asked
    }

    /// Events in the outbox that the last sweep has passed over so far.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// About how many events in the outbox are passed over, also while a sweep has not seen them yet.
    pub(super) fn about_left(&self) -> usize {
        self.left.max(self.left_before)
    }

    /// The times at which it may be time for a page.
    pub(super) fn due(&self) -> [Option<Instant>; 2] {
        let at = |due: Instant| due.max(self.not_before);
        [Some(at(self.sweep_at)), self.tail_due().map(at)]
    }
}
