//! What clients ask for: `Sides::write` and `ParallelStateStore::read`, a call of a store a step.

use task_core::migration::{Side, Stage};

use crate::clients::{Answer, Ask, next};
use crate::copies::Ended;
use crate::model::{Protocol, Role};
use crate::rules::Rule;
use crate::state::{
    At, Content, CopyAt, Copying, Dirty, Intent, OnNew, Pin, Process, Seen, State, Way,
};

impl Protocol {
    /// What is adopted, while the lease allows to work by it.
    pub(crate) fn pin(&self, state: &State, process: usize) -> Option<Pin> {
        let replica = &state.replicas[self.replica_of(process)];
        let control = replica.adopted?;
        let may = replica.has_lease || !self.keeps(Rule::NoWorkBehindLease);
        may.then_some(Pin {
            epoch: control.epoch,
            stage: control.stage,
            counts: self.keeps(Rule::PinWhileBeating),
            holds: true,
        })
    }

    /// Stands for `Pin::check`.
    pub(crate) fn may_go_on(&self, state: &State, process: usize, pin: Option<Pin>) -> bool {
        let replica = &state.replicas[self.replica_of(process)];
        let holds = pin.is_none_or(|pin| pin.holds) || !self.keeps(Rule::PinEndsWithLease);
        (replica.has_lease && holds) || !self.keeps(Rule::NoWorkBehindLease)
    }

    fn forbids(&self, process: usize) -> bool {
        matches!(self.roles[process].0, Role::Delete { forbids: true })
    }

    /// A request is received. A write finds the record as one of the sides has it.
    pub(crate) fn receive(&self, state: &mut State, process: usize, base: Content) -> Option<()> {
        let role = self.roles[process].0;
        let pin = match role {
            Role::Plain => None,
            Role::Create | Role::Update | Role::Delete { .. } | Role::Read | Role::Copy => {
                Some(self.pin(state, process)?)
            }
        };
        let term = state.replicas[self.replica_of(process)].adopted;
        let term = term.map_or(1, |control| control.term);
        let value = match role {
            Role::Create | Role::Update | Role::Plain => Some(next(process, base, term)),
            Role::Delete { .. } | Role::Read | Role::Copy => None,
        };
        let ask = match role {
            Role::Read => Ask::Read,
            Role::Create | Role::Update | Role::Delete { .. } | Role::Plain | Role::Copy => {
                // While nobody may write, a write waits and has no epoch.
                let waits = pin.is_some_and(|pin| pin.stage.authority().is_none());
                if waits && self.keeps(Rule::NobodyWritesInHandoff) {
                    return None;
                }
                Ask::Write {
                    base,
                    value,
                    forbids: self.forbids(process),
                }
            }
        };
        state.clients.ask(process, ask);
        state.processes[process] = Process {
            at: At::Pinned,
            pin,
            base,
            value,
            ..Process::default()
        };
        Some(())
    }

    /// One step of a request.
    pub(crate) fn step_request(&self, state: &mut State, process: usize) {
        let at = state.processes[process].at;
        let is_late = state.processes[process].is_late;
        if let Some(pin) = &mut state.processes[process].pin {
            pin.counts |= !is_late;
        }
        match at {
            At::Idle | At::Done => unreachable!("it does nothing"),
            At::Pinned => self.first_step(state, process),
            At::ReadMark => self.read_mark_late(state, process),
            At::ReadNew => self.read_new(state, process),
            At::ReadAgain => self.see(state, process, state.new.found.content()),
            At::ReadOld => self.see(state, process, state.old.record),
            At::ReadNote => self.read_note(state, process),
            At::Intend => self.intend(state, process),
            At::WriteNew => self.write_new(state, process),
            At::LookAtOld => {
                state.processes[process].old = Some(Seen::of(state.old.record));
                state.processes[process].at = At::Follow;
            }
            At::Follow => self.follow_own(state, process),
            At::Withdraw => {
                if state.processes[process].has_mark {
                    state.mark_reverse(None);
                }
                self.again(state, process);
            }
            At::Born => self.born(state, process),
            At::MarkLater => {
                let forbids = self.forbids(process);
                state.mark_dirty(Some(Dirty { forbids }));
                self.answer(state, process, Answer::Done);
            }
            At::EventLater => {
                state.old.events |= 1 << process;
                self.end(state, process);
            }
            At::MirrorOld => {
                state.write_old(state.processes[process].value);
                self.answer(state, process, Answer::Done);
            }
        }
        if state.processes[process].is_late {
            self.end(state, process);
        }
    }

    fn first_step(&self, state: &mut State, process: usize) {
        match (self.roles[process].0, state.processes[process].pin) {
            (Role::Read, Some(pin)) => self.read(state, process, pin),
            (Role::Plain, _) => self.write_plain(state, process),
            (_, Some(pin)) => match pin.stage {
                Stage::RampDown => self.find(state, process),
                Stage::Complete => self.write_new_alone(state, process),
                Stage::Live if !self.keeps(Rule::OldFirst) => self.write_new_first(state, process),
                Stage::Off | Stage::DualWrite | Stage::Shadow | Stage::Live | Stage::Handoff => {
                    self.write_old(state, process, pin);
                }
            },
            (_, None) => unreachable!("it was pinned"),
        }
    }

    fn read(&self, state: &mut State, process: usize, pin: Pin) {
        match pin.stage {
            Stage::Off | Stage::DualWrite | Stage::Shadow => {
                self.see(state, process, state.old.record);
            }
            Stage::Live | Stage::Handoff if !self.keeps(Rule::MarkBeforeNew) => {
                state.processes[process].new = Some(Seen::of(state.new.found));
                state.processes[process].at = At::ReadMark;
            }
            Stage::Live | Stage::Handoff => {
                let is_clean = state.old.dirty.is_none() || !self.keeps(Rule::DirtyOverlay);
                state.processes[process].at = match is_clean {
                    true => At::ReadNew,
                    false => At::ReadOld,
                };
            }
            Stage::RampDown => {
                let found = state.new.found;
                if !self.keeps(Rule::ReaderFinishes) {
                    return self.see(state, process, found.content());
                }
                state.processes[process].new = Some(Seen::of(found));
                state.processes[process].at = At::ReadNote;
            }
            Stage::Complete => self.see(state, process, state.new.found.content()),
        }
    }

    fn read_mark_late(&self, state: &mut State, process: usize) {
        let new = state.processes[process].new.take().expect("it was read");
        match state.old.dirty {
            None => self.see(state, process, new.value.content()),
            Some(_) => state.processes[process].at = At::ReadOld,
        }
    }

    fn read_new(&self, state: &mut State, process: usize) {
        let pin = state.processes[process].pin.expect("it was pinned");
        let found = state.new.found;
        if pin.stage == Stage::Handoff && self.keeps(Rule::ReaderInHandoffFinishes) {
            state.processes[process].new = Some(Seen::of(found));
            state.processes[process].at = At::ReadNote;
        } else {
            self.see(state, process, found.content());
        }
    }

    fn read_note(&self, state: &mut State, process: usize) {
        let new = state.processes[process].new.take().expect("it was read");
        match state.old.reverse {
            None => self.see(state, process, new.value.content()),
            Some(_) => state.processes[process].copy = Some(Copying::begin(Way::Backward)),
        }
    }

    /// The new side does not answer a reader, who goes on as `read_overlaid` does.
    pub(crate) fn miss(&self, state: &mut State, process: usize) {
        state.processes[process].at = At::ReadOld;
    }

    /// The fence, by the guard of the real control record.
    pub(crate) fn passes_fence(&self, state: &State, epoch: u8) -> bool {
        !self.keeps(Rule::Fence) || self.guards.accepts(epoch, state.old.fence)
    }

    fn write_old(&self, state: &mut State, process: usize, pin: Pin) {
        if !self.passes_fence(state, pin.epoch) {
            return self.refuse(state, process);
        }
        if !self.may_replace(state, process) && self.keeps(Rule::CompareAndSet) {
            return self.answer(state, process, Answer::Refused);
        }
        let value = state.processes[process].value;
        let forbids = self.forbids(process);
        state.write_old(value);
        state.old.forbids |= forbids;
        if value.is_some() && self.keeps(Rule::EventWithWrite) {
            state.old.events |= 1 << process;
        }
        let is_deletion = value.is_none() && self.keeps(Rule::DeletionMarked);
        if pin.stage.mirrors_forward() || is_deletion {
            if !self.keeps(Rule::MarkWithWrite) {
                state.processes[process].at = At::MarkLater;
                return;
            }
            state.mark_dirty(Some(Dirty { forbids }));
        }
        self.answer(state, process, Answer::Done);
        if value.is_some() && !self.keeps(Rule::EventWithWrite) {
            state.processes[process].at = At::EventLater;
        }
    }

    /// Whether the old side accepts the write over what the client has seen.
    fn may_replace(&self, state: &State, process: usize) -> bool {
        let base = state.processes[process].base;
        state.old.record == base && !(base.is_none() && state.old.forbids)
    }

    /// A service on the old side alone, as `UnmovedStateStore`.
    fn write_plain(&self, state: &mut State, process: usize) {
        if state.old.is_running && self.keeps(Rule::PlainServiceObeys) {
            return self.refuse(state, process);
        }
        if !self.may_replace(state, process) {
            return self.answer(state, process, Answer::Refused);
        }
        state.write_old(state.processes[process].value);
        state.old.events |= 1 << process;
        self.answer(state, process, Answer::Done);
    }

    /// In the order of others: the new side, and then the old one without a condition.
    fn write_new_first(&self, state: &mut State, process: usize) {
        let Process { base, value, .. } = state.processes[process];
        if state.new.found.content() != base {
            return self.answer(state, process, Answer::Refused);
        }
        state.write_new(left_or(value, false));
        state.new.events |= 1 << process;
        state.processes[process].at = At::MirrorOld;
    }

    fn write_new_alone(&self, state: &mut State, process: usize) {
        let Process { base, value, .. } = state.processes[process];
        let is_over = state.new.found == OnNew::Left { forbids: true };
        if state.new.found.content() != base || (base.is_none() && is_over) {
            return self.answer(state, process, Answer::Refused);
        }
        state.write_new(match (value, self.forbids(process)) {
            (None, false) => OnNew::Nothing,
            (value, forbids) => left_or(value, forbids),
        });
        state.new.events |= u8::from(value.is_some()) << process;
        self.answer(state, process, Answer::Done);
    }

    /// Stands for the begin of `write_new_then_old` with `over_found`.
    fn find(&self, state: &mut State, process: usize) {
        let found = state.new.found;
        if found.content() != state.processes[process].base {
            return self.answer(state, process, Answer::Refused);
        }
        state.processes[process].new = Some(Seen::of(found));
        state.processes[process].at = match self.keeps(Rule::IntentFirst) {
            true => At::Intend,
            false => At::WriteNew,
        };
    }

    fn is_birth(&self, state: &State, process: usize) -> bool {
        let Process { value, base, .. } = state.processes[process];
        value.is_some() && base.is_none()
    }

    fn intend(&self, state: &mut State, process: usize) {
        let pin = state.processes[process].pin.expect("it was pinned");
        if !self.passes_fence(state, pin.epoch) {
            return self.refuse(state, process);
        }
        let is_birth = self.is_birth(state, process) && self.keeps(Rule::BirthOnOldFirst);
        let is_forbidden = is_birth && (state.old.record.is_some() || state.old.forbids);
        if state.old.reverse.is_some() || is_forbidden {
            state.processes[process].copy = Some(Copying::begin(Way::Backward));
            return;
        }
        let result = state.processes[process].value;
        let by = u8::try_from(process).expect("few");
        state.mark_reverse(Some(Intent {
            by,
            result,
            is_birth,
            forbids: self.forbids(process),
        }));
        if is_birth {
            state.write_old(result);
        }
        state.processes[process].has_mark = true;
        state.processes[process].at = At::WriteNew;
    }

    fn write_new(&self, state: &mut State, process: usize) {
        let seen = state.processes[process].new.expect("it was read");
        if !self.is_unchanged(state, seen) {
            let is_birth = self.is_birth(state, process);
            state.processes[process].at = if is_birth { At::Born } else { At::Withdraw };
            if is_birth {
                state.processes[process].copy = Some(Copying::begin(Way::Backward));
            }
            return;
        }
        let value = state.processes[process].value;
        state.write_new(match (value, self.keeps(Rule::Placeholder)) {
            (None, false) => OnNew::Nothing,
            (value, _) => left_or(value, self.forbids(process)),
        });
        state.new.events |= u8::from(value.is_some()) << process;
        state.processes[process].new = None;
        if !self.keeps(Rule::AnswerAfterBoth) && !state.processes[process].is_late {
            state.clients.tell(process, Answer::Done);
        }
        state.processes[process].at = match state.processes[process].is_late {
            // What is unknown is taken for refused.
            true if !self.keeps(Rule::UnknownIsNotRefused) => {
                state.processes[process].is_late = false;
                At::Withdraw
            }
            true | false => At::LookAtOld,
        };
    }

    fn follow_own(&self, state: &mut State, process: usize) {
        let pin = state.processes[process].pin.expect("it was pinned");
        if !self.passes_fence(state, pin.epoch) {
            return self.end(state, process);
        }
        let Process {
            value,
            old,
            has_mark,
            ..
        } = state.processes[process];
        let old = old.expect("it was read");
        let is_noted = has_mark || !self.keeps(Rule::IntentFirst);
        if !is_noted || !self.is_old_unchanged(state, old, value) {
            state.processes[process].copy = Some(Copying::begin(Way::Backward));
            return;
        }
        state.write_old(value);
        state.old.forbids |= self.forbids(process);
        state.old.events |= u8::from(value.is_some()) << process;
        state.mark_reverse(None);
        self.answer(state, process, Answer::Done);
    }

    fn born(&self, state: &mut State, process: usize) {
        let value = state.processes[process].value;
        match state.new.found.content() == value {
            true => self.answer(state, process, Answer::Done),
            false => self.end(state, process),
        }
    }

    /// A copy that a request has waited for has ended.
    pub(crate) fn resume(&self, state: &mut State, process: usize, ended: Ended) {
        state.processes[process].copy = None;
        let is_birth = self.is_birth(state, process);
        match (state.processes[process].at, ended) {
            (At::Intend, Ended::Failed) => self.refuse(state, process),
            (At::Intend, Ended::Equal) if is_birth => {
                self.answer(state, process, Answer::Refused);
            }
            (At::ReadNote, Ended::Equal | Ended::Copied | Ended::NotNow | Ended::Ahead) => {
                state.processes[process].at = match self.keeps(Rule::ReaderLooksAgain) {
                    true => At::Pinned,
                    false => At::ReadAgain,
                };
            }
            (At::Follow, Ended::Equal | Ended::Copied | Ended::NotNow | Ended::Ahead) => {
                self.answer(state, process, Answer::Done);
            }
            (At::ReadNote | At::Follow | At::Born, Ended::Failed) => self.end(state, process),
            _ => {}
        }
    }

    fn again(&self, state: &mut State, process: usize) {
        state.processes[process].new = None;
        state.processes[process].at = At::Pinned;
    }

    /// The call is answered, if it may be. Stands for `settled`.
    fn answer(&self, state: &mut State, process: usize, answer: Answer) {
        let is_told = state.clients.done >> process & 1 == 1;
        let needs_lease = self.roles[process].0 != Role::Plain && answer != Answer::Refused;
        let may = !needs_lease || self.may_go_on(state, process, state.processes[process].pin);
        if may && !state.processes[process].is_late && !is_told {
            match answer {
                Answer::Refused => state.clients.refuse(process),
                Answer::Done | Answer::Saw(_) => state.clients.tell(process, answer),
            }
        }
        self.end(state, process);
    }

    fn see(&self, state: &mut State, process: usize, content: Content) {
        self.answer(state, process, Answer::Saw(content));
    }

    /// The call is answered as one that was not made.
    fn refuse(&self, state: &mut State, process: usize) {
        if !state.processes[process].is_late {
            state.clients.tell_not_made(process);
        }
        self.end(state, process);
    }

    /// Nothing more comes of it, and what it was is of no interest.
    pub(crate) fn end(&self, state: &mut State, process: usize) {
        let is_copy = self.roles[process].0 == Role::Copy;
        state.processes[process] = Process {
            at: if is_copy { At::Idle } else { At::Done },
            ..Process::default()
        };
    }

    /// Whether the next step is a write, which may take effect after it was given up.
    pub(crate) fn may_be_late(&self, process: &Process, role: Role) -> bool {
        if let Some(copy) = process.copy {
            return match copy.at {
                CopyAt::Put | CopyAt::Clear | CopyAt::Birth | CopyAt::Renew | CopyAt::Follow => {
                    true
                }
                CopyAt::Pin | CopyAt::Unfinished | CopyAt::Mark | CopyAt::New | CopyAt::Old => {
                    false
                }
            };
        }
        match process.at {
            At::Intend | At::WriteNew | At::Follow | At::Withdraw | At::MirrorOld => true,
            At::Pinned => {
                let stage = process.pin.map(|pin| pin.stage);
                let is_write = !matches!(role, Role::Read | Role::Copy);
                let writes_at_once = stage.is_none_or(|stage| {
                    stage.authority() == Some(Side::Old) || stage == Stage::Complete
                });
                is_write && writes_at_once
            }
            At::Idle
            | At::Done
            | At::ReadNew
            | At::ReadOld
            | At::ReadNote
            | At::ReadMark
            | At::ReadAgain
            | At::LookAtOld
            | At::Born
            | At::MarkLater
            | At::EventLater => false,
        }
    }
}

/// What the new side holds after a change, as `gone::put` and `gone::leave`.
fn left_or(value: Content, forbids: bool) -> OnNew {
    match value {
        Some(value) => OnNew::Record(value),
        None => OnNew::Left { forbids },
    }
}
