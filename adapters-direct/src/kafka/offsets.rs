//! How far a group has come in one partition, as it is committed.
//!
//! A commit names one offset: everything before it is finished. Events are finished out of order,
//! so the commit's metadata says what is finished behind it, or after a restart it would all come
//! again: up to which offset events were taken in hand, and which of those are unfinished, with
//! the deliveries that they have had. Confluent's parallel consumer does the same.
//!
//! ```text
//! offset      7    8    9    10   11   12          committed: 8, metadata "t1:13;0,2*3"
//!             done ---- done ---- done done        8 and 10 are unfinished, 10 after 3 deliveries
//! ```
//!
//! Without such events it is the mark alone, `t1:`, which says that the group is ours. Behind an `@`
//! follows by which record the log is known again, see `witness.rs`. Metadata of somebody else is
//! ignored: then everything from the committed offset on comes again.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::witness::{Look, MAX_PROOF_BYTES, Proof, Verdict, Witness};

/// Longest metadata, in bytes; brokers accept 4096 unless told otherwise.
pub(super) const MAX_METADATA_BYTES: usize = 4000;

/// What our metadata begins with: whose it is, and the version of its format.
pub(super) const MARK: &str = "t1:";

/// Longest metadata without a list, in bytes.
pub(super) const PLAIN_METADATA_BYTES: usize = MARK.len() + 1 + MAX_PROOF_BYTES;

/// What to do with an event that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Deliver it; it has had so many deliveries.
    New(u32),
    /// It was finished before a restart.
    Finished,
    /// Its offset has been read before: the log begins anew, and so does the position.
    BegunAnew,
}

/// How far a group has come in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offsets {
    /// Unfinished events before `next`, with the deliveries that they have had.
    unfinished: BTreeMap<i64, u32>,
    /// Everything from here on is new.
    next: i64,
    /// The lowest offset that can be read next.
    read_to: i64,
    /// What shows that these are offsets of this log.
    proof: Proof,
    /// What was finished last since the proof was found to hold, and will be the next proof.
    newest: Option<Witness>,
    /// Where nothing lay before us, until that was found to hold.
    began_at: Option<i64>,
}

/// What a position says of its log, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) proof: Proof,
    next: i64,
    newest: Option<Witness>,
    began_at: Option<i64>,
}

impl Claim {
    /// Whether something was finished since the log was looked at.
    pub(super) fn has_more_to_prove(&self) -> bool {
        self.newest.is_some()
    }

    /// Judges it by a look at the log.
    pub(super) fn holds(&self, log: &Look) -> Verdict {
        match self.began_at {
            Some(offset) if offset > log.low => Verdict::Other,
            Some(_) | None => self.proof.holds(self.next, log),
        }
    }
}

impl Offsets {
    /// A group for which everything from this offset on is new.
    pub(super) fn starting_at(offset: i64, proof: Proof) -> Self {
        Self {
            unfinished: BTreeMap::new(),
            next: offset,
            read_to: offset,
            proof,
            newest: None,
            began_at: (proof == Proof::Beginning).then_some(offset),
        }
    }

    /// A group that begins with the oldest record of a log.
    pub(super) fn beginning_at(low: i64) -> Self {
        Self::starting_at(low, Proof::Beginning)
    }

    /// Goes on from what was committed.
    pub(super) fn restore(committed: i64, metadata: &str) -> Self {
        let ours = metadata.strip_prefix(MARK).unwrap_or_default();
        let (list, proof) = ours.split_once('@').unwrap_or((ours, ""));
        let mut offsets = Self::starting_at(committed, Proof::parse(proof));
        if let Some((unfinished, next)) = parse(committed, list) {
            offsets = Self {
                unfinished,
                next,
                ..offsets
            };
        }
        offsets
    }

    /// What it says of its log now.
    pub(super) fn claim(&self) -> Claim {
        Claim {
            proof: self.proof,
            next: self.next,
            newest: self.newest,
            began_at: self.began_at,
        }
    }

    /// A claim was found to hold: what had been finished by then was read from the same log.
    pub(super) fn proven(&mut self, claim: &Claim) {
        if let Some(newest) = claim.newest {
            self.proof = Proof::Record(newest);
        }
        if self.newest == claim.newest {
            self.newest = None;
        }
        self.began_at = None;
    }

    /// Takes an event in hand. Offsets rise from call to call.
    pub(super) fn take(&mut self, offset: i64) -> Taken {
        if offset < self.read_to {
            *self = Self::beginning_at(offset);
            self.take(offset);
            return Taken::BegunAnew;
        }
        // What was unfinished and is passed over exists no more: compacted, or beyond retention.
        while let Some((&gone, _)) = self.unfinished.range(self.read_to..offset).next() {
            self.unfinished.remove(&gone);
        }
        self.read_to = offset + 1;
        if offset >= self.next {
            self.next = offset + 1;
            self.unfinished.insert(offset, 0);
            return Taken::New(0);
        }
        match self.unfinished.get(&offset) {
            Some(&deliveries) => Taken::New(deliveries),
            None => Taken::Finished,
        }
    }

    /// Finishes an event.
    pub(super) fn finish(&mut self, witness: Witness) {
        self.unfinished.remove(&witness.offset);
        match (self.proof, self.newest) {
            // There is nothing else to go by.
            (Proof::Missing | Proof::Beginning, _) => self.proof = Proof::Record(witness),
            (_, Some(known)) | (Proof::Record(known), None) if known.offset > witness.offset => {}
            (_, _) => self.newest = Some(witness),
        }
    }

    /// Notes how many deliveries an unfinished event has had.
    pub(super) fn delivered(&mut self, offset: i64, deliveries: u32) {
        if let Some(noted) = self.unfinished.get_mut(&offset) {
            *noted = deliveries;
        }
    }

    /// The offset to commit: everything before it is finished.
    pub(super) fn committable(&self) -> i64 {
        let first = self.unfinished.first_key_value();
        first.map_or(self.next, |(&offset, _)| offset)
    }

    /// The metadata to commit, at most so long. What does not fit comes again after a restart; without
    /// room for the mark there is none.
    pub(super) fn metadata(&self, max_bytes: usize) -> String {
        let base = self.committable();
        let proof = match self.proof {
            Proof::Missing => String::new(),
            Proof::Beginning | Proof::Record(_) => format!("@{}", self.proof),
        };
        let mut until = self.next;
        // The last ones say nothing as long as they are as good as unread.
        for (&offset, &deliveries) in self.unfinished.iter().rev() {
            if deliveries > 0 || offset + 1 < until {
                break;
            }
            until = offset;
        }
        let mut list = String::new();
        for (&offset, &deliveries) in self.unfinished.range(..until) {
            let before = list.len();
            let separator = if list.is_empty() { "" } else { "," };
            let distance = offset - base;
            let written = match deliveries {
                0 => write!(list, "{separator}{distance}"),
                _ => write!(list, "{separator}{distance}*{deliveries}"),
            };
            // 20 digits of an offset, and the semicolon.
            if written.is_err() || MARK.len() + 21 + list.len() + proof.len() > max_bytes {
                list.truncate(before);
                until = offset;
                break;
            }
        }
        match list.is_empty() {
            true if max_bytes < MARK.len() => String::new(),
            true if max_bytes < MARK.len() + proof.len() => MARK.to_owned(),
            true => format!("{MARK}{proof}"),
            false => format!("{MARK}{until};{list}{proof}"),
        }
    }

    /// What is finished stays so, and failures begin to count anew.
    pub(super) fn forget_deliveries(&mut self) {
        self.unfinished.values_mut().for_each(|count| *count = 0);
    }
}

/// What is unfinished behind a committed offset, and where everything is new.
fn parse(committed: i64, list: &str) -> Option<(BTreeMap<i64, u32>, i64)> {
    let (next, list) = list.split_once(';')?;
    let next: i64 = next.parse().ok()?;
    let mut unfinished = BTreeMap::new();
    for entry in list.split(',') {
        let (distance, deliveries) = entry.split_once('*').unwrap_or((entry, "0"));
        let distance: u32 = distance.parse().ok()?;
        let offset = committed.checked_add(i64::from(distance))?;
        if offset >= next {
            return None;
        }
        unfinished.insert(offset, deliveries.parse().ok()?);
    }
    // Somebody has moved the position without knowing the metadata.
    let is_ours = unfinished.contains_key(&committed);
    is_ours.then_some((unfinished, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finishes what was taken, and lets nothing show by what the log is known.
    fn finish(offsets: &mut Offsets, offset: i64) {
        let proof = offsets.proof;
        offsets.finish(witness(offset));
        (offsets.proof, offsets.newest) = (proof, None);
    }

    fn witness(offset: i64) -> Witness {
        Witness {
            offset,
            time_ms: 1_000 + offset,
            digest: 7,
        }
    }

    fn restored(offsets: &Offsets) -> Offsets {
        let metadata = offsets.metadata(MAX_METADATA_BYTES);
        Offsets::restore(offsets.committable(), &metadata)
    }

    fn taken(range: std::ops::Range<i64>) -> Offsets {
        let mut offsets = Offsets::starting_at(range.start, Proof::Missing);
        for offset in range {
            assert_eq!(offsets.take(offset), Taken::New(0), "{offset}");
        }
        offsets
    }

    #[test]
    fn only_what_is_finished_without_a_gap_is_committed() {
        let mut offsets = taken(7..13);
        assert_eq!(offsets.committable(), 7);
        for (finished, committable) in [(9, 7), (7, 8), (11, 8), (8, 10), (10, 12), (12, 13)] {
            finish(&mut offsets, finished);
            assert_eq!(offsets.committable(), committable, "after {finished}");
        }
        assert_eq!(offsets.metadata(MAX_METADATA_BYTES), "t1:");
    }

    #[test]
    fn what_is_finished_behind_the_committed_offset_does_not_come_again() {
        let mut offsets = taken(7..13);
        for finished in [7, 9, 11, 12] {
            finish(&mut offsets, finished);
        }
        offsets.delivered(10, 3);
        assert_eq!(offsets.metadata(MAX_METADATA_BYTES), "t1:13;0,2*3");
        let mut offsets = restored(&offsets);
        let again: Vec<Taken> = (8..15).map(|offset| offsets.take(offset)).collect();
        use Taken::{Finished, New};
        let expected = [New(0), Finished, New(3), Finished, Finished, New(0), New(0)];
        assert_eq!(again, expected);
        assert_eq!(offsets.committable(), 8);
    }

    #[test]
    fn what_is_in_hand_and_nothing_more_needs_no_metadata() {
        let mut offsets = taken(7..10);
        assert_eq!(offsets.metadata(MAX_METADATA_BYTES), "t1:");
        finish(&mut offsets, 8);
        assert_eq!(offsets.metadata(MAX_METADATA_BYTES), "t1:9;0");
        offsets.delivered(9, 1);
        assert_eq!(offsets.metadata(MAX_METADATA_BYTES), "t1:10;0,2*1");
    }

    #[test]
    fn nothing_unread_is_committed_after_a_restart() {
        let mut offsets = taken(0..4);
        finish(&mut offsets, 1);
        let mut offsets = restored(&offsets);
        assert_eq!(offsets.take(0), Taken::New(0));
        finish(&mut offsets, 0);
        assert_eq!(offsets.committable(), 2, "2 and 3 are still to be read");
    }

    #[test]
    fn what_does_not_exist_any_more_holds_nothing_back() {
        let mut offsets = taken(0..6);
        finish(&mut offsets, 5);
        let mut offsets = restored(&offsets);
        assert_eq!(offsets.take(3), Taken::New(0));
        assert_eq!(offsets.committable(), 3);
    }

    #[test]
    fn offsets_with_gaps_are_committed() {
        let mut offsets = Offsets::starting_at(0, Proof::Missing);
        for offset in [0, 5, 9] {
            offsets.take(offset);
        }
        finish(&mut offsets, 0);
        assert_eq!(offsets.committable(), 5);
        finish(&mut offsets, 9);
        finish(&mut offsets, 5);
        assert_eq!(offsets.committable(), 10);
    }

    #[test]
    fn a_log_that_begins_anew_is_read_from_there() {
        let mut offsets = taken(500..510);
        assert_eq!(offsets.take(0), Taken::BegunAnew);
        assert_eq!(offsets.take(1), Taken::New(0));
        assert_eq!(offsets.committable(), 0);
        let mut behind = Offsets::restore(500, "t1:510;0,3");
        assert_eq!(behind.take(3), Taken::BegunAnew);
    }

    #[test]
    fn metadata_is_bounded_and_what_does_not_fit_comes_again() {
        let mut offsets = taken(0..100_000);
        for offset in (0..100_000).filter(|offset| offset % 3 != 0) {
            finish(&mut offsets, offset);
        }
        let metadata = offsets.metadata(MAX_METADATA_BYTES);
        assert!(metadata.len() <= MAX_METADATA_BYTES, "{}", metadata.len());
        assert!(metadata.len() > MAX_METADATA_BYTES / 2);
        let mut again = restored(&offsets);
        let (mut skipped, mut delivered) = (0, 0);
        for offset in 0..100_000 {
            match again.take(offset) {
                Taken::Finished => {
                    assert_ne!(offset % 3, 0, "{offset} is unfinished");
                    skipped += 1;
                }
                Taken::New(_) => delivered += 1,
                Taken::BegunAnew => panic!("{offset} was read before"),
            }
        }
        assert!(skipped > 500, "{skipped} skipped, {delivered} delivered");
        assert_eq!(offsets.metadata(MARK.len()), MARK);
        assert_eq!(offsets.metadata(0), "");
    }

    #[test]
    fn foreign_and_broken_metadata_are_ignored() {
        for metadata in [
            "",
            "NO_METADATA",
            "t1:",
            "t1:9",
            "t1:9;",
            "t1:x;0",
            "t1:9;1,2",
            "t1:9;0,9",
            "t1:9;0,-1",
            "t1:9;0,1*",
            "t1:9;0,1*99999999999",
            "t1:9;0,99999999999",
            "t2:9;0,2",
            "t1:\u{e4};0",
        ] {
            let expected = Offsets::starting_at(5, Proof::Missing);
            assert_eq!(Offsets::restore(5, metadata), expected, "{metadata:?}");
        }
    }

    #[test]
    fn another_group_inherits_what_is_finished_and_no_deliveries() {
        let mut offsets = Offsets::restore(8, "t1:13;0*2,2*3");
        offsets.forget_deliveries();
        assert_eq!(offsets.metadata(MAX_METADATA_BYTES), "t1:13;0,2");
    }

    #[test]
    fn a_commit_names_a_record_of_the_log_that_was_looked_for() {
        let log = |low| Look {
            low,
            end: 100,
            there: Some(witness(3)),
            oldest: None,
        };
        let mut offsets = Offsets::beginning_at(3);
        assert_eq!(offsets.metadata(MAX_METADATA_BYTES), "t1:@0");
        let proven_by = |offsets: &Offsets, offset| {
            let proof = Proof::Record(witness(offset));
            let metadata = offsets.metadata(MAX_METADATA_BYTES);
            assert!(metadata.ends_with(&format!("@{proof}")), "{metadata}");
            assert_eq!(restored(offsets).proof, proof);
        };
        for offset in 3..8 {
            offsets.take(offset);
            offsets.finish(witness(offset));
            proven_by(&offsets, 3);
        }
        let claim = offsets.claim();
        offsets.take(8);
        offsets.finish(witness(8));
        assert_eq!(claim.holds(&log(3)), Verdict::Same);
        assert_eq!(claim.holds(&log(0)), Verdict::Other, "it began with 3");
        offsets.proven(&claim);
        proven_by(&offsets, 7);
        assert_eq!(
            offsets.metadata(PLAIN_METADATA_BYTES).len(),
            PLAIN_METADATA_BYTES
        );
        assert_eq!(offsets.metadata(PLAIN_METADATA_BYTES - 1), MARK);
    }
}
