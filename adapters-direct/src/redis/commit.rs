//! A commit as one call of a script, and what the script's answer means.

use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, Value};
use task_core::ports::{
    Commit, DeleteMode, DeleteOptions, ETag, Event, Expect, Guard, PutOptions, Write, WriteMode,
};

use super::answer::{corrupt, is, parts, text, unexpected};
use super::error::{Effect, Failure};
use super::known::{self, Known};
use super::layout::Names;
use super::script::Script;

/// Longer limits than about ten thousand years count as none.
const LONGEST_MS: u128 = 10_000 * 365 * 24 * 60 * 60 * 1000;

/// What one step reads, writes and records.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step<'a> {
    guards: &'a [Guard],
    writes: &'a [Write],
    events: &'a [Event],
}

impl<'a> Step<'a> {
    /// All of a commit.
    pub(super) fn of(commit: &'a Commit) -> Self {
        Self {
            guards: &commit.guards,
            writes: &commit.writes,
            events: &commit.events,
        }
    }

    /// One write alone.
    pub(super) fn one(write: &'a Write) -> Self {
        Self {
            guards: &[],
            writes: std::slice::from_ref(write),
            events: &[],
        }
    }

    /// The call of the script that does it, given what is known of the records.
    pub(super) fn call(&self, names: &Names, script: &Script, known: &[Known]) -> Cmd {
        let items = self.guards.len() + self.writes.len();
        let needs_outbox = !self.events.is_empty() || !known.is_empty();
        let lists = self.lists(names);
        let before_lists = names.width() * items;
        let keys = before_lists + lists.len() + usize::from(needs_outbox);
        let arguments = 3 + 2 * self.guards.len() + 6 * self.writes.len() + 3 * self.events.len();
        let mut call = script.call(keys + arguments, self.bytes());
        call.arg(keys);
        let guarded = self.guards.iter().map(|guard| &guard.key);
        for key in guarded.chain(self.writes.iter().map(Write::key)) {
            names.add_keys(key, &mut call);
        }
        call.arg(&lists);
        if needs_outbox {
            call.arg(names.outbox());
        }
        call.arg(self.guards.len()).arg(self.writes.len());
        known::add(known, &mut call);
        for guard in self.guards {
            match &guard.expect {
                Expect::Absent => call.arg("absent").arg(""),
                Expect::AtMost(most) => call.arg("at_most").arg(most.as_ref()),
            };
        }
        for write in self.writes {
            add_write(write, &mut call);
            call.arg(joined(names, write, known).as_ref());
            let list = names.list(write.key().kind);
            match lists.iter().position(|known| list.as_ref() == Some(known)) {
                Some(place) => call.arg(before_lists + place + 1),
                None => call.arg(""),
            };
        }
        for event in self.events {
            call.arg(event.topic.as_str())
                .arg(event.key.as_ref())
                .arg(event.payload.as_ref());
        }
        call
    }

    /// The lists on which what it writes may stand.
    fn lists(&self, names: &Names) -> Vec<String> {
        let kinds = self.writes.iter().map(|write| write.key().kind);
        let mut lists: Vec<String> = kinds.filter_map(|kind| names.list(kind)).collect();
        lists.sort_unstable();
        lists.dedup();
        lists
    }

    /// About how long the call is, so that it need not grow.
    fn bytes(&self) -> usize {
        const NAMES: usize = 192;
        let written = self.writes.iter().map(|write| match write {
            Write::Put { value, .. } => value.len() + NAMES,
            Write::Delete { .. } => NAMES,
        });
        let events = self.events.iter().map(|event| event.payload.len() + NAMES);
        written.chain(events).sum::<usize>() + NAMES * self.guards.len()
    }

    /// The versions of what was written, or why nothing was.
    pub(super) fn outcome(
        &self,
        names: &Names,
        answer: &Value,
    ) -> Result<Vec<Option<ETag>>, Failure> {
        let unexpected = || unexpected(answer, Effect::Write);
        match parts(answer) {
            [word, etags @ ..] if is(word, "ok") && etags.len() == self.writes.len() => {
                let etags = self.writes.iter().zip(etags);
                let etags = etags.map(|(write, etag)| match (write, text(etag)) {
                    (Write::Delete { .. }, _) => Ok(None),
                    (Write::Put { value, .. }, Some(etag)) => Ok(Some(names.written(value, etag))),
                    (Write::Put { .. }, None) => Err(unexpected()),
                });
                etags.collect()
            }
            [word, Value::Int(number), why] if is(word, "conflict") => {
                let write = at(self.writes, *number).ok_or_else(unexpected)?;
                let why = text(why).unwrap_or_default();
                Err(Failure::Conflict(format!("{}: {why}", write.key())))
            }
            [word, Value::Int(number)] if is(word, "denied") => {
                let guard = at(self.guards, *number).ok_or_else(unexpected)?;
                Err(Failure::Guard(guard.clone()))
            }
            _ => Err(corrupt(answer).unwrap_or_else(unexpected)),
        }
    }
}

/// A value with the events that are known of its key; empty where there are none.
fn joined(names: &Names, write: &Write, known: &[Known]) -> Bytes {
    let Write::Put { key, value, .. } = write else {
        return Bytes::new();
    };
    if known.is_empty() {
        return Bytes::new();
    }
    let name = names.value(key);
    let record = known.iter().find(|known| known.name() == name);
    record.map_or_else(Bytes::new, |record| record.join(value))
}

fn add_write(write: &Write, call: &mut Cmd) {
    match write {
        Write::Put { value, options, .. } => {
            let PutOptions { mode, ttl } = options;
            match mode {
                WriteMode::Overwrite => call.arg("overwrite").arg(""),
                WriteMode::Create => call.arg("create").arg(""),
                WriteMode::Match(etag) => call.arg("match").arg(etag.as_str()),
                WriteMode::Raise => call.arg("raise").arg(""),
            };
            call.arg(value.as_ref());
            match ttl.and_then(milliseconds) {
                Some(limit) => call.arg(limit),
                None => call.arg(""),
            };
        }
        Write::Delete { options, .. } => {
            let DeleteOptions { mode, tombstone } = options;
            match mode {
                DeleteMode::Any => call.arg("delete").arg(""),
                DeleteMode::Match(etag) => call.arg("delete_match").arg(etag.as_str()),
                DeleteMode::AtMost(most) => call.arg("delete_at_most").arg(most.as_ref()),
            };
            call.arg("");
            match tombstone.map(milliseconds) {
                None => call.arg(""),
                Some(None) => call.arg("ever"),
                Some(Some(limit)) => call.arg(limit),
            };
        }
    }
}

/// A limit as Redis counts it, at least 1 ms; `None` for one that nobody will see the end of.
fn milliseconds(limit: Duration) -> Option<u64> {
    let limit = limit.as_nanos().div_ceil(1_000_000).max(1);
    let limit = (limit <= LONGEST_MS).then_some(limit)?;
    u64::try_from(limit).ok()
}

/// The item that Lua counts with this number.
fn at<T>(items: &[T], number: i64) -> Option<&T> {
    items.get(usize::try_from(number).ok()?.checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_at_least_a_millisecond_and_has_an_end() {
        for (limit, expected) in [
            (Duration::ZERO, Some(1)),
            (Duration::from_nanos(1), Some(1)),
            (Duration::from_micros(1_001), Some(2)),
            (Duration::from_secs(1), Some(1_000)),
            (Duration::from_secs(u64::MAX), None),
            (Duration::MAX, None),
        ] {
            assert_eq!(milliseconds(limit), expected, "{limit:?}");
        }
    }
}
