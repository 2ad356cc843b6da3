//! Values and tombstones that end by themselves: promises S13 and S14.

use std::time::Duration;

use task_core::ports::StateCapability::{ConditionalWrites, Scan};
use task_core::ports::{
    Commit, DeleteOptions, ErrorKind, Kind, PutOptions, StateStore, Write, WriteMode,
};

use super::{
    Subject, create, delete_any, delete_matching, holds, key, matching, overwrite, put, put_write,
    text,
};
use crate::conformance::{Verdict, ensure, ensure_eq, refused};

/// The shortest time that every backend counts.
const SHORT: Duration = Duration::from_secs(1);

/// Longer than a case runs.
const LONG: Duration = Duration::from_secs(3600);

fn living(ttl: Duration) -> PutOptions {
    PutOptions {
        mode: WriteMode::Overwrite,
        ttl: Some(ttl),
    }
}

/// A value whose time is over is missing to reads, to conditions and to scans.
pub async fn an_expired_value_is_missing(subject: Subject) -> Verdict {
    let store = &*subject.store;
    let short = put(store, &key("short"), "x", living(SHORT)).await?;
    let by_commit = Commit::of(put_write("committed", "x", living(SHORT)));
    store.commit(by_commit).await?;
    store.put(&key("long"), text("y"), living(LONG)).await?;
    store.put(&key("for-ever"), text("z"), overwrite()).await?;
    subject.backend.elapse(SHORT).await;

    holds(store, "short", None).await?;
    holds(store, "committed", None).await?;
    holds(store, "long", Some("y")).await?;
    holds(store, "for-ever", Some("z")).await?;
    let many = store.get_many(&[key("long"), key("short")]).await?;
    let there: Vec<bool> = many.iter().map(Option::is_some).collect();
    ensure_eq!(there, [true, false], "get_many");
    store.delete(&key("committed"), delete_any()).await?;
    if store.capabilities().has(Scan) {
        let page = store.scan(Kind::TASK, None, 100).await?;
        let expired = page.entries.iter().any(|(found, _)| *found == key("short"));
        ensure!(!expired, "a scan shows an expired value");
    }
    if store.capabilities().has(ConditionalWrites) {
        let one = key("short");
        let put = store.put(&one, text("lost"), matching(&short)).await;
        refused(put, ErrorKind::Conflict, "a match of an expired value")?;
        let delete = store.delete(&one, delete_matching(&short)).await;
        refused(delete, ErrorKind::Conflict, "a deletion of it")?;
        store.put(&one, text("new"), create()).await?;
        holds(store, "short", Some("new")).await?;
    }
    Ok(())
}

/// A put without a limit makes the value stay, whatever limit the replaced one had.
pub async fn a_put_without_ttl_removes_the_ttl(subject: Subject) -> Verdict {
    let store = &*subject.store;
    let one = key("t-1");
    store.put(&one, text("short"), living(SHORT)).await?;
    store.put(&one, text("stays"), overwrite()).await?;
    store.put(&key("t-2"), text("short"), living(SHORT)).await?;
    let by_commit = Commit::of(put_write("t-2", "stays", overwrite()));
    store.commit(by_commit).await?;
    subject.backend.elapse(SHORT).await;
    holds(store, "t-1", Some("stays")).await?;
    holds(store, "t-2", Some("stays")).await
}

fn burying(time: Duration) -> DeleteOptions {
    DeleteOptions {
        tombstone: Some(time),
        ..DeleteOptions::default()
    }
}

/// After a deletion with a tombstone the key is missing and cannot be created for that long.
pub async fn a_tombstone_refuses_a_new_creation(subject: Subject) -> Verdict {
    let store = &*subject.store;
    for (id, time) in [("long", LONG), ("short", SHORT)] {
        let one = key(id);
        let etag = put(store, &one, "x", create()).await?;
        store.delete(&one, burying(time)).await?;
        if time == LONG {
            is_buried(store, id).await?;
            let put = store.put(&one, text("lost"), matching(&etag)).await;
            refused(put, ErrorKind::Conflict, "a match of a buried value")?;
        }
    }
    store.delete(&key("never-there"), burying(LONG)).await?;
    is_buried(store, "never-there").await?;
    // A later deletion lifts no tombstone; what it answers is for S6.
    drop(store.delete(&key("never-there"), delete_any()).await);
    is_buried(store, "never-there").await?;
    let by_commit = Commit::of(Write::Delete {
        key: key("committed"),
        options: burying(LONG),
    });
    store.commit(by_commit).await?;
    is_buried(store, "committed").await?;

    subject.backend.elapse(SHORT).await;
    is_buried(store, "long").await?;
    store.put(&key("short"), text("new"), create()).await?;
    holds(store, "short", Some("new")).await
}

async fn is_buried(store: &dyn StateStore, id: &str) -> Verdict {
    holds(store, id, None).await?;
    let put = store.put(&key(id), text("lost"), create()).await;
    refused(put, ErrorKind::Conflict, "a creation under a tombstone")?;
    let by_commit = Commit::of(put_write(id, "lost", create()));
    let put = store.commit(by_commit).await;
    refused(put, ErrorKind::Conflict, "a commit under a tombstone")?;
    holds(store, id, None).await
}
