//! The partitions that a member has, and how far each of them is.

use std::collections::BTreeMap;

use super::member::Commit;
use super::offsets::{MARK, MAX_METADATA_BYTES, Offsets, Taken};
use super::positions::Positions;

/// Where an event in hand comes from.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Whose turn with the partition it was taken in; an answer of an earlier one counts nothing.
    turn: u64,
    bytes: usize,
}

/// One partition while it is ours.
#[derive(Debug)]
struct Partition {
    offsets: Offsets,
    turn: u64,
    /// Bytes of events in hand.
    bytes: usize,
    /// What the brokers are known to have.
    committed: Option<(i64, String)>,
    /// Longest metadata that the brokers take.
    max_metadata: usize,
}

/// All partitions that a member has.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    held: BTreeMap<i32, Partition>,
    turns: u64,
    /// What was sent to the brokers and is not answered.
    in_flight: Commit,
}

impl Partitions {
    /// Takes over partitions; `known` are those whose offsets are committed already.
    pub(super) fn take_over(&mut self, positions: Positions, known: impl Fn(i32) -> bool) {
        self.release();
        for (partition, offsets) in positions {
            let max_metadata = MAX_METADATA_BYTES;
            let commit = (offsets.committable(), offsets.metadata(max_metadata));
            let held = Partition {
                turn: self.next_turn(),
                bytes: 0,
                committed: known(partition).then_some(commit),
                max_metadata,
                offsets,
            };
            self.held.insert(partition, held);
        }
    }

    /// Gives all partitions up.
    pub(super) fn release(&mut self) {
        self.held.clear();
        self.in_flight.clear();
    }

    fn next_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    /// The numbers of the partitions.
    pub(super) fn numbers(&self) -> impl Iterator<Item = i32> {
        self.held.keys().copied()
    }

    /// Each partition with its offsets.
    pub(super) fn offsets(&self) -> impl Iterator<Item = (i32, &Offsets)> {
        let held = self.held.iter();
        held.map(|(&partition, held)| (partition, &held.offsets))
    }

    /// Takes an event in hand; answers its place and its deliveries so far, unless it is finished.
    pub(super) fn take(
        &mut self,
        partition: i32,
        offset: i64,
        bytes: usize,
    ) -> Option<(Place, u32)> {
        let anew = self.next_turn();
        let held = self.held.get_mut(&partition)?;
        let deliveries = match held.offsets.take(offset) {
            Taken::New(deliveries) => deliveries,
            Taken::Finished => return None,
            Taken::BegunAnew => {
                tracing::warn!(
                    partition,
                    offset,
                    "the log begins anew, and so does the group"
                );
                held.turn = anew;
                held.bytes = 0;
                0
            }
        };
        held.bytes += bytes;
        let place = Place {
            partition,
            offset,
            turn: held.turn,
            bytes,
        };
        Some((place, deliveries))
    }

    /// Whether an event's partition is not ours any more.
    pub(super) fn is_gone(&self, place: &Place) -> bool {
        let held = self.held.get(&place.partition);
        held.is_none_or(|held| held.turn != place.turn)
    }

    /// Finishes an event.
    pub(super) fn finish(&mut self, place: &Place) {
        if let Some(held) = self.mine(place) {
            held.offsets.finish(place.offset);
            held.bytes = held.bytes.saturating_sub(place.bytes);
        }
    }

    /// Notes how many deliveries an unfinished event has had.
    pub(super) fn delivered(&mut self, place: &Place, deliveries: u32) {
        if let Some(held) = self.mine(place) {
            held.offsets.delivered(place.offset, deliveries);
        }
    }

    fn mine(&mut self, place: &Place) -> Option<&mut Partition> {
        let held = self.held.get_mut(&place.partition);
        held.filter(|held| held.turn == place.turn)
    }

    /// Bytes of all events in hand.
    pub(super) fn bytes(&self) -> usize {
        self.held.values().map(|held| held.bytes).sum()
    }

    /// What has changed since the last commit; it counts as on its way until it is settled.
    pub(super) fn begin_commit(&mut self) -> &Commit {
        self.in_flight.clear();
        for (&partition, held) in &self.held {
            let now = (
                held.offsets.committable(),
                held.offsets.metadata(held.max_metadata),
            );
            if held.committed.as_ref() != Some(&now) {
                self.in_flight.insert(partition, now);
            }
        }
        &self.in_flight
    }

    /// Says whether a commit is not answered yet.
    pub(super) fn is_committing(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// A partition's commit has been accepted.
    pub(super) fn committed(&mut self, partition: i32) {
        if let Some(commit) = self.in_flight.remove(&partition)
            && let Some(held) = self.held.get_mut(&partition)
        {
            held.committed = Some(commit);
        }
    }

    /// A partition's commit has been refused; it is tried again.
    pub(super) fn refused(&mut self, partition: i32) {
        self.in_flight.remove(&partition);
    }

    /// A partition's metadata is too long for these brokers: from now on it is the mark, or nothing.
    pub(super) fn shorten_metadata(&mut self, partition: i32) {
        self.refused(partition);
        if let Some(held) = self.held.get_mut(&partition) {
            held.max_metadata = match held.max_metadata > MARK.len() {
                true => MARK.len(),
                false => 0,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(partition: i32) -> Partitions {
        let mut partitions = Partitions::default();
        let positions = Positions::from([(partition, Offsets::starting_at(0))]);
        partitions.take_over(positions, |_| true);
        partitions
    }

    fn take(partitions: &mut Partitions, offset: i64) -> Place {
        let (place, _) = partitions.take(3, offset, 10).expect("it is new");
        place
    }

    #[test]
    fn an_answer_of_an_earlier_turn_counts_nothing() {
        let mut partitions = holding(3);
        let old = take(&mut partitions, 0);
        partitions.take_over(Positions::from([(3, Offsets::starting_at(0))]), |_| true);
        let new = take(&mut partitions, 0);
        assert!(partitions.is_gone(&old) && !partitions.is_gone(&new));
        partitions.finish(&old);
        assert!(partitions.begin_commit().is_empty());
        assert_eq!(partitions.bytes(), 10);
        partitions.finish(&new);
        assert_eq!(partitions.begin_commit()[&3], (1, MARK.to_owned()));
        assert_eq!(partitions.bytes(), 0);
    }

    #[test]
    fn only_changes_are_committed_and_a_refused_commit_is_tried_again() {
        let mut partitions = holding(3);
        assert!(partitions.begin_commit().is_empty());
        let place = take(&mut partitions, 0);
        partitions.finish(&place);
        assert_eq!(partitions.begin_commit().len(), 1);
        assert!(partitions.is_committing());
        partitions.refused(3);
        assert!(!partitions.is_committing());
        assert_eq!(partitions.begin_commit().len(), 1);
        partitions.committed(3);
        assert!(partitions.begin_commit().is_empty());
    }

    #[test]
    fn a_commit_without_metadata_follows_one_that_was_too_long() {
        let mut partitions = holding(3);
        take(&mut partitions, 0);
        let second = take(&mut partitions, 1);
        partitions.finish(&second);
        assert_eq!(partitions.begin_commit()[&3], (0, "t1:2;0".to_owned()));
        partitions.shorten_metadata(3);
        assert!(partitions.begin_commit().is_empty(), "0 is committed");
        partitions.shorten_metadata(3);
        assert_eq!(partitions.begin_commit()[&3], (0, String::new()));
    }

    #[test]
    fn new_positions_are_committed_at_once() {
        let mut partitions = Partitions::default();
        let positions = [1, 2].map(|partition| (partition, Offsets::starting_at(7)));
        partitions.take_over(Positions::from(positions), |partition| partition == 1);
        let commit = partitions.begin_commit();
        assert_eq!(*commit, Commit::from([(2, (7, MARK.to_owned()))]));
    }
}
