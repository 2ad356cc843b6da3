//! A record that is made in `rampdown` by a replica that dies, and finished by another one.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::fakes::{Mood, SomeStore};
use super::scene::{Scene, event, key, record};
use crate::migration::Stage;
use crate::ports::{Clock, Commit, Event, PutOptions, StateStore, Write, WriteMode};

async fn pending(store: &SomeStore) -> Vec<Event> {
    let pending = store.inner.pending(None, 10).await.expect("memory");
    pending.into_iter().map(|one| one.event).collect()
}

#[tokio::test(start_paused = true)]
async fn the_event_of_a_birth_that_somebody_else_finishes_is_pending_on_both_sides() {
    let (scene, replica) = Scene::begun().await;
    replica.moves_state(Stage::RampDown).await;
    // Nothing that it sends to the new side from here on arrives.
    scene.new.writes.set(Mood::Hangs);
    let dying = Arc::clone(&replica.store);
    let told = event("task-1", 1, scene.clock.now());
    let create = Commit::of(Write::Put {
        key: key("task-1"),
        value: record("task-1", 1, "a"),
        options: PutOptions {
            mode: WriteMode::Create,
            ttl: None,
        },
    })
    .event(told.clone());
    let request = tokio::spawn(async move { dying.commit(create).await });
    sleep(Duration::from_millis(100)).await;
    scene.new.writes.set(Mood::Works);
    sleep(Duration::from_secs(5)).await;
    assert!(!request.is_finished(), "it was to be caught in the middle");
    let born = scene.new.inner.get(&key("task-1")).await.expect("memory");
    assert!(born.is_some(), "nobody has finished it");
    for side in [&scene.old, &scene.new] {
        assert_eq!(pending(side).await, std::slice::from_ref(&told));
    }
    request.abort();
}
