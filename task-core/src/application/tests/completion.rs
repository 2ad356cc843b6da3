//! Notifying the world of completions.

use super::*;
use crate::application::CompletionNotifier;
use crate::domain::{Precondition, Status};
use crate::memory::MemoryNotifier;
use crate::ports::{Answer, Delivery, ErrorKind, EventHandler, Group, Topic};

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
    assert_eq!(c.hear(completed.clone()).await, Answer::Drop);
    c.notifier.refuse(None);
    assert_eq!(c.hear(completed).await, Answer::Ack);
    assert_eq!(c.notifier.received().len(), 1);
}

#[tokio::test]
async fn poison_is_dead_lettered_and_foreign_types_are_left_alone() {
    let c = consumer();
    assert_eq!(c.hear("not json").await, Answer::Drop);
    assert_eq!(c.hear(r#"{"id":7}"#).await, Answer::Drop);
    let foreign = r#"{"event_type":"task.archived","task_id":"t-1"}"#;
    assert_eq!(c.hear(foreign).await, Answer::Ack);
    assert!(c.notifier.received().is_empty());
}
