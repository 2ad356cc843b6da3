//! Enumeration of a kind by its list or by `SCAN`, with the values of a page in one more round trip.

use bytes::Bytes;
use redis::{Cmd, Value};
use task_core::ports::{
    Commit, DeleteMode, DeleteOptions, Key, Kind, MAX_KEY_BYTES, Page, Stored, Write,
};

use super::answer::{bytes, parts, text, unexpected};
use super::commit::Step;
use super::connection::Connection;
use super::error::{Effect, Failure};
use super::layout::Names;
use super::read::Reader;

/// Keys that the server looks at in one step, at least and at most.
const COUNTS: (usize, usize) = (100, 1_000);

/// Most steps for one page. A page may be empty and not the last, where most keys are not ours.
const MOST_STEPS: usize = 32;

/// Reads a part of a kind, beginning where the last one ended.
pub(super) async fn page(
    reader: Reader<'_>,
    kind: Kind,
    from: Option<&str>,
    limit: usize,
) -> Result<Page, Failure> {
    let Reader {
        connection, names, ..
    } = reader;
    if let Some(list) = names.list(kind) {
        return listed(reader, kind, &list, from, limit).await;
    }
    let cursor = from.map_or(Ok(0), |from| cursor_in(kind, from))?;
    let of_type = (!names.reads_strings()).then(|| names.type_of_value());
    let place = Place {
        kind,
        beginning: &names.beginning(kind),
        of_type,
    };
    let (keys, cursor) = keys(connection, names, place, cursor, limit).await?;
    let (entries, _) = read_all(reader, keys).await?;
    Ok(Page {
        entries,
        next: (cursor != 0).then(|| format!("{}:{cursor}", kind.as_str())),
    })
}

/// Reads a part of a listed kind, in the order of names. A page ends with a name, whether or not it still has a value.
async fn listed(
    reader: Reader<'_>,
    kind: Kind,
    list: &str,
    from: Option<&str>,
    limit: usize,
) -> Result<Page, Failure> {
    let beginning = reader.names.beginning(kind);
    let start = match from {
        Some(from) => format!("({beginning}{}", behind(kind, from)?),
        None => "-".to_owned(),
    };
    let limit = limit.clamp(1, COUNTS.1);
    let mut command = Cmd::new();
    command.arg("ZRANGE").arg(list).arg(start).arg("+");
    command.arg("BYLEX").arg("LIMIT").arg(0).arg(limit);
    let answer = reader.connection.command(&command, Effect::Read).await?;
    let found: Option<Vec<&[u8]>> = parts(&answer).iter().map(bytes).collect();
    let found = found.ok_or_else(|| unexpected(&answer, Effect::Read))?;
    let rests = found
        .iter()
        .filter_map(|name| name.strip_prefix(beginning.as_bytes()));
    let last = rests.clone().next_back().map(String::from_utf8_lossy);
    let next = last.filter(|_| found.len() == limit);
    let keys = rests.filter_map(|rest| Some(Key::new(kind, reader.names.id(rest)?)));
    let (entries, gone) = read_all(reader, keys.collect()).await?;
    forget(reader, &gone).await;
    Ok(Page {
        entries,
        next: next.map(|rest| format!("{}:{rest}", kind.as_str())),
    })
}

/// Takes keys that have no value off their list, and leaves those that have one again.
///
/// A commit that deletes nothing does that; whoever lists the kind next tries again where it fails.
async fn forget(reader: Reader<'_>, keys: &[Key]) {
    let script = reader.names.commit(reader.connection.scripts());
    for keys in keys.chunks(Commit::MAX_ITEMS) {
        let deletions = keys.iter().map(|key| Write::Delete {
            key: key.clone(),
            options: DeleteOptions {
                mode: DeleteMode::AtMost(Bytes::new()),
                tombstone: None,
            },
        });
        let commit = deletions.fold(Commit::default(), Commit::write);
        let call = Step::of(&commit).call(reader.names, script, &[]);
        if let Err(failure) = reader.connection.call(script, &call, Effect::Write).await {
            let error = failure.into_port("scan");
            tracing::debug!(%error, "names without a value stay on their list");
        }
    }
}

/// The keys that have a value, with it, and those that have none.
async fn read_all(
    reader: Reader<'_>,
    keys: Vec<Key>,
) -> Result<(Vec<(Key, Stored)>, Vec<Key>), Failure> {
    let found = reader.each(&keys).await?;
    let (mut entries, mut gone) = (Vec::with_capacity(keys.len()), Vec::new());
    for (key, found) in keys.into_iter().zip(found) {
        match found {
            Ok(Some(stored)) => entries.push((key, stored)),
            Ok(None) => gone.push(key),
            // Somebody else's, by its type.
            Err(Failure::OtherType { .. }) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok((entries, gone))
}

/// Where names of a kind are looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) kind: Kind,
    /// What the names begin with, before the id.
    pub(super) beginning: &'a str,
    /// What `TYPE` says of them; `None` for any.
    pub(super) of_type: Option<&'a str>,
}

/// About so many keys, from a cursor on, and the cursor behind them: 0 at the end.
pub(super) async fn keys(
    connection: &Connection,
    names: &Names,
    place: Place<'_>,
    mut cursor: u64,
    limit: usize,
) -> Result<(Vec<Key>, u64), Failure> {
    let Place {
        kind,
        beginning,
        of_type,
    } = place;
    let pattern = format!("{}*", escaped(beginning));
    let count = limit.clamp(COUNTS.0, COUNTS.1);
    let mut keys = Vec::new();
    for _ in 0..MOST_STEPS {
        let mut command = Cmd::new();
        command.arg("SCAN").arg(cursor).arg("MATCH").arg(&pattern);
        command.arg("COUNT").arg(count);
        if let Some(of_type) = of_type {
            command.arg("TYPE").arg(of_type);
        }
        let answer = connection.command(&command, Effect::Read).await?;
        let step = read(&answer).ok_or_else(|| unexpected(&answer, Effect::Read));
        let (next, found) = step?;
        let ours = found.iter().filter_map(|name| {
            let id = names.id(name.strip_prefix(beginning.as_bytes())?)?;
            let fits = (1..=MAX_KEY_BYTES).contains(&id.len());
            fits.then(|| Key::new(kind, id))
        });
        keys.extend(ours);
        cursor = next;
        if cursor == 0 || keys.len() >= limit {
            break;
        }
    }
    Ok((keys, cursor))
}

fn cursor_in(kind: Kind, from: &str) -> Result<u64, Failure> {
    let digits = behind(kind, from)?;
    let is_number = digits.bytes().all(|digit| digit.is_ascii_digit());
    let cursor = is_number.then(|| digits.parse().ok()).flatten();
    cursor.ok_or_else(|| nowhere(kind, from))
}

/// Where a page of a kind has ended, without the kind.
fn behind(kind: Kind, from: &str) -> Result<&str, Failure> {
    let rest = from.strip_prefix(kind.as_str());
    let rest = rest.and_then(|rest| rest.strip_prefix(':'));
    rest.ok_or_else(|| nowhere(kind, from))
}

fn nowhere(kind: Kind, from: &str) -> Failure {
    let kind = kind.as_str();
    Failure::Invalid(format!("{from:?} is not where a page of {kind:?} ended"))
}

/// The next cursor and the names of one step.
fn read(answer: &Value) -> Option<(u64, Vec<&[u8]>)> {
    let [cursor, names] = parts(answer) else {
        return None;
    };
    let names = parts(names).iter().map(bytes).collect::<Option<_>>()?;
    Some((text(cursor)?.parse().ok()?, names))
}

/// A text as a pattern that matches nothing else.
fn escaped(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_begins_only_where_one_of_its_kind_ended() {
        assert_eq!(cursor_in(Kind::TASK, "task:17").expect("a cursor"), 17);
        for bad in [
            "",
            "17",
            "task",
            "task:",
            "task:x",
            "task:+1",
            "task:-1",
            "seen:17",
            "tasks:17",
            "task:18446744073709551616",
        ] {
            assert!(cursor_in(Kind::TASK, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pattern_matches_its_text_alone() {
        assert_eq!(escaped("a*b?[c]\\^||-"), "a\\*b\\?\\[c\\]\\\\\\^||-");
    }
}
