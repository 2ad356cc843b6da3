//! Restarts, dropped futures and identities: promises S20, S22 and S26.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use task_core::ports::StateCapability::{ConditionalWrites, Outbox, Tombstones, Ttl};
use task_core::ports::{
    Commit, DeleteOptions, ErrorKind, PendingId, PutOptions, StateStore, WriteMode,
};
use tokio::task::yield_now;

use super::{
    Subject, create, delete_any, event, holds, key, matching, overwrite, pending, put, put_write,
    read, text,
};
use crate::conformance::{Failure, Verdict, ensure, ensure_eq, refused};

/// What was acknowledged is there after a restart: values, versions, events, limits, tombstones.
pub async fn acknowledged_writes_survive_a_restart(subject: Subject) -> Verdict {
    const LONG: Duration = Duration::from_secs(3600);
    let store = &*subject.store;
    let has = |capability| store.capabilities().has(capability);
    let (conditional, outbox) = (has(ConditionalWrites), has(Outbox));
    let (ttl, tombstones) = (has(Ttl), has(Tombstones) && has(ConditionalWrites));
    store.put(&key("t-1"), text("one"), overwrite()).await?;
    store.put(&key("gone"), text("x"), overwrite()).await?;
    store.delete(&key("gone"), delete_any()).await?;
    let mut commit = Commit::of(put_write("t-2", "two", overwrite()));
    if outbox {
        commit.events = ["a", "b", "c"].map(event).into();
    }
    store.commit(commit).await?;
    if outbox {
        let first: Vec<PendingId> = store
            .pending(None, 1)
            .await?
            .into_iter()
            .map(|p| p.id)
            .collect();
        store.settle(&first).await?;
    }
    if ttl {
        let options = PutOptions {
            mode: WriteMode::Overwrite,
            ttl: Some(LONG),
        };
        store.put(&key("long"), text("x"), options).await?;
    }
    if tombstones {
        let options = DeleteOptions {
            tombstone: Some(LONG),
            ..delete_any()
        };
        store.delete(&key("buried"), options).await?;
    }
    let before = read(store, &key("t-1")).await?;

    let subject = subject.reopen().await?;
    let store = &*subject.store;
    ensure_eq!(read(store, &key("t-1")).await?, before, "after a restart");
    holds(store, "t-2", Some("two")).await?;
    holds(store, "gone", None).await?;
    if outbox {
        // A settlement may be lost, an event may not.
        let found = pending(store).await?;
        ensure!(found.ends_with(&[text("b"), text("c")]), "found {found:?}");
    }
    if ttl {
        holds(store, "long", Some("x")).await?;
    }
    if tombstones {
        let put = store.put(&key("buried"), text("x"), create()).await;
        refused(put, ErrorKind::Conflict, "a creation under a tombstone")?;
    }
    if conditional {
        let options = matching(&before.etag);
        let etag = put(store, &key("t-1"), "new", options).await?;
        ensure!(etag != before.etag, "a version came back after a restart");
    }
    Ok(())
}

/// The server keeps its name while it runs, whoever asks and whatever is written.
pub async fn the_identity_stays_while_the_server_runs(subject: Subject) -> Verdict {
    let store = &*subject.store;
    let first = store.identity().await?;
    for round in ["one", "two", "three"] {
        store.put(&key("t-1"), text(round), overwrite()).await?;
        ensure_eq!(store.identity().await?, first, "the identity");
    }
    Ok(())
}

/// A write whose future is dropped at any point took effect whole or not at all.
pub async fn a_dropped_write_is_whole_or_absent(subject: Subject) -> Verdict {
    const MOST_POLLS: usize = 24;
    let store = &subject.store;
    let outbox = store.capabilities().has(Outbox);
    for polls in 1..=MOST_POLLS {
        let id = format!("t-{polls}");
        let mut commit = Commit::of(put_write(&id, "whole", overwrite()));
        if outbox {
            commit = commit.event(event(&id));
        }
        drop_after(polls, store, commit).await;
        // What the backend still does of the dropped write is done before this one.
        store.put(&key("later"), text(&id), overwrite()).await?;
        is_whole_or_absent(&**store, &id, outbox).await?;
    }
    Ok(())
}

/// Starts a commit and drops its future after so many polls, done or not.
async fn drop_after(polls: usize, store: &Arc<dyn StateStore>, commit: Commit) {
    let mut write = store.commit(commit);
    for _ in 0..polls {
        if (&mut write).now_or_never().is_some() {
            break;
        }
        yield_now().await;
    }
}

/// A backend may finish a dropped write on its own, so a half that is seen is looked at again.
async fn is_whole_or_absent(store: &dyn StateStore, id: &str, outbox: bool) -> Verdict {
    const MOST_LOOKS: usize = 100;
    for _ in 0..MOST_LOOKS {
        let value = store.get(&key(id)).await?.map(|stored| stored.value);
        ensure!(
            value.as_ref().is_none_or(|value| *value == text("whole")),
            "a part of {id} was written: {value:?}"
        );
        if !outbox {
            return Ok(());
        }
        let has_event = pending(store).await?.contains(&text(id));
        if has_event == value.is_some() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Err(Failure::new(format!(
        "{id} and its event are not written together"
    )))
}
