//! A notifier whose receiver is a table: the place to look when no address is configured.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::params;
use task_core::domain::Timestamp;
use task_core::ports::{Notification, Notifier, PortError};

use super::database::Database;
use super::error::Error;
use super::writer::{Session, Urgency};

/// Notifications kept; older ones are removed, and their keys forgotten.
const MAX_KEPT: i64 = 10_000;

/// Notifications between two removals of older ones.
const TRIM_EVERY: i64 = 256;

/// Keeps notifications in the file, each idempotency key once, the newest 10,000 of them.
#[derive(Debug, Clone)]
pub struct EmbeddedNotifier {
    database: Arc<Database>,
}

/// A notification that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The notification.
    pub notification: Notification,
    /// When it arrived first.
    pub received_at: Timestamp,
}

impl EmbeddedNotifier {
    pub(super) fn new(database: Arc<Database>) -> Self {
        Self { database }
    }

    /// Reads up to `limit` notifications, newest first, and how many arrived in all.
    ///
    /// # Errors
    /// As the reads of the state store.
    pub async fn received(&self, limit: usize) -> Result<(u64, Vec<Received>), PortError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.database
            .read("received", move |connection| {
                let count = connection
                    .prepare_cached("SELECT notified FROM counter")?
                    .query_row([], |row| row.get::<_, i64>(0))?;
                let mut statement = connection.prepare_cached(
                    "SELECT idempotency_key, body, received_at FROM notifications
                     ORDER BY place DESC LIMIT ?1",
                )?;
                let received = statement.query_map([limit], |row| {
                    Ok(Received {
                        notification: Notification {
                            idempotency_key: row.get::<_, String>(0)?.into(),
                            body: Bytes::from(row.get::<_, Vec<u8>>(1)?),
                        },
                        received_at: Timestamp::from_unix_micros(row.get(2)?),
                    })
                })?;
                let received = received.collect::<rusqlite::Result<_>>()?;
                Ok((u64::try_from(count).unwrap_or(0), received))
            })
            .await
    }
}

fn keep(
    session: &mut Session<'_>,
    notification: &Notification,
    now: Timestamp,
) -> Result<(), Error> {
    let place = session.next()?;
    let added = session.execute(
        "INSERT INTO notifications (place, idempotency_key, body, received_at)
         VALUES (?1, ?2, ?3, ?4) ON CONFLICT (idempotency_key) DO NOTHING",
        params![
            place,
            &*notification.idempotency_key,
            &*notification.body,
            now.unix_micros()
        ],
    )?;
    if added == 0 {
        return Ok(());
    }
    let notified: i64 = session
        .prepare("UPDATE counter SET notified = notified + 1 RETURNING notified")?
        .query_row([], |row| row.get(0))?;
    if notified % TRIM_EVERY != 0 {
        return Ok(());
    }
    session.execute(
        "DELETE FROM notifications WHERE place <
         (SELECT place FROM notifications ORDER BY place DESC LIMIT 1 OFFSET ?1)",
        [MAX_KEPT - 1],
    )?;
    Ok(())
}

#[async_trait]
impl Notifier for EmbeddedNotifier {
    async fn notify(&self, notification: &Notification) -> Result<(), PortError> {
        let (notification, now) = (notification.clone(), self.database.clock().now());
        self.database
            .write("notify", Urgency::Background, move |session| {
                keep(session, &notification, now)
            })
            .await
    }

    async fn check(&self) -> Result<(), PortError> {
        self.database.check().await
    }
}
