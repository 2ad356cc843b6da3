//! The partitions that a member has, and how far each of them is.

use std::collections::BTreeMap;

use super::member::Commit;
use super::offsets::{Claim, MARK, MAX_METADATA_BYTES, Offsets, PLAIN_METADATA_BYTES, Taken};
use super::positions::Positions;
use super::witness::{Look, Verdict, Witness};

/// Where an event in hand comes from.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Whose turn with the partition it was taken in; an answer of an earlier one counts nothing.
    turn: u64,
    bytes: usize,
    witness: Witness,
}

/// What partitions say of their logs, with the turns in which they do.
pub(super) type Claims = BTreeMap<i32, (u64, Claim)>;

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
    topic: Box<str>,
    held: BTreeMap<i32, Partition>,
    turns: u64,
    /// Whether a log turned out to be another one than that which was read.
    begins_anew: bool,
    /// What was sent to the brokers and is not answered.
    in_flight: Commit,
}

impl Partitions {
    /// None yet of this topic.
    pub(super) fn of(topic: &str) -> Self {
        Self {
            topic: topic.into(),
            ..Self::default()
        }
    }

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
        self.begins_anew = false;
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
        witness: Witness,
        bytes: usize,
    ) -> Option<(Place, u32)> {
        let offset = witness.offset;
        let anew = self.next_turn();
        let held = self.held.get_mut(&partition)?;
        let before = held.offsets.committable();
        let deliveries = match held.offsets.take(offset) {
            Taken::New(deliveries) => deliveries,
            Taken::Finished => return None,
            Taken::BegunAnew => {
                warn_of_another_log(&self.topic, partition, before, offset);
                self.begins_anew = true;
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
            witness,
        };
        Some((place, deliveries))
    }

    /// What the partitions say of their logs now.
    pub(super) fn claims(&self) -> Claims {
        let held = self.held.iter();
        held.map(|(&partition, held)| (partition, (held.turn, held.offsets.claim())))
            .collect()
    }

    /// Whether something was finished since the last look at the logs.
    pub(super) fn has_more_to_prove(&self) -> bool {
        let mut held = self.held.values();
        held.any(|held| held.offsets.claim().has_more_to_prove())
    }

    /// Whether a log turned out to be another one than that which was read.
    pub(super) fn begins_anew(&self) -> bool {
        self.begins_anew
    }

    /// Judges what a partition said of its log; another one is begun.
    pub(super) fn judge(&mut self, partition: i32, (turn, claim): &(u64, Claim), log: &Look) {
        let anew = self.next_turn();
        let held = self.held.get_mut(&partition);
        let Some(held) = held.filter(|held| held.turn == *turn) else {
            return;
        };
        match claim.holds(log) {
            // Retention took the record since the last look; no new log has any so soon.
            Verdict::Same | Verdict::Unknown => return held.offsets.proven(claim),
            Verdict::Other => {}
        }
        warn_of_another_log(&self.topic, partition, held.offsets.committable(), log.low);
        held.turn = anew;
        held.bytes = 0;
        held.offsets = Offsets::beginning_at(log.low);
        self.begins_anew = true;
    }

    /// Whether an event's partition is not ours any more.
    pub(super) fn is_gone(&self, place: &Place) -> bool {
        let held = self.held.get(&place.partition);
        held.is_none_or(|held| held.turn != place.turn)
    }

    /// Finishes an event.
    pub(super) fn finish(&mut self, place: &Place) {
        if let Some(held) = self.mine(place) {
            held.offsets.finish(place.witness);
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

    /// A partition's metadata is too long for these brokers: from now on it has less, or none.
    pub(super) fn shorten_metadata(&mut self, partition: i32) {
        self.refused(partition);
        if let Some(held) = self.held.get_mut(&partition) {
            let shorter = [PLAIN_METADATA_BYTES, MARK.len()];
            let mut shorter = shorter.into_iter().filter(|&max| max < held.max_metadata);
            held.max_metadata = shorter.next().unwrap_or_default();
        }
    }
}

/// Says that a group begins anew with a partition.
pub(super) fn warn_of_another_log(topic: &str, partition: i32, position: i64, begins_at: i64) {
    tracing::warn!(
        topic,
        partition,
        position,
        begins_at,
        "the position is not one of this log, which is read from its beginning"
    );
}

#[cfg(test)]
mod tests {
    use super::super::witness::Proof;
    use super::*;

    fn holding(partition: i32) -> Partitions {
        let mut partitions = Partitions::default();
        let positions = Positions::from([(partition, Offsets::starting_at(0, Proof::Missing))]);
        partitions.take_over(positions, |_| true);
        partitions
    }

    fn witness(offset: i64) -> Witness {
        Witness {
            offset,
            time_ms: 1_000 + offset,
            digest: 7,
        }
    }

    fn take(partitions: &mut Partitions, offset: i64) -> Place {
        let (place, _) = partitions.take(3, witness(offset), 10).expect("it is new");
        place
    }

    #[test]
    fn an_answer_of_an_earlier_turn_counts_nothing() {
        let mut partitions = holding(3);
        let old = take(&mut partitions, 0);
        partitions.take_over(
            Positions::from([(3, Offsets::starting_at(0, Proof::Missing))]),
            |_| true,
        );
        let new = take(&mut partitions, 0);
        assert!(partitions.is_gone(&old) && !partitions.is_gone(&new));
        partitions.finish(&old);
        assert!(partitions.begin_commit().is_empty());
        assert_eq!(partitions.bytes(), 10);
        partitions.finish(&new);
        let proof = Proof::Record(witness(0));
        assert_eq!(partitions.begin_commit()[&3], (1, format!("t1:@{proof}")));
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
        let proof = Proof::Record(witness(1));
        for expected in [format!("t1:2;0@{proof}"), format!("t1:@{proof}")] {
            assert_eq!(partitions.begin_commit()[&3], (0, expected));
            partitions.shorten_metadata(3);
        }
        assert!(partitions.begin_commit().is_empty(), "0 is committed");
        partitions.shorten_metadata(3);
        assert_eq!(partitions.begin_commit()[&3], (0, String::new()));
    }

    #[test]
    fn new_positions_are_committed_at_once() {
        let mut partitions = Partitions::default();
        let positions =
            [1, 2].map(|partition| (partition, Offsets::starting_at(7, Proof::Missing)));
        partitions.take_over(Positions::from(positions), |partition| partition == 1);
        let commit = partitions.begin_commit();
        assert_eq!(*commit, Commit::from([(2, (7, MARK.to_owned()))]));
    }

    #[test]
    fn another_log_is_begun_unless_the_partition_has_had_another_turn() {
        let mut partitions = holding(3);
        let old = take(&mut partitions, 0);
        partitions.finish(&old);
        let claims = partitions.claims();
        let other = Look {
            low: 0,
            end: 9,
            there: Some(witness(1)),
            oldest: None,
        };
        partitions.judge(3, &claims[&3], &other);
        assert!(partitions.begins_anew());
        assert!(partitions.is_gone(&old));
        assert_eq!(partitions.begin_commit()[&3], (0, "t1:@0".to_owned()));
        let new = take(&mut partitions, 0);
        partitions.judge(3, &claims[&3], &other);
        assert!(!partitions.is_gone(&new), "it was judged before");
    }
}
