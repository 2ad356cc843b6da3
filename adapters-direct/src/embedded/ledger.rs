//! What of a topic a group has finished, as the file has to know it.
//!
//! A group finishes events in any order, and the file knows one position and a list of retries:
//! everything up to the position is finished or a retry. An event that takes long would hold the
//! position for all those behind it, so in the end it is stored as a retry, too. It touches neither
//! the file nor a clock.

use std::collections::{BTreeSet, HashMap};

use task_core::ports::Event;

use super::events::Progress;

/// The books of one group.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    read_to: i64,
    finished_to: i64,
    /// Read, neither finished nor a retry: the position stays before the first of them.
    open: BTreeSet<i64>,
    /// Unfinished and stored as retries, also beyond the position; with their deliveries.
    retries: HashMap<i64, u32>,
    /// What the file does not know yet.
    unstored: Option<Progress>,
}

impl Ledger {
    /// The books of a group that stands at a position and has these retries: place and deliveries.
    pub(super) fn at(position: i64, retries: impl Iterator<Item = (i64, u32)>) -> Self {
        Self {
            read_to: position,
            finished_to: position,
            retries: retries.collect(),
            ..Self::default()
        }
    }

    /// The last place that was read.
    pub(super) fn read_to(&self) -> i64 {
        self.read_to
    }

    /// Notes that an event was read; answers whether it is new, and not a retry.
    pub(super) fn read(&mut self, place: i64) -> bool {
        self.read_to = place;
        !self.retries.contains_key(&place) && self.open.insert(place)
    }

    /// Notes that an event is finished, as a dead letter or without one.
    pub(super) fn finish(&mut self, place: i64, dead: Option<Event>) {
        self.finished_to = self.finished_to.max(place);
        let was_retry = !self.open.remove(&place) && self.retries.remove(&place).is_some();
        let unstored = self.unstored.get_or_insert_default();
        unstored.done.extend(was_retry.then_some(place));
        unstored.dead.extend(dead);
    }

    /// Notes that an event is delivered again, at a time in microseconds since 1970.
    ///
    /// A retry whose count stays is as good as stored: after a restart it only comes sooner.
    pub(super) fn retry(&mut self, place: i64, deliveries: u32, due_at: i64) {
        self.finished_to = self.finished_to.max(place);
        self.open.remove(&place);
        if self.retries.insert(place, deliveries) == Some(deliveries) {
            return;
        }
        let unstored = self.unstored.get_or_insert_default();
        unstored.again.push((place, deliveries, due_at));
    }

    /// The first event that holds the position while later ones are finished.
    pub(super) fn holds_back(&self) -> Option<i64> {
        let first = self.open.first().copied();
        first.filter(|first| *first < self.finished_to)
    }

    /// Makes retries of all events that hold the position back.
    ///
    /// None of them was delivered and answered yet, or it would be a retry.
    pub(super) fn let_pass(&mut self) {
        let later = self.open.split_off(&self.finished_to);
        for place in std::mem::replace(&mut self.open, later) {
            self.retry(place, 0, 0);
        }
    }

    /// Takes what the file has to be told.
    pub(super) fn take(&mut self) -> Option<Progress> {
        let position = match self.open.first() {
            Some(first) => first - 1,
            None => self.read_to,
        };
        let unstored = self.unstored.take()?;
        Some(Progress {
            position,
            ..unstored
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(read: &[i64]) -> Ledger {
        let mut ledger = Ledger::at(10, [].into_iter());
        assert!(read.iter().all(|place| ledger.read(*place)));
        ledger
    }

    fn position(ledger: &mut Ledger) -> i64 {
        ledger.take().expect("something to store").position
    }

    #[test]
    fn the_position_stays_before_the_first_open_event() {
        let mut ledger = ledger(&[11, 15, 20]);
        assert_eq!(ledger.take(), None);
        ledger.finish(15, None);
        assert_eq!((position(&mut ledger), ledger.holds_back()), (10, Some(11)));
        ledger.finish(11, None);
        assert_eq!((position(&mut ledger), ledger.holds_back()), (19, None));
        ledger.finish(20, None);
        assert_eq!(position(&mut ledger), 20);
    }

    #[test]
    fn what_holds_the_position_back_becomes_a_retry_and_is_deleted_when_finished() {
        let mut ledger = ledger(&[11, 12, 13, 14]);
        ledger.finish(13, None);
        ledger.let_pass();
        let progress = ledger.take().expect("progress");
        assert_eq!(progress.again, [(11, 0, 0), (12, 0, 0)]);
        assert_eq!((progress.position, progress.done), (13, vec![]));
        ledger.finish(12, None);
        let progress = ledger.take().expect("progress");
        assert_eq!((progress.position, progress.done), (13, vec![12]));
    }

    #[test]
    fn a_retry_beyond_the_position_is_not_read_a_second_time() {
        let mut ledger = ledger(&[11, 12]);
        ledger.retry(12, 3, 99);
        let progress = ledger.take().expect("progress");
        assert_eq!((progress.position, progress.again), (10, vec![(12, 3, 99)]));
        let mut restarted = Ledger::at(10, [(12, 3)].into_iter());
        assert!(restarted.read(11) && !restarted.read(12) && restarted.read(13));
    }

    #[test]
    fn a_retry_is_stored_when_its_count_rises_and_not_each_time_that_it_is_postponed() {
        let mut ledger = ledger(&[11]);
        ledger.retry(11, 0, 5);
        assert!(ledger.take().is_some());
        ledger.retry(11, 0, 6);
        assert_eq!(ledger.take(), None);
        ledger.retry(11, 1, 7);
        assert_eq!(ledger.take().expect("progress").again, [(11, 1, 7)]);
    }
}
