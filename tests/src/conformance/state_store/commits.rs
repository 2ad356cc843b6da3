//! Commits and their pending events: promises S15 to S18.

use std::sync::Arc;

use bytes::Bytes;
use task_core::ports::StateCapability::Transactions;
use task_core::ports::{Commit, ErrorKind, Event, PendingEvent, PendingId, StateStore, Write};

use super::{
    Subject, create, delete_any, event, holds, key, matching, overwrite, pending, put_write, read,
    text,
};
use crate::conformance::{Failure, Verdict, ensure_eq, refused};

fn commit(writes: Vec<Write>) -> Commit {
    let mut commit = Commit::default();
    commit.writes = writes;
    commit
}

fn delete_write(id: &str) -> Write {
    Write::Delete {
        key: key(id),
        options: delete_any(),
    }
}

/// Several writes take effect together, in their order, or none of them does.
pub async fn a_commit_is_all_or_nothing(subject: Subject) -> Verdict {
    let store = &*subject.store;
    store.put(&key("there"), text("old"), create()).await?;
    let before = read(store, &key("there")).await?;
    let refusal = commit(vec![
        put_write("new", "x", overwrite()),
        put_write("there", "changed", overwrite()),
        delete_write("there"),
        put_write("new", "conflict", create()),
    ]);
    let result = store.commit(refusal).await;
    refused(
        result,
        ErrorKind::Conflict,
        "a commit whose last write conflicts",
    )?;
    holds(store, "new", None).await?;
    ensure_eq!(
        read(store, &key("there")).await?,
        before,
        "a record of the refused commit"
    );

    let whole = commit(vec![
        put_write("new", "first", create()),
        put_write("new", "second", overwrite()),
        delete_write("there"),
        put_write("there", "again", create()),
        put_write("gone", "x", create()),
        delete_write("gone"),
    ]);
    store.commit(whole).await?;
    holds(store, "new", Some("second")).await?;
    holds(store, "there", Some("again")).await?;
    holds(store, "gone", None).await?;

    let too_many = (0..=Commit::MAX_ITEMS).map(|n| put_write(&format!("n-{n}"), "x", overwrite()));
    let result = store.commit(commit(too_many.collect())).await;
    refused(result, ErrorKind::Invalid, "a commit of too many writes")?;
    holds(store, "n-0", None).await?;
    let most = (0..Commit::MAX_ITEMS).map(|n| put_write(&format!("m-{n}"), "x", overwrite()));
    store.commit(commit(most.collect())).await?;
    holds(store, "m-63", Some("x")).await
}

/// An event is pending if its commit took effect, and is not if the commit was refused.
pub async fn events_are_pending_if_and_only_if_committed(subject: Subject) -> Verdict {
    let store = &*subject.store;
    let first = commit(vec![put_write("t-1", "x", create())]).event(event("one"));
    store.commit(first).await?;
    ensure_eq!(pending(store).await?, ["one"], "after a commit");

    let conflict = commit(vec![put_write("t-1", "y", create())]).event(event("phantom"));
    let result = store.commit(conflict).await;
    refused(result, ErrorKind::Conflict, "a creation of an existing key")?;
    let stale = read(store, &key("t-1")).await?.etag;
    store.put(&key("t-1"), text("z"), overwrite()).await?;
    let conflict = commit(vec![put_write("t-1", "y", matching(&stale))]).event(event("phantom"));
    let result = store.commit(conflict).await;
    refused(result, ErrorKind::Conflict, "a match of a stale version")?;
    if store.capabilities().has(Transactions) {
        let writes = vec![
            put_write("t-2", "x", create()),
            put_write("t-1", "y", create()),
        ];
        let result = store.commit(commit(writes).event(event("phantom"))).await;
        refused(result, ErrorKind::Conflict, "a commit whose end conflicts")?;
    }
    let too_large = Event {
        payload: Bytes::from(vec![b'e'; Event::MAX_PAYLOAD_BYTES + 1]),
        ..event("")
    };
    let invalid = commit(vec![put_write("t-1", "y", overwrite())])
        .event(event("phantom"))
        .event(too_large);
    let result = store.commit(invalid).await;
    refused(
        result,
        ErrorKind::Invalid,
        "a commit with a too large event",
    )?;
    holds(store, "t-1", Some("z")).await?;
    ensure_eq!(pending(store).await?, ["one"], "after refused commits");

    let delete = commit(vec![delete_write("t-1")]).event(event("two"));
    store.commit(delete).await?;
    let found = store.pending(None, 10).await?;
    let found: Vec<Event> = found.into_iter().map(|pending| pending.event).collect();
    ensure_eq!(found, [event("one"), event("two")], "the events themselves");
    Ok(())
}

/// `pending` lists events in the order of their commits, after the place it is given.
pub async fn pending_events_keep_the_order_of_commits(subject: Subject) -> Verdict {
    let store = &*subject.store;
    let mut expected: Vec<String> = Vec::new();
    for n in 0..12 {
        // Names and keys fall while the commits rise, so that sorting by either shows.
        let names = [
            format!("{:02} first", 20 - n),
            format!("{:02} second", 20 - n),
        ];
        let mut one = commit(vec![put_write(
            &format!("t-{:02}", 20 - n),
            "x",
            overwrite(),
        )]);
        one.events.extend(names.iter().map(|name| event(name)));
        expected.extend(names);
        store.commit(one).await?;
    }
    in_order(&pending(store).await?, &expected, "all pages")?;
    let all = store.pending(None, 100).await?;
    in_order(&payloads(&all), &expected, "one page")?;
    let after = all[4].id.clone();
    let rest = store.pending(Some(after.clone()), 100).await?;
    in_order(&payloads(&rest), &named(&all[5..]), "after the fifth")?;
    let settled: Vec<PendingId> = all[..6].iter().map(|pending| pending.id.clone()).collect();
    store.settle(&settled).await?;
    let rest = store.pending(Some(after), 100).await?;
    in_order(&payloads(&rest), &named(&all[6..]), "after a settled place")?;
    racing_commits_keep_their_order(&subject.store).await
}

/// Those events and no others, the ones of a record in the order of its commits; some perhaps twice.
fn in_order(found: &[Bytes], expected: &[String], what: &str) -> Verdict {
    let mut seen: Vec<&Bytes> = Vec::new();
    for payload in found {
        if !seen.contains(&payload) {
            seen.push(payload);
        }
    }
    // The record is the first word.
    let record = |payload: &[u8]| {
        payload
            .split(|byte| *byte == b' ')
            .next()
            .map(<[u8]>::to_vec)
    };
    seen.sort_by_key(|payload| record(payload));
    let mut expected: Vec<&String> = expected.iter().collect();
    expected.sort_by_key(|name| record(name.as_bytes()));
    ensure_eq!(seen, expected, "{what}");
    Ok(())
}

fn payloads(pending: &[PendingEvent]) -> Vec<Bytes> {
    let payloads = pending.iter().map(|pending| pending.event.payload.clone());
    payloads.collect()
}

fn named(pending: &[PendingEvent]) -> Vec<String> {
    let texts = payloads(pending).into_iter();
    texts
        .map(|payload| String::from_utf8_lossy(&payload).into_owned())
        .collect()
}

/// Events of one writer stay in its order while others commit, and none is lost.
async fn racing_commits_keep_their_order(store: &Arc<dyn StateStore>) -> Verdict {
    const WRITERS: usize = 4;
    const STEPS: usize = 10;
    let writers = (0..WRITERS).map(|writer| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            for step in 0..STEPS {
                let one = commit(vec![put_write(&format!("w-{writer}"), "x", overwrite())]);
                store
                    .commit(one.event(event(&format!("{writer} {step}"))))
                    .await?;
            }
            Ok::<_, Failure>(())
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await??;
    }
    let found = pending(&**store).await?;
    for writer in 0..WRITERS {
        let own = format!("{writer} ");
        let own_events = found
            .iter()
            .filter(|payload| payload.starts_with(own.as_bytes()));
        let own_events: Vec<Bytes> = own_events.cloned().collect();
        let expected: Vec<String> = (0..STEPS).map(|step| format!("{own}{step}")).collect();
        in_order(&own_events, &expected, "the events of a writer")?;
    }
    Ok(())
}

/// `settle` removes the named events, no others, and succeeds when it is repeated.
pub async fn settled_events_are_gone_and_settling_repeats(subject: Subject) -> Verdict {
    let store = &*subject.store;
    let mut one = commit(vec![put_write("t-1", "x", overwrite())]);
    one.events = ["a", "b", "c", "d"].map(event).into();
    store.commit(one).await?;
    let all = store.pending(None, 10).await?;
    let ids: Vec<PendingId> = all.iter().map(|pending| pending.id.clone()).collect();
    ensure_eq!(ids.len(), 4, "the pending events");
    let some = [ids[2].clone(), ids[0].clone()];
    for attempt in 1..=2 {
        store.settle(&some).await?;
        let rest = pending(store).await?;
        ensure_eq!(rest, ["b", "d"], "after settlement {attempt}");
    }
    store.settle(&[]).await?;
    store.settle(&ids).await?;
    ensure_eq!(pending(store).await?, [""; 0], "after all were settled");
    let later = commit(vec![put_write("t-1", "y", overwrite())]).event(event("e"));
    store.commit(later).await?;
    store.settle(&ids).await?;
    ensure_eq!(pending(store).await?, ["e"], "an old id names no new event");
    holds(store, "t-1", Some("y")).await
}

/// What was settled is on no page that is asked for later, while others commit and pages go on.
///
/// The relay depends on it: it forgets an event once it is settled.
pub async fn a_settled_event_is_not_listed_again(subject: Subject) -> Verdict {
    const EVENTS: usize = 60;
    let store = Arc::clone(&subject.store);
    let committing = tokio::spawn(async move {
        for n in 0..EVENTS {
            let one = commit(vec![put_write(&format!("r-{}", n % 5), "x", overwrite())]);
            store.commit(one.event(event(&n.to_string()))).await?;
        }
        Ok::<_, Failure>(())
    });
    let store = &*subject.store;
    let mut settled: Vec<Bytes> = Vec::new();
    let mut after: Option<PendingId> = None;
    loop {
        let is_last = after.is_none() && committing.is_finished();
        let page = store.pending(after.take(), 7).await?;
        let payloads = payloads(&page);
        let again = payloads.iter().find(|payload| settled.contains(payload));
        ensure_eq!(again, None, "a settled event on a later page");
        if page.is_empty() && is_last {
            break;
        }
        // The other half stays for the next listing; this one goes on behind it.
        let half = page.len().div_ceil(2);
        let places: Vec<PendingId> = page.iter().take(half).map(|one| one.id.clone()).collect();
        store.settle(&places).await?;
        settled.extend(payloads.into_iter().take(half));
        after = page.last().map(|last| last.id.clone());
        tokio::task::yield_now().await;
    }
    committing.await??;
    ensure_eq!(settled.len(), EVENTS, "events that were listed and settled");
    Ok(())
}
