//! A handler call that takes long: promise E4.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use task_core::ports::{Answer, Delivery, EventHandler, StartAt};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::{Subject, event, payload, subscription};
use crate::conformance::{Failure, Verdict, ensure, ensure_eq};

/// Many more events than any bus takes in hand at once, times the calls that may overlap.
const PUBLISHERS: usize = 64;
const EVENTS_OF_A_PUBLISHER: usize = 40;

/// Answers at once, but for one event, which waits until the gate is open.
#[derive(Debug)]
struct Gate {
    open: Semaphore,
    heard: mpsc::Sender<Bytes>,
}

#[async_trait]
impl EventHandler for Gate {
    async fn handle(&self, delivery: &Delivery) -> Answer {
        // A case that has stopped listening has its verdict already.
        let _ = self.heard.send(delivery.payload.clone()).await;
        if delivery.payload == payload("slow") && self.open.acquire().await.is_err() {
            return Answer::Retry;
        }
        Answer::Ack
    }
}

/// While one call hangs, thousands of events of other keys are handled, and it is called once.
pub async fn a_slow_handler_call_does_not_hold_back_other_keys(subject: Subject) -> Verdict {
    let (sender, mut heard) = mpsc::channel(PUBLISHERS * EVENTS_OF_A_PUBLISHER);
    let gate = Arc::new(Gate {
        open: Semaphore::new(0),
        heard: sender,
    });
    let handler = Arc::<Gate>::clone(&gate);
    let running = subject
        .bus
        .subscribe(subscription("g", StartAt::End), handler)
        .await?;
    let patience = subject.backend.patience();
    let mut hear = async || {
        let next = timeout(patience, heard.recv()).await.ok().flatten();
        next.ok_or_else(|| Failure::new("an event waits for the slow call, or was lost"))
    };
    subject.publish("slow", "slow").await?;
    ensure_eq!(hear().await?, payload("slow"), "the first event");

    let mut missing = publish_side_by_side(&subject).await?;
    while !missing.is_empty() {
        let heard = hear().await?;
        ensure!(missing.remove(&heard), "{heard:?} came again");
    }
    gate.open.add_permits(1);
    subject.publish("slow", "mark").await?;
    ensure_eq!(hear().await?, payload("mark"), "behind the slow call");
    running.stop().await;
    Ok(())
}

/// Answers the payloads; each publisher has a key of its own.
async fn publish_side_by_side(subject: &Subject) -> Result<BTreeSet<Bytes>, Failure> {
    let publishers = (0..PUBLISHERS).map(|publisher| {
        let bus = Arc::clone(&subject.bus);
        tokio::spawn(async move {
            let mut published = Vec::with_capacity(EVENTS_OF_A_PUBLISHER);
            for n in 0..EVENTS_OF_A_PUBLISHER {
                let event = event(&format!("k-{publisher}"), &format!("{publisher} {n}"));
                bus.publish(&event).await?;
                published.push(event.payload);
            }
            Ok::<_, Failure>(published)
        })
    });
    let mut published = BTreeSet::new();
    for publisher in publishers.collect::<Vec<_>>() {
        published.extend(publisher.await??);
    }
    Ok(published)
}
