//! The tables, and how a connection is set up.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::error::OpenError;

/// Marks the file as ours ("task" in ASCII).
const APPLICATION_ID: i64 = 0x7461_736b;

/// The version of the tables below. A later one is refused, an earlier one is upgraded here.
const VERSION: i64 = 1;

/// Versions, places in the outbox and places of events come from one counter that never repeats.
/// `counter` holds a number that no used one exceeds; see `Counter` in `writer.rs`.
const TABLES: &str = "
CREATE TABLE counter (
    ceiling INTEGER NOT NULL,
    notified INTEGER NOT NULL   -- notifications received in all, also those removed since
) STRICT;
INSERT INTO counter VALUES (0, 0);

CREATE TABLE records (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    value BLOB,                 -- NULL is a tombstone
    version INTEGER NOT NULL,
    expires_at INTEGER,         -- microseconds since 1970
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX records_by_expiry ON records (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE outbox (
    place INTEGER PRIMARY KEY,
    topic TEXT NOT NULL,
    key TEXT NOT NULL,
    payload BLOB NOT NULL
) STRICT;

CREATE TABLE events (
    topic TEXT NOT NULL,
    place INTEGER NOT NULL,
    key TEXT NOT NULL,
    payload BLOB NOT NULL,
    PRIMARY KEY (topic, place)
) STRICT, WITHOUT ROWID;

CREATE TABLE positions (        -- a group has finished everything up to here, but for its retries
    topic TEXT NOT NULL,
    consumer TEXT NOT NULL,
    place INTEGER NOT NULL,
    PRIMARY KEY (topic, consumer)
) STRICT, WITHOUT ROWID;

CREATE TABLE retries (          -- events that a group has read and not finished
    topic TEXT NOT NULL,
    consumer TEXT NOT NULL,
    place INTEGER NOT NULL,
    deliveries INTEGER NOT NULL,
    due_at INTEGER NOT NULL,    -- microseconds since 1970
    PRIMARY KEY (topic, consumer, place)
) STRICT, WITHOUT ROWID;

CREATE TABLE notifications (
    place INTEGER PRIMARY KEY,
    idempotency_key TEXT NOT NULL UNIQUE,
    body BLOB NOT NULL,
    received_at INTEGER NOT NULL -- microseconds since 1970
) STRICT;
";

/// Opens the writing connection and brings the tables up to date.
pub(super) fn open_writer(path: &Path) -> Result<Connection, OpenError> {
    let connection = connect(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
    )?;
    let database = |source: rusqlite::Error| database_error(path, source);
    check_owner(&connection, path)?;
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA fullfsync = ON;
             PRAGMA wal_autocheckpoint = 2000;
             PRAGMA journal_size_limit = 67108864;
             PRAGMA cache_size = -4096;",
        )
        .map_err(database)?;
    if user_version(&connection).map_err(database)? == 0 {
        let create = format!(
            "BEGIN IMMEDIATE; {TABLES}
             PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;"
        );
        connection.execute_batch(&create).map_err(database)?;
    }
    Ok(connection)
}

/// Opens a connection that only reads.
pub(super) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection
        .execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -2048;")
        .map_err(|source| database_error(path, source))?;
    Ok(connection)
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, OpenError> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(path, flags).map_err(|source| database_error(path, source))?;
    connection.set_prepared_statement_cache_capacity(64);
    connection
        .execute_batch(
            "PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY; PRAGMA busy_timeout = 5000;",
        )
        .map_err(|source| database_error(path, source))?;
    Ok(connection)
}

/// Refuses a file that another program or a later version wrote.
fn check_owner(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let read = |sql: &str| {
        connection
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .map_err(|source| database_error(path, source))
    };
    let is_empty = read("SELECT count(*) FROM sqlite_schema")? == 0;
    if !is_empty && read("PRAGMA application_id")? != APPLICATION_ID {
        return Err(OpenError::Foreign {
            path: path.to_owned(),
        });
    }
    let found = user_version(connection).map_err(|source| database_error(path, source))?;
    if found > VERSION {
        return Err(OpenError::TooNew {
            path: path.to_owned(),
            found,
            known: VERSION,
        });
    }
    Ok(())
}

fn user_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

fn database_error(path: &Path, source: rusqlite::Error) -> OpenError {
    OpenError::Database {
        path: path.to_owned(),
        source: Box::new(source),
    }
}
