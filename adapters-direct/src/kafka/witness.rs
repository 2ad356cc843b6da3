//! By which record a log is known again.
//!
//! A topic that is deleted and made again begins at offset 0, and a position of the old log may be one of
//! the new log as well: whoever went on there would pass over what lies before it. Brokers forget the
//! positions of a deleted topic, but members that run commit them again, and librdkafka keeps to its
//! offset. So a position comes with a proof, a record that was in its log. The log is the same while that
//! record lies where it lay.
//!
//! ```text
//! 0                                    nothing lay before the position
//! 000000000000002a00000199…9e3779b9…   the record's offset, its time in ms, FNV-1a of time, key and value
//! ```
//!
//! What retention and compaction take from the beginning of a log is no sign of another log. A record
//! that was compacted away speaks through the oldest one that is left: in another log that is younger.

use std::fmt;

use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;

/// Digits of a number.
const DIGITS: usize = 16;

/// Longest text of a proof, in bytes.
pub(super) const MAX_PROOF_BYTES: usize = 3 * DIGITS;

/// One record of a log, as far as it takes to recognise it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Witness {
    pub(super) offset: i64,
    /// As its publisher or its broker has it, in milliseconds.
    pub(super) time_ms: i64,
    pub(super) digest: u64,
}

impl Witness {
    /// What a message is recognised by.
    pub(super) fn of(message: &BorrowedMessage<'_>) -> Self {
        let time_ms = message.timestamp().to_millis().unwrap_or_default();
        let parts = [message.key(), message.payload()].map(Option::unwrap_or_default);
        let times = time_ms.to_be_bytes();
        let bytes = times.iter().chain(parts[0]).chain(parts[1]);
        Self {
            offset: message.offset(),
            time_ms,
            // Its definition never changes, unlike that of the standard library's hash.
            digest: bytes.fold(0xcbf2_9ce4_8422_2325, |digest: u64, &byte| {
                (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            }),
        }
    }
}

/// What shows that a position is one of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nothing does: it is somebody else's, or the brokers have no room for more. It is believed.
    Missing,
    /// Nothing of the log lay before it.
    Beginning,
    /// This record was in the log.
    Record(Witness),
}

/// What a look at a log has found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// The oldest offset that may be read.
    pub(super) low: i64,
    /// The offset that comes next.
    pub(super) end: i64,
    /// The first record at the witness's offset or behind it.
    pub(super) there: Option<Witness>,
    /// The oldest record, if the witness is not where it was.
    pub(super) oldest: Option<Witness>,
}

/// Whether a position belongs to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Same,
    /// What would have shown it is beyond retention.
    Unknown,
    Other,
}

impl Proof {
    /// Judges whether a group that knows everything before `next` has read this log.
    pub(super) fn holds(self, next: i64, log: &Look) -> Verdict {
        let same = |is_same: bool| match is_same {
            true => Verdict::Same,
            false => Verdict::Other,
        };
        if next > log.end {
            return Verdict::Other;
        }
        let witness = match self {
            // Nothing is passed over in either log.
            _ if next <= log.low => return Verdict::Same,
            Self::Missing => return Verdict::Same,
            Self::Beginning => return Verdict::Other,
            Self::Record(witness) => witness,
        };
        if witness.offset < log.low {
            return Verdict::Unknown;
        }
        match (log.there, log.oldest) {
            (Some(there), _) if there.offset <= witness.offset => same(there == witness),
            (_, Some(oldest)) if oldest.offset < witness.offset => {
                same(oldest.time_ms <= witness.time_ms)
            }
            (_, _) => Verdict::Other,
        }
    }

    /// Reads what [`Display`](fmt::Display) has written; anything else proves nothing.
    pub(super) fn parse(text: &str) -> Self {
        if text == "0" {
            return Self::Beginning;
        }
        let number = |at: usize| {
            let digits = text.get(at * DIGITS..(at + 1) * DIGITS)?;
            u64::from_str_radix(digits, 16).ok()
        };
        match (number(0), number(1), number(2)) {
            (Some(offset), Some(time), Some(digest)) if text.len() == MAX_PROOF_BYTES => {
                Self::Record(Witness {
                    offset: offset.cast_signed(),
                    time_ms: time.cast_signed(),
                    digest,
                })
            }
            (_, _, _) => Self::Missing,
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => Ok(()),
            Self::Beginning => f.write_str("0"),
            Self::Record(witness) => {
                let Witness {
                    offset,
                    time_ms,
                    digest,
                } = witness;
                write!(f, "{offset:016x}{time_ms:016x}{digest:016x}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64, time_ms: i64) -> Witness {
        Witness {
            offset,
            time_ms,
            digest: 7,
        }
    }

    #[test]
    fn a_log_is_the_same_while_the_record_lies_where_it_lay() {
        use Verdict::{Other, Same, Unknown};
        let witness = Proof::Record(record(8, 1_000));
        let found = |low, end, there, oldest| Look {
            low,
            end,
            there,
            oldest,
        };
        let (there, other) = (Some(record(8, 1_000)), Some(record(8, 1_001)));
        let (before, after) = (Some(record(3, 999)), Some(record(3, 1_001)));
        let behind = Some(record(11, 2_000));
        for (what, proof, log, expected) in [
            ("as it was", witness, found(0, 20, there, None), Same),
            ("another record", witness, found(0, 20, other, None), Other),
            ("too short", witness, found(0, 9, there, None), Other),
            ("shorter than it", witness, found(0, 5, None, None), Other),
            ("all retained", witness, found(12, 20, None, None), Same),
            ("it is retained", witness, found(9, 20, None, None), Unknown),
            ("compacted", witness, found(0, 20, behind, before), Same),
            ("younger", witness, found(0, 20, behind, after), Other),
            (
                "compacted to the end",
                witness,
                found(0, 20, None, before),
                Same,
            ),
            (
                "all is behind",
                witness,
                found(0, 20, behind, behind),
                Other,
            ),
            (
                "from low",
                Proof::Beginning,
                found(10, 20, None, None),
                Same,
            ),
            (
                "before it",
                Proof::Beginning,
                found(0, 20, None, None),
                Other,
            ),
            ("believed", Proof::Missing, found(0, 20, None, None), Same),
            ("beyond", Proof::Missing, found(0, 9, None, None), Other),
        ] {
            assert_eq!(proof.holds(10, &log), expected, "{what}");
        }
    }

    #[test]
    fn a_proof_is_read_as_it_was_written_and_anything_else_proves_nothing() {
        let far = Witness {
            offset: i64::MAX,
            time_ms: -1,
            digest: u64::MAX,
        };
        for proof in [Proof::Missing, Proof::Beginning, Proof::Record(far)] {
            let text = proof.to_string();
            assert_eq!(Proof::parse(&text), proof, "{text}");
            assert!(text.len() <= MAX_PROOF_BYTES, "{text}");
        }
        let text = Proof::Record(far).to_string();
        for broken in [
            "1",
            "x",
            &text[1..],
            &format!("{text}0"),
            &text.replace('f', "\u{e4}"),
        ] {
            assert_eq!(Proof::parse(broken), Proof::Missing, "{broken}");
        }
    }
}
