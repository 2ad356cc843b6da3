//! Order within a key: promise E8.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use task_core::ports::{Answer, Delivery, EventHandler, StartAt};
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::listener::Listener;
use super::{Subject, event, payload, payloads, subscription};
use crate::conformance::{Failure, Verdict, ensure_eq};

const KEYS: usize = 4;
const EVENTS_OF_A_KEY: usize = 25;

/// A slow handler that notices when two events of one key are handled at once.
#[derive(Debug)]
struct Watch {
    busy: Mutex<HashSet<Box<str>>>,
    heard: mpsc::Sender<(Delivery, Overlap)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overlap {
    None,
    SameKey,
}

impl Watch {
    fn enter(&self, key: &str) -> Overlap {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        match busy.insert(key.into()) {
            true => Overlap::None,
            false => Overlap::SameKey,
        }
    }

    fn leave(&self, key: &str) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.remove(key);
    }
}

#[async_trait]
impl EventHandler for Watch {
    async fn handle(&self, delivery: &Delivery) -> Answer {
        let overlap = self.enter(&delivery.key);
        // Gives every other call that may run beside this one the chance to.
        for _ in 0..8 {
            yield_now().await;
        }
        // A case that has stopped listening has its verdict already.
        let _ = self.heard.send((delivery.clone(), overlap)).await;
        self.leave(&delivery.key);
        Answer::Ack
    }
}

/// Events of one key are handled one at a time, in the order in which they were published.
pub async fn events_of_one_key_keep_their_order(subject: Subject) -> Verdict {
    let (sender, mut heard) = mpsc::channel(2 * KEYS * EVENTS_OF_A_KEY);
    let watch = Arc::new(Watch {
        busy: Mutex::default(),
        heard: sender,
    });
    let running = subject
        .bus
        .subscribe(subscription("g", StartAt::End), watch)
        .await?;
    publish_side_by_side(&subject).await?;
    let mut order: HashMap<Box<str>, Vec<Bytes>> = HashMap::new();
    for _ in 0..KEYS * EVENTS_OF_A_KEY {
        let next = timeout(subject.backend.patience(), heard.recv()).await;
        let next = next.ok().flatten();
        let (delivery, overlap) = next.ok_or_else(|| Failure::new("an event was lost"))?;
        let key = delivery.key;
        ensure_eq!(overlap, Overlap::None, "two calls at once for {key}");
        order.entry(key).or_default().push(delivery.payload);
    }
    for key in 0..KEYS {
        let expected: Vec<Bytes> = (0..EVENTS_OF_A_KEY)
            .map(|n| payload(&format!("{key} {n}")))
            .collect();
        let found = order.remove(format!("k-{key}").as_str());
        ensure_eq!(found, Some(expected), "the events of key {key}");
    }
    running.stop().await;
    Ok(())
}

/// One publisher a key; each publishes after the bus has accepted the event before.
async fn publish_side_by_side(subject: &Subject) -> Verdict {
    let publishers = (0..KEYS).map(|key| {
        let bus = Arc::clone(&subject.bus);
        tokio::spawn(async move {
            for n in 0..EVENTS_OF_A_KEY {
                let event = event(&format!("k-{key}"), &format!("{key} {n}"));
                bus.publish(&event).await?;
            }
            Ok::<_, Failure>(())
        })
    });
    for publisher in publishers.collect::<Vec<_>>() {
        publisher.await??;
    }
    Ok(())
}

/// While an event is to be retried, later ones of its key wait and those of other keys do not.
pub async fn a_retry_holds_back_later_events_of_its_key(subject: Subject) -> Verdict {
    let failures = Mutex::new(3_u32);
    let answer = move |delivery: &Delivery| {
        let mut left = failures.lock().unwrap_or_else(PoisonError::into_inner);
        if delivery.payload == payload("first") && *left > 0 {
            *left -= 1;
            return Answer::Retry;
        }
        Answer::Ack
    };
    let mut listener = Listener::start(&subject, subscription("g", StartAt::End), answer).await?;
    subject
        .publish_all("k", &["first", "second", "third"])
        .await?;
    let heard = listener.hear_many(6).await?;
    let expected = payloads(&["first", "first", "first", "first", "second", "third"]);
    ensure_eq!(heard, expected, "the deliveries of the key");
    listener.hears_only_a_mark(&subject, "mark").await?;
    listener.stop().await
}
