//! What must hold at every moment, and what has to happen sometimes for that to mean something.

use stateright::Property;
use task_core::migration::{Side, Stage};

use crate::model::Protocol;
use crate::situations;
use crate::state::{At, Content, State};

/// The promises of the protocol.
pub(crate) mod promise {
    pub(crate) const ORDER: &str = "some order of the calls explains every answer";
    pub(crate) const REASON: &str = "a refusal has a reason";
    pub(crate) const READERS: &str = "a reader who comes now sees what may be";
    pub(crate) const OLD_ALONE: &str = "the old side alone has every answer";
    pub(crate) const MARKED: &str = "where the sides differ there is a mark";
    pub(crate) const ONE_AUTHORITY: &str = "one side at most accepts writes";
    pub(crate) const ONE_APART: &str = "stages in use are at most one apart";
    pub(crate) const EVENT: &str = "an answered change has its event";
    pub(crate) const NO_EVENT: &str = "a refused change has no event";
}

/// What must hold at every moment, and what has to be reached.
pub(crate) fn all() -> Vec<Property<Protocol>> {
    let mut all = promises();
    all.extend(situations::all());
    all
}

pub(crate) fn promises() -> Vec<Property<Protocol>> {
    vec![
        Property::always(promise::ORDER, |_, state: &State| {
            state.clients.are_explained()
        }),
        Property::always(promise::REASON, |_, state: &State| {
            !state.clients.is_wronged
        }),
        Property::always(promise::READERS, |_, state: &State| {
            readers_see_what_may_be(state)
        }),
        Property::always(promise::OLD_ALONE, |_, state: &State| {
            state.control.stage == Stage::Complete || state.clients.may_see(state.old.record)
        }),
        Property::always(promise::MARKED, differences_are_marked),
        Property::always(promise::ONE_AUTHORITY, one_authority),
        Property::always(promise::ONE_APART, |_, state: &State| {
            let place = state.control.stage.place();
            state.replicas.iter().all(|replica| {
                let adopted = replica.adopted.filter(|_| replica.has_lease);
                adopted.is_none_or(|adopted| adopted.stage.place().abs_diff(place) <= 1)
            })
        }),
        Property::always(promise::EVENT, |model, state: &State| {
            answered_changes_have_events(model, state)
        }),
        Property::always(promise::NO_EVENT, |_, state: &State| {
            (state.old.events | state.new.events) & state.clients.refused == 0
        }),
    ]
}

/// What one reads in a stage, if nothing happens meanwhile.
fn seen_in(state: &State, stage: Stage) -> Vec<Content> {
    let (old, new) = (state.old.record, state.new.found.content());
    match stage {
        Stage::Off | Stage::DualWrite | Stage::Shadow => vec![old],
        Stage::Live | Stage::Handoff if state.old.dirty.is_some() => vec![old],
        Stage::Live => vec![old, new],
        Stage::Handoff if state.old.reverse.is_none() => vec![old, new],
        Stage::Handoff | Stage::RampDown => match state.old.reverse {
            Some(intent) if intent.is_birth && intent.result == old && new.is_none() => vec![old],
            Some(_) | None => vec![new],
        },
        Stage::Complete => vec![new],
    }
}

fn readers_see_what_may_be(state: &State) -> bool {
    let adopted = state.replicas.iter().filter(|replica| replica.has_lease);
    let mut stages = adopted.filter_map(|replica| Some(replica.adopted?.stage));
    stages.all(|stage| {
        let mut seen = seen_in(state, stage).into_iter();
        seen.all(|content| state.clients.may_see(content))
    })
}

fn differences_are_marked(model: &Protocol, state: &State) -> bool {
    let marks = (state.old.dirty.is_some(), state.old.reverse.is_some());
    let is_marked = match state.control.stage {
        Stage::Off | Stage::Complete => true,
        Stage::DualWrite | Stage::Shadow | Stage::Live => marks.0,
        Stage::Handoff => marks.0 || marks.1,
        Stage::RampDown => marks.1,
    };
    state.are_equal() || is_marked || !model.is_copied(state)
}

/// The sides on which a write that is under way would be accepted now.
fn one_authority(model: &Protocol, state: &State) -> bool {
    let writes = (0..model.roles.len()).filter(|number| model.is_write(*number));
    let mut accepting = writes.filter_map(|number| accepting_side(model, state, number));
    let first = accepting.next();
    accepting.all(|side| Some(side) == first)
}

fn accepting_side(model: &Protocol, state: &State, number: usize) -> Option<Side> {
    let process = &state.processes[number];
    let pin = process.pin.filter(|_| process.copy.is_none())?;
    let authority = pin.stage.authority();
    let accepts = if process.at == At::WriteNew {
        model.is_unchanged(state, process.new?)
    } else if process.at != At::Pinned || pin.stage == Stage::RampDown {
        false
    } else if authority == Some(Side::Old) {
        model.passes_fence(state, pin.epoch) && state.old.record == process.base
    } else {
        state.new.found.content() == process.base
    };
    authority.filter(|_| accepts)
}

fn answered_changes_have_events(model: &Protocol, state: &State) -> bool {
    let done = (0..model.roles.len()).filter(|number| state.clients.done >> number & 1 == 1);
    let mut done = done.filter(|number| model.makes_event(*number));
    done.all(|number| (state.old.events | state.new.events) >> number & 1 == 1)
}
