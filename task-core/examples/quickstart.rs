//! Creates and completes a task, and shows the notification that follows.
//!
//! ```sh
//! cargo run -p task-core --example quickstart
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::sync::Arc;

use task_core::application::{CompletionNotifier, Outbox, Relay, TASK_EVENTS_TOPIC, TaskService};
use task_core::domain::{Draft, Precondition, Priority, Status, Title};
use task_core::memory::{MemoryEventBus, MemoryNotifier, MemoryStateStore};
use task_core::ports::{
    Clock, EventBus, Group, StateStore, Subscription, SystemClock, SystemEntropy, Topic,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // Another backend is another line here, and nothing else changes.
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store: Arc<dyn StateStore> = Arc::new(MemoryStateStore::new(Arc::clone(&clock)));
    let bus: Arc<dyn EventBus> = Arc::new(MemoryEventBus::new());
    let notifier = Arc::new(MemoryNotifier::new());

    let outbox = Arc::new(Outbox::new(Arc::clone(&store))?);
    let tasks = TaskService::new(Arc::clone(&outbox), clock, Arc::new(SystemEntropy))?;
    let group = Group::new("quickstart");
    let handler = CompletionNotifier::new(
        group.clone(),
        store,
        Arc::<MemoryNotifier>::clone(&notifier),
    );
    let subscription = Subscription::new(Topic::new(TASK_EVENTS_TOPIC), group);
    let subscribed = bus.subscribe(subscription, Arc::new(handler)).await?;
    let relay = Relay::new(outbox, bus).start();

    let draft = Draft {
        title: Title::parse("write the report".to_owned())?,
        description: Some("two pages".to_owned()),
        priority: Priority::parse(3)?,
    };
    let created = tasks.create(draft, None).await?;
    println!("created   {} with tag {}", created.task.id, created.tag);

    let only_this_version = Precondition::Match(vec![created.tag]);
    let id = &created.task.id;
    let done = tasks
        .set_status(id, Status::Completed, &only_this_version)
        .await?;
    println!("completed {} with tag {}", done.task.id, done.tag);

    while notifier.received().is_empty() {
        tokio::task::yield_now().await;
    }
    for notification in notifier.received() {
        println!("notified  {}", String::from_utf8_lossy(&notification.body));
    }
    relay.stop().await;
    subscribed.stop().await;
    Ok(())
}
