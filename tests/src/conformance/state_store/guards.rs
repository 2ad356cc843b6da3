//! Guards and ordered values: promises S24 and S25.

use std::sync::Arc;

use task_core::ports::StateCapability::{Outbox, Transactions};
use task_core::ports::{
    Commit, DeleteMode, DeleteOptions, ErrorKind, Expect, Guard, Key, PutOptions, Write, WriteMode,
};
use tokio::sync::Barrier;
use tokio::task::yield_now;

use super::{Subject, delete_any, event, holds, key, overwrite, pending, put, put_write, text};
use crate::conformance::{Failure, Verdict, ensure, ensure_eq, refused};

fn at_most(id: &str, value: &str) -> Guard {
    Guard {
        key: key(id),
        expect: Expect::AtMost(text(value)),
    }
}

fn absent(id: &str) -> Guard {
    Guard {
        key: key(id),
        expect: Expect::Absent,
    }
}

fn raise() -> PutOptions {
    PutOptions {
        mode: WriteMode::Raise,
        ttl: None,
    }
}

fn delete_at_most(value: &str) -> DeleteOptions {
    DeleteOptions {
        mode: DeleteMode::AtMost(text(value)),
        tombstone: None,
    }
}

/// A commit takes effect if each guard holds, and changes nothing if one does not.
pub async fn a_commit_depends_on_its_guards(subject: Subject) -> Verdict {
    let store = &*subject.store;
    let guarded = |guard: Guard| {
        let commit = Commit::of(put_write("t-1", "lost", overwrite())).guard(guard);
        match store.capabilities().has(Outbox) {
            true => commit.event(event("phantom")),
            false => commit,
        }
    };
    let missing = store.commit(guarded(at_most("fence", "9"))).await;
    refused(missing, ErrorKind::Fenced, "a guard on a missing value")?;
    store.put(&key("fence"), text("05"), overwrite()).await?;
    let refusals = [
        (at_most("fence", "04"), "a guard below the value"),
        (at_most("fence", "0"), "a guard that is a beginning of it"),
        (absent("fence"), "a guard on an absence"),
    ];
    for (guard, what) in refusals {
        refused(store.commit(guarded(guard)).await, ErrorKind::Fenced, what)?;
    }
    let both = guarded(at_most("fence", "05")).guard(absent("fence"));
    let result = store.commit(both).await;
    refused(
        result,
        ErrorKind::Fenced,
        "a commit of which one guard holds",
    )?;
    holds(store, "t-1", None).await?;
    if store.capabilities().has(Outbox) {
        ensure_eq!(pending(store).await?, Vec::<bytes::Bytes>::new(), "events");
    }

    for guard in [
        at_most("fence", "05"),
        at_most("fence", "050"),
        at_most("fence", "1"),
    ] {
        let commit = Commit::of(put_write("t-1", "done", overwrite()));
        store.commit(commit.guard(guard)).await?;
    }
    let commit = Commit::of(put_write("t-2", "done", overwrite())).guard(absent("nothing"));
    store.commit(commit).await?;
    holds(store, "t-1", Some("done")).await?;
    holds(store, "t-2", Some("done")).await?;
    store.delete(&key("fence"), delete_any()).await?;
    let commit = Commit::of(put_write("t-2", "again", overwrite())).guard(absent("fence"));
    store.commit(commit).await?;
    holds(store, "t-2", Some("again")).await
}

/// Once a fence is raised, no commit below it takes effect any more.
pub async fn a_raised_fence_stops_racing_commits(subject: Subject) -> Verdict {
    const WRITERS: usize = 4;
    const MOST: usize = 10_000;
    let store = &subject.store;
    store.put(&key("fence"), text("1"), raise()).await?;
    let start = Arc::new(Barrier::new(WRITERS + 1));
    let writers = (0..WRITERS).map(|writer| {
        let (store, start) = (Arc::clone(store), Arc::clone(&start));
        tokio::spawn(async move {
            start.wait().await;
            for step in 0..MOST {
                let write = put_write(&format!("w-{writer}"), &step.to_string(), overwrite());
                let commit = Commit::of(write).guard(at_most("fence", "1"));
                if let Err(error) = store.commit(commit).await {
                    ensure_eq!(error.kind(), ErrorKind::Fenced, "the refusal");
                    return Ok(());
                }
                yield_now().await;
            }
            Err(Failure::new("the fence stops nobody"))
        })
    });
    let writers: Vec<_> = writers.collect();
    start.wait().await;
    for _ in 0..20 {
        store.get(&key("w-0")).await?;
        yield_now().await;
    }
    store.put(&key("fence"), text("2"), raise()).await?;
    let keys: Vec<Key> = (0..WRITERS).map(|n| key(&format!("w-{n}"))).collect();
    let fenced = store.get_many(&keys).await?;
    for writer in writers {
        writer.await??;
    }
    let later = store.get_many(&keys).await?;
    ensure_eq!(later, fenced, "what was written below the fence");
    Ok(())
}

/// The greatest value stays, whoever writes last, and only its own writer or a greater one removes it.
pub async fn a_raised_value_never_falls(subject: Subject) -> Verdict {
    const WRITERS: u32 = 8;
    let store = &*subject.store;
    let mark = key("mark");
    let first = put(store, &mark, "05", raise()).await?;
    for lesser in ["04", "05", "0", "/"] {
        let etag = put(store, &mark, lesser, raise()).await?;
        ensure_eq!(etag, first, "the version after a lesser value");
    }
    holds(store, "mark", Some("05")).await?;
    let second = put(store, &mark, "050", raise()).await?;
    ensure!(second != first, "a greater value has the old version");
    let by_commit = store
        .commit(Commit::of(put_write("mark", "06", raise())))
        .await?;
    let read = store.get(&mark).await?.map(|stored| stored.etag);
    ensure_eq!(by_commit, [read], "the version of a commit");

    store.delete(&mark, delete_at_most("059")).await?;
    holds(store, "mark", Some("06")).await?;
    store.delete(&mark, delete_at_most("06")).await?;
    holds(store, "mark", None).await?;
    store.delete(&mark, delete_at_most("06")).await?;

    if store.capabilities().has(Transactions) {
        let commit = Commit::of(put_write("t-1", "x", overwrite()))
            .write(put_write("mark", "07", raise()))
            .write(put_write("mark", "03", raise()))
            .write(Write::Delete {
                key: key("mark"),
                options: delete_at_most("05"),
            });
        store.commit(commit).await?;
        holds(store, "mark", Some("07")).await?;
    }
    let writers = (0..WRITERS).map(|n| {
        let store = Arc::clone(&subject.store);
        let value = format!("{:02}", 10 + (n * 5) % WRITERS);
        tokio::spawn(async move { store.put(&key("mark"), text(&value), raise()).await })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await??;
    }
    holds(store, "mark", Some("17")).await
}
