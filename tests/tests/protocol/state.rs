//! What the model holds: two stores, the control record, replicas, and whoever works at the moment.
//!
//! A version is not a number but whether what somebody has read is still there: nothing else is ever asked of one, and
//! so histories that differ in numbers alone are one state.

use task_core::migration::Stage;

use crate::clients::Clients;
use crate::moves::Lead;

/// Replicas of the service.
pub(crate) const REPLICAS: usize = 2;

/// A content of the record, and the revision in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Value {
    /// The process that makes it; `u8::MAX` is the content from before the move.
    pub(crate) by: u8,
    pub(crate) term: u8,
    pub(crate) rev: u8,
}

impl Value {
    /// The content that the old side has at the beginning.
    pub(crate) const FIRST: Self = Self {
        by: u8::MAX,
        term: 1,
        rev: 1,
    };

    /// Stands for `sync::is_ahead`: the revision is (term, rev).
    pub(crate) fn is_ahead(self, other: Self) -> bool {
        (self.term, self.rev) > (other.term, other.rev)
    }
}

/// What a side has; `None` is no record.
pub(crate) type Content = Option<Value>;

/// What lies on the new side, as `gone` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum OnNew {
    #[default]
    Nothing,
    /// What a deletion leaves.
    Left {
        forbids: bool,
    },
    Record(Value),
}

impl OnNew {
    /// Stands for `gone::present`.
    pub(crate) fn content(self) -> Content {
        match self {
            Self::Record(value) => Some(value),
            Self::Nothing | Self::Left { .. } => None,
        }
    }
}

/// What somebody has read, and whether that very version is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Seen<T> {
    pub(crate) value: T,
    pub(crate) is_fresh: bool,
}

impl<T> Seen<T> {
    pub(crate) fn of(value: T) -> Self {
        Self {
            value,
            is_fresh: true,
        }
    }
}

/// The dirty mark, as `marker::Dirty`. No two are alike: that is what `is_fresh` of a [`Seen`] one says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Dirty {
    /// A deletion that forbids a birth is behind it.
    pub(crate) forbids: bool,
}

/// The reverse mark, as `marker::Intent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Intent {
    pub(crate) by: u8,
    pub(crate) result: Content,
    pub(crate) is_birth: bool,
    pub(crate) forbids: bool,
}

/// The old side: the record and what the move keeps beside it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Old {
    pub(crate) record: Content,
    /// A deletion forbids that the record is created again.
    pub(crate) forbids: bool,
    pub(crate) dirty: Option<Dirty>,
    pub(crate) reverse: Option<Intent>,
    pub(crate) fence: u8,
    /// Says that a move has left `off`, as `control::running_key`.
    pub(crate) is_running: bool,
    /// Pending events, a bit for each process.
    pub(crate) events: u8,
}

/// The new side.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct New {
    pub(crate) found: OnNew,
    pub(crate) events: u8,
}

/// The control record, of one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Control {
    pub(crate) epoch: u8,
    pub(crate) term: u8,
    pub(crate) generation: u8,
    pub(crate) stage: Stage,
    /// The stage that a bucket in `handoff` has left.
    pub(crate) waiting_from: Option<Stage>,
}

/// The backfill that was started last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Job {
    pub(crate) generation: u8,
    pub(crate) is_done: bool,
}

/// What a replica has told of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Beat {
    pub(crate) adopted: u8,
    pub(crate) oldest: u8,
}

/// One replica.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Replica {
    pub(crate) adopted: Option<Control>,
    /// Whether work may start and be answered.
    pub(crate) has_lease: bool,
    /// What others read of it.
    pub(crate) beat: Option<Beat>,
    /// It has begun a beat, and that was not too long ago.
    pub(crate) is_beating: bool,
}

/// The epoch that work goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Pin {
    pub(crate) epoch: u8,
    pub(crate) stage: Stage,
    /// Whether the replica's beat tells of it.
    pub(crate) counts: bool,
    /// The lease has not been over since.
    pub(crate) holds: bool,
}

/// Where a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum At {
    #[default]
    Idle,
    /// It has an epoch, and no store was asked yet.
    Pinned,
    // Reads.
    ReadNew,
    ReadOld,
    ReadNote,
    ReadMark,
    ReadAgain,
    // Writes in `rampdown`.
    Intend,
    WriteNew,
    LookAtOld,
    Follow,
    Withdraw,
    Born,
    // Steps that a rule forbids to be steps of their own.
    MarkLater,
    EventLater,
    MirrorOld,
    Done,
}

/// Where a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum CopyAt {
    Pin,
    Unfinished,
    Mark,
    New,
    Old,
    /// The new side is written: forward.
    Put,
    /// The mark is removed.
    Clear,
    /// The new side is written for a birth that was begun.
    Birth,
    /// The version of the new side is changed.
    Renew,
    /// The old side follows.
    Follow,
}

/// In which direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    Forward,
    Backward,
}

/// A run of `Sides::forward` or `Sides::backward`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Copying {
    pub(crate) way: Way,
    pub(crate) at: CopyAt,
    pub(crate) pin: Option<Pin>,
    pub(crate) dirty: Option<Seen<Dirty>>,
    pub(crate) reverse: Option<Seen<Intent>>,
    pub(crate) new: Option<Seen<OnNew>>,
    pub(crate) old: Option<Seen<Content>>,
    pub(crate) has_copied: bool,
    /// It was begun for a backfill that runs.
    pub(crate) fills: bool,
}

impl Copying {
    pub(crate) fn begin(way: Way) -> Self {
        Self {
            way,
            at: CopyAt::Pin,
            pin: None,
            dirty: None,
            reverse: None,
            new: None,
            old: None,
            has_copied: false,
            fills: false,
        }
    }

    /// What was read of the new side.
    pub(crate) fn on_new(&self) -> Seen<OnNew> {
        self.new.expect("the new side was read")
    }

    /// What was read of the old side.
    pub(crate) fn on_old(&self) -> Seen<Content> {
        self.old.expect("the old side was read")
    }

    /// The intent that is to be ended.
    pub(crate) fn intent(&self) -> Seen<Intent> {
        self.reverse.expect("the intent was read")
    }

    /// The epoch by which the old side is written.
    pub(crate) fn epoch(&self) -> u8 {
        self.pin.expect("it was pinned").epoch
    }

    /// The next attempt.
    pub(crate) fn again(self) -> Self {
        Self {
            has_copied: self.has_copied,
            fills: self.fills,
            ..Self::begin(self.way)
        }
    }
}

/// A request, or whoever copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Process {
    pub(crate) at: At,
    pub(crate) pin: Option<Pin>,
    /// It has given up waiting, and what it has sent may still take effect.
    pub(crate) is_late: bool,
    pub(crate) base: Content,
    pub(crate) value: Content,
    pub(crate) new: Option<Seen<OnNew>>,
    pub(crate) old: Option<Seen<Content>>,
    /// Its own intent is still there.
    pub(crate) has_mark: bool,
    pub(crate) copy: Option<Copying>,
}

/// The whole.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) old: Old,
    pub(crate) new: New,
    pub(crate) control: Control,
    pub(crate) job: Option<Job>,
    pub(crate) replicas: [Replica; REPLICAS],
    pub(crate) processes: Vec<Process>,
    pub(crate) leads: Vec<Lead>,
    pub(crate) clients: Clients,
    /// How many more steps coordinators make.
    pub(crate) moves: u8,
    /// How many more calls get no answer, how many replicas are silent too long, how many die.
    pub(crate) lost: u8,
    pub(crate) pauses: u8,
    pub(crate) deaths: u8,
}

impl State {
    /// A backfill is under way.
    pub(crate) fn is_filling(&self) -> bool {
        self.job.is_some_and(|job| !job.is_done)
    }

    /// It has been where the record is, or would be.
    pub(crate) fn end_job(&mut self) {
        if let Some(job) = &mut self.job {
            job.is_done = true;
        }
    }

    /// The new side is written; every version of it that was read is an old one now.
    pub(crate) fn write_new(&mut self, found: OnNew) {
        self.new.found = found;
        for process in &mut self.processes {
            let copy = process.copy.as_mut().and_then(|copy| copy.new.as_mut());
            for seen in process.new.as_mut().into_iter().chain(copy) {
                seen.is_fresh = false;
            }
        }
    }

    /// The old side's record is written.
    pub(crate) fn write_old(&mut self, record: Content) {
        self.old.record = record;
        for process in &mut self.processes {
            let copy = process.copy.as_mut().and_then(|copy| copy.old.as_mut());
            for seen in process.old.as_mut().into_iter().chain(copy) {
                seen.is_fresh = false;
            }
        }
    }

    pub(crate) fn mark_dirty(&mut self, dirty: Option<Dirty>) {
        self.old.dirty = dirty;
        for copy in self.copies() {
            if let Some(seen) = &mut copy.dirty {
                seen.is_fresh = false;
            }
        }
    }

    pub(crate) fn mark_reverse(&mut self, reverse: Option<Intent>) {
        self.old.reverse = reverse;
        for process in &mut self.processes {
            process.has_mark = false;
        }
        for copy in self.copies() {
            if let Some(seen) = &mut copy.reverse {
                seen.is_fresh = false;
            }
        }
    }

    /// A replica has a lease again; what was begun before is not covered by it.
    pub(crate) fn end_pins(&mut self, ours: impl Fn(usize) -> bool) {
        for (number, process) in self.processes.iter_mut().enumerate() {
            let copy = process.copy.as_mut().and_then(|copy| copy.pin.as_mut());
            for pin in process.pin.as_mut().into_iter().chain(copy) {
                pin.holds &= !ours(number);
            }
        }
    }

    fn copies(&mut self) -> impl Iterator<Item = &mut Copying> {
        let processes = self.processes.iter_mut();
        processes.filter_map(|process| process.copy.as_mut())
    }

    /// Whether both sides say the same of the record.
    pub(crate) fn are_equal(&self) -> bool {
        self.old.record == self.new.found.content()
    }
}
