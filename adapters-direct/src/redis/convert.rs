//! Keys from one layout into the other, one atomic step each.

use std::sync::Arc;

use redis::Value;
use task_core::ports::{Clock, Key, Kind, PortError, SystemClock};

use super::answer::{bytes, corrupt, is, parts, unexpected};
use super::config::RedisLayout;
use super::connection::Connection;
use super::error::{BACKEND, Effect, Failure};
use super::known;
use super::layout::Names;
use super::read::Reader;
use super::scan;
use super::script::digest;

/// What became of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Converted {
    /// It had the other form and has the wanted one now, value, tombstone and time limit included.
    ///
    /// So it is also when it had both forms with the same value: the unwanted one is gone.
    Done,
    /// It has the wanted form and no other.
    AlreadyThere,
    /// It has neither form.
    Missing,
    /// It has both forms and they differ, or a value that Dapr's layout reserves; nothing was changed.
    ///
    /// A reserved one, which a put refuses as well, would be read as something else.
    ///
    /// Somebody has written the old form after the conversion, or the new one before it, and Redis
    /// cannot tell which is later. Who converts decides: delete the wrong one and convert again.
    Conflict,
}

/// Keys that have the form of a layout, and where the next ones begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundKeys {
    /// The keys, tombstones included; a key may come twice.
    pub keys: Vec<Key>,
    /// What to ask with for the next ones; `None` at the end.
    pub next: Option<String>,
}

/// Converts keys between the layouts, for a move without a copy.
///
/// A conversion is idempotent, so that an interrupted run may begin again. It needs no pause of other
/// writers: who matches a version of the old form is refused afterwards, because that form is gone. Only
/// a foreign writer that knows the old form alone brings it back, which is then a
/// [`Conflict`](Converted::Conflict). Versions do not survive: one of the new form was never given before.
///
/// A string has no room for the pending events that the adapter for Dapr leaves in its records: those that are not
/// settled go to the outbox of this adapter, whose relay publishes them.
#[derive(Debug, Clone)]
pub struct RedisConverter {
    connection: Arc<Connection>,
    legacy: Names,
    dapr: Names,
}

impl RedisConverter {
    pub(super) fn new(connection: Arc<Connection>, names: &Names) -> Self {
        Self {
            connection,
            legacy: names.in_layout(RedisLayout::Legacy),
            dapr: names.in_layout(RedisLayout::Dapr),
        }
    }

    /// Gives a key the form of a layout.
    ///
    /// # Errors
    /// `Invalid` for an id beyond the port's limits; `Corrupt` for a key of another type, or a hash that
    /// is not Dapr's; otherwise as a put. With an unknown outcome, convert again.
    pub async fn convert(&self, key: &Key, to: RedisLayout) -> Result<Converted, PortError> {
        const OPERATION: &str = "convert";
        key.check(BACKEND, OPERATION)?;
        let converted = self.call(key, to).await;
        converted.map_err(|failure| failure.into_port(OPERATION))
    }

    /// Lists keys of a kind that have the form of a layout, about so many at once.
    ///
    /// Unlike a scan of the store it has tombstones as well. What is there from the first call to the last comes at
    /// least once.
    ///
    /// # Errors
    /// `Invalid` for a `from` that no answer had; otherwise as a scan.
    pub async fn keys(
        &self,
        kind: Kind,
        of: RedisLayout,
        from: Option<&str>,
        limit: usize,
    ) -> Result<FoundKeys, PortError> {
        let listed = self.list(kind, of, from, limit).await;
        listed.map_err(|failure| failure.into_port("keys"))
    }

    async fn list(
        &self,
        kind: Kind,
        of: RedisLayout,
        from: Option<&str>,
        limit: usize,
    ) -> Result<FoundKeys, Failure> {
        let names = match of {
            RedisLayout::Legacy => &self.legacy,
            RedisLayout::Dapr => &self.dapr,
        };
        let place = |from: &str| {
            let (turn, cursor) = from.split_once(':')?;
            Some((turn.parse::<usize>().ok()?, cursor.parse::<u64>().ok()?))
        };
        let (turn, cursor) = match from {
            None => (0, 0),
            Some(from) => place(from).ok_or_else(|| {
                Failure::Invalid(format!("{from:?} is not where a list of keys ended"))
            })?,
        };
        let beginnings = [
            Some(names.beginning(kind)),
            names.beginning_of_tombstones(kind),
        ];
        let beginnings: Vec<_> = beginnings.into_iter().flatten().collect();
        let Some(beginning) = beginnings.get(turn) else {
            let keys = Vec::new();
            return Ok(FoundKeys { keys, next: None });
        };
        let looked = scan::Place {
            kind,
            beginning,
            of_type: Some(names.type_of_value()),
        };
        let (keys, cursor) = scan::keys(&self.connection, names, looked, cursor, limit).await?;
        let next = match cursor {
            0 => (turn + 1 < beginnings.len()).then(|| format!("{}:0", turn + 1)),
            cursor => Some(format!("{turn}:{cursor}")),
        };
        Ok(FoundKeys { keys, next })
    }

    async fn call(&self, key: &Key, to: RedisLayout) -> Result<Converted, Failure> {
        let script = &self.connection.scripts().convert;
        let (mut known, mut looked_at) = (Vec::new(), Box::default());
        for _ in 0..known::MOST_ATTEMPTS {
            let mut call = script.call(7, 256);
            let lists = [&self.legacy, &self.dapr].map(|names| names.list(key.kind));
            let lists: Vec<String> = lists.into_iter().flatten().collect();
            call.arg(self.legacy.width() + self.dapr.width() + 1 + lists.len());
            self.legacy.add_keys(key, &mut call);
            self.dapr.add_keys(key, &mut call);
            call.arg(self.dapr.outbox()).arg(lists);
            call.arg(match to {
                RedisLayout::Legacy => "legacy",
                RedisLayout::Dapr => "dapr",
            });
            call.arg(&*looked_at);
            known::add(&known, &mut call);
            let answer = self.connection.call(script, &call, Effect::Write).await?;
            if let Some(value) = reserved(&answer) {
                if self.dapr.is_taken(value) {
                    return Ok(Converted::Conflict);
                }
                looked_at = digest(value);
                continue;
            }
            let Some(records) = known::wanted(&answer) else {
                return outcome(&answer);
            };
            let reader = Reader {
                connection: &self.connection,
                names: &self.dapr,
                now: SystemClock.now(),
            };
            known = known::take_apart(reader, records).await?;
        }
        Err(known::contended(key.to_string()))
    }
}

/// The value that the script wants to have looked at, if it does.
fn reserved(answer: &Value) -> Option<&[u8]> {
    match parts(answer) {
        [word, value] if is(word, "reserved") => bytes(value),
        _ => None,
    }
}

fn outcome(answer: &Value) -> Result<Converted, Failure> {
    match parts(answer) {
        [word] if is(word, "converted") => Ok(Converted::Done),
        [word] if is(word, "already") => Ok(Converted::AlreadyThere),
        [word] if is(word, "missing") => Ok(Converted::Missing),
        [word] if is(word, "both") => Ok(Converted::Conflict),
        _ => Err(corrupt(answer).unwrap_or_else(|| unexpected(answer, Effect::Write))),
    }
}
