//! `Sides::forward` and `Sides::backward`, a call of a store a step.

use task_core::migration::Stage;

use crate::model::Protocol;
use crate::rules::Rule;
use crate::state::{Content, CopyAt, Copying, Dirty, OnNew, Seen, State, Way};

/// How a copy ended, as `Synced`; what fails leaves the mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Equal,
    Copied,
    Ahead,
    NotNow,
    Failed,
}

/// What a forward copy makes of what it read, as the table in `copy_forward`.
enum Forward {
    Nothing(Ended),
    Put(OnNew),
}

impl Protocol {
    /// One step of a copy; `None` while it goes on.
    pub(crate) fn step_copy(&self, state: &mut State, process: usize) -> Option<Ended> {
        let is_late = state.processes[process].is_late;
        let mut copy = state.processes[process].copy?;
        if let Some(pin) = &mut copy.pin {
            pin.counts |= !is_late;
        }
        match copy.way {
            Way::Forward => self.step_forward(state, process, copy),
            Way::Backward => self.step_backward(state, process, copy),
        }
    }

    fn step_forward(&self, state: &mut State, process: usize, mut copy: Copying) -> Option<Ended> {
        match copy.at {
            CopyAt::Pin => {
                let Some(pin) = self.pin(state, process) else {
                    return Some(Ended::Failed);
                };
                if !pin.stage.mirrors_forward() && self.keeps(Rule::DirectionOfTheStage) {
                    return Some(Ended::NotNow);
                }
                copy.pin = Some(pin);
                copy.fills |= state.is_filling();
                let is_too_early = self.keeps(Rule::NoCopyOverUnfinished)
                    && !self.keeps(Rule::UnfinishedBehindNew)
                    && pin.stage == Stage::Handoff;
                copy.at = match is_too_early {
                    true => CopyAt::Unfinished,
                    false => CopyAt::Mark,
                };
            }
            CopyAt::Mark => {
                copy.dirty = state.old.dirty.map(Seen::of);
                copy.at = match self.keeps(Rule::TargetFirst) {
                    true => CopyAt::New,
                    false => CopyAt::Old,
                };
            }
            CopyAt::New => {
                copy.new = Some(Seen::of(state.new.found));
                let asks = copy.pin.is_some_and(|pin| pin.stage == Stage::Handoff)
                    && self.keeps(Rule::NoCopyOverUnfinished)
                    && self.keeps(Rule::UnfinishedBehindNew);
                copy.at = match (asks, copy.old) {
                    (true, None) => CopyAt::Unfinished,
                    (_, None) => CopyAt::Old,
                    (_, Some(old)) => return self.decide(state, process, copy, old.value),
                };
            }
            CopyAt::Unfinished => {
                if state.old.reverse.is_some() {
                    return Some(Ended::NotNow);
                }
                copy.at = match copy.new {
                    Some(_) => CopyAt::Old,
                    None => CopyAt::Mark,
                };
            }
            CopyAt::Old => {
                let old = state.old.record;
                if copy.new.is_none() {
                    // The wrong order, which a rule forbids.
                    (copy.old, copy.at) = (Some(Seen::of(old)), CopyAt::New);
                } else {
                    return self.decide(state, process, copy, old);
                }
            }
            CopyAt::Put => return self.put(state, process, copy),
            CopyAt::Clear => return self.clear(state, process, copy),
            CopyAt::Birth | CopyAt::Renew | CopyAt::Follow => unreachable!("of the way back"),
        }
        state.processes[process].copy = Some(copy);
        None
    }

    fn decide(
        &self,
        state: &mut State,
        process: usize,
        mut copy: Copying,
        old: Content,
    ) -> Option<Ended> {
        if !self.may_go_on(state, process, copy.pin) {
            return Some(Ended::Failed);
        }
        let new = copy.on_new().value;
        match self.forward_of(old, new, copy.dirty.map(|seen| seen.value)) {
            Forward::Nothing(Ended::Equal) if copy.dirty.is_some() => copy.at = CopyAt::Clear,
            Forward::Nothing(ended) => return Some(ended),
            Forward::Put(_) => {
                copy.old = Some(Seen::of(old));
                copy.at = CopyAt::Put;
            }
        }
        state.processes[process].copy = Some(copy);
        None
    }

    fn forward_of(&self, old: Content, new: OnNew, dirty: Option<Dirty>) -> Forward {
        let forbids = dirty.is_some_and(|dirty| dirty.forbids);
        match (old, new) {
            (Some(old), OnNew::Record(new)) if old == new && dirty.is_none() => {
                Forward::Nothing(Ended::Equal)
            }
            (Some(old), OnNew::Record(new)) if self.has_revisions && new.is_ahead(old) => {
                Forward::Nothing(Ended::Ahead)
            }
            (Some(old), _) => Forward::Put(OnNew::Record(old)),
            (None, OnNew::Nothing) if dirty.is_none() => Forward::Nothing(Ended::Equal),
            (None, OnNew::Left { forbids: left })
                if left == forbids && (dirty.is_none() || !self.keeps(Rule::DeletionAnew)) =>
            {
                Forward::Nothing(Ended::Equal)
            }
            (None, _) if !self.keeps(Rule::Placeholder) => Forward::Put(OnNew::Nothing),
            (None, _) => Forward::Put(OnNew::Left { forbids }),
        }
    }

    /// The write of a forward copy, over the version that was read.
    fn put(&self, state: &mut State, process: usize, mut copy: Copying) -> Option<Ended> {
        let seen = copy.on_new();
        let old = copy.on_old().value;
        let dirty = copy.dirty.map(|seen| seen.value);
        let Forward::Put(found) = self.forward_of(old, seen.value, dirty) else {
            unreachable!("it was to be written");
        };
        let is_unconditional = !self.keeps(Rule::ConditionalCopy);
        if !is_unconditional && !self.is_unchanged(state, seen) {
            state.processes[process].copy = Some(copy.again());
            return None;
        }
        state.write_new(found);
        copy.has_copied = true;
        if copy.dirty.is_none() {
            return Some(Ended::Copied);
        }
        // Only the mark is asked for from here on.
        (copy.new, copy.old, copy.at) = (None, None, CopyAt::Clear);
        state.processes[process].copy = Some(copy);
        None
    }

    fn clear(&self, state: &mut State, process: usize, copy: Copying) -> Option<Ended> {
        let is_same = copy.dirty.is_some_and(|seen| seen.is_fresh);
        if is_same || !self.keeps(Rule::ClearConditionally) {
            state.mark_dirty(None);
        } else if state.old.dirty.is_some() {
            state.processes[process].copy = Some(copy.again());
            return None;
        }
        Some(match copy.has_copied {
            true => Ended::Copied,
            false => Ended::Equal,
        })
    }

    fn step_backward(&self, state: &mut State, process: usize, mut copy: Copying) -> Option<Ended> {
        match copy.at {
            CopyAt::Pin => {
                let Some(pin) = self.pin(state, process) else {
                    return Some(Ended::Failed);
                };
                if !matches!(pin.stage, Stage::RampDown | Stage::Handoff) {
                    return Some(Ended::NotNow);
                }
                copy.pin = Some(pin);
                copy.at = CopyAt::Mark;
            }
            CopyAt::Mark => {
                let Some(intent) = state.old.reverse else {
                    return Some(match copy.has_copied {
                        true => Ended::Copied,
                        false => Ended::Equal,
                    });
                };
                copy.reverse = Some(Seen::of(intent));
                copy.at = CopyAt::Old;
            }
            CopyAt::Old => {
                copy.old = Some(Seen::of(state.old.record));
                copy.at = CopyAt::New;
            }
            CopyAt::New => {
                copy.new = Some(Seen::of(state.new.found));
                if !self.may_go_on(state, process, copy.pin) {
                    return Some(Ended::Failed);
                }
                copy.at = self.end_of_intent(copy);
            }
            CopyAt::Birth => {
                let seen = copy.on_new();
                if self.is_unchanged(state, seen) {
                    let born = copy.on_old().value.map_or(OnNew::Nothing, OnNew::Record);
                    state.write_new(born);
                    copy.has_copied = true;
                }
                copy = copy.again();
            }
            CopyAt::Renew => {
                let seen = copy.on_new();
                if self.is_unchanged(state, seen) {
                    state.write_new(seen.value);
                    copy.at = CopyAt::Follow;
                } else {
                    copy = copy.again();
                }
            }
            CopyAt::Follow => return self.follow(state, process, copy),
            CopyAt::Put | CopyAt::Clear | CopyAt::Unfinished => unreachable!("of the way forward"),
        }
        state.processes[process].copy = Some(copy);
        None
    }

    /// What `copy_backward` does first.
    fn end_of_intent(&self, copy: Copying) -> CopyAt {
        let intent = copy.intent().value;
        let old = copy.on_old().value;
        let new = copy.on_new().value;
        let is_open_birth = intent.is_birth && old.is_some() && intent.result == old;
        if is_open_birth && new.content().is_none() {
            return CopyAt::Birth;
        }
        match new != OnNew::Nothing && self.keeps(Rule::NewVersionBeforeCopy) {
            true => CopyAt::Renew,
            false => CopyAt::Follow,
        }
    }

    /// The old side follows, and the intent is over.
    fn follow(&self, state: &mut State, process: usize, mut copy: Copying) -> Option<Ended> {
        let epoch = copy.epoch();
        if !self.passes_fence(state, epoch) {
            return Some(Ended::Failed);
        }
        let reverse = copy.intent();
        let old = copy.on_old();
        let value = copy.on_new().value.content();
        if reverse.is_fresh && self.is_old_unchanged(state, old, value) {
            let took_effect = reverse.value.result == value;
            state.write_old(value);
            state.old.forbids |= took_effect && reverse.value.forbids;
            if took_effect && value.is_some() {
                state.old.events |= 1 << reverse.value.by;
            }
            state.mark_reverse(None);
            copy.has_copied = true;
        }
        state.processes[process].copy = Some(copy.again());
        None
    }

    /// Whether a write over what was read is accepted by the new side.
    pub(crate) fn is_unchanged(&self, state: &State, seen: Seen<OnNew>) -> bool {
        match seen.value == OnNew::Nothing || !self.keeps(Rule::UniqueVersions) {
            true => state.new.found == seen.value,
            false => seen.is_fresh,
        }
    }

    /// The same for the old side, which knows of deletions that forbid a birth.
    pub(crate) fn is_old_unchanged(
        &self,
        state: &State,
        seen: Seen<Content>,
        value: Content,
    ) -> bool {
        match (seen.value, value) {
            (Some(_), _) => seen.is_fresh,
            (None, Some(_)) => state.old.record.is_none() && !state.old.forbids,
            (None, None) => true,
        }
    }
}
