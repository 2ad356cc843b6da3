//! Enumeration: promise S19.

use std::collections::BTreeSet;
use std::time::Duration;

use task_core::ports::{Key, Kind, PutOptions, StateStore};

use super::{LISTED, OTHER, Subject, delete_any, overwrite, read, text};
use crate::conformance::{Failure, Verdict, ensure, ensure_eq};

/// Many more pages than any scan here may need.
const MOST_PAGES: usize = 1000;

/// A scan returns every key of its kind with its value, nothing else, and ends.
pub async fn a_scan_finds_every_key_of_its_kind(subject: Subject) -> Verdict {
    let store = &*subject.store;
    for kind in [Kind::TASK, LISTED] {
        let key = |id: &str| Key::new(kind, id);
        ensure_eq!(
            scan(store, kind, 10).await?,
            BTreeSet::new(),
            "an empty store"
        );
        let mut expected = BTreeSet::new();
        for n in 0..23 {
            // What some backends write in another way.
            let id = format!("t|{n}%");
            store.put(&key(&id), text(&id), overwrite()).await?;
            store
                .put(&Key::new(OTHER, id.clone()), text("no"), overwrite())
                .await?;
            expected.insert(id);
        }
        // A kind whose name begins like the one that is scanned.
        let alike = Key::new(Kind::new("tasks"), "no");
        store.put(&alike, text("no"), overwrite()).await?;
        for limit in [1, 5, 23, 1000] {
            let found = scan(store, kind, limit).await?;
            ensure_eq!(found, expected, "a scan by pages of {limit}");
        }
        store.delete(&key("t|7%"), delete_any()).await?;
        expected.remove("t|7%");
        ensure_eq!(scan(store, kind, 5).await?, expected, "after a deletion");
    }
    Ok(())
}

/// A scan passes over what has ended, and finds what was created again.
pub async fn a_scan_passes_over_what_has_ended(subject: Subject) -> Verdict {
    const SHORT: Duration = Duration::from_secs(1);
    let store = &*subject.store;
    let short = PutOptions {
        ttl: Some(SHORT),
        ..overwrite()
    };
    for kind in [Kind::TASK, LISTED] {
        for n in 0..20 {
            let ends = Key::new(kind, format!("k-{n:02}-ends"));
            store.put(&ends, text("x"), short.clone()).await?;
        }
        let stays = Key::new(kind, "k-10-stays");
        store.put(&stays, text("x"), overwrite()).await?;
    }
    subject.backend.elapse(SHORT).await;
    for kind in [Kind::TASK, LISTED] {
        let mut expected = BTreeSet::from(["k-10-stays".to_owned()]);
        // Whoever looks twice finds the same, whatever the first look has tidied up.
        for _ in 0..2 {
            ensure_eq!(scan(store, kind, 4).await?, expected, "{kind:?}");
        }
        let again = Key::new(kind, "k-07-ends");
        store.put(&again, text("y"), overwrite()).await?;
        expected.insert("k-07-ends".to_owned());
        ensure_eq!(scan(store, kind, 4).await?, expected, "{kind:?} again");
    }
    Ok(())
}

/// What happens to other keys between two pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InTheWay {
    /// Those that were found go away, also the one at which the page ended.
    Deletions,
    /// New ones come, before and after every other.
    Creations,
    /// Those that stay are written again.
    Updates,
}

/// Keys that exist throughout a scan are found although others come and go between its pages.
pub async fn a_scan_survives_writes_in_its_way(subject: Subject) -> Verdict {
    let store = &*subject.store;
    for kind in [Kind::TASK, LISTED] {
        for what in [InTheWay::Deletions, InTheWay::Creations, InTheWay::Updates] {
            for n in 0..20 {
                for id in [format!("k-{n:02}-goes"), format!("k-{n:02}-stays")] {
                    let key = Key::new(kind, id);
                    store.put(&key, text(&key.id), overwrite()).await?;
                }
            }
            let found = disturbed_scan(store, kind, what).await?;
            for n in 0..20 {
                let stays = format!("k-{n:02}-stays");
                ensure!(found.contains(&stays), "{stays} is not found with {what:?}");
            }
        }
    }
    Ok(())
}

async fn disturbed_scan(
    store: &dyn StateStore,
    kind: Kind,
    what: InTheWay,
) -> Result<BTreeSet<String>, Failure> {
    let key = |id: &str| Key::new(kind, id);
    let mut found = BTreeSet::new();
    let mut from = None;
    for number in 0..MOST_PAGES {
        let page = store.scan(kind, from, 4).await?;
        let ids = page.entries.iter().map(|(key, _)| key.id.to_string());
        let new: Vec<String> = ids.filter(|id| found.insert(id.clone())).collect();
        match what {
            InTheWay::Deletions => {
                for id in new.iter().filter(|id| id.ends_with("goes")) {
                    store.delete(&key(id), delete_any()).await?;
                }
            }
            InTheWay::Creations if number < 20 => {
                for id in [format!("a-{number}"), format!("z-{number}")] {
                    store.put(&key(&id), text(&id), overwrite()).await?;
                }
            }
            InTheWay::Creations => {}
            InTheWay::Updates => {
                for id in new.iter().filter(|id| id.ends_with("stays")) {
                    store.put(&key(id), text("again"), overwrite()).await?;
                }
            }
        }
        from = page.next;
        if from.is_none() {
            return Ok(found);
        }
    }
    Err(Failure::new("the scan does not end"))
}

/// The ids of all keys that a scan finds, each checked against a read.
async fn scan(
    store: &dyn StateStore,
    kind: Kind,
    limit: usize,
) -> Result<BTreeSet<String>, Failure> {
    let mut found = BTreeSet::new();
    let mut from = None;
    for _ in 0..MOST_PAGES {
        let page = store.scan(kind, from, limit).await?;
        for (key, stored) in page.entries {
            ensure_eq!(key.kind, kind, "the kind of {key}");
            ensure_eq!(stored, read(store, &key).await?, "{key} in scan and read");
            found.insert(key.id.to_string());
        }
        from = page.next;
        if from.is_none() {
            return Ok(found);
        }
    }
    Err(Failure::new("the scan does not end"))
}
