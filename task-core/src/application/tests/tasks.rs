//! Creating, changing and deleting tasks.

use std::collections::HashSet;
use std::time::Duration;

use super::*;
use crate::application::{TaskError, TaskRecord};
use crate::domain::{EntityTag, IdempotencyKey, Precondition, Status, TaskId};
use crate::ports::{Key, Kind, PutOptions, StateCapability};

const LEGACY: &str = r#"{"id":"t-1","title":"a","description":null,"status":"pending","priority":2,
    "created_at":"2026-11-21T02:38:34.036210","updated_at":"2026-11-21T02:38:34.036210","owner":"kept"}"#;

#[tokio::test]
async fn every_change_leaves_its_event_and_a_new_tag() {
    let f = fixture();
    let created = f.tasks.create(draft("a"), None).await.unwrap();
    let id = created.task.id.clone();
    let mut tags = HashSet::from([created.tag]);
    for status in [Status::InProgress, Status::Completed, Status::Pending] {
        let any = Precondition::None;
        let changed = f.tasks.set_status(&id, status, &any).await.unwrap();
        assert!(tags.insert(changed.tag.clone()));
        assert_eq!(f.tasks.get(&id).await.unwrap(), changed);
    }
    let edited = f.tasks.edit(&id, draft("b"), &Precondition::None).await;
    assert!(tags.insert(edited.unwrap().tag));
    let expected = [
        "task.created",
        "task.in_progress",
        "task.completed",
        "task.pending",
        "task.updated",
    ];
    assert_eq!(f.pending_types().await, expected);
}

#[tokio::test]
async fn what_changes_nothing_leaves_no_event_and_keeps_the_tag() {
    let f = fixture();
    let created = f.tasks.create(draft("a"), None).await.unwrap();
    let (id, any) = (&created.task.id, Precondition::None);
    f.clock.advance(Duration::from_secs(1));
    let same = f.tasks.set_status(id, Status::Pending, &any).await.unwrap();
    assert_eq!(same, created);
    assert_eq!(f.tasks.edit(id, draft("a"), &any).await.unwrap(), created);
    assert_eq!(f.pending_types().await, ["task.created"]);
}

#[tokio::test]
async fn a_stale_tag_is_refused_and_leaves_no_event() {
    let f = fixture();
    let created = f.tasks.create(draft("a"), None).await.unwrap();
    let id = &created.task.id;
    let stale = Precondition::Match(vec![EntityTag::from_client("0.7")]);
    for result in [
        f.tasks.set_status(id, Status::Completed, &stale).await,
        f.tasks.edit(id, draft("b"), &stale).await,
        f.tasks.delete(id, &stale).await.map(|()| created.clone()),
    ] {
        let error = result.unwrap_err();
        assert!(
            matches!(error, TaskError::PreconditionFailed { current } if current == created.tag)
        );
    }
    assert_eq!(f.pending_types().await, ["task.created"]);
    assert_eq!(f.tasks.get(id).await.unwrap(), created);
}

#[tokio::test]
async fn a_missing_task_is_not_found_and_nothing_is_left_behind() {
    let f = fixture();
    let id = TaskId::parse("nobody").unwrap();
    let any = Precondition::None;
    assert!(matches!(f.tasks.get(&id).await, Err(TaskError::NotFound)));
    let changed = f.tasks.set_status(&id, Status::Completed, &any).await;
    assert!(matches!(changed, Err(TaskError::NotFound)));
    assert!(matches!(
        f.tasks.delete(&id, &any).await,
        Err(TaskError::NotFound)
    ));
    let page = f.store.scan(Kind::TASK, None, 10).await.unwrap();
    assert!(page.entries.is_empty() && f.pending().await.is_empty());
}

#[tokio::test]
async fn a_repeated_create_answers_what_it_answered_first() {
    let f = fixture();
    let key = IdempotencyKey::parse("order-7").unwrap();
    let first = f.tasks.create(draft("a"), Some(&key)).await.unwrap();
    let id = &first.task.id;
    f.clock.advance(Duration::from_secs(60));
    let any = Precondition::None;
    let _ = f.tasks.edit(id, draft("changed since"), &any).await;
    let _ = f.tasks.set_status(id, Status::Completed, &any).await;
    let again = f.tasks.create(draft("a"), Some(&key)).await.unwrap();
    assert_eq!(again, first);
    let created = |kind: &&String| *kind == "task.created";
    assert_eq!(f.pending_types().await.iter().filter(created).count(), 1);
}

#[tokio::test]
async fn a_key_that_comes_with_another_draft_is_refused() {
    let f = fixture();
    let key = IdempotencyKey::parse("order-7").unwrap();
    f.tasks.create(draft("a"), Some(&key)).await.unwrap();
    let other = f.tasks.create(draft("b"), Some(&key)).await;
    assert!(matches!(other, Err(TaskError::KeyReused)));
}

#[tokio::test]
async fn a_deleted_task_does_not_come_back_by_its_key() {
    let f = fixture();
    let key = IdempotencyKey::parse("order-7").unwrap();
    let first = f.tasks.create(draft("a"), Some(&key)).await.unwrap();
    let id = &first.task.id;
    f.tasks.delete(id, &Precondition::None).await.unwrap();
    f.clock.advance(Duration::from_secs(10 * 365 * 24 * 3600));
    for title in ["a", "b"] {
        let again = f.tasks.create(draft(title), Some(&key)).await;
        assert!(matches!(again, Err(TaskError::Deleted)));
    }
    assert!(matches!(f.tasks.get(id).await, Err(TaskError::NotFound)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_writers_with_one_tag_exactly_one_wins_each_revision() {
    let f = fixture();
    let mut current = f.tasks.create(draft("0"), None).await.unwrap();
    for round in 1..=20 {
        let writers = (0..64).map(|writer| {
            let tasks = Arc::clone(&f.tasks);
            let only = Precondition::Match(vec![current.tag.clone()]);
            let id = current.task.id.clone();
            tokio::spawn(async move {
                let title = draft(&format!("{round} by {writer}"));
                tasks.edit(&id, title, &only).await
            })
        });
        let mut winners = Vec::new();
        for writer in futures_util::future::join_all(writers).await {
            match writer.unwrap() {
                Ok(view) => winners.push(view),
                Err(TaskError::PreconditionFailed { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(winners.len(), 1);
        current = winners.remove(0);
    }
    assert_eq!(f.pending().await.len(), 21);
}

#[tokio::test]
async fn a_record_of_the_replaced_service_is_changed_without_loss() {
    let f = fixture();
    let key = Key::new(Kind::TASK, "t-1");
    let put = f.store.put(&key, LEGACY.into(), PutOptions::default());
    put.await.unwrap();
    let id = TaskId::parse("t-1").unwrap();
    let before = f.tasks.get(&id).await.unwrap();
    let only = Precondition::Match(vec![before.tag.clone()]);
    let after = f.tasks.set_status(&id, Status::Completed, &only).await;
    let after = after.unwrap();
    assert_ne!(after.tag, before.tag);
    let stored = f.store.get(&key).await.unwrap().unwrap();
    let text = std::str::from_utf8(&stored.value).unwrap();
    assert!(text.contains(r#""owner":"kept""#), "{text}");
    assert!(text.starts_with(r#"{"id":"t-1","title":"a","description":null,"status":"completed""#));
}

#[tokio::test]
async fn an_event_id_is_not_used_twice_when_a_foreign_writer_drops_the_revision() {
    let f = fixture();
    let key = Key::new(Kind::TASK, "t-1");
    let id = TaskId::parse("t-1").unwrap();
    let mut ids = HashSet::new();
    for _ in 0..3 {
        let put = f.store.put(&key, LEGACY.into(), PutOptions::default());
        put.await.unwrap();
        f.clock.advance(Duration::from_millis(5));
        let done = f
            .tasks
            .set_status(&id, Status::Completed, &Precondition::None);
        done.await.unwrap();
    }
    for event in f.pending().await {
        assert!(ids.insert(event.id), "an id was used twice");
    }
}

#[tokio::test]
async fn an_unreadable_record_is_corrupt_and_stays_as_it_is() {
    let f = fixture();
    let key = Key::new(Kind::TASK, "t-1");
    let garbage = f.store.put(&key, "{\"id\"".into(), PutOptions::default());
    garbage.await.unwrap();
    let id = TaskId::parse("t-1").unwrap();
    let done = f
        .tasks
        .set_status(&id, Status::Completed, &Precondition::None);
    let error = done.await.unwrap_err();
    assert!(
        matches!(&error, TaskError::Store(cause) if cause.kind() == crate::ports::ErrorKind::Corrupt)
    );
    assert_eq!(f.store.get(&key).await.unwrap().unwrap().value, "{\"id\"");
    assert!(TaskRecord::decode(b"{\"id\"").is_err());
}

#[tokio::test]
async fn a_store_that_cannot_do_what_is_needed_is_refused_at_once() {
    let clock = Arc::new(ManualClock::default());
    let weak = |capabilities| {
        Arc::new(MemoryStateStore::with_capabilities(
            clock.clone(),
            crate::ports::CapabilitySet::of(capabilities),
        ))
    };
    assert!(Outbox::new(weak(&[StateCapability::ConditionalWrites])).is_err());
    let outbox = Arc::new(Outbox::new(weak(&[StateCapability::Outbox])).unwrap());
    let entropy = Arc::new(SeededEntropy::new(1));
    assert!(TaskService::new(outbox, clock.clone(), entropy).is_err());
}
