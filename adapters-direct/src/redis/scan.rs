//! Enumeration of a kind by `SCAN`, with the values of a page in one more round trip.

use redis::{Cmd, Value};
use task_core::ports::{Key, Kind, MAX_KEY_BYTES, Page};

use super::answer::{bytes, parts, text, unexpected};
use super::error::{Effect, Failure};
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
    let mut cursor = from.map_or(Ok(0), |from| cursor_in(kind, from))?;
    let beginning = names.beginning(kind);
    let pattern = format!("{}*", escaped(&beginning));
    let count = limit.clamp(COUNTS.0, COUNTS.1);
    let mut keys = Vec::new();
    for _ in 0..MOST_STEPS {
        let mut command = Cmd::new();
        command.arg("SCAN").arg(cursor).arg("MATCH").arg(&pattern);
        command.arg("COUNT").arg(count);
        if !names.reads_strings() {
            command.arg("TYPE").arg(names.type_of_value());
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
    let found = reader.each(&keys).await?;
    let mut entries = Vec::with_capacity(keys.len());
    for (key, found) in keys.into_iter().zip(found) {
        match found {
            Ok(stored) => entries.extend(stored.map(|stored| (key, stored))),
            // Somebody else's, by its type.
            Err(Failure::OtherType { .. }) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(Page {
        entries,
        next: (cursor != 0).then(|| format!("{}:{cursor}", kind.as_str())),
    })
}

fn cursor_in(kind: Kind, from: &str) -> Result<u64, Failure> {
    let cursor = from
        .strip_prefix(kind.as_str())
        .and_then(|rest| rest.strip_prefix(':'))
        .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok());
    cursor.ok_or_else(|| {
        let kind = kind.as_str();
        Failure::Invalid(format!("{from:?} is not where a page of {kind:?} ended"))
    })
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
