//! Where groups begin, stop and go on: promises E5, E6 and E10.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use task_core::ports::{Answer, Delivery, EventHandler, Group, StartAt};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::listener::Listener;
use super::{PAUSE, Subject, payload, payloads, subscription};
use crate::conformance::{Failure, Verdict, ensure, ensure_eq};

/// A new group begins at the end, at the beginning, or where another group stands.
pub async fn a_new_group_starts_where_it_is_told(subject: Subject) -> Verdict {
    subject.publish_all("k", &["a", "b"]).await?;
    let mut first =
        Listener::acknowledging(&subject, subscription("first", StartAt::Beginning)).await?;
    let heard = subject.comparable(first.hear_many(2).await?);
    ensure_eq!(heard, payloads(&["a", "b"]), "from the beginning");
    first.stop().await?;
    subject.publish("k", "c").await?;

    let other = StartAt::Group(Group::new("first"));
    let mut heir = Listener::acknowledging(&subject, subscription("heir", other)).await?;
    let unknown = StartAt::Group(Group::new("nobody"));
    let mut stranger = Listener::acknowledging(&subject, subscription("stranger", unknown)).await?;
    let mut late = Listener::acknowledging(&subject, subscription("late", StartAt::End)).await?;
    subject.publish("k", "d").await?;
    let heard = subject.comparable(heir.hear_many(2).await?);
    ensure_eq!(heard, payloads(&["c", "d"]), "where the other stands");
    ensure_eq!(late.hear().await?.payload, payload("d"), "from the end");
    let heard = stranger.hear().await?.payload;
    ensure_eq!(heard, payload("d"), "where nobody stands");

    let mut first = Listener::acknowledging(&subject, subscription("first", StartAt::End)).await?;
    let heard = subject.comparable(first.hear_many(2).await?);
    ensure_eq!(heard, payloads(&["c", "d"]), "the other group itself");
    for listener in [first, heir, stranger, late] {
        listener.stop().await?;
    }
    Ok(())
}

/// A group that subscribes again hears what it missed, wherever new groups are told to begin.
pub async fn a_group_goes_on_where_it_stopped(subject: Subject) -> Verdict {
    let mut listener = Listener::acknowledging(&subject, subscription("g", StartAt::End)).await?;
    subject.publish("k", "a").await?;
    ensure_eq!(listener.hear().await?.payload, payload("a"), "the first");
    listener.stop().await?;
    for (start, names) in [
        (StartAt::Beginning, ["b", "c"]),
        (StartAt::End, ["d", "e"]),
        (StartAt::Group(Group::new("nobody")), ["f", "g"]),
    ] {
        subject.publish_all("k", &names).await?;
        let mut listener = Listener::acknowledging(&subject, subscription("g", start)).await?;
        let heard = subject.comparable(listener.hear_many(2).await?);
        ensure_eq!(heard, payloads(&names), "after subscribing again");
        listener.hears_only_a_mark(&subject, names[0]).await?;
        listener.stop().await?;
    }
    Ok(())
}

/// A handler whose calls wait for permission, and which knows how many of them are running.
#[derive(Debug)]
struct Gate {
    entered: Semaphore,
    open: Semaphore,
    running: AtomicUsize,
    answered: Mutex<BTreeSet<Bytes>>,
}

impl Gate {
    fn answered(&self) -> BTreeSet<Bytes> {
        let answered = self.answered.lock();
        answered.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Counts a call as ended also when the bus drops it.
struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl EventHandler for Gate {
    async fn handle(&self, delivery: &Delivery) -> Answer {
        self.running.fetch_add(1, Ordering::SeqCst);
        let _running = Running(&self.running);
        self.entered.add_permits(1);
        if self.open.acquire().await.is_err() {
            return Answer::Retry;
        }
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered.insert(delivery.payload.clone());
        Answer::Ack
    }
}

/// After `stop` no handler call runs, and what was not answered comes to the next subscription.
pub async fn a_stopped_subscription_is_quiet(subject: Subject) -> Verdict {
    let patience = subject.backend.patience();
    let gate = Arc::new(Gate {
        entered: Semaphore::new(0),
        open: Semaphore::new(0),
        running: AtomicUsize::new(0),
        answered: Mutex::default(),
    });
    let handler = Arc::<Gate>::clone(&gate);
    let running = subject
        .bus
        .subscribe(subscription("g", StartAt::End), handler)
        .await?;
    subject.publish_all("k", &["a", "b", "c"]).await?;
    let entered = timeout(patience, gate.entered.acquire()).await;
    ensure!(entered.is_ok(), "the first event does not come");

    let mut stop = tokio::spawn(running.stop());
    // A stop may wait for the running call or drop it; it may not return beside it.
    let early = timeout(25 * PAUSE, &mut stop).await.is_ok();
    let beside = gate.running.load(Ordering::SeqCst);
    ensure!(
        !early || beside == 0,
        "stopped beside {beside} handler calls"
    );
    gate.open.add_permits(1000);
    if !early {
        let stopped = timeout(patience, stop).await;
        stopped.map_err(|_| Failure::new("the subscription does not stop"))??;
    }
    let beside = gate.running.load(Ordering::SeqCst);
    ensure_eq!(beside, 0, "handler calls after stop");
    let entered = gate.entered.available_permits();
    subject.publish("k", "d").await?;

    let mut next = Listener::acknowledging(&subject, subscription("g", StartAt::End)).await?;
    let mut missing: BTreeSet<_> = payloads(&["a", "b", "c", "d"]).into_iter().collect();
    for answered in gate.answered() {
        missing.remove(&answered);
    }
    while !missing.is_empty() {
        let heard = next.hear().await?.payload;
        ensure!(missing.remove(&heard), "heard {heard:?} again");
    }
    let later = gate.entered.available_permits();
    ensure_eq!(later, entered, "calls of the stopped handler");
    next.hears_only_a_mark(&subject, "mark").await?;
    next.stop().await
}

/// After a restart a group goes on: nothing accepted is lost, and retries keep their count.
pub async fn events_and_positions_survive_a_restart(subject: Subject) -> Verdict {
    let mut listener = Listener::start(&subject, subscription("g", StartAt::End), |delivery| {
        if delivery.payload == payload("failing") {
            Answer::Retry
        } else {
            Answer::Ack
        }
    })
    .await?;
    subject.publish("k-1", "done").await?;
    ensure_eq!(listener.hear().await?.payload, payload("done"), "the first");
    subject.publish("k-2", "failing").await?;
    let before = listener.hear().await?;
    ensure_eq!(before.payload, payload("failing"), "the second");
    listener.stop().await?;
    subject.publish("k-3", "waiting").await?;

    let subject = subject.reopen().await?;
    let mut listener = Listener::acknowledging(&subject, subscription("g", StartAt::End)).await?;
    let mut missing: BTreeSet<_> = payloads(&["failing", "waiting"]).into_iter().collect();
    while !missing.is_empty() {
        let heard = listener.hear().await?;
        let name = &heard.payload;
        ensure!(missing.remove(name), "{name:?} after the restart");
        let higher = heard.attempt > before.attempt;
        ensure!(
            *name != payload("failing") || higher,
            "the restart forgot {} deliveries",
            before.attempt
        );
    }
    listener.hears_only_a_mark(&subject, "mark").await?;
    let mut old =
        Listener::acknowledging(&subject, subscription("new", StartAt::Beginning)).await?;
    old.hear_many(1).await?;
    old.stop().await?;
    listener.stop().await
}
