//! A store that publishes by itself: promise S23.

use std::collections::BTreeSet;
use std::time::Duration;

use task_core::ports::{Answer, Commit, Delivery, ErrorKind, Group, StartAt, Subscription, Topic};

use super::{Subject, create, event, overwrite, put_write};
use crate::conformance::event_bus::listener::Listener;
use crate::conformance::{Verdict, ensure_eq, refused};

/// How long the bus may take to deliver.
const PATIENCE: Duration = Duration::from_secs(10);

/// The groups hear the events of every commit that took effect, in its order, and of no other.
pub async fn events_are_published_if_and_only_if_committed(subject: Subject) -> Verdict {
    const COMMITS: usize = 20;
    let store = &*subject.store;
    let bus = subject.backend.bus().await?;
    let group = Group::new("conformance");
    let subscription = Subscription {
        start: StartAt::End,
        ..Subscription::new(Topic::new("tasks"), group)
    };
    let mut listener = Listener::on(&*bus, PATIENCE, subscription, |_| Answer::Ack).await?;
    let mut expected = Vec::new();
    for n in 0..COMMITS {
        let id = format!("t-{n}");
        let (one, two) = (format!("{n} one"), format!("{n} two"));
        let commit = Commit::of(put_write(&id, "x", create()));
        store
            .commit(commit.event(event(&one)).event(event(&two)))
            .await?;
        let conflict = Commit::of(put_write(&id, "y", create())).event(event("phantom"));
        let result = store.commit(conflict).await;
        refused(result, ErrorKind::Conflict, "a creation of an existing key")?;
        expected.extend([one, two]);
    }
    let last = Commit::of(put_write("t-0", "z", overwrite())).event(event("last"));
    store.commit(last).await?;
    expected.push("last".to_owned());
    let mut heard: Vec<Delivery> = Vec::new();
    while heard.len() < expected.len() {
        let delivery = listener.hear().await?;
        // A bus may bring an event again.
        if heard.iter().all(|one| one.payload != delivery.payload) {
            heard.push(delivery);
        }
    }
    listener.stop().await?;
    let payloads: Vec<_> = heard.iter().map(|delivery| &delivery.payload).collect();
    ensure_eq!(payloads, expected.iter().collect::<Vec<_>>(), "the events");
    let keys: BTreeSet<&str> = heard.iter().map(|delivery| &*delivery.key).collect();
    ensure_eq!(keys, BTreeSet::from(["t-1"]), "their keys");
    Ok(())
}
