//! Situations that some scenario has to reach, or its answers mean nothing.

use stateright::Property;
use task_core::migration::Stage;

use crate::model::Protocol;
use crate::moves::LeadAt;
use crate::state::{At, CopyAt, Copying, OnNew, Pin, Replica, State};

pub(crate) const MARK_OUTLIVES_WRITER: &str = "a mark outlives whoever set it";
pub(crate) const COPY_CONFLICTS: &str = "a copy comes too late";
pub(crate) const LEFT: &str = "a deletion has left something on the new side";
pub(crate) const FENCED: &str = "a write of an earlier epoch meets the fence";
pub(crate) const FILLED: &str = "a backfill is complete";
pub(crate) const OUTDATED_FILL: &str = "a backfill does not count any more";
pub(crate) const OVERLAID: &str = "a reader is answered by the old side for the new one";
pub(crate) const TWO_STAGES: &str = "two replicas are in different stages";
pub(crate) const NOBODY_WRITES: &str = "nobody may write";
pub(crate) const TAKEN_BACK: &str = "a time without writes has failed";
pub(crate) const NOT_DRAINED: &str = "a time without writes waits for a mark";
pub(crate) const TOO_LATE: &str = "a write that was given up comes too late";
pub(crate) const READER_MEETS_NOTE: &str = "a reader finishes a write";
pub(crate) const FINISHED_BY_OTHERS: &str = "a write was finished by others";
pub(crate) const OPEN_BIRTH: &str = "only the old side has a record that is made on the new one";
pub(crate) const COMPLETE: &str = "the new side is alone";
pub(crate) const FORGOTTEN: &str = "a replica is forgotten while it works";
pub(crate) const NEW_REPLICA: &str = "a replica joins";
pub(crate) const OVERTAKEN: &str = "a coordinator is overtaken";

pub(crate) fn all() -> Vec<Property<Protocol>> {
    let mut all = of_calls();
    all.extend(of_moves());
    all
}

fn of_calls() -> Vec<Property<Protocol>> {
    vec![
        Property::sometimes(MARK_OUTLIVES_WRITER, |model, state: &State| {
            let mut writers = (0..model.roles.len()).filter(|number| model.is_write(*number));
            state.old.dirty.is_some()
                && writers.all(|number| state.processes[number].at == At::Done)
        }),
        Property::sometimes(COPY_CONFLICTS, |_, state: &State| {
            copies(state)
                .any(|copy| copy.at == CopyAt::Put && copy.new.is_some_and(|seen| !seen.is_fresh))
        }),
        Property::sometimes(LEFT, |_, state: &State| {
            matches!(state.new.found, OnNew::Left { .. })
        }),
        Property::sometimes(FENCED, |model, state: &State| {
            state.processes.iter().any(|process| {
                let is_fenced = |pin: Pin| !model.passes_fence(state, pin.epoch);
                matches!(process.at, At::Pinned | At::Intend) && process.pin.is_some_and(is_fenced)
            })
        }),
        Property::sometimes(FILLED, |model, state: &State| {
            state.control.epoch > 1 && model.is_copied(state)
        }),
        Property::sometimes(OUTDATED_FILL, |_, state: &State| {
            let generation = state.control.generation;
            state
                .job
                .is_some_and(|job| job.is_done && job.generation < generation)
        }),
        Property::sometimes(OVERLAID, |_, state: &State| {
            state
                .processes
                .iter()
                .any(|process| process.at == At::ReadOld)
        }),
        Property::sometimes(TWO_STAGES, |_, state: &State| {
            let stage = |replica: &Replica| replica.adopted.map(|adopted| adopted.stage);
            stage(&state.replicas[0]) != stage(&state.replicas[1])
        }),
    ]
}

fn of_moves() -> Vec<Property<Protocol>> {
    vec![
        Property::sometimes(NOBODY_WRITES, |_, state: &State| {
            state.control.stage == Stage::Handoff
        }),
        Property::sometimes(TAKEN_BACK, |model, state: &State| {
            state.control.stage == model.from && state.control.term > 1
        }),
        Property::sometimes(NOT_DRAINED, |_, state: &State| {
            let is_marked = state.old.dirty.is_some() || state.old.reverse.is_some();
            is_marked && state.leads.iter().any(|lead| lead.at == LeadAt::Look)
        }),
        Property::sometimes(TOO_LATE, |model, state: &State| {
            state.processes.iter().any(|process| {
                let is_stale = |seen| !model.is_unchanged(state, seen);
                process.is_late && process.at == At::WriteNew && process.new.is_some_and(is_stale)
            })
        }),
        Property::sometimes(READER_MEETS_NOTE, |_, state: &State| {
            let mut processes = state.processes.iter();
            processes.any(|process| process.at == At::ReadNote && process.copy.is_some())
        }),
        Property::sometimes(FINISHED_BY_OTHERS, |_, state: &State| {
            let mut processes = state.processes.iter();
            processes.any(|process| process.at == At::Follow && !process.has_mark)
        }),
        Property::sometimes(OPEN_BIRTH, |_, state: &State| {
            state.old.record.is_some() && state.new.found.content().is_none()
        }),
        Property::sometimes(COMPLETE, |_, state: &State| {
            state.control.stage == Stage::Complete
        }),
        Property::sometimes(FORGOTTEN, |_, state: &State| {
            let mut working = state.processes.iter().enumerate();
            working.any(|(number, process)| {
                let is_new = state.replicas.get(number % 2);
                process.pin.is_some() && is_new.is_some_and(|replica| replica.beat.is_none())
            })
        }),
        Property::sometimes(NEW_REPLICA, |_, state: &State| {
            state
                .replicas
                .iter()
                .any(|replica| replica.adopted.is_none() && replica.beat.is_some())
        }),
        Property::sometimes(OVERTAKEN, |_, state: &State| {
            state
                .leads
                .iter()
                .any(|lead| lead.at == LeadAt::Change && lead.from != Some(state.control))
        }),
    ]
}

fn copies(state: &State) -> impl Iterator<Item = Copying> {
    state.processes.iter().filter_map(|process| process.copy)
}
