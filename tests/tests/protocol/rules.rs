//! The rules of the protocol, each of which a model can do without.

/// A rule that keeps something from going wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// R1: the mark is set in the same step as the write on the old side.
    MarkWithWrite,
    /// What is deleted while `off` leaves a mark as well: no backfill comes by.
    DeletionMarked,
    /// R3: a mark is removed only by who has seen that very one.
    ClearConditionally,
    /// R4: a copy is written over the version that was read.
    ConditionalCopy,
    /// A copy reads the version of its target first, and then the source.
    TargetFirst,
    /// A copy goes in the direction of its stage.
    DirectionOfTheStage,
    /// R5: a backfill starts when nobody works by `off` any more.
    Barrier,
    /// A copy to `off` and back does not count: the generation rises.
    Generation,
    /// `live` needs a backfill.
    Backfill,
    /// R6: a deletion leaves something on the new side.
    Placeholder,
    /// What a deletion leaves is written anew where a mark asks for it.
    DeletionAnew,
    /// A version of the new side never comes back.
    UniqueVersions,
    /// R8: an unknown outcome is not taken for a refusal.
    UnknownIsNotRefused,
    /// R9: the right to write moves through a time in which nobody writes.
    Handoff,
    /// In that time nobody writes, however long it takes.
    NobodyWritesInHandoff,
    /// Nothing is behind when it ends.
    Drain,
    /// R10: writes are compare-and-set.
    CompareAndSet,
    /// R11: the old side refuses writes of epochs before the last one.
    Fence,
    /// R11: nothing is begun or goes on behind the lease.
    NoWorkBehindLease,
    /// Neither behind a lease that was over for a while.
    PinEndsWithLease,
    /// R12: a reader looks for the mark of what the new side lacks.
    DirtyOverlay,
    /// It does so before it reads.
    MarkBeforeNew,
    /// R14: the pending event is a part of the write.
    EventWithWrite,
    /// The order of others: new first, then old.
    OldFirst,
    /// `rampdown`: what is wanted is noted before it is tried.
    IntentFirst,
    /// The old side has the content of a birth with the note.
    BirthOnOldFirst,
    /// The answer comes after both sides.
    AnswerAfterBoth,
    /// A reader who meets a note finishes that write first.
    ReaderFinishes,
    /// And then looks again whether there is another one.
    ReaderLooksAgain,
    /// The version of the new side is changed before the old one follows for others.
    NewVersionBeforeCopy,
    /// In `handoff`, nothing is copied over a write that is not finished.
    NoCopyOverUnfinished,
    /// That is looked for behind the read of the new side.
    UnfinishedBehindNew,
    /// In `handoff` as well: there, others may be in `rampdown`.
    ReaderInHandoffFinishes,
    /// A step waits until every replica has adopted the last one.
    Adoption,
    /// It waits for requests of earlier epochs as well.
    OldestPin,
    /// A replica is seen by others before it reads the control record.
    SeenBeforeItReads,
    /// An epoch is pinned in the moment in which it is read.
    PinWhileBeating,
    /// A replica is gone when it has been silent for two leases.
    TwoLeases,
    /// A stage is not jumped over.
    OneStage,
    /// A step is made from the epoch that its guards have looked at.
    GuardsOfThisEpoch,
    /// A service on the old side alone is refused while a move is under way.
    PlainServiceObeys,
    /// Nobody lets it write again for a move that has begun since.
    EndsOnlyItsOwn,
}
