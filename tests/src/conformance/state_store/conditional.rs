//! Conditional writes: promises S7 to S12.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use task_core::ports::{Commit, ETag, ErrorKind, StateStore, Write};
use tokio::sync::Barrier;
use tokio::task::yield_now;

use super::{
    Subject, create, delete_any, delete_matching, holds, key, matching, overwrite, put, put_write,
    read, text,
};
use crate::conformance::{Failure, Verdict, ensure, ensure_eq, refused};

/// Another value has another version, and reads and commits show the one that the write answered.
pub async fn a_change_gives_a_new_etag(subject: Subject) -> Verdict {
    let store = &*subject.store;
    let one = key("t-1");
    let mut last = put(store, &one, "a", create()).await?;
    for value in ["b", "c", " ", "d"] {
        let etag = put(store, &one, value, matching(&last)).await?;
        ensure!(
            etag != last,
            "the value {value:?} left the version {etag:?}"
        );
        last = etag;
    }
    let commit = Commit::of(put_write("t-1", "e", matching(&last)));
    let answered = store.commit(commit).await?;
    let etag = read(store, &one).await?.etag;
    ensure!(etag != last, "a commit left the version {etag:?}");
    ensure_eq!(answered.len(), 1, "the answers of a commit");
    if let Some(answered) = &answered[0] {
        ensure_eq!(*answered, etag, "the answer of a commit");
    }
    let many = store.get_many(std::slice::from_ref(&one)).await?;
    let of_many = many.into_iter().flatten().map(|stored| stored.etag);
    let of_many: Vec<ETag> = of_many.collect();
    ensure_eq!(of_many, std::slice::from_ref(&etag), "get_many");
    let commit = Commit::of(Write::Delete {
        key: one,
        options: delete_matching(&etag),
    });
    ensure_eq!(
        store.commit(commit).await?,
        [None],
        "the answer of a deletion"
    );
    Ok(())
}

/// Every successful write gives a new version, and reads show the one that the write answered.
pub async fn every_write_gives_a_new_etag(subject: Subject) -> Verdict {
    let store = &*subject.store;
    let one = key("t-1");
    let mut seen: Vec<ETag> = vec![put(store, &one, "a", create()).await?];
    for value in ["b", "b", "a", "a"] {
        let last = last_of(&seen)?;
        let etag = put(store, &one, value, matching(&last)).await?;
        ensure!(!seen.contains(&etag), "{etag:?} was given before");
        seen.push(etag);
        let etag = put(store, &one, value, overwrite()).await?;
        ensure!(!seen.contains(&etag), "{etag:?} was given before");
        seen.push(etag);
    }
    let commit = Commit::of(put_write("t-1", "a", overwrite()));
    store.commit(commit).await?;
    let etag = read(store, &one).await?.etag;
    ensure!(!seen.contains(&etag), "a commit left the version {etag:?}");
    Ok(())
}

fn last_of(seen: &[ETag]) -> Result<ETag, Failure> {
    seen.last()
        .cloned()
        .ok_or_else(|| Failure::new("no version yet"))
}

/// `Create` succeeds once and is a `Conflict` while the key has a value.
pub async fn create_refuses_an_existing_key(subject: Subject) -> Verdict {
    let store = &*subject.store;
    let one = key("t-1");
    store.put(&one, text("first"), create()).await?;
    let again = store.put(&one, text("second"), create()).await;
    refused(again, ErrorKind::Conflict, "a second creation")?;
    let commit = Commit::of(put_write("t-1", "third", create()));
    let again = store.commit(commit).await;
    refused(again, ErrorKind::Conflict, "a creation by commit")?;
    holds(store, "t-1", Some("first")).await?;
    store.delete(&one, delete_any()).await?;
    store.put(&one, text("fourth"), create()).await?;
    holds(store, "t-1", Some("fourth")).await
}

/// `Match` is a `Conflict` for an old version, a foreign one, and a missing key.
pub async fn match_refuses_a_stale_etag(subject: Subject) -> Verdict {
    let store = &*subject.store;
    let one = key("t-1");
    let old = put(store, &one, "a", overwrite()).await?;
    let new = put(store, &one, "b", matching(&old)).await?;
    let foreign = put(store, &key("t-2"), "a", overwrite()).await?;
    let foreign = if foreign == new { old.clone() } else { foreign };
    for (etag, what) in [(&old, "an old version"), (&foreign, "a foreign version")] {
        refuse_all(store, "t-1", etag, what).await?;
        holds(store, "t-1", Some("b")).await?;
    }
    refuse_all(store, "missing", &new, "a missing key").await?;
    holds(store, "missing", None).await?;

    store.delete(&one, delete_matching(&new)).await?;
    holds(store, "t-1", None).await?;
    refuse_all(store, "t-1", &new, "a deleted key").await
}

/// Tries every write that matches a version, all of which have to be refused.
async fn refuse_all(store: &dyn StateStore, id: &str, etag: &ETag, what: &str) -> Verdict {
    let one = key(id);
    let put = store.put(&one, text("lost"), matching(etag)).await;
    refused(put, ErrorKind::Conflict, &format!("a put to {what}"))?;
    let delete = store.delete(&one, delete_matching(etag)).await;
    refused(
        delete,
        ErrorKind::Conflict,
        &format!("a deletion of {what}"),
    )?;
    let commit = Commit::of(put_write(id, "lost", matching(etag)));
    let put = store.commit(commit).await;
    refused(put, ErrorKind::Conflict, &format!("a commit to {what}"))?;
    let commit = Commit::of(Write::Delete {
        key: one,
        options: delete_matching(etag),
    });
    let what = format!("a deletion by commit of {what}");
    refused(store.commit(commit).await, ErrorKind::Conflict, &what)?;
    Ok(())
}

/// A version that a key once had does not come back, also if the same bytes are created anew.
pub async fn an_etag_never_comes_back(subject: Subject) -> Verdict {
    let store = &*subject.store;
    let one = key("t-1");
    let mut seen = HashSet::new();
    for _ in 0..4 {
        let first = put(store, &one, "same", create()).await?;
        ensure!(seen.insert(first.clone()), "{first:?} came back");
        let second = put(store, &one, "other", matching(&first)).await?;
        ensure!(seen.insert(second.clone()), "{second:?} came back");
        store.delete(&one, delete_matching(&second)).await?;
    }
    Ok(())
}

/// A refused write leaves value and version as they were.
pub async fn a_refused_write_changes_nothing(subject: Subject) -> Verdict {
    let store = &*subject.store;
    let one = key("t-1");
    let old = put(store, &one, "a", create()).await?;
    store.put(&one, text("b"), matching(&old)).await?;
    let before = read(store, &one).await?;
    let refusals = [
        store.put(&one, text("lost"), create()).await.map(drop),
        store
            .put(&one, text("lost"), matching(&old))
            .await
            .map(drop),
        store.delete(&one, delete_matching(&old)).await,
        store
            .commit(Commit::of(put_write("t-1", "lost", create())))
            .await
            .map(drop),
    ];
    for result in refusals {
        // Whether the answer is the right one is for S8 and S9; here only the effect counts.
        drop(result);
        ensure_eq!(read(store, &one).await?, before, "after a refused write");
    }
    drop(store.put(&key("t-2"), text("lost"), matching(&old)).await);
    holds(store, "t-2", None).await
}

/// Of many writers that create one key at once, exactly one succeeds, and its value stays.
pub async fn racing_creates_have_one_winner(subject: Subject) -> Verdict {
    const WRITERS: usize = 8;
    for round in 0..8 {
        let id = format!("t-{round}");
        let start = Arc::new(Barrier::new(WRITERS));
        let racers = (0..WRITERS).map(|writer| {
            let (store, start, key) = (Arc::clone(&subject.store), Arc::clone(&start), key(&id));
            tokio::spawn(async move {
                start.wait().await;
                let value = format!("writer {writer}");
                match store.put(&key, text(&value), create()).await {
                    Ok(_) => Ok(Some(value)),
                    Err(error) if error.is_conflict() => Ok(None),
                    Err(error) => Err(Failure::from(error)),
                }
            })
        });
        let mut winners = Vec::new();
        for racer in racers.collect::<Vec<_>>() {
            winners.extend(racer.await??);
        }
        ensure_eq!(winners.len(), 1, "the winners of round {round}");
        holds(&*subject.store, &id, Some(&winners[0])).await?;
    }
    Ok(())
}

/// Workers that count one number up by `Match`, trying again on `Conflict`, lose no step.
pub async fn racing_updates_lose_nothing(subject: Subject) -> Verdict {
    const WORKERS: u64 = 8;
    const STEPS: u64 = 25;
    let counter = key("counter");
    subject.store.put(&counter, text("0"), create()).await?;
    let workers = (0..WORKERS).map(|_| {
        let store = Arc::clone(&subject.store);
        tokio::spawn(async move {
            for _ in 0..STEPS {
                increment(&*store).await?;
            }
            Ok::<_, Failure>(())
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await??;
    }
    let total = number(&read(&*subject.store, &counter).await?.value)?;
    ensure_eq!(total, WORKERS * STEPS, "the counter");
    Ok(())
}

async fn increment(store: &dyn StateStore) -> Verdict {
    const MOST_ATTEMPTS: usize = 10_000;
    let counter = key("counter");
    for _ in 0..MOST_ATTEMPTS {
        let stored = read(store, &counter).await?;
        let next = number(&stored.value)? + 1;
        // Lets the others read the same version, or there is no race.
        yield_now().await;
        let options = matching(&stored.etag);
        match store.put(&counter, text(&next.to_string()), options).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::new("every attempt lost its race"))
}

fn number(value: &Bytes) -> Result<u64, Failure> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Failure::new(format!("{value:?} is no number")))
}
