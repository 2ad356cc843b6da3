//! The replicas' part in the move, and the coordinator's: `member`, `coordinator`, `guards`, `backfill`.

use task_core::migration::Stage;

use crate::model::Protocol;
use crate::real;
use crate::rules::Rule;
use crate::state::{Beat, Control, Job, State};

/// Where a coordinator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum LeadAt {
    #[default]
    Idle,
    /// The guards held; the control record is read now.
    Begin,
    Await,
    Fence,
    Run,
    Change,
    // Nobody writes.
    AwaitAll,
    FenceAll,
    Look,
    AwaitAgain,
    Arrive,
    // Everything is `off` again.
    AwaitOff,
    End,
    // A backfill begins.
    AwaitFill,
    FenceFill,
    Fill,
}

/// One who changes the control record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Lead {
    pub(crate) at: LeadAt,
    pub(crate) to: Stage,
    /// The record that the step begins with.
    pub(crate) from: Option<Control>,
}

impl Protocol {
    /// The first half of a beat: a sign of life.
    pub(crate) fn send(&self, state: &mut State, replica: usize) -> Option<()> {
        let beat = self.beat_of(state, replica);
        let beats = &mut state.replicas[replica];
        let is_first_half = self.keeps(Rule::SeenBeforeItReads);
        if beats.is_beating == is_first_half {
            return None;
        }
        beats.beat = Some(beat);
        beats.is_beating = is_first_half;
        if !is_first_half {
            self.grant(state, replica);
        }
        Some(())
    }

    fn grant(&self, state: &mut State, replica: usize) {
        if !state.replicas[replica].has_lease {
            state.replicas[replica].has_lease = true;
            state.end_pins(|process| self.replica_of(process) == replica);
        }
    }

    /// The second half: a look at the control record, which is adopted.
    pub(crate) fn look(&self, state: &mut State, replica: usize) -> Option<()> {
        let control = state.control;
        let beats = &mut state.replicas[replica];
        let is_second_half = self.keeps(Rule::SeenBeforeItReads);
        if beats.is_beating != is_second_half {
            return None;
        }
        let is_news = beats
            .adopted
            .is_none_or(|known| known.epoch < control.epoch);
        if is_news {
            beats.adopted = Some(control);
        }
        beats.is_beating = !is_second_half;
        if is_second_half {
            self.grant(state, replica);
        }
        Some(())
    }

    /// What a replica would say of itself.
    pub(crate) fn beat_of(&self, state: &State, replica: usize) -> Beat {
        let adopted = state.replicas[replica].adopted;
        let adopted = adopted.map_or(0, |control| control.epoch);
        let processes = state.processes.iter().enumerate();
        let ours = processes.filter(|(number, _)| self.replica_of(*number) == replica);
        let pins = ours
            .filter(|(_, process)| !process.is_late)
            .flat_map(|(_, process)| [process.pin, process.copy.and_then(|copy| copy.pin)]);
        let pins = pins.flatten().filter(|pin| pin.counts);
        let oldest = pins.map(|pin| pin.epoch).min().unwrap_or(adopted);
        Beat { adopted, oldest }
    }

    /// The coordinator has heard nothing of a replica for two leases.
    pub(crate) fn forget(&self, state: &mut State, replica: usize) -> Option<()> {
        let silent = &mut state.replicas[replica];
        silent.beat?;
        if silent.has_lease && self.keeps(Rule::TwoLeases) {
            return None;
        }
        silent.beat = None;
        if self.keeps(Rule::SeenBeforeItReads) {
            // Whatever lease comes of a beat that was begun before is over.
            silent.is_beating = false;
        }
        Some(())
    }

    /// Stands for `await_adoption`.
    fn follow_all(&self, state: &State, epoch: u8) -> bool {
        let beats = state.replicas.iter().filter_map(|replica| replica.beat);
        let pins = self.keeps(Rule::OldestPin);
        let mut beats = beats.map(|beat| (beat.adopted, if pins { beat.oldest } else { epoch }));
        !self.keeps(Rule::Adoption)
            || beats.all(|(adopted, oldest)| adopted >= epoch && oldest >= epoch)
    }

    /// Somebody asks for a step to a stage, and its guards hold now.
    pub(crate) fn decide_step(&self, state: &mut State, lead: usize, to: Stage) -> Option<()> {
        let control = state.control;
        if state.leads[lead].at != LeadAt::Idle || state.moves == 0 {
            return None;
        }
        let is_more = to > control.stage;
        if is_more && to >= Stage::Live && !self.is_copied(state) && self.keeps(Rule::Backfill) {
            return None;
        }
        state.moves -= 1;
        state.leads[lead] = Lead {
            at: LeadAt::Begin,
            to,
            from: Some(control),
        };
        Some(())
    }

    /// Stands for `backfill_complete`.
    pub(crate) fn is_copied(&self, state: &State) -> bool {
        let generation = state.control.generation;
        state
            .job
            .is_some_and(|job| job.is_done && job.generation == generation)
    }

    /// Somebody asks for a backfill.
    pub(crate) fn decide_fill(&self, state: &mut State, lead: usize) -> Option<()> {
        let control = state.control;
        let is_filled = state
            .job
            .is_some_and(|job| job.generation == control.generation);
        let is_mirrored = control.stage >= Stage::DualWrite;
        if state.leads[lead].at != LeadAt::Idle || is_filled || !is_mirrored {
            return None;
        }
        state.leads[lead] = Lead {
            at: match self.keeps(Rule::Barrier) {
                true => LeadAt::AwaitFill,
                false => LeadAt::Fill,
            },
            to: control.stage,
            from: Some(control),
        };
        Some(())
    }

    /// The next step of a coordinator.
    pub(crate) fn carry_on(&self, state: &mut State, number: usize) -> Option<()> {
        let mut lead = state.leads[number];
        let from = lead.from?;
        match lead.at {
            LeadAt::Idle => return None,
            LeadAt::Begin => return self.begin(state, number),
            LeadAt::Await
            | LeadAt::AwaitAll
            | LeadAt::AwaitAgain
            | LeadAt::AwaitOff
            | LeadAt::AwaitFill => {
                if !self.follow_all(state, from.epoch) {
                    return None;
                }
                lead.at = behind(lead.at);
            }
            LeadAt::Fence | LeadAt::FenceAll | LeadAt::FenceFill => {
                state.old.fence = state.old.fence.max(from.epoch);
                let leaves_off = from.stage == Stage::Off && lead.to != Stage::Off;
                lead.at = match (lead.at, leaves_off) {
                    (LeadAt::Fence, true) => LeadAt::Run,
                    (LeadAt::Fence, false) => LeadAt::Change,
                    (at, _) => behind(at),
                };
            }
            LeadAt::Run => {
                state.old.is_running = true;
                lead.at = LeadAt::Change;
            }
            LeadAt::Change => return self.change(state, number),
            LeadAt::Look => {
                let is_drained = match from.waiting_from {
                    Some(Stage::RampDown) => state.old.reverse.is_none(),
                    _ => state.old.dirty.is_none(),
                };
                if !is_drained && self.keeps(Rule::Drain) {
                    return None;
                }
                lead.at = LeadAt::AwaitAgain;
            }
            LeadAt::Arrive => {
                let to = Control {
                    waiting_from: None,
                    ..real::stepped(from, lead.to)
                };
                self.change_to(state, from, to);
                lead = Lead::default();
            }
            LeadAt::End => {
                let is_ours = state.control == from || !self.keeps(Rule::EndsOnlyItsOwn);
                state.old.is_running &= !is_ours;
                lead = Lead::default();
            }
            LeadAt::Fill => {
                fill(state, from);
                lead = Lead::default();
            }
        }
        state.leads[number] = lead;
        Some(())
    }

    /// The step reads the control record, and recovers from a time without writes that somebody left.
    fn begin(&self, state: &mut State, number: usize) -> Option<()> {
        let mut lead = state.leads[number];
        let seen = lead.from?;
        if state.control.waiting_from.is_some() {
            self.change_to(state, state.control, real::taken_back(state.control));
        }
        let from = state.control;
        let is_judged = seen.epoch == from.epoch || seen.waiting_from.is_some();
        let is_allowed = real::may_step(from.stage, lead.to) || !self.keeps(Rule::OneStage);
        if (!is_judged && self.keeps(Rule::GuardsOfThisEpoch)) || !is_allowed {
            state.leads[number] = Lead::default();
            return Some(());
        }
        lead.from = Some(from);
        lead.at = LeadAt::Await;
        state.leads[number] = lead;
        Some(())
    }

    /// The step itself; through a time without writes if the right to write moves.
    fn change(&self, state: &mut State, number: usize) -> Option<()> {
        let lead = state.leads[number];
        let from = lead.from?;
        let passes = from.stage.authority() != lead.to.authority();
        let to = match passes && self.keeps(Rule::Handoff) {
            true => Control {
                waiting_from: Some(from.stage),
                ..real::stepped(from, Stage::Handoff)
            },
            false => real::stepped(from, lead.to),
        };
        let to = match self.keeps(Rule::Generation) {
            true => to,
            false => Control {
                generation: from.generation,
                ..to
            },
        };
        let is_changed = self.change_to(state, from, to);
        state.leads[number] = match (is_changed, to.stage) {
            (true, Stage::Handoff) => Lead {
                at: LeadAt::AwaitAll,
                to: lead.to,
                from: Some(to),
            },
            (true, Stage::Off) => Lead {
                at: LeadAt::AwaitOff,
                to: Stage::Off,
                from: Some(to),
            },
            _ => Lead::default(),
        };
        Some(())
    }

    /// The control record is written by compare-and-set.
    fn change_to(&self, state: &mut State, from: Control, to: Control) -> bool {
        let is_same = state.control == from;
        if is_same {
            state.control = Control {
                term: to.term + u8::from(from.waiting_from.is_some()),
                ..to
            };
        }
        is_same
    }

    /// The time without writes takes too long, and ends where it began.
    pub(crate) fn take_back(&self, state: &mut State, number: usize) -> Option<()> {
        let lead = state.leads[number];
        let from = lead.from?;
        from.waiting_from?;
        self.change_to(state, from, real::taken_back(from));
        state.leads[number] = Lead::default();
        Some(())
    }
}

/// A backfill starts, if the control record is still the one that it waited for.
fn fill(state: &mut State, from: Control) {
    if state.control != from {
        return;
    }
    state.job = Some(Job {
        generation: from.generation,
        is_done: false,
    });
    let copies = state.processes.iter_mut();
    for copy in copies.filter_map(|process| process.copy.as_mut()) {
        copy.fills = false;
    }
}

/// What comes behind a step of the same kind.
fn behind(at: LeadAt) -> LeadAt {
    match at {
        LeadAt::Await => LeadAt::Fence,
        LeadAt::AwaitAll => LeadAt::FenceAll,
        LeadAt::FenceAll => LeadAt::Look,
        LeadAt::AwaitAgain => LeadAt::Arrive,
        LeadAt::AwaitOff => LeadAt::End,
        LeadAt::AwaitFill => LeadAt::FenceFill,
        LeadAt::FenceFill => LeadAt::Fill,
        LeadAt::Idle
        | LeadAt::Begin
        | LeadAt::Fence
        | LeadAt::Run
        | LeadAt::Change
        | LeadAt::Look
        | LeadAt::Arrive
        | LeadAt::End
        | LeadAt::Fill => unreachable!("it decides by itself"),
    }
}
