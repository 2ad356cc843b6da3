//! What a handler puts off: promises E8 and E12.

use std::sync::atomic::{AtomicU32, Ordering};

use task_core::ports::{Answer, Delivery, Redelivery, StartAt, Subscription};

use super::listener::Listener;
use super::{PAUSE, Subject, payload, payloads, subscription};
use crate::conformance::{Verdict, ensure, ensure_eq};

/// A postponed event comes more often than deliveries are allowed, and its attempt stays.
pub async fn a_postponed_event_comes_again_and_is_not_counted(subject: Subject) -> Verdict {
    const MAX_DELIVERIES: u32 = 3;
    const POSTPONED: u32 = 2 * MAX_DELIVERIES;
    let calls = AtomicU32::new(0);
    let answer = move |_: &Delivery| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::Retry,
        1..=POSTPONED => Answer::Postpone(PAUSE),
        _ => Answer::Ack,
    };
    let main = subscription("g", StartAt::End);
    let redelivery = Redelivery {
        max_deliveries: MAX_DELIVERIES,
        ..main.redelivery
    };
    let main = Subscription { redelivery, ..main };
    let mut listener = Listener::start(&subject, main, answer).await?;
    subject.publish("k", "a").await?;
    let first = listener.hear().await?.attempt;
    let retried = listener.hear().await?.attempt;
    ensure!(retried > first, "attempt {retried} after a retry");
    for time in 1..=POSTPONED {
        let again = listener.hear().await?;
        ensure_eq!(again.payload, payload("a"), "the payload");
        ensure_eq!(
            again.attempt,
            retried,
            "the attempt after postponing {time} times"
        );
    }
    listener.hears_only_a_mark(&subject, "mark").await?;
    listener.stop().await
}

/// While an event is postponed, later ones of its key wait and those of other keys do not.
pub async fn a_postponed_event_holds_back_later_events_of_its_key(subject: Subject) -> Verdict {
    const POSTPONED: u32 = 3;
    let calls = AtomicU32::new(0);
    let answer = move |delivery: &Delivery| {
        if delivery.payload == payload("first") && calls.fetch_add(1, Ordering::SeqCst) < POSTPONED
        {
            return Answer::Postpone(PAUSE);
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
