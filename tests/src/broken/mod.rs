//! Adapters that break one promise each, and the cases that have to notice.
//!
//! A case that cannot fail proves nothing. Each adapter here wraps one in memory and does one thing
//! wrong; exactly the cases that it names may reject it. One wrapper a port forwards every method
//! to a fault, and a fault changes what it is named for.

mod bus;
mod bus_faults;
mod bus_table;
mod notifying;
mod secrets;
mod store;
mod store_events;
mod store_guards;
mod store_reads;
mod store_table;
mod store_writes;

use std::sync::Arc;

use crate::conformance::event_bus::{self, EventBusBackend};
use crate::conformance::notifier::{self, NotifierBackend};
use crate::conformance::secret_store::{self, SecretStoreBackend};
use crate::conformance::state_store::{self, StateStoreBackend};
use crate::conformance::{Failure, Verdict};
use crate::model::{self, Effort};

/// A broken adapter and the cases that reject it.
#[derive(Debug)]
pub struct Broken {
    /// What it does wrong, as a name.
    pub name: &'static str,
    /// Exactly the cases that fail on it.
    pub rejected_by: &'static [&'static str],
    fresh: Fresh,
}

#[derive(Debug)]
enum Fresh {
    StateStore(fn() -> Arc<dyn StateStoreBackend>),
    EventBus(fn() -> Arc<dyn EventBusBackend>),
    Notifier(fn() -> Arc<dyn NotifierBackend>),
    SecretStore(fn() -> Arc<dyn SecretStoreBackend>),
}

/// What a case says of a broken adapter.
#[derive(Debug)]
pub enum Check {
    /// It fails, for this reason.
    Rejected(Failure),
    /// It does not notice.
    Passed,
    /// The port has no case of this name.
    NoSuchCase,
}

impl Broken {
    /// Runs a case of the adapter's port on it.
    pub async fn run(&self, case: &str) -> Check {
        let verdict: Option<Verdict> = match self.fresh {
            Fresh::StateStore(fresh) => match state_store::case(case) {
                Some(case) => Some(state_store::run(case, fresh()).await),
                None => None,
            },
            Fresh::EventBus(fresh) => match event_bus::case(case) {
                Some(case) => Some(event_bus::run(case, fresh()).await),
                None => None,
            },
            Fresh::Notifier(fresh) => match notifier::case(case) {
                Some(case) => Some(notifier::run(case, fresh()).await),
                None => None,
            },
            Fresh::SecretStore(fresh) => match secret_store::case(case) {
                Some(case) => Some(secret_store::run(case, fresh()).await),
                None => None,
            },
        };
        match verdict {
            Some(Err(failure)) => Check::Rejected(failure),
            Some(Ok(())) => Check::Passed,
            None => Check::NoSuchCase,
        }
    }

    /// Runs random operations on it and on the model, if it is a state store.
    #[must_use]
    pub fn against_model(&self) -> Option<Verdict> {
        match self.fresh {
            Fresh::StateStore(fresh) => Some(model::check(fresh, Effort::FIXED)),
            Fresh::EventBus(_) | Fresh::Notifier(_) | Fresh::SecretStore(_) => None,
        }
    }

    /// Says whether random operations have to find the fault.
    #[must_use]
    pub fn is_found_by_model(&self) -> bool {
        matches!(self.fresh, Fresh::StateStore(_))
            && store_table::FOUND_BY_MODEL.contains(&self.name)
    }

    /// The names of all cases of the adapter's port.
    #[must_use]
    pub fn cases(&self) -> Vec<&'static str> {
        match self.fresh {
            Fresh::StateStore(_) => state_store::CASES.iter().map(|case| case.name).collect(),
            Fresh::EventBus(_) => event_bus::CASES.iter().map(|case| case.name).collect(),
            Fresh::Notifier(_) => notifier::CASES.iter().map(|case| case.name).collect(),
            Fresh::SecretStore(_) => secret_store::CASES.iter().map(|case| case.name).collect(),
        }
    }
}

/// Every broken adapter.
#[must_use]
pub fn all() -> Vec<Broken> {
    let mut all = Vec::new();
    for (name, rejected_by, fresh) in store_table::BROKEN {
        all.push(Broken {
            name,
            rejected_by,
            fresh: Fresh::StateStore(*fresh),
        });
    }
    for (name, rejected_by, fresh) in bus_table::BROKEN {
        all.push(Broken {
            name,
            rejected_by,
            fresh: Fresh::EventBus(*fresh),
        });
    }
    for (name, rejected_by, fresh) in notifying::BROKEN {
        all.push(Broken {
            name,
            rejected_by,
            fresh: Fresh::Notifier(*fresh),
        });
    }
    for (name, rejected_by, fresh) in secrets::BROKEN {
        all.push(Broken {
            name,
            rejected_by,
            fresh: Fresh::SecretStore(*fresh),
        });
    }
    all
}
