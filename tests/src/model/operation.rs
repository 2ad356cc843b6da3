//! The operations of a random sequence, small enough to shrink well.

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any as arbitrary, prop_oneof};

/// Keys that sequences use, so few that they meet.
pub(super) const KEYS: usize = 4;

/// What a write depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// Nothing.
    None,
    /// For puts: there is no value. Deletions take it for none.
    Absent,
    /// The version that was seen last, be it there or not.
    Latest,
    /// The version that was seen first.
    First,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    Put { value: u8, expires: bool },
    Delete { tombstone: bool },
}

#[derive(Debug, Clone, Copy)]
pub(super) struct WriteOf {
    pub(super) key: usize,
    pub(super) condition: Condition,
    pub(super) change: Change,
}

#[derive(Debug, Clone)]
pub(super) enum Operation {
    /// `put` or `delete`.
    One(WriteOf),
    /// `commit`.
    Commit { writes: Vec<WriteOf>, events: u8 },
    /// Settles some event that was pending at some time.
    Settle { which: usize },
    /// Lets so many seconds pass, where that costs nothing.
    Elapse { seconds: u8 },
    /// Closes and opens the store, where it is durable.
    Restart,
}

pub(super) fn any() -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => write().prop_map(Operation::One),
        4 => (vec(write(), 1..4), 0..3_u8)
            .prop_map(|(writes, events)| Operation::Commit { writes, events }),
        2 => (0..40_usize).prop_map(|which| Operation::Settle { which }),
        2 => (1..15_u8).prop_map(|seconds| Operation::Elapse { seconds }),
        1 => Just(Operation::Restart),
    ]
}

fn write() -> impl Strategy<Value = WriteOf> {
    let condition = prop_oneof![
        3 => Just(Condition::None),
        2 => Just(Condition::Absent),
        3 => Just(Condition::Latest),
        1 => Just(Condition::First),
    ];
    let change = prop_oneof![
        3 => (1..5_u8, arbitrary::<bool>())
            .prop_map(|(value, expires)| Change::Put { value, expires }),
        1 => arbitrary::<bool>().prop_map(|tombstone| Change::Delete { tombstone }),
    ];
    (0..KEYS, condition, change).prop_map(|(key, condition, change)| WriteOf {
        key,
        condition,
        change,
    })
}
