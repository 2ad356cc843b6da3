//! The suite as named trials, for a test binary without the built-in harness.

use std::fmt;
use std::sync::Arc;

use futures_util::future::join_all;
use libtest_mimic::{Failed, Trial};
use task_core::ports::CapabilitySet;

use crate::backends::{
    EventBusRow, NotifierRow, Receiver, Row, SecretStoreRow, StateStoreRow, TABLE,
};
use crate::broken::{self, Broken, Check};
use crate::conformance::state_store::refusals;
use crate::conformance::{Failure, Verdict, event_bus, notifier, secret_store, state_store};
use crate::model::{self, Effort};

/// Every row of the table against every case of its ports, and against the model.
#[must_use]
pub fn of_table() -> Vec<Trial> {
    of_rows(TABLE)
}

/// These rows against every case of the ports that they have.
#[must_use]
pub fn of_rows(rows: &[Row]) -> Vec<Trial> {
    let mut trials = Vec::new();
    for row in rows {
        if let Some(store) = row.state_store {
            trials.extend(of_state_store(row.name, store));
        }
        if let Some(bus) = row.event_bus {
            trials.extend(of_event_bus(row.name, bus));
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

/// A case that a bus is known not to keep, named `<backend>::event_bus::does_not_keep::<case>`.
///
/// # Panics
/// If there is no such case.
#[must_use]
pub fn of_case_not_kept(name: &str, row: EventBusRow, case: &str, why: &'static str) -> Trial {
    let found = event_bus::case(case);
    let case = found.unwrap_or_else(|| panic!("there is no case {case}"));
    let named = format!("{name}::event_bus::does_not_keep::{}", case.name);
    trial(named, move || async move {
        match event_bus::run(case, (row.fresh)()).await {
            Err(_) => Ok(()),
            Ok(()) => Err(Failure::new(format!("it is kept, although {why}"))),
        }
    })
}

/// The trials of one state store, named `<backend>::state_store::<case>`.
///
/// A case whose capability is not declared proves the refusal. There is none for `durable`, so its
/// case is left out; the declaration itself is checked against the row.
#[must_use]
pub fn of_state_store(name: &str, row: StateStoreRow) -> Vec<Trial> {
    let declared = CapabilitySet::of(row.declares);
    let applies = |case: &&'static state_store::Case| {
        let mut requires = case.requires.iter();
        requires.all(|needed| declared.has(*needed) || refusals::can_be_refused(*needed))
    };
    let mut trials: Vec<Trial> = state_store::CASES
        .iter()
        .filter(applies)
        .map(|case| {
            trial(format!("{name}::state_store::{}", case.name), move || {
                state_store::run(case, (row.fresh)())
            })
        })
        .collect();
    let named = format!("{name}::state_store::declares_what_the_table_says");
    trials.push(trial(named, move || async move {
        let backend = (row.fresh)();
        let store = backend.open().await?;
        let found: Vec<_> = store.capabilities().iter().collect();
        drop(store);
        backend.close().await;
        same_set(&found, row.declares)
    }));
    let named = format!("{name}::state_store::random_operations_agree_with_the_model");
    trials.push(Trial::test(named, move || {
        Ok(model::check(row.fresh, Effort::from_env())?)
    }));
    trials
}

/// The trials of one event bus, named `<backend>::event_bus::<case>`.
///
/// A bus cannot refuse what it has not declared, so those cases are left out; the declaration itself
/// is checked against the row.
#[must_use]
pub fn of_event_bus(name: &str, row: EventBusRow) -> Vec<Trial> {
    let declared = CapabilitySet::of(row.declares);
    let mut trials: Vec<Trial> = event_bus::CASES
        .iter()
        .filter(|case| case.requires.iter().all(|needed| declared.has(*needed)))
        .map(|case| {
            trial(format!("{name}::event_bus::{}", case.name), move || {
                event_bus::run(case, (row.fresh)())
            })
        })
        .collect();
    let named = format!("{name}::event_bus::declares_what_the_table_says");
    trials.push(trial(named, move || async move {
        let backend = (row.fresh)();
        let bus = backend.open().await?;
        let found: Vec<_> = bus.capabilities().iter().collect();
        drop(bus);
        backend.close().await;
        same_set(&found, row.declares)
    }));
    trials
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
