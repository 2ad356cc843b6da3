//! Groups beside each other, and subscribers within one: promises E1 and E11.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use task_core::ports::{BusCapability, ErrorKind, StartAt};
use tokio::time::{Instant, timeout_at};

use super::listener::Listener;
use super::{PAUSE, Subject, event, payload, subscription, topic};
use crate::conformance::{Failure, Verdict, ensure, ensure_eq, refused};

/// Racing publishers lose nothing: each group hears each event once, with topic, key and payload.
pub async fn every_group_receives_every_event_unchanged(subject: Subject) -> Verdict {
    const PUBLISHERS: usize = 4;
    const EVENTS: usize = 25;
    let mut one = Listener::acknowledging(&subject, subscription("one", StartAt::End)).await?;
    let mut two = Listener::acknowledging(&subject, subscription("two", StartAt::End)).await?;
    let publishers = (0..PUBLISHERS).map(|publisher| {
        let bus = Arc::clone(&subject.bus);
        tokio::spawn(async move {
            for n in 0..EVENTS {
                let name = format!("{publisher} {n}");
                bus.publish(&event(&key_of(&name), &name)).await?;
            }
            Ok::<_, Failure>(())
        })
    });
    for publisher in publishers.collect::<Vec<_>>() {
        publisher.await??;
    }
    let mut expected = BTreeSet::new();
    for publisher in 0..PUBLISHERS {
        let names = (0..EVENTS).map(|n| format!("{publisher} {n}"));
        expected.extend(names.map(|name| (key_of(&name), payload(&name))));
    }
    for listener in [&mut one, &mut two] {
        let mut heard = BTreeSet::new();
        for _ in 0..expected.len() {
            let delivery = listener.hear().await?;
            ensure_eq!(delivery.topic, topic(), "the topic");
            let new = heard.insert((delivery.key.to_string(), delivery.payload));
            ensure!(new, "one event came twice");
        }
        ensure!(heard == expected, "events were changed: {heard:?}");
        listener.stays_quiet().await?;
    }
    // What would come twice comes before a mark that is published after it fell due.
    subject.publish("mark", "mark").await?;
    for listener in [&mut one, &mut two] {
        let heard = listener.hear().await?.payload;
        ensure_eq!(heard, payload("mark"), "after all events");
    }
    one.stop().await?;
    two.stop().await
}

/// A key of its own for every third event, one that others share for the rest.
fn key_of(name: &str) -> String {
    match name.len() % 3 {
        0 => format!("task/{name} \u{e4}"),
        _ => "shared".to_owned(),
    }
}

/// Two subscribers of one group share its events, or the second one is refused as `Conflict`.
pub async fn subscribers_of_one_group_share_or_conflict(subject: Subject) -> Verdict {
    let same = || subscription("g", StartAt::End);
    let mut first = Listener::acknowledging(&subject, same()).await?;
    let second = Listener::acknowledging(&subject, same()).await;
    let competing = BusCapability::CompetingConsumers;
    let mut left = if subject.bus.capabilities().has(competing) {
        let mut second = second?;
        share(&subject, &mut first, &mut second).await?;
        first.stop().await?;
        second
    } else {
        refused(second, ErrorKind::Conflict, "a second subscriber")?;
        first
    };
    left.hears_only_a_mark(&subject, "a").await?;
    // The same group on another topic, and another group, are nobody's competitors.
    let other = Listener::acknowledging(&subject, subscription("other", StartAt::End)).await?;
    other.stop().await?;
    left.stop().await?;
    let again = Listener::acknowledging(&subject, same()).await?;
    again.stop().await
}

async fn share(subject: &Subject, first: &mut Listener, second: &mut Listener) -> Verdict {
    const EVENTS: usize = 40;
    for n in 0..EVENTS {
        subject.publish(&format!("k-{n}"), &n.to_string()).await?;
    }
    let deadline = Instant::now() + subject.backend.patience();
    let mut heard: BTreeSet<Bytes> = BTreeSet::new();
    while heard.len() < EVENTS {
        let next = timeout_at(deadline, async {
            tokio::select! {
                delivery = first.hear() => delivery,
                delivery = second.hear() => delivery,
            }
        });
        let next = next.await.map_err(|_| Failure::new("an event was lost"))?;
        ensure!(heard.insert(next?.payload), "one event came to both");
    }
    let quiet = 2 * PAUSE;
    ensure!(quiet < subject.backend.patience(), "patience is too short");
    first.stays_quiet().await?;
    second.stays_quiet().await
}
