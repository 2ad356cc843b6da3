//! What the relay does next. It does no I/O: it gives out jobs and is told what became of them.

use std::time::Duration;

use tokio::time::Instant;

use super::finished::Finished;
use super::hand::{Hand, IN_HAND, Turn};
use super::reading::{PAGE, Reader, Reading};
use super::right::Right;
use super::{FLUSH, RelayReport};
use crate::episode::Episode;
use crate::ports::{PendingEvent, PendingId, PortError};

/// How long the last settlement may take when the relay is stopped, after the last publication.
const LAST_SETTLEMENT: Duration = Duration::from_secs(1);

/// Something to do. Of each kind but the publications there is one at a time, and either a read or a
/// settlement: so a page never names an event that was settled while it was read.
#[derive(Debug)]
pub(super) enum Job {
    Hold,
    Publish(Turn),
    Read(Reader, Option<PendingId>),
    Settle(Vec<PendingId>),
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Done {
    /// Asked for at this time; held until then, by the uptime of the clock.
    Held(Instant, Result<Option<Duration>, PortError>),
    /// The publication of this number has ended.
    Published(u64, PendingEvent, Result<(), PortError>),
    Read(Reader, Result<Vec<PendingEvent>, PortError>),
    Settled(Vec<PendingId>, Result<(), PortError>),
}

/// When the work is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// Never, before it is stopped.
    Run,
    /// When everything was tried that is pending, or with the first error of the store.
    Once,
    /// When everything was tried that is pending, or at this time.
    Flush(Instant),
    /// When what was accepted is settled, or at this time.
    Settle(Instant),
}

/// The state of a relay at work.
#[derive(Debug)]
pub(super) struct Plan {
    goal: Goal,
    poll: Duration,
    hand: Hand,
    finished: Finished,
    reading: Reading,
    right: Option<Right>,
    store_is_busy: bool,
    /// The lease was lost since the page under way was asked for.
    page_is_stale: bool,
    has_settled: bool,
    published: usize,
    error: Option<PortError>,
    bus: Episode,
    store: Episode,
}

impl Plan {
    /// A plan that looks for events after this time without being told; `right` if others relay, too.
    pub(super) fn new(goal: Goal, poll: Duration, right: Option<Right>, now: Instant) -> Self {
        Self {
            goal,
            poll,
            hand: Hand::default(),
            finished: Finished::default(),
            reading: Reading::new(poll, now),
            right,
            store_is_busy: false,
            page_is_stale: false,
            has_settled: false,
            published: 0,
            error: None,
            bus: Episode::default(),
            store: Episode::default(),
        }
    }

    /// The next job that may begin now.
    pub(super) fn next(&mut self, now: Instant) -> Option<Job> {
        if self.error.is_some() {
            return None;
        }
        if let Some(right) = &mut self.right {
            let (runs_out, asks) = (right.runs_out(), right.asks(now));
            if runs_out {
                self.lose(now);
            }
            if asks {
                return Some(Job::Hold);
            }
        }
        while let Some(gone) = self.hand.let_lag(now) {
            self.reading.let_go(&gone);
        }
        let may_begin = self.may_begin();
        if may_begin && let Some(turn) = self.hand.next(now) {
            return Some(Job::Publish(turn));
        }
        if self.store_is_busy {
            return None;
        }
        let job = match self.has_settled {
            true => self.read(now, may_begin).or_else(|| self.settle(now)),
            false => self.settle(now).or_else(|| self.read(now, may_begin)),
        }?;
        self.store_is_busy = true;
        self.has_settled = matches!(job, Job::Settle(_));
        Some(job)
    }

    fn may_begin(&self) -> bool {
        self.is_leading() && !matches!(self.goal, Goal::Settle(_))
    }

    fn is_leading(&self) -> bool {
        self.right.as_ref().is_none_or(Right::is_held)
    }

    fn settle(&mut self, now: Instant) -> Option<Job> {
        let hurry = self.hand.is_idle() || matches!(self.goal, Goal::Settle(_));
        self.finished.batch(now, hurry).map(Job::Settle)
    }

    fn read(&mut self, now: Instant, may_begin: bool) -> Option<Job> {
        let in_hand = self.hand.held() + self.finished.unsettled();
        if !may_begin || in_hand + PAGE > IN_HAND {
            return None;
        }
        let (reader, after) = self.reading.next(now, self.hand.bus_is_down())?;
        self.page_is_stale = false;
        Some(Job::Read(reader, after))
    }

    /// Takes note of what became of a job.
    pub(super) fn done(&mut self, done: Done, now: Instant) {
        match done {
            Done::Held(asked, result) => self.held(asked, result, now),
            Done::Published(number, event, Ok(())) => self.accepted(number, event, now),
            Done::Published(number, event, Err(error)) => {
                self.refused(number, event, &error, now);
            }
            Done::Read(reader, result) => {
                self.store_is_busy = false;
                match result {
                    Ok(_) if self.page_is_stale => {}
                    Ok(page) => {
                        let (hand, finished) = (&mut self.hand, &self.finished);
                        self.reading.take(reader, page, hand, finished, now);
                        self.store_works(now);
                    }
                    Err(error) => {
                        self.reading.fail(now);
                        self.store_fails(error, now);
                    }
                }
            }
            Done::Settled(batch, result) => {
                self.store_is_busy = false;
                match result {
                    Ok(()) => {
                        self.published += batch.len();
                        self.finished.settled();
                        self.store_works(now);
                    }
                    Err(error) => {
                        self.finished.not_settled(batch, now);
                        self.store_fails(error, now);
                    }
                }
            }
        }
        self.tell_if_over(now);
    }

    fn held(&mut self, asked: Instant, result: Result<Option<Duration>, PortError>, now: Instant) {
        let Some(right) = &mut self.right else {
            return;
        };
        let was_held = right.is_held();
        right.answered(asked, &result, now);
        let is_held = right.is_held();
        if was_held && !is_held {
            self.lose(now);
        }
        match result {
            Err(error) => self.store_fails(error, now),
            Ok(_) => self.store_works(now),
        }
    }

    fn accepted(&mut self, number: u64, event: PendingEvent, now: Instant) {
        let accepted = self.hand.accept(number, event, now);
        self.finished.accept(accepted.id, now);
        if accepted.has_room {
            self.reading.go_on(now);
        }
        if accepted.wants_more {
            self.reading.ask(now);
        }
    }

    fn refused(&mut self, number: u64, event: PendingEvent, error: &PortError, now: Instant) {
        let Some(gone) = self.hand.fail(number, event, now) else {
            return;
        };
        self.reading.let_go(&gone);
        if self.bus.fails(now) {
            let waiting = self.hand.held() + self.hand.failing() + self.reading.about_left();
            let key = &*gone.key;
            match self.hand.bus_is_down() {
                true => tracing::warn!(%error, waiting, "the bus is away, events wait for it"),
                false => tracing::warn!(%error, key, waiting, "events wait for the bus"),
            }
        }
    }

    /// Another relay works, or may do so soon: what is in hand is its business.
    fn lose(&mut self, now: Instant) {
        self.hand.forget();
        // Nobody is told that the bus works: whether it does is not seen from here any more.
        self.bus = Episode::default();
        self.reading = Reading::new(self.poll, now);
        self.page_is_stale = true;
    }

    fn store_fails(&mut self, error: PortError, now: Instant) {
        if self.goal == Goal::Once {
            self.error = Some(error);
        } else if self.store.fails(now) {
            tracing::warn!(%error, "pending events or the lease cannot be read or written");
        }
    }

    fn store_works(&mut self, now: Instant) {
        let lease_fails = self.right.as_ref().is_some_and(Right::has_failed);
        if lease_fails || self.reading.has_failed() || self.finished.has_failed() {
            return;
        }
        if let Some(time) = self.store.works(now) {
            let after_ms = time.as_millis();
            tracing::info!(
                after_ms,
                "pending events and the lease can be read and written again"
            );
        }
    }

    fn tell_if_over(&mut self, now: Instant) {
        let still = self.hand.failing() > 0 || self.hand.has_failed() || self.hand.forgets();
        if !still && let Some(time) = self.bus.works(now) {
            let after_ms = time.as_millis();
            tracing::info!(after_ms, "the bus takes all events again");
        }
    }

    /// Something was committed.
    pub(super) fn notice(&mut self, now: Instant) {
        self.reading.notice(now);
    }

    /// Stops: tries once more what is pending, for a limited time.
    pub(super) fn stop(&mut self, now: Instant) {
        self.goal = Goal::Flush(now + FLUSH);
        self.hand.hurry();
        self.finished.hurry(now);
        self.reading.ask(now);
    }

    /// Says whether the work is over.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        let is_settled = self.finished.unsettled() == 0 && !self.store_is_busy;
        match self.goal {
            Goal::Run => false,
            Goal::Once => self.error.is_some() || self.is_done() && is_settled,
            Goal::Flush(until) if now >= until => {
                self.finished.hurry(now);
                self.goal = Goal::Settle(until + LAST_SETTLEMENT);
                false
            }
            Goal::Flush(_) => self.is_done() && is_settled,
            Goal::Settle(until) => is_settled || now >= until,
        }
    }

    fn is_done(&self) -> bool {
        let is_denied = self.right.as_ref().is_some_and(Right::is_denied);
        is_denied || self.is_leading() && self.hand.is_idle() && self.reading.is_done()
    }

    /// When there may be something to do, if nothing ends before.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let until = match self.goal {
            Goal::Run | Goal::Once => None,
            Goal::Flush(until) | Goal::Settle(until) => Some(until),
        };
        let right = self.right.as_ref().and_then(|right| right.due(now));
        let own = [until, right, self.finished.due()].into_iter();
        let all = own
            .chain(self.hand.due())
            .chain(self.reading.due())
            .flatten();
        all.filter(|due| *due > now).min()
    }

    /// Events that are known to wait.
    pub(super) fn waiting(&self) -> usize {
        self.hand.held() + self.hand.failing() + self.reading.left()
    }

    /// What was done, or why it was not.
    pub(super) fn report(self) -> Result<RelayReport, PortError> {
        let failed = self.waiting();
        let published = self.published;
        self.error
            .map_or(Ok(RelayReport { published, failed }), Err)
    }
}
