//! The pending events: entries of a stream with the fields `topic`, `key` and `payload`.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use redis::{Cmd, Value};
use task_core::episode::Episode;
use task_core::ports::{Event, PendingEvent, PendingId, Topic};
use tokio::time::Instant;

use super::answer::{bytes, is, parts, text, unexpected};
use super::connection::Connection;
use super::error::{Effect, Failure};
use super::event_bus::EntryId;

/// Most events of one page, whatever is asked for.
const MOST_EVENTS: usize = 1_000;

/// Most places of one command.
const MOST_PLACES: usize = 1_000;

/// Reads the events after a place.
///
/// An entry that somebody else put there, and that is no event, is passed over and stays: it holds up
/// nothing, and whoever put it there may want it back. The episode tells of it, now and then.
pub(super) async fn pending(
    connection: &Connection,
    stream: &str,
    passed_over: &Mutex<Episode>,
    after: Option<&PendingId>,
    limit: usize,
) -> Result<Vec<PendingEvent>, Failure> {
    let mut start = match after {
        Some(place) => format!("({}", checked(place)?),
        None => "-".to_owned(),
    };
    let limit = limit.min(MOST_EVENTS);
    loop {
        let mut command = Cmd::new();
        command.arg("XRANGE").arg(stream).arg(start).arg("+");
        command.arg("COUNT").arg(limit);
        let answer = connection.command(&command, Effect::Read).await?;
        let entries = parts(&answer);
        let events = readable(entries, passed_over);
        let last = entries.last().and_then(|last| text(parts(last).first()?));
        match last {
            Some(last) if events.is_empty() && limit > 0 => start = format!("({last}"),
            Some(_) | None => return Ok(events),
        }
    }
}

/// The events of a page, and now and then a line about what is none.
fn readable(entries: &[Value], passed_over: &Mutex<Episode>) -> Vec<PendingEvent> {
    let mut events = Vec::with_capacity(entries.len());
    let mut first_error = None;
    for entry in entries {
        match event(entry) {
            Ok(event) => events.push(event),
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    if let Some(error) = first_error {
        let mut episode = passed_over.lock().unwrap_or_else(PoisonError::into_inner);
        if episode.fails(Instant::now()) {
            let entries = entries.len() - events.len();
            tracing::error!(%error, entries, "entries of the outbox are passed over");
        }
    }
    events
}

/// Removes events; places that are gone already do not matter.
pub(super) async fn settle(
    connection: &Connection,
    stream: &str,
    places: &[PendingId],
) -> Result<(), Failure> {
    let places: Vec<EntryId> = places.iter().map(checked).collect::<Result<_, _>>()?;
    for places in places.chunks(MOST_PLACES) {
        let mut command = Cmd::new();
        command.arg("XDEL").arg(stream).arg(places);
        connection.command(&command, Effect::Write).await?;
    }
    Ok(())
}

/// A place that is one of a stream.
fn checked(place: &PendingId) -> Result<EntryId, Failure> {
    let text = place.as_str();
    let refused = |_| Failure::Invalid(format!("{text:?} is not a place of this outbox"));
    text.parse().map_err(refused)
}

/// Reads an entry; fields that are not ours are left alone.
fn event(entry: &Value) -> Result<PendingEvent, Failure> {
    let [place, fields] = parts(entry) else {
        return Err(unexpected(entry, Effect::Read));
    };
    let place = text(place).ok_or_else(|| unexpected(entry, Effect::Read))?;
    let field = |name: &str| {
        let mut pairs = parts(fields).chunks_exact(2);
        let found = pairs.find(|pair| is(&pair[0], name));
        found.map(|pair| &pair[1])
    };
    let read = || {
        Some(Event {
            topic: Topic::new(field("topic").and_then(text)?),
            key: field("key").and_then(text)?.into(),
            payload: Bytes::copy_from_slice(field("payload").and_then(bytes)?),
        })
    };
    let event = read().ok_or_else(|| {
        Failure::Corrupt(format!(
            "the entry {place} of the outbox is no event: it lacks topic, key or payload"
        ))
    })?;
    Ok(PendingEvent {
        id: PendingId::new(place),
        event,
    })
}

#[cfg(test)]
mod tests {
    use task_core::ports::ErrorKind;

    use super::*;

    fn entry(fields: &[&str]) -> Value {
        let bulk = |text: &&str| Value::BulkString(text.as_bytes().to_vec());
        let fields = fields.iter().map(bulk).collect();
        Value::Array(vec![bulk(&"5-1"), Value::Array(fields)])
    }

    #[test]
    fn foreign_fields_are_left_alone_and_a_missing_one_is_corrupt() {
        let whole = ["x", "y", "payload", "p", "key", "k", "topic", "t"];
        let read = event(&entry(&whole)).expect("an event");
        assert_eq!(read.id.as_str(), "5-1");
        assert_eq!((read.event.topic.as_str(), &*read.event.key), ("t", "k"));
        assert_eq!(read.event.payload, "p");
        for missing in ["topic", "key", "payload"] {
            let fields: Vec<&str> = whole
                .chunks(2)
                .filter(|pair| pair[0] != missing)
                .flatten()
                .copied()
                .collect();
            let error = event(&entry(&fields))
                .expect_err("no event")
                .into_port("pending");
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains("5-1"), "{error}");
        }
    }
}
