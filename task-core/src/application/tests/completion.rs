//! Notifying the world of completions.

use std::time::Duration;

use super::*;
use crate::application::{CompletionNotifier, GroupStart};
use crate::domain::{Precondition, Status};
use crate::layer::{CircuitBreaker, GuardedNotifier, Policy, RetryPolicy};
use crate::memory::MemoryNotifier;
use crate::ports::{Answer, Clock, Delivery, ErrorKind, EventHandler, Group, Notifier, Topic};
#[cfg(feature = "mock")]
use crate::ports::{CapabilitySet, ETag, PortError, Retry};

struct Consumer {
    f: Fixture,
    notifier: Arc<MemoryNotifier>,
    handler: CompletionNotifier,
}

fn consumer() -> Consumer {
    let f = fixture();
    let notifier = Arc::new(MemoryNotifier::new());
    let group = Group::new("task-api");
    let handler = CompletionNotifier::new(group, f.store.clone(), notifier.clone());
    Consumer {
        f,
        notifier,
        handler,
    }
}

impl Consumer {
    async fn hear(&self, payload: impl Into<bytes::Bytes>) -> Answer {
        let delivery = Delivery {
            topic: Topic::new("task-events"),
            key: "".into(),
            payload: payload.into(),
            attempt: 1,
        };
        self.handler.handle(&delivery).await
    }

    /// Completes a task and answers the payloads of its events.
    async fn complete(&self) -> Vec<bytes::Bytes> {
        let id = self.f.tasks.create(draft("a"), None).await.unwrap().task.id;
        let done = self
            .f
            .tasks
            .set_status(&id, Status::Completed, &Precondition::None);
        done.await.unwrap();
        let pending = self.f.store.pending(None, 10).await.unwrap();
        pending.into_iter().map(|p| p.event.payload).collect()
    }
}

/// An answer that says why nobody will ever be notified.
fn assert_dropped(answer: &Answer, reason: &str) {
    let Answer::Drop(found) = answer else {
        panic!("{answer:?}");
    };
    assert!(found.as_str().starts_with(reason), "{found}");
}

#[tokio::test]
async fn an_event_that_has_expired_is_passed_over() {
    let mut c = consumer();
    c.handler = c.handler.timed_by(c.f.clock.clone());
    let now = c.f.clock.now();
    let event = |id: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"s","expiration":"{now}",
            "data":{{"event_type":"task.completed","task_id":"t-1"}}}}"#
        )
    };
    assert_eq!(c.hear(event("in time")).await, Answer::Ack);
    assert_eq!(c.notifier.received().len(), 1);
    c.f.clock.advance(Duration::from_secs(1));
    assert_eq!(c.hear(event("too late")).await, Answer::Ack);
    assert_eq!(c.notifier.received().len(), 1);
}

#[tokio::test]
async fn a_group_that_hears_its_history_notifies_only_what_came_after_it_began() {
    let mut c = consumer();
    let old = c.complete().await;
    c.f.clock.advance(Duration::from_secs(3600));
    let start = GroupStart::of(&Group::new("task-api"), &*c.f.store, &*c.f.clock).await;
    c.handler = c.handler.since(start.unwrap());
    for event in &old {
        assert_eq!(c.hear(event.clone()).await, Answer::Ack);
    }
    assert_eq!(c.notifier.received().len(), 0);
    for event in c.complete().await {
        assert_eq!(c.hear(event).await, Answer::Ack);
    }
    assert_eq!(c.notifier.received().len(), 1);
}

#[tokio::test]
async fn a_completion_is_notified_once_however_often_it_comes() {
    let c = consumer();
    let events = c.complete().await;
    for _ in 0..3 {
        for event in &events {
            assert_eq!(c.hear(event.clone()).await, Answer::Ack);
        }
    }
    let received = c.notifier.received();
    assert_eq!(received.len(), 1);
    let event = IncomingEvent::parse(&events[1]).unwrap();
    assert_eq!(*received[0].idempotency_key, *event.id);
    let body: serde_json::Value = serde_json::from_slice(&received[0].body).unwrap();
    let id = event.task_id;
    let expected = serde_json::json!({
        "type": "task_completed", "task_id": id, "message": format!("Task {id} has been completed"),
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_second_completion_after_a_reopening_is_notified_again() {
    let c = consumer();
    let events = c.complete().await;
    let id = IncomingEvent::parse(&events[0]).unwrap().task_id;
    let id = crate::domain::TaskId::parse(&id).unwrap();
    for status in [Status::Pending, Status::Completed] {
        let change = c.f.tasks.set_status(&id, status, &Precondition::None).await;
        change.unwrap();
    }
    // Delivered newest first: an older revision must not be taken for an old event.
    let pending = c.f.store.pending(None, 10).await.unwrap();
    for pending in pending.iter().rev() {
        c.hear(pending.event.payload.clone()).await;
    }
    assert_eq!(c.notifier.received().len(), 2);
}

#[tokio::test]
async fn not_now_is_tried_again_and_never_is_dead_lettered() {
    let c = consumer();
    let completed = c.complete().await.remove(1);
    c.notifier.refuse(Some(ErrorKind::Unavailable));
    assert_eq!(c.hear(completed.clone()).await, Answer::Retry);
    c.notifier.refuse(Some(ErrorKind::Invalid));
    assert_dropped(&c.hear(completed.clone()).await, "notification refused: ");
    c.notifier.refuse(None);
    assert_eq!(c.hear(completed).await, Answer::Ack);
    assert_eq!(c.notifier.received().len(), 1);
}

#[tokio::test]
async fn poison_is_dead_lettered_and_foreign_types_are_left_alone() {
    let c = consumer();
    assert_dropped(&c.hear("not json").await, "not an event: not a JSON object");
    let answer = c.hear(r#"{"id":7}"#).await;
    assert_dropped(&answer, "not an event: its timestamp is missing");
    // Without a task there is nobody to notify about, and without an id nobody to tell it from another.
    let time = "2026-11-21T02:08:47.911595Z";
    for unusable in [
        format!(r#"{{"event_type":"task.completed","task_id":"","timestamp":"{time}"}}"#),
        r#"{"event_type":"task.completed","task_id":"t-1"}"#.to_owned(),
    ] {
        assert_dropped(&c.hear(unusable).await, "not an event: its t");
    }
    let foreign =
        format!(r#"{{"event_type":"task.archived","task_id":"t-1","timestamp":"{time}"}}"#);
    assert_eq!(c.hear(foreign).await, Answer::Ack);
    assert!(c.notifier.received().is_empty());
}

#[tokio::test]
async fn a_bare_completion_with_and_without_z_is_notified_once() {
    let c = consumer();
    for end in ["", "Z"] {
        let bare = format!(
            r#"{{"event_type":"task.completed","task_id":"t-1","timestamp":"2026-11-21T02:08:47.911595{end}"}}"#
        );
        assert_eq!(c.hear(bare).await, Answer::Ack);
    }
    assert_eq!(c.notifier.received().len(), 1);
}

/// A handler whose notifications go through a circuit that opens after one failure, for 5 s.
fn behind_a_breaker(c: &Consumer, notifier: Arc<dyn Notifier>) -> CompletionNotifier {
    let policy = Policy {
        retry: RetryPolicy::NEVER,
        breaker: Some(Arc::new(CircuitBreaker::new(1, Duration::from_secs(5)))),
        ..Policy::default()
    };
    let guarded = GuardedNotifier::new(notifier, "test", policy);
    CompletionNotifier::new(Group::new("g"), c.f.store.clone(), Arc::new(guarded))
}

#[tokio::test(start_paused = true)]
async fn an_event_is_not_used_up_while_the_circuit_is_open() {
    let mut c = consumer();
    let completed = c.complete().await.remove(1);
    c.notifier.refuse(Some(ErrorKind::Unavailable));
    c.handler = behind_a_breaker(&c, c.notifier.clone());
    assert_eq!(c.hear(completed.clone()).await, Answer::Retry);
    tokio::time::advance(Duration::from_secs(2)).await;
    let rest = Answer::Postpone(Duration::from_secs(3));
    assert_eq!(c.hear(completed.clone()).await, rest);
    // The probe is a call, and counts.
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(c.hear(completed.clone()).await, Answer::Retry);
    tokio::time::advance(Duration::from_secs(5)).await;
    c.notifier.refuse(None);
    assert_eq!(c.hear(completed).await, Answer::Ack);
}

#[tokio::test]
async fn an_event_is_used_up_by_denials_only_while_others_are_accepted() {
    let c = consumer();
    let poison = c.complete().await.remove(1);
    let other = c.complete().await.remove(3);
    c.notifier.refuse(Some(ErrorKind::Denied));
    let postponed = Answer::Postpone(Duration::from_secs(60));
    for _ in 0..3 {
        assert_eq!(c.hear(poison.clone()).await, postponed);
    }
    c.notifier.refuse(None);
    assert_eq!(c.hear(other).await, Answer::Ack);
    c.notifier.refuse(Some(ErrorKind::Denied));
    assert_eq!(c.hear(poison.clone()).await, Answer::Retry);
    assert_eq!(c.hear(poison).await, postponed);
}

#[cfg(feature = "mock")]
#[tokio::test(start_paused = true)]
async fn a_receiver_that_asks_for_a_pause_is_asked_once_and_the_rest_is_postponed() {
    let mut c = consumer();
    let completed = c.complete().await.remove(1);
    let minute = Duration::from_secs(60);
    let mut throttled = crate::ports::MockNotifier::new();
    throttled.expect_notify().times(1).returning(move |_| {
        let error = PortError::new(ErrorKind::Throttled, "test", "notify");
        Err(error.retry(Retry::After(minute)))
    });
    c.handler = behind_a_breaker(&c, Arc::new(throttled));
    assert_eq!(c.hear(completed.clone()).await, Answer::Retry);
    assert_eq!(c.hear(completed).await, Answer::Postpone(minute));
}

#[cfg(feature = "mock")]
#[tokio::test]
async fn an_outage_of_the_store_is_waited_for_and_a_mark_that_it_refuses_is_not() {
    let mut c = consumer();
    let completed = c.complete().await.remove(1);
    let seconds = Duration::from_secs;
    for (kind, retry, answer) in [
        (
            ErrorKind::Unavailable,
            Retry::Maybe,
            Answer::Postpone(seconds(5)),
        ),
        (
            ErrorKind::Unavailable,
            Retry::After(seconds(7)),
            Answer::Postpone(seconds(7)),
        ),
        (
            ErrorKind::Timeout,
            Retry::Maybe,
            Answer::Postpone(seconds(5)),
        ),
        (
            ErrorKind::Denied,
            Retry::Never,
            Answer::Postpone(seconds(5)),
        ),
        (ErrorKind::Corrupt, Retry::Never, Answer::Retry),
        (ErrorKind::Invalid, Retry::Never, Answer::Retry),
    ] {
        let mut store = crate::ports::MockStateStore::new();
        store
            .expect_get()
            .times(1)
            .returning(move |_| Err(PortError::new(kind, "test", "get").retry(retry)));
        c.handler = CompletionNotifier::new(Group::new("g"), Arc::new(store), c.notifier.clone());
        assert_eq!(c.hear(completed.clone()).await, answer, "{kind}");
    }
    assert!(c.notifier.received().is_empty());
}

#[cfg(feature = "mock")]
#[tokio::test]
async fn an_event_whose_mark_is_refused_is_notified_once_and_marked_later() {
    let mut c = consumer();
    let completed = c.complete().await.remove(1);
    let mut store = crate::ports::MockStateStore::new();
    let none = CapabilitySet::of(&[]);
    store.expect_capabilities().times(3).return_const(none);
    store.expect_get().times(1).returning(|_| Ok(None));
    let mut puts = 0;
    store.expect_put().times(3).returning(move |_, _, _| {
        puts += 1;
        match puts {
            3 => Ok(Some(ETag::new("1"))),
            _ => Err(PortError::new(ErrorKind::Throttled, "test", "put")),
        }
    });
    let mut notifier = crate::ports::MockNotifier::new();
    notifier.expect_notify().times(1).returning(|_| Ok(()));
    c.handler = CompletionNotifier::new(Group::new("g"), Arc::new(store), Arc::new(notifier));
    let postponed = Answer::Postpone(Duration::from_secs(5));
    for answer in [postponed.clone(), postponed, Answer::Ack] {
        assert_eq!(c.hear(completed.clone()).await, answer);
    }
}
