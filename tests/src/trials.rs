//! The suite as named trials, for a test binary without the built-in harness.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use futures_util::future::join_all;
use libtest_mimic::{Arguments, Failed, Trial};
use task_core::migration::BusStage;
use task_core::ports::{BusCapability, CapabilitySet, StateCapability};

use crate::backends::{
    BusMove, EventBusRow, MoveRow, NotifierRow, ParallelBackends, ParallelEventBuses, Receiver,
    Row, SecretStoreRow, StateStoreRow, StoreMove, TABLE,
};
use crate::broken::{self, Broken, Check};
use crate::conformance::event_bus::EventBusBackend;
use crate::conformance::state_store::{StateStoreBackend, refusals};
use crate::conformance::{Failure, Verdict, event_bus, notifier, secret_store, state_store};
use crate::model::{self, Effort};

/// Every row of the table against every case of its ports, and against the model.
#[must_use]
pub fn of_table() -> Vec<Trial> {
    of_rows(TABLE, &[])
}

/// These rows against every case of the ports that they have, but for those that they cannot keep.
#[must_use]
pub fn of_rows(rows: &[Row], not_kept: &[NotKept]) -> Vec<Trial> {
    let mut trials = Vec::new();
    for row in rows {
        if let Some(store) = row.state_store {
            trials.extend(of_state_store(row.name, store));
        }
        if let Some(bus) = row.event_bus {
            trials.extend(of_event_bus(row.name, bus, not_kept));
        }
        if let Some(notifier) = row.notifier {
            trials.extend(of_notifier(row.name, notifier));
        }
        if let Some(secrets) = row.secret_store {
            trials.extend(of_secret_store(row.name, secrets));
        }
    }
    trials
}

/// A case that a component of a backend cannot keep: the row of the backend, the case, and why.
pub type NotKept = (&'static str, &'static str, &'static str);

/// These moves of records, in each stage that is tried now, against every case.
#[must_use]
pub fn of_store_moves(moves: &[StoreMove]) -> Vec<Trial> {
    let mut trials = Vec::new();
    for one in moves {
        for stage in one.stages().iter().copied() {
            let sides = one.sides;
            let fresh =
                move || -> Arc<dyn StateStoreBackend> { ParallelBackends::between(sides(), stage) };
            let name = format!("parallel_{}_{stage}", one.name);
            trials.extend(store_trials(&name, one.declares, fresh, one.effort()));
        }
    }
    trials
}

/// These moves of events, in each stage that is tried now, against every case.
///
/// What the new side does not keep the move does not keep either, as soon as events go there.
#[must_use]
pub fn of_bus_moves(moves: &[BusMove], not_kept: &[NotKept]) -> Vec<Trial> {
    let mut trials = Vec::new();
    for one in moves {
        let (_, new) = one.name.rsplit_once("_to_").unwrap_or_default();
        for stage in one.stages().iter().copied() {
            let sides = one.sides;
            let fresh =
                move || -> Arc<dyn EventBusBackend> { ParallelEventBuses::between(sides(), stage) };
            let name = format!("parallel_{}_{stage}", one.name);
            let is_new = stage >= BusStage::Live;
            let not_kept = not_kept.iter().filter(|(row, ..)| is_new && *row == new);
            trials.extend(bus_trials(&name, one.declares, fresh, not_kept));
        }
    }
    trials
}

/// Prints what is left out of these moves now, a line each, unless the trials are only listed.
#[expect(clippy::print_stdout, reason = "the gate shows these lines at its end")]
pub fn tell_left_out(arguments: &Arguments, stores: &[StoreMove], buses: &[BusMove]) {
    if arguments.list {
        return;
    }
    let stores = stores.iter().filter_map(MoveRow::left_out);
    let buses = buses.iter().filter_map(MoveRow::left_out);
    for line in stores.chain(buses) {
        println!("not run: {line}");
    }
}

/// The trials of one state store, named `<backend>::state_store::<case>`.
///
/// A case whose capability is not declared proves the refusal. There is none for `durable`, so its
/// case is left out; the declaration itself is checked against the row.
#[must_use]
pub fn of_state_store(name: &str, row: StateStoreRow) -> Vec<Trial> {
    store_trials(name, row.declares, row.fresh, Effort::from_env())
}

fn store_trials(
    name: &str,
    declares: &'static [StateCapability],
    fresh: impl Fn() -> Arc<dyn StateStoreBackend> + Copy + Send + 'static,
    effort: Effort,
) -> Vec<Trial> {
    let declared = CapabilitySet::of(declares);
    let applies = |case: &&'static state_store::Case| {
        let mut requires = case.requires.iter();
        requires.all(|needed| declared.has(*needed) || refusals::can_be_refused(*needed))
    };
    let mut trials: Vec<Trial> = state_store::CASES
        .iter()
        .filter(applies)
        .map(|case| {
            trial(format!("{name}::state_store::{}", case.name), move || {
                state_store::run(case, fresh())
            })
        })
        .collect();
    let named = format!("{name}::state_store::declares_what_the_table_says");
    trials.push(trial(named, move || async move {
        let backend = fresh();
        let store = backend.open().await?;
        let found: Vec<_> = store.capabilities().iter().collect();
        drop(store);
        backend.close().await;
        same_set(&found, declares)
    }));
    let named = format!("{name}::state_store::random_operations_agree_with_the_model");
    trials.push(Trial::test(named, move || Ok(model::check(fresh, effort)?)));
    trials
}

/// The trials of one event bus, named `<backend>::event_bus::<case>`.
///
/// A bus cannot refuse what it has not declared, so those cases are left out; the declaration itself
/// is checked against the row. A case that is known not to be kept is `does_not_keep::<case>`, and shown to fail.
///
/// # Panics
/// If there is no such case.
#[must_use]
pub fn of_event_bus(name: &str, row: EventBusRow, not_kept: &[NotKept]) -> Vec<Trial> {
    let not_kept = not_kept.iter().filter(|(row, ..)| *row == name);
    bus_trials(name, row.declares, row.fresh, not_kept)
}

fn bus_trials<'a>(
    name: &str,
    declares: &'static [BusCapability],
    fresh: impl Fn() -> Arc<dyn EventBusBackend> + Copy + Send + 'static,
    not_kept: impl Iterator<Item = &'a NotKept>,
) -> Vec<Trial> {
    let not_kept: HashMap<&str, &'static str> =
        not_kept.map(|(_, case, why)| (*case, *why)).collect();
    for case in not_kept.keys() {
        assert!(event_bus::case(case).is_some(), "there is no case {case}");
    }
    let declared = CapabilitySet::of(declares);
    let mut trials: Vec<Trial> = event_bus::CASES
        .iter()
        .filter(|case| case.requires.iter().all(|needed| declared.has(*needed)))
        .map(|case| match not_kept.get(case.name).copied() {
            None => trial(format!("{name}::event_bus::{}", case.name), move || {
                event_bus::run(case, fresh())
            }),
            Some(why) => {
                let named = format!("{name}::event_bus::does_not_keep::{}", case.name);
                trial(named, move || fails(case, fresh(), why))
            }
        })
        .collect();
    let named = format!("{name}::event_bus::declares_what_the_table_says");
    trials.push(trial(named, move || async move {
        let backend = fresh();
        let bus = backend.open().await?;
        let found: Vec<_> = bus.capabilities().iter().collect();
        drop(bus);
        backend.close().await;
        same_set(&found, declares)
    }));
    trials
}

async fn fails(
    case: &'static event_bus::Case,
    backend: Arc<dyn EventBusBackend>,
    why: &'static str,
) -> Verdict {
    match event_bus::run(case, backend).await {
        Err(_) => Ok(()),
        Ok(()) => Err(Failure::new(format!("it is kept, although {why}"))),
    }
}

/// The trials of one notifier, named `<backend>::notifier::<case>`.
///
/// The cases of a refusal are left out for a receiver that cannot refuse.
#[must_use]
pub fn of_notifier(name: &str, row: NotifierRow) -> Vec<Trial> {
    let applies = |case: &&notifier::Case| {
        row.receiver == Receiver::Refuses || !matches!(case.promise, "N3" | "N4")
    };
    let cases = notifier::CASES.iter().filter(applies);
    let trials = cases.map(|case| {
        trial(format!("{name}::notifier::{}", case.name), move || {
            notifier::run(case, (row.fresh)())
        })
    });
    trials.collect()
}

/// The trials of one secret store, named `<backend>::secret_store::<case>`.
#[must_use]
pub fn of_secret_store(name: &str, row: SecretStoreRow) -> Vec<Trial> {
    let trials = secret_store::CASES.iter().map(|case| {
        trial(format!("{name}::secret_store::{}", case.name), move || {
            secret_store::run(case, (row.fresh)())
        })
    });
    trials.collect()
}

/// Every broken adapter against the cases that have to reject it, and against those that must not.
#[must_use]
pub fn of_broken_adapters() -> Vec<Trial> {
    broken::all().into_iter().flat_map(of_broken).collect()
}

fn of_broken(broken: Broken) -> Vec<Trial> {
    let broken = Arc::new(broken);
    let mut trials = Vec::new();
    for case in broken.rejected_by {
        let name = format!("broken::{}::is_rejected_by_{case}", broken.name);
        let broken = Arc::clone(&broken);
        trials.push(trial(name, move || async move {
            match broken.run(case).await {
                Check::Rejected(_) => Ok(()),
                Check::Passed => Err(Failure::new("the case accepts the broken adapter")),
                Check::NoSuchCase => Err(Failure::new("there is no such case")),
            }
        }));
    }
    if broken.is_found_by_model() {
        let name = format!("broken::{}::is_rejected_by_the_model", broken.name);
        let broken = Arc::clone(&broken);
        trials.push(Trial::test(name, move || match broken.against_model() {
            Some(Err(_)) => Ok(()),
            Some(Ok(())) | None => Err(Failed::from("the model accepts the broken adapter")),
        }));
    }
    let name = format!("broken::{}::passes_every_other_case", broken.name);
    trials.push(trial(name, move || async move {
        let others = broken.cases().into_iter();
        let others = others.filter(|case| !broken.rejected_by.contains(case));
        // Side by side, because they wait more than they work.
        let running = &broken;
        let checks = others.map(|case| async move { (case, running.run(case).await) });
        for (case, check) in join_all(checks).await {
            if let Check::Rejected(failure) = check {
                return Err(Failure::new(format!("{case} rejects it too: {failure}")));
            }
        }
        Ok(())
    }));
    trials
}

/// A trial in a runtime of its own, with two workers, so that races are races.
fn trial<F>(name: String, body: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = Verdict> + Send,
{
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(Failed::from)?;
        Ok(runtime.block_on(body())?)
    })
}

fn same_set<C: PartialEq + fmt::Debug>(found: &[C], expected: &[C]) -> Verdict {
    let same = found.len() == expected.len() && found.iter().all(|one| expected.contains(one));
    if same {
        return Ok(());
    }
    Err(Failure::new(format!(
        "declares {found:?}, the table says {expected:?}"
    )))
}
