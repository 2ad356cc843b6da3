//! The tables of events: pending ones, published ones, and how far each group is.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};
use task_core::ports::{Event, PendingEvent, PendingId, StartAt, Subscription, Topic};

use super::error::Error;
use super::writer::Session;

/// Events of a topic that stay after every group is past them, for groups that begin later.
const RETAINED: i64 = 10_000;

/// Pending events read at once.
const PAGE: usize = 256;

/// A published event at its place in its topic.
#[derive(Debug, Clone)]
pub(super) struct PlacedEvent {
    pub(super) place: i64,
    pub(super) key: Box<str>,
    pub(super) payload: Bytes,
}

/// An event that a group has read and not finished.
#[derive(Debug, Clone)]
pub(super) struct StoredRetry {
    pub(super) event: PlacedEvent,
    pub(super) deliveries: u32,
    /// Microseconds since 1970.
    pub(super) due_at: i64,
}

pub(super) fn record_pending(session: &mut Session<'_>, events: &[Event]) -> Result<(), Error> {
    for event in events {
        let place = session.next()?;
        session.execute(
            "INSERT INTO outbox (place, topic, key, payload) VALUES (?1, ?2, ?3, ?4)",
            params![place, event.topic.as_str(), &*event.key, &*event.payload],
        )?;
    }
    Ok(())
}

pub(super) fn pending(
    connection: &Connection,
    after: i64,
    limit: usize,
) -> Result<Vec<PendingEvent>, Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(
        "SELECT place, topic, key, payload FROM outbox WHERE place > ?1 ORDER BY place LIMIT ?2",
    )?;
    let events = statement.query_map(params![after, limit], |row| {
        let place: i64 = row.get(0)?;
        Ok(PendingEvent {
            id: PendingId::new(place.to_string()),
            event: Event {
                topic: Topic::new(row.get::<_, String>(1)?),
                key: row.get::<_, String>(2)?.into(),
                payload: Bytes::from(row.get::<_, Vec<u8>>(3)?),
            },
        })
    })?;
    Ok(events.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn settle(session: &Session<'_>, places: &[i64]) -> Result<(), Error> {
    let mut statement = session.prepare("DELETE FROM outbox WHERE place = ?1")?;
    for place in places {
        statement.execute([place])?;
    }
    Ok(())
}

pub(super) fn publish(session: &mut Session<'_>, event: &Event) -> Result<(), Error> {
    let place = session.next()?;
    session.execute(
        "INSERT INTO events (topic, place, key, payload) VALUES (?1, ?2, ?3, ?4)",
        params![event.topic.as_str(), place, &*event.key, &*event.payload],
    )?;
    Ok(())
}

pub(super) fn publish_all(session: &mut Session<'_>, events: &[Event]) -> Result<(), Error> {
    events.iter().try_for_each(|event| publish(session, event))
}

/// Publishes everything in the outbox and empties it.
pub(super) fn publish_pending(session: &mut Session<'_>) -> Result<(), Error> {
    loop {
        let page = pending(session.connection(), 0, PAGE)?;
        if page.is_empty() {
            return Ok(());
        }
        for PendingEvent { id, event } in page {
            publish(session, &event)?;
            session.execute("DELETE FROM outbox WHERE place = ?1", [id.as_str()])?;
        }
    }
}

/// Fixes where a group begins, unless it has a position already; answers the position.
pub(super) fn join(session: &mut Session<'_>, wanted: &Subscription) -> Result<i64, Error> {
    let (topic, consumer) = (wanted.topic.as_str(), wanted.group.as_str());
    if let Some(place) = position(session, topic, consumer)? {
        return Ok(place);
    }
    let place = match &wanted.start {
        StartAt::Beginning => 0,
        StartAt::End => end_of(session, topic)?,
        StartAt::Group(other) => match position(session, topic, other.as_str())? {
            Some(place) => {
                session.execute(
                    "INSERT INTO retries (topic, consumer, place, deliveries, due_at)
                     SELECT topic, ?3, place, 0, 0 FROM retries WHERE topic = ?1 AND consumer = ?2",
                    params![topic, other.as_str(), consumer],
                )?;
                place
            }
            None => end_of(session, topic)?,
        },
    };
    session.execute(
        "INSERT INTO positions (topic, consumer, place) VALUES (?1, ?2, ?3)",
        params![topic, consumer, place],
    )?;
    Ok(place)
}

fn position(session: &Session<'_>, topic: &str, consumer: &str) -> Result<Option<i64>, Error> {
    let place = session
        .prepare("SELECT place FROM positions WHERE topic = ?1 AND consumer = ?2")?
        .query_row([topic, consumer], |row| row.get(0))
        .optional()?;
    Ok(place)
}

fn end_of(session: &Session<'_>, topic: &str) -> Result<i64, Error> {
    let place: Option<i64> = session
        .prepare("SELECT max(place) FROM events WHERE topic = ?1")?
        .query_row([topic], |row| row.get(0))?;
    Ok(place.unwrap_or(0))
}

pub(super) fn read(
    connection: &Connection,
    topic: &str,
    after: i64,
    limit: usize,
) -> Result<Vec<PlacedEvent>, Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(
        "SELECT place, key, payload FROM events
         WHERE topic = ?1 AND place > ?2 ORDER BY place LIMIT ?3",
    )?;
    let events = statement.query_map(params![topic, after, limit], placed)?;
    Ok(events.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn read_retries(
    connection: &Connection,
    topic: &str,
    consumer: &str,
) -> Result<Vec<StoredRetry>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT place, key, payload, deliveries, due_at FROM retries JOIN events USING (topic, place)
         WHERE topic = ?1 AND consumer = ?2 ORDER BY place",
    )?;
    let retries = statement.query_map([topic, consumer], |row| {
        Ok(StoredRetry {
            event: placed(row)?,
            deliveries: row.get(3)?,
            due_at: row.get(4)?,
        })
    })?;
    Ok(retries.collect::<rusqlite::Result<_>>()?)
}

fn placed(row: &Row<'_>) -> rusqlite::Result<PlacedEvent> {
    Ok(PlacedEvent {
        place: row.get(0)?,
        key: row.get::<_, String>(1)?.into(),
        payload: Bytes::from(row.get::<_, Vec<u8>>(2)?),
    })
}

/// What a group has done since it last stored that; stored in one step.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    /// Everything up to this place is finished or a retry.
    pub(super) position: i64,
    /// New retries, and those that changed: place, deliveries, due at (microseconds since 1970).
    pub(super) again: Vec<(i64, u32, i64)>,
    /// Finished ones that were stored as retries.
    pub(super) done: Vec<i64>,
    /// Events for the dead-letter topic.
    pub(super) dead: Vec<Event>,
}

pub(super) fn store_progress(
    session: &mut Session<'_>,
    topic: &str,
    consumer: &str,
    progress: &Progress,
) -> Result<(), Error> {
    session.execute(
        "UPDATE positions SET place = ?3 WHERE topic = ?1 AND consumer = ?2",
        params![topic, consumer, progress.position],
    )?;
    for (place, deliveries, due_at) in &progress.again {
        session.execute(
            "INSERT OR REPLACE INTO retries (topic, consumer, place, deliveries, due_at)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![topic, consumer, place, deliveries, due_at],
        )?;
    }
    for place in &progress.done {
        session.execute(
            "DELETE FROM retries WHERE topic = ?1 AND consumer = ?2 AND place = ?3",
            params![topic, consumer, place],
        )?;
    }
    progress
        .dead
        .iter()
        .try_for_each(|event| publish(session, event))
}

/// Removes events that every group of the topic has finished, but for the newest ones.
pub(super) fn trim(session: &Session<'_>, topic: &str) -> Result<(), Error> {
    session.execute(
        "DELETE FROM events WHERE topic = ?1
         AND place <= (SELECT min(place) FROM positions WHERE topic = ?1)
         AND place < (SELECT place FROM events WHERE topic = ?1 ORDER BY place DESC LIMIT 1 OFFSET ?2)
         AND place NOT IN (SELECT place FROM retries WHERE topic = ?1)",
        params![topic, RETAINED],
    )?;
    Ok(())
}
