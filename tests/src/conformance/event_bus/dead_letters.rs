//! Where events go that nobody can handle: promise E9.

use task_core::ports::{Answer, Delivery, Group, Redelivery, StartAt, Subscription, Topic};

use super::listener::Listener;
use super::{Subject, payload, subscription};
use crate::conformance::{Failure, Verdict, ensure_eq};

const DEAD: &str = "tasks.dead";

/// `Drop` moves the event to the dead-letter topic, unchanged, after one delivery.
pub async fn a_dropped_event_is_dead_lettered(subject: Subject) -> Verdict {
    let main = subscription("g", StartAt::End);
    is_buried_after(subject, main, Answer::dropped("bad"), 1).await
}

/// `Retry` at the last allowed delivery moves the event to the dead-letter topic, unchanged.
pub async fn an_event_that_fails_too_often_is_dead_lettered(subject: Subject) -> Verdict {
    let main = subscription("g", StartAt::End);
    let main = Subscription {
        redelivery: Redelivery {
            max_deliveries: 3,
            ..main.redelivery
        },
        ..main
    };
    is_buried_after(subject, main, Answer::Retry, 3).await
}

async fn is_buried_after(
    subject: Subject,
    main: Subscription,
    answer: Answer,
    deliveries: u32,
) -> Verdict {
    let mut dead = dead_letters(&subject).await?;
    let answer = move |delivery: &Delivery| {
        if delivery.payload == payload("bad") {
            answer.clone()
        } else {
            Answer::Ack
        }
    };
    let mut main = Listener::start(&subject, main, answer).await?;
    subject.publish("k", "bad").await?;
    for attempt in 1..=deliveries {
        let heard = main.hear().await?;
        ensure_eq!(heard.payload, payload("bad"), "delivery {attempt}");
    }
    let buried = dead.hear().await?;
    ensure_eq!(buried.topic, Topic::new(DEAD), "the topic");
    ensure_eq!(&*buried.key, "k", "the key");
    ensure_eq!(buried.payload, payload("bad"), "the payload");

    // Events of its key go on, it does not come again, and it is buried once.
    subject.publish("k", "good").await?;
    ensure_eq!(main.hear().await?.payload, payload("good"), "the next");
    main.hears_only_a_mark(&subject, "mark").await?;
    dead.stays_quiet().await?;
    dead.stop().await?;
    main.stop().await
}

async fn dead_letters(subject: &Subject) -> Result<Listener, Failure> {
    let undertaker = Subscription {
        start: StartAt::Beginning,
        redelivery: subscription("", StartAt::End).redelivery,
        ..Subscription::new(Topic::new(DEAD), Group::new("undertaker"))
    };
    Ok(Listener::acknowledging(subject, undertaker).await?)
}
