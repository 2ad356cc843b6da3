//! The protocol of the parallel run as a model that is checked exhaustively.
//!
//! `scenarios` are moves with all that may happen in them, and every promise holds in every state. `broken` takes one
//! rule away each, and the checker has to find the promise that is broken then. A step of the model is one call of a store, in
//! the order of `task-core/src/migration`; where a decision of the code can be called, it is (`real`). What is
//! beside one record is left out: pages, pacing, limits of time, of attempts and of values.

mod broken;
mod clients;
mod copies;
mod model;
mod moves;
mod properties;
mod real;
mod requests;
mod rules;
mod scenarios;
mod situations;
mod state;

use std::collections::BTreeSet;
use std::time::Instant;

use broken::{BROKEN, Broken};
use libtest_mimic::{Arguments, Failed, Trial};
use model::Protocol;
use scenarios::{FULL, SHORT, Scenario};
use stateright::{Checker, HasDiscoveries, Model};
use task_tests::config;

fn main() {
    let arguments = Arguments::from_args();
    let scenarios = SHORT.iter().chain(match config::protocol_in_full() {
        true => FULL,
        false => &[],
    });
    let holds = scenarios.map(|scenario| {
        let name = format!("{}::keeps_every_promise", scenario.name);
        Trial::test(name, || hold(scenario))
    });
    let breaks = BROKEN.iter().map(|broken| {
        let name = format!("without::{:?}::breaks_a_promise", broken.rule);
        Trial::test(name, || break_a_promise(broken))
    });
    libtest_mimic::run(&arguments, holds.chain(breaks).collect()).exit();
}

/// Every promise holds in every state, and every situation is reached that the scenario is about.
fn hold(scenario: &Scenario) -> Result<(), Failed> {
    let begin = Instant::now();
    let promises: BTreeSet<&str> = properties::promises().iter().map(|one| one.name).collect();
    let ends = HasDiscoveries::AnyOf(promises.clone());
    let checker = (scenario.model)().checker().finish_when(ends);
    let checker = checker.spawn_bfs().join();
    tell(&format!(
        "{}: {} states, depth {}, {:.1} s",
        scenario.name,
        checker.unique_state_count(),
        checker.max_depth(),
        begin.elapsed().as_secs_f64()
    ));
    let found = checker.discoveries();
    if let Some((promise, path)) = found.iter().find(|(name, _)| promises.contains(*name)) {
        let steps = path.clone().into_actions();
        return Err(format!("not kept: {promise}, after {steps:#?}").into());
    }
    let missing = scenario
        .reaches
        .iter()
        .find(|name| !found.contains_key(*name));
    match missing {
        Some(missing) => Err(format!("never reached: {missing}").into()),
        None => Ok(()),
    }
}

/// Without the rule, the checker finds how the promise is broken.
fn break_a_promise(broken: &Broken) -> Result<(), Failed> {
    let begin = Instant::now();
    let model = Protocol {
        without: Some(broken.rule),
        ..(broken.model)()
    };
    let ends = HasDiscoveries::AnyOf([broken.promise].into());
    let checker = model.checker().finish_when(ends).spawn_bfs().join();
    let Some(path) = checker.discovery(broken.promise) else {
        let states = checker.unique_state_count();
        let promise = broken.promise;
        return Err(format!("kept in all of {states} states: {promise}").into());
    };
    tell(&format!(
        "without {:?}: {} states, {:.1} s, {:?}",
        broken.rule,
        checker.unique_state_count(),
        begin.elapsed().as_secs_f64(),
        path.into_actions()
    ));
    Ok(())
}

#[expect(
    clippy::print_stdout,
    reason = "the numbers are what a check is read for"
)]
fn tell(text: &str) {
    println!("{text}");
}
