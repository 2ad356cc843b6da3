//! The table of records: values, versions, expiry and tombstones.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};
use task_core::domain::Timestamp;
use task_core::ports::{
    DeleteMode, DeleteOptions, ETag, Guard, Key, Kind, Page, PutOptions, Stored, Write, WriteMode,
};

use super::error::Error;
use super::writer::Session;

/// Expired records removed by one sweep.
pub(super) const SWEEP_LIMIT: usize = 1_000;

/// A record that has a value and has not expired at `?now`.
macro_rules! live {
    ($now:literal) => {
        concat!(
            "value IS NOT NULL AND (expires_at IS NULL OR expires_at > ",
            $now,
            ")"
        )
    };
}

pub(super) fn get(
    connection: &Connection,
    key: &Key,
    now: Timestamp,
) -> Result<Option<Stored>, Error> {
    let sql = concat!(
        "SELECT value, version FROM records WHERE kind = ?1 AND id = ?2 AND ",
        live!("?3")
    );
    let found = connection
        .prepare_cached(sql)?
        .query_row(
            params![key.kind.as_str(), &*key.id, now.unix_micros()],
            stored,
        )
        .optional()?;
    Ok(found)
}

pub(super) fn scan(
    connection: &Connection,
    kind: Kind,
    from: &str,
    limit: usize,
    now: Timestamp,
) -> Result<Page, Error> {
    let sql = concat!(
        "SELECT value, version, id FROM records WHERE kind = ?1 AND id > ?2 AND ",
        live!("?3"),
        " ORDER BY id LIMIT ?4"
    );
    let limit = limit.max(1);
    let rows = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(sql)?;
    let entries = statement
        .query_map(
            params![kind.as_str(), from, now.unix_micros(), rows],
            |row| {
                let id: String = row.get(2)?;
                Ok((Key::new(kind, id), stored(row)?))
            },
        )?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let next = (entries.len() == limit)
        .then(|| entries.last().map(|(key, _)| key.id.to_string()))
        .flatten();
    Ok(Page { entries, next })
}

fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let value: Vec<u8> = row.get(0)?;
    let version: i64 = row.get(1)?;
    Ok(Stored {
        value: Bytes::from(value),
        etag: etag_of(version),
    })
}

/// Refuses a commit whose guards do not hold.
pub(super) fn check(session: &Session<'_>, guards: &[Guard], now: Timestamp) -> Result<(), Error> {
    for guard in guards {
        let found = get(session.connection(), &guard.key, now)?.map(|stored| stored.value);
        if !guard.expect.accepts(found.as_deref()) {
            return Err(Error::Denied(guard.clone()));
        }
    }
    Ok(())
}

/// Applies all writes or none, and answers the version that each gave its key.
pub(super) fn write_all(
    session: &mut Session<'_>,
    writes: &[Write],
    now: Timestamp,
) -> Result<Vec<Option<ETag>>, Error> {
    match writes {
        [] => Ok(Vec::new()),
        // A single write that is refused has changed nothing that would need undoing.
        [one] => Ok(vec![write(session, one, now)?]),
        writes => session.all_or_nothing(|session| {
            writes
                .iter()
                .map(|one| write(session, one, now))
                .collect::<Result<_, _>>()
        }),
    }
}

fn write(session: &mut Session<'_>, write: &Write, now: Timestamp) -> Result<Option<ETag>, Error> {
    match write {
        Write::Put {
            key,
            value,
            options,
        } => put(session, key, value, options, now).map(Some),
        Write::Delete { key, options } => delete(session, key, options, now).map(|()| None),
    }
}

pub(super) fn put(
    session: &mut Session<'_>,
    key: &Key,
    value: &[u8],
    options: &PutOptions,
    now: Timestamp,
) -> Result<ETag, Error> {
    if options.mode == WriteMode::Raise
        && let Some(stored) = get(session.connection(), key, now)?
        && stored.value.as_ref() >= value
    {
        return Ok(stored.etag);
    }
    let version = session.next()?;
    let expires_at = options.ttl.map(|ttl| now.saturating_add(ttl).unix_micros());
    let (kind, id) = (key.kind.as_str(), &*key.id);
    let changed = match &options.mode {
        // Nobody else writes between the comparison above and this.
        WriteMode::Overwrite | WriteMode::Raise => session.execute(
            "INSERT OR REPLACE INTO records (kind, id, value, version, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![kind, id, value, version, expires_at],
        )?,
        WriteMode::Create => session.execute(
            "INSERT INTO records (kind, id, value, version, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE
             SET value = excluded.value, version = excluded.version, expires_at = excluded.expires_at
             WHERE records.expires_at <= ?6",
            params![kind, id, value, version, expires_at, now.unix_micros()],
        )?,
        WriteMode::Match(etag) => session.execute(
            concat!(
                "UPDATE records SET value = ?3, version = ?4, expires_at = ?5
                 WHERE kind = ?1 AND id = ?2 AND version = ?6 AND ",
                live!("?7")
            ),
            params![
                kind,
                id,
                value,
                version,
                expires_at,
                version_of(etag),
                now.unix_micros()
            ],
        )?,
    };
    match (changed, &options.mode) {
        (0, WriteMode::Create) => Err(Error::Conflict(format!("{key} exists or was deleted"))),
        (0, _) => Err(Error::Conflict(format!("{key} has another version"))),
        _ => Ok(etag_of(version)),
    }
}

pub(super) fn delete(
    session: &mut Session<'_>,
    key: &Key,
    options: &DeleteOptions,
    now: Timestamp,
) -> Result<(), Error> {
    let (kind, id) = (key.kind.as_str(), &*key.id);
    let matched = match &options.mode {
        DeleteMode::Any => None,
        DeleteMode::Match(etag) => Some(version_of(etag)),
        DeleteMode::AtMost(most) => {
            let found = get(session.connection(), key, now)?;
            if found.is_some_and(|stored| stored.value > *most) {
                return Ok(());
            }
            None
        }
    };
    let changed = match (matched, options.tombstone) {
        (None, None) => session.execute(
            "DELETE FROM records WHERE kind = ?1 AND id = ?2 AND value IS NOT NULL",
            params![kind, id],
        )?,
        (Some(version), None) => session.execute(
            concat!(
                "DELETE FROM records WHERE kind = ?1 AND id = ?2 AND version = ?3 AND ",
                live!("?4")
            ),
            params![kind, id, version, now.unix_micros()],
        )?,
        (None, Some(keep)) => {
            let version = session.next()?;
            session.execute(
                "INSERT OR REPLACE INTO records (kind, id, value, version, expires_at)
                 VALUES (?1, ?2, NULL, ?3, ?4)",
                params![kind, id, version, now.saturating_add(keep).unix_micros()],
            )?
        }
        (Some(matched), Some(keep)) => {
            let version = session.next()?;
            session.execute(
                concat!(
                    "UPDATE records SET value = NULL, version = ?3, expires_at = ?4
                     WHERE kind = ?1 AND id = ?2 AND version = ?5 AND ",
                    live!("?6")
                ),
                params![
                    kind,
                    id,
                    version,
                    now.saturating_add(keep).unix_micros(),
                    matched,
                    now.unix_micros()
                ],
            )?
        }
    };
    if changed == 0 && matched.is_some() {
        return Err(Error::Conflict(format!("{key} has another version")));
    }
    Ok(())
}

/// Removes up to [`SWEEP_LIMIT`] expired records and tombstones, and answers how many.
pub(super) fn sweep(connection: &Connection, now: Timestamp) -> rusqlite::Result<usize> {
    connection
        .prepare_cached(
            "DELETE FROM records WHERE (kind, id) IN
             (SELECT kind, id FROM records WHERE expires_at <= ?1 LIMIT ?2)",
        )?
        .execute(params![
            now.unix_micros(),
            i64::try_from(SWEEP_LIMIT).unwrap_or(i64::MAX)
        ])
}

fn etag_of(version: i64) -> ETag {
    ETag::new(version.to_string())
}

/// The version that an `ETag` names; 0, which no record has, for one that is not ours.
fn version_of(etag: &ETag) -> i64 {
    etag.as_str().parse().unwrap_or(0)
}
