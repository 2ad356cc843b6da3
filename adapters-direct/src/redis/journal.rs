//! Which events of a record are not settled, by the journal that the adapter for Dapr keeps beside its records.
//!
//! An event is noted there before its record is written and until it is settled, so one that lies in a record and is not
//! noted is settled. Nothing is written here.
//!
//! | key | holds |
//! | --- | --- |
//! | `journal-{replica}/{n}` | the notes number `256 n` and following |
//! | `journal-{replica}/done` | those of them that are settled already |

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use task_core::carried::CarriedEvent;
use task_core::ports::{Key, Kind, Stored};

use super::error::Failure;
use super::read::Reader;

/// Notes of one document.
const SEGMENT: u64 = 256;

/// A document of notes.
#[derive(Debug, Deserialize)]
struct Segment {
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
    let documents: BTreeSet<(&str, String)> = ops
        .flat_map(|(replica, number)| {
            let segment = (number / SEGMENT).to_string();
            [(replica, segment), (replica, "done".to_owned())]
        })
        .collect();
    let key = |(replica, document): &(&str, String)| {
        Key::new(Kind::new("journal"), format!("{replica}/{document}"))
    };
    let keys: Vec<Key> = documents.iter().map(key).collect();
    let found = reader.each(&keys).await?;
    let names = documents
        .into_iter()
        .map(|(replica, document)| (replica.to_owned(), document));
    let found: BTreeMap<_, _> = names.zip(found).collect();
    let found = Found(found);
    for events in &mut lists {
        events.retain(|event| op(event).is_some_and(|op| !found.is_settled(op)));
    }
    Ok(())
}

/// The documents that were looked for.
struct Found(BTreeMap<(String, String), Result<Option<Stored>, Failure>>);

impl Found {
    /// What cannot be read says nothing: the event stays.
    fn is_settled(&self, (replica, number): Op<'_>) -> bool {
        let read = |document: String| self.0.get(&(replica.to_owned(), document));
        let is_noted = match read((number / SEGMENT).to_string()) {
            Some(Ok(None)) => false,
            Some(Ok(Some(stored))) => match serde_json::from_slice::<Segment>(&stored.value) {
                Ok(segment) => segment.notes.iter().any(|note| note.number == number),
                Err(_) => true,
            },
            Some(Err(_)) | None => true,
        };
        let done = match read("done".to_owned()) {
            Some(Ok(Some(stored))) => serde_json::from_slice(&stored.value).unwrap_or_default(),
            Some(Ok(None) | Err(_)) | None => Done::default(),
        };
        let mut ranges = done.ranges.iter();
        !is_noted || ranges.any(|(first, last)| (*first..=*last).contains(&number))
    }
}
