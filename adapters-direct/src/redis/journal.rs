//! Which events of a record are not settled, by the journal that the adapter for Dapr keeps beside its records.
//!
//! An event is noted there before its record is written and until it is settled, so one that lies in a record and is not
//! noted is settled, if the documents are as young as the record. Nothing is written here.
//!
//! | key | holds |
//! | --- | --- |
//! | `journal-{replica}` | the first of its documents; nothing once the replica is gone and all is settled |
//! | `journal-{replica}/{n}` | the notes number `256 n` and following, and up to where they are complete |
//! | `journal-{replica}/done` | those of them that are settled already |

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use task_core::carried::CarriedEvent;
use task_core::ports::{Key, Kind, Stored};

use super::error::Failure;
use super::read::Reader;

/// Notes of one document.
const SEGMENT: u64 = 256;

/// Where the notes of a replica are.
#[derive(Debug, Deserialize)]
struct Head {
    first: u64,
    is_closed: bool,
}

/// A document of notes.
#[derive(Debug, Deserialize)]
struct Segment {
    /// Notes with lesser numbers are here, or settled.
    through: u64,
    notes: Vec<Note>,
}

#[derive(Debug, Deserialize)]
struct Note {
    number: u64,
}

/// Numbers that are settled, as ranges with both ends.
#[derive(Debug, Default, Deserialize)]
struct Done {
    ranges: Vec<(u64, u64)>,
}

/// What an event is called: a replica and a number.
type Op<'a> = (&'a str, u64);

fn op(carried: &CarriedEvent) -> Option<Op<'_>> {
    let (replica, digits) = carried.op.rsplit_once('.')?;
    let number: u64 = digits.parse().ok()?;
    (number.to_string() == digits).then_some((replica, number))
}

/// Removes the events that are settled from each of these lists.
pub(super) async fn keep_unsettled(
    reader: Reader<'_>,
    mut lists: Vec<&mut Vec<CarriedEvent>>,
) -> Result<(), Failure> {
    let ops = lists.iter().flat_map(|events| events.iter().filter_map(op));
    let documents: BTreeSet<String> = ops
        .flat_map(|(replica, number)| [head(replica), done(replica), segment(replica, number)])
        .collect();
    let documents: Vec<Key> = documents
        .into_iter()
        .map(|id| Key::new(Kind::new("journal"), id))
        .collect();
    let found = reader.each(&documents).await?;
    let documents = documents.into_iter().map(|document| document.id);
    let found = Documents(documents.zip(found).collect());
    for events in &mut lists {
        events.retain(|event| op(event).is_some_and(|op| !found.is_settled(op)));
    }
    Ok(())
}

fn head(replica: &str) -> String {
    replica.to_owned()
}

fn done(replica: &str) -> String {
    format!("{replica}/done")
}

fn segment(replica: &str, number: u64) -> String {
    format!("{replica}/{}", number / SEGMENT)
}

/// The documents that were looked for.
struct Documents(BTreeMap<Box<str>, Result<Option<Stored>, Failure>>);

impl Documents {
    /// What cannot be read says nothing: the event stays.
    fn is_settled(&self, (replica, number): Op<'_>) -> bool {
        let Ok(head) = self.read::<Head>(&head(replica)) else {
            return false;
        };
        if head.is_none_or(|head| head.is_closed || number / SEGMENT < head.first) {
            return true;
        }
        let settled = self.read::<Done>(&done(replica)).ok().flatten();
        let mut settled = settled.unwrap_or_default().ranges.into_iter();
        if settled.any(|(first, last)| (first..=last).contains(&number)) {
            return true;
        }
        match self.read::<Segment>(&segment(replica, number)) {
            // A save that was given up may land late, over a younger one.
            Ok(Some(Segment { through, notes })) => {
                number < through && notes.iter().all(|note| note.number != number)
            }
            Ok(None) | Err(()) => false,
        }
    }

    fn read<T: DeserializeOwned>(&self, document: &str) -> Result<Option<T>, ()> {
        match self.0.get(document) {
            Some(Ok(Some(stored))) => serde_json::from_slice(&stored.value)
                .map(Some)
                .map_err(drop),
            Some(Ok(None)) => Ok(None),
            Some(Err(_)) | None => Err(()),
        }
    }
}
