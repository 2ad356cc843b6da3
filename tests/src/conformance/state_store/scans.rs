//! Enumeration: promise S19.

use std::collections::BTreeSet;

use task_core::ports::{Key, Kind, StateStore};

use super::{OTHER, Subject, delete_any, key, overwrite, read, text};
use crate::conformance::{Failure, Verdict, ensure, ensure_eq};

/// Many more pages than any scan here may need.
const MOST_PAGES: usize = 1000;

/// A scan returns every key of its kind with its value, nothing else, and ends.
pub async fn a_scan_finds_every_key_of_its_kind(subject: Subject) -> Verdict {
    let store = &*subject.store;
    ensure_eq!(scan(store, 10).await?, BTreeSet::new(), "an empty store");
    let mut expected = BTreeSet::new();
    for n in 0..23 {
        let id = format!("t-{n}");
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
        let found = scan(store, limit).await?;
        ensure_eq!(found, expected, "a scan by pages of {limit}");
    }
    store.delete(&key("t-7"), delete_any()).await?;
    expected.remove("t-7");
    ensure_eq!(scan(store, 5).await?, expected, "after a deletion");
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
    for what in [InTheWay::Deletions, InTheWay::Creations, InTheWay::Updates] {
        for n in 0..20 {
            for id in [format!("k-{n:02}-goes"), format!("k-{n:02}-stays")] {
                store.put(&key(&id), text(&id), overwrite()).await?;
            }
        }
        let found = disturbed_scan(store, what).await?;
        for n in 0..20 {
            let stays = format!("k-{n:02}-stays");
            ensure!(found.contains(&stays), "{stays} is not found with {what:?}");
        }
    }
    Ok(())
}

async fn disturbed_scan(
    store: &dyn StateStore,
    what: InTheWay,
) -> Result<BTreeSet<String>, Failure> {
    let mut found = BTreeSet::new();
    let mut from = None;
    for number in 0..MOST_PAGES {
        let page = store.scan(Kind::TASK, from, 4).await?;
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
async fn scan(store: &dyn StateStore, limit: usize) -> Result<BTreeSet<String>, Failure> {
    let mut found = BTreeSet::new();
    let mut from = None;
    for _ in 0..MOST_PAGES {
        let page = store.scan(Kind::TASK, from, limit).await?;
        for (key, stored) in page.entries {
            ensure_eq!(key.kind, Kind::TASK, "the kind of {key}");
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
