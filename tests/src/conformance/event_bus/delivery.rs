//! What a group hears and how often: promises E2, E3, E4 and E7.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use task_core::ports::{Answer, ErrorKind, Event, StartAt};
use tokio::time::{Instant, timeout_at};

use super::listener::Listener;
use super::{Subject, event, payload, subscription};
use crate::conformance::{Failure, Verdict, ensure, ensure_eq, refused};

/// What was acknowledged is not delivered again while the subscription lives.
pub async fn an_acknowledged_event_does_not_come_again(subject: Subject) -> Verdict {
    let mut listener = Listener::acknowledging(&subject, subscription("g", StartAt::End)).await?;
    for name in ["a", "b", "c"] {
        subject.publish("k", name).await?;
        ensure_eq!(
            listener.hear().await?.payload,
            payload(name),
            "event {name}"
        );
    }
    listener.hears_only_a_mark(&subject, "mark 1").await?;
    listener.hears_only_a_mark(&subject, "mark 2").await?;
    listener.stop().await
}

/// `Retry` brings the event again, unchanged, after its pause and with a higher attempt, until it is
/// acknowledged.
pub async fn a_retried_event_comes_again(subject: Subject) -> Verdict {
    let calls: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let called = Arc::clone(&calls);
    let main = subscription("g", StartAt::End);
    let redelivery = main.redelivery;
    let mut listener = Listener::start(&subject, main, move |_| {
        let mut called = called.lock().unwrap_or_else(PoisonError::into_inner);
        called.push(Instant::now());
        match called.len() {
            1 | 2 => Answer::Retry,
            _ => Answer::Ack,
        }
    })
    .await?;
    subject.publish("k", "a").await?;
    comes_with_rising_attempts(&mut listener, 3).await?;
    let times = calls.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for (deliveries, pair) in (1..).zip(times.windows(2)) {
        let (pause, least) = (pair[1] - pair[0], redelivery.pause_after(deliveries));
        ensure!(
            pause >= least,
            "it came again after {pause:?}, not {least:?}"
        );
    }
    listener.hears_only_a_mark(&subject, "mark").await?;
    listener.stop().await
}

/// A handler that panics has not acknowledged: the event comes again.
pub async fn a_panicking_handler_counts_as_retry(subject: Subject) -> Verdict {
    let calls = AtomicU32::new(0);
    let mut listener = Listener::start(&subject, subscription("g", StartAt::End), move |_| {
        if calls.fetch_add(1, Ordering::SeqCst) == 0 {
            // Unlike `panic!`, this prints nothing.
            resume_unwind(Box::new("the handler of this case panics"));
        }
        Answer::Ack
    })
    .await?;
    subject.publish("k", "a").await?;
    // The panicking call tells nobody, so the first event that is heard is the second delivery.
    let again = listener.hear().await?;
    ensure_eq!(again.payload, payload("a"), "the event after the panic");
    ensure!(again.attempt > 1, "the attempt is {}", again.attempt);
    listener.hears_only_a_mark(&subject, "mark").await?;
    listener.stop().await
}

async fn comes_with_rising_attempts(listener: &mut Listener, times: u32) -> Verdict {
    let mut last = 0;
    for _ in 0..times {
        let delivery = listener.hear().await?;
        ensure_eq!(delivery.payload, payload("a"), "the payload");
        ensure_eq!(&*delivery.key, "k", "the key");
        let attempt = delivery.attempt;
        ensure!(attempt > last, "attempt {attempt} after attempt {last}");
        last = attempt;
    }
    Ok(())
}

/// Events of other keys arrive while one event fails again and again.
pub async fn a_failing_event_does_not_block_other_keys(subject: Subject) -> Verdict {
    let mut listener = Listener::start(&subject, subscription("g", StartAt::End), |delivery| {
        if delivery.payload == payload("bad") {
            Answer::Retry
        } else {
            Answer::Ack
        }
    })
    .await?;
    subject.publish("bad", "bad").await?;
    let first = listener.hear().await?;
    let bad = payload("bad");
    ensure_eq!(first.payload, bad, "the first event");
    let good: Vec<Bytes> = (0..20).map(|n| payload(&format!("good {n}"))).collect();
    for n in 0..good.len() {
        subject
            .publish(&format!("k-{n}"), &format!("good {n}"))
            .await?;
    }
    let mut heard = Vec::new();
    let deadline = Instant::now() + subject.backend.patience();
    while heard.len() < good.len() {
        let next = timeout_at(deadline, listener.hear()).await;
        let next = next.map_err(|_| Failure::new("only the failing event comes"))?;
        heard.extend(Some(next?.payload).filter(|payload| *payload != bad));
    }
    heard.sort();
    let mut expected = good;
    expected.sort();
    ensure_eq!(heard, expected, "the other events");
    listener.stop().await
}

/// A payload one byte too long is refused as `Invalid`; the largest allowed one is delivered.
pub async fn event_limits_are_refused_and_the_largest_is_delivered(subject: Subject) -> Verdict {
    let mut listener = Listener::acknowledging(&subject, subscription("g", StartAt::End)).await?;
    let too_large = json_of(Event::MAX_PAYLOAD_BYTES + 1)?;
    let result = subject.bus.publish(&too_large).await;
    refused(result, ErrorKind::Invalid, "a too large event")?;
    let largest = json_of(Event::MAX_PAYLOAD_BYTES)?;
    subject.bus.publish(&largest).await?;
    let heard = listener.hear().await?;
    ensure!(
        heard.payload == largest.payload,
        "the largest event came with {} bytes",
        heard.payload.len()
    );
    listener.hears_only_a_mark(&subject, "mark").await?;
    listener.stop().await
}

/// An event whose payload is a JSON text of exactly this size.
fn json_of(size: usize) -> Result<Event, Failure> {
    let rest = size
        .checked_sub(2)
        .ok_or_else(|| Failure::new("a JSON text has two quotes"))?;
    Ok(Event {
        payload: Bytes::from(format!("\"{}\"", "x".repeat(rest))),
        ..event("k", "")
    })
}
