//! The use cases on the volatile adapters.
#![expect(
    clippy::clone_on_ref_ptr,
    reason = "fixtures hand out the same adapters as several ports"
)]

mod completion;
mod lease;
mod relay;
mod tasks;

use std::sync::Arc;

use crate::application::{IncomingEvent, Outbox, TaskService};
use crate::domain::{Draft, Priority, Title};
use crate::memory::{ManualClock, MemoryStateStore, SeededEntropy};
use crate::ports::StateStore;

struct Fixture {
    clock: Arc<ManualClock>,
    store: Arc<MemoryStateStore>,
    outbox: Arc<Outbox>,
    tasks: Arc<TaskService>,
}

fn fixture() -> Fixture {
    let clock = Arc::new(ManualClock::default());
    let store = Arc::new(MemoryStateStore::new(clock.clone()));
    let outbox = Arc::new(Outbox::new(store.clone()).unwrap());
    let entropy = Arc::new(SeededEntropy::new(1));
    let tasks = TaskService::new(outbox.clone(), clock.clone(), entropy).unwrap();
    Fixture {
        clock,
        store,
        outbox,
        tasks: Arc::new(tasks),
    }
}

impl Fixture {
    /// What is waiting to be published, in order.
    async fn pending(&self) -> Vec<IncomingEvent> {
        let pending = self.store.pending(None, 1000).await.unwrap();
        pending
            .iter()
            .map(|pending| IncomingEvent::parse(&pending.event.payload).unwrap())
            .collect()
    }

    async fn pending_types(&self) -> Vec<String> {
        let pending = self.pending().await;
        pending.into_iter().map(|event| event.event_type).collect()
    }
}

fn draft(title: &str) -> Draft {
    Draft {
        title: Title::parse(title.to_owned()).unwrap(),
        description: None,
        priority: Priority::default(),
    }
}
