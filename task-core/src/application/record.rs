//! A task as stores hold it: the replaced service's JSON, with what we need beside it.
//!
//! ```json
//! {"id":"…","title":"…","description":null,"status":"pending","priority":1,
//!  "created_at":"…Z","updated_at":"…Z", …unknown fields…,
//!  "_meta":{"term":0,"rev":1,"request":"…","request_term":0,"sum":"…"}}
//! ```
//!
//! The seven known fields stand at the top in the order that readers of the replaced service know.
//! Fields that we do not know are kept byte for byte and written back. What is ours lives in the one
//! field `_meta`, which a reader that knows nothing of it ignores.
//!
//! A foreign writer may change a task and write our `_meta` back as it was. So a revision counts only
//! together with the sum of the very content that it was given to.

use std::fmt;

use bytes::Bytes;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use crate::domain::{Draft, EntityTag, Priority, Revision, Status, Task, TaskId, Timestamp, Title};

const META: &str = "_meta";

/// Revisions are less than this: far above the time in microseconds, and exact in every JSON reader.
const MOST_REVISIONS: u64 = 1 << 53;

/// How a task came to be, when its create carried an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// SHA-256 of the request's meaning, in hexadecimal.
    pub request: String,
    /// The term of the task's first revision.
    pub term: u32,
}

/// A task with everything that is stored with it.
#[derive(Debug, Clone)]
pub struct TaskRecord {
    /// The task.
    pub task: Task,
    /// Its revision; `None` when a writer that knows of none stored it last.
    pub revision: Option<Revision>,
    /// The revision that a foreign writer found and left there.
    outdated: Option<Revision>,
    /// How it was created.
    pub origin: Option<Origin>,
    /// Fields of the record that we do not know, in their order.
    foreign: Fields,
    /// Fields of `_meta` that this version does not know.
    foreign_meta: Fields,
    tag: EntityTag,
}

/// Bytes that are no task record.
#[derive(Debug, thiserror::Error)]
#[error("not a task record: {0}")]
pub struct RecordError(String);

/// Whether a value says that there is nothing: JSON's `null`, which a move leaves of a deleted record, or no bytes,
/// which is a deletion on backends that cannot delete conditionally.
pub(super) fn is_nothing(value: &[u8]) -> bool {
    matches!(value.trim_ascii(), b"" | b"null")
}

impl TaskRecord {
    /// The record of a new task.
    #[must_use]
    pub fn new(task: Task, revision: Revision, origin: Option<Origin>) -> Self {
        Self {
            task,
            revision: Some(revision),
            outdated: None,
            origin,
            foreign: Fields::default(),
            foreign_meta: Fields::default(),
            tag: EntityTag::of_revision(revision),
        }
    }

    /// The validator of this state of the task.
    #[must_use]
    pub fn tag(&self) -> &EntityTag {
        &self.tag
    }

    /// Gives the record its next revision, after the task was changed in a term.
    ///
    /// After a foreign write it continues at the time in microseconds, and in any case above what the
    /// foreign writer left there. Unless the clock went back, that lies above every revision given
    /// before, so no event id is used twice.
    pub fn advance(&mut self, now: Timestamp, term: u32) -> Revision {
        let last = self.outdated.take();
        let lost = Revision {
            term: last.map_or(term, |last| last.term.max(term)),
            rev: u64::try_from(now.unix_micros())
                .unwrap_or(1)
                .max(last.map_or(1, |last| last.next(term).rev)),
        };
        let next = self.revision.map_or(lost, |last| last.next(term));
        self.revision = Some(next);
        self.tag = EntityTag::of_revision(next);
        next
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Names the field that is missing or not what it should be.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let text = std::str::from_utf8(bytes).map_err(|_| RecordError("not UTF-8".to_owned()))?;
        let mut fields: Fields =
            serde_json::from_str(text).map_err(|error| RecordError(error.to_string()))?;
        let created_at: Timestamp = fields.take_parsed("created_at")?;
        let task = Task {
            id: TaskId::parse(&fields.take_required::<String>("id")?)
                .map_err(|error| RecordError(error.to_string()))?,
            draft: Draft {
                title: Title::stored(fields.take_required("title")?),
                description: fields.take::<Option<String>>("description")?.flatten(),
                priority: fields.take_priority()?,
            },
            status: fields.take_parsed::<Status>("status")?,
            created_at,
            updated_at: match fields.take::<Option<String>>("updated_at")?.flatten() {
                Some(text) => parsed("updated_at", &text)?,
                None => created_at,
            },
        };
        // What is not ours there is no reason to lose the task.
        let meta = fields.take::<Fields>(META).ok().flatten();
        let mut meta = meta.unwrap_or_default();
        let sum: Option<String> = meta.take("sum")?;
        let revision = match (meta.take("term")?, meta.take("rev")?) {
            // Nobody counts so far: it would leave no room for the next one.
            (Some(term), Some(rev)) if rev < MOST_REVISIONS => Some(Revision { term, rev }),
            _ => None,
        };
        let origin = match (meta.take("request")?, meta.take("request_term")?) {
            (Some(request), Some(term)) => Some(Origin { request, term }),
            _ => None,
        };
        let tag = revision.map_or_else(|| EntityTag::of_content(bytes), EntityTag::of_revision);
        let mut record = Self {
            task,
            revision,
            outdated: None,
            origin,
            foreign: fields,
            foreign_meta: meta,
            tag,
        };
        if revision.is_some() && sum.as_deref() != Some(&sum_of(&record.unsealed())) {
            record.outdated = record.revision.take();
            record.tag = EntityTag::of_content(bytes);
        }
        Ok(record)
    }

    /// Writes the record as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut json = self.unsealed();
        if self.revision.is_some() {
            let sum = sum_of(&json);
            // `_meta` comes last, and is not empty: it holds the revision.
            json.truncate(json.len() - "}}".len());
            json.extend_from_slice(format!(r#","sum":"{sum}"}}}}"#).as_bytes());
        }
        Bytes::from(json)
    }

    /// The record without its sum.
    fn unsealed(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record has only string keys")
    }
}

/// What tells one content from another; it is no secret and proves nothing.
fn sum_of(unsealed: &[u8]) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(unsealed))
}

impl Serialize for TaskRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let task = &self.task;
        map.serialize_entry("id", task.id.as_str())?;
        map.serialize_entry("title", task.draft.title.as_str())?;
        map.serialize_entry("description", &task.draft.description)?;
        map.serialize_entry("status", task.status.as_str())?;
        map.serialize_entry("priority", &task.draft.priority.get())?;
        map.serialize_entry("created_at", &Displayed(task.created_at))?;
        map.serialize_entry("updated_at", &Displayed(task.updated_at))?;
        self.foreign.serialize_into(&mut map)?;
        map.serialize_entry(META, &Meta(self))?;
        map.end()
    }
}

struct Meta<'a>(&'a TaskRecord);

impl Serialize for Meta<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(revision) = self.0.revision {
            map.serialize_entry("term", &revision.term)?;
            map.serialize_entry("rev", &revision.rev)?;
        }
        if let Some(origin) = &self.0.origin {
            map.serialize_entry("request", &origin.request)?;
            map.serialize_entry("request_term", &origin.term)?;
        }
        self.0.foreign_meta.serialize_into(&mut map)?;
        map.end()
    }
}

/// Serializes a value as its text.
pub(super) struct Displayed<T>(pub(super) T);

impl<T: fmt::Display> Serialize for Displayed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// The fields of a JSON object in their order, each value as it was written.
///
/// Numbers keep their digits and strings their escapes. Of a name that stands twice the last value
/// counts, as it does for the replaced service.
#[derive(Debug, Clone, Default)]
struct Fields(Vec<(String, Box<RawValue>)>);

impl Fields {
    #[cfg(test)]
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(field, _)| field == name)
    }

    fn take<T: de::DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, RecordError> {
        let Some(index) = self.0.iter().position(|(field, _)| field == name) else {
            return Ok(None);
        };
        let (_, raw) = self.0.remove(index);
        match serde_json::from_str(raw.get()) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(RecordError(format!("{name}: {error}"))),
        }
    }

    fn take_required<T: de::DeserializeOwned>(&mut self, name: &str) -> Result<T, RecordError> {
        self.take(name)?
            .ok_or_else(|| RecordError(format!("{name} is missing")))
    }

    fn take_parsed<T>(&mut self, name: &str) -> Result<T, RecordError>
    where
        T: std::str::FromStr<Err: fmt::Display>,
    {
        let text: String = self.take_required(name)?;
        parsed(name, &text)
    }

    /// A missing or null priority is the default one; a whole number may be written as `2.0`.
    fn take_priority(&mut self) -> Result<Priority, RecordError> {
        let number: Option<serde_json::Number> = self.take::<Option<_>>("priority")?.flatten();
        let Some(number) = number else {
            return Ok(Priority::default());
        };
        let whole = number.as_i64().or_else(|| {
            let text = number.to_string();
            text.strip_suffix(".0")?.parse().ok()
        });
        match whole {
            Some(value) => Ok(Priority::stored(value)),
            None => Err(RecordError(format!("priority: {number} is not an integer"))),
        }
    }

    fn serialize_into<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        self.0
            .iter()
            .try_for_each(|(name, raw)| map.serialize_entry(name, raw))
    }
}

fn parsed<T>(name: &str, text: &str) -> Result<T, RecordError>
where
    T: std::str::FromStr<Err: fmt::Display>,
{
    text.parse()
        .map_err(|error| RecordError(format!("{name}: {error}")))
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields: Vec<(String, Box<RawValue>)> = Vec::with_capacity(10);
                while let Some((name, raw)) = map.next_entry::<String, Box<RawValue>>()? {
                    match fields.iter_mut().find(|(field, _)| *field == name) {
                        Some(field) => field.1 = raw,
                        None => fields.push((name, raw)),
                    }
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEGACY: &str = r#"{"id":"t-1","title":"a","description":null,"status":"pending","priority":2,
        "created_at":"2026-11-21T02:38:34.036210","updated_at":"2026-11-21T02:38:34.418718",
        "big":123456789012345678901234567890,"text":"\ud83d\ude80 \u0041","nested":{"b":[ ],"a":1.0}}"#;

    #[test]
    fn unknown_fields_survive_byte_for_byte() {
        let mut record = TaskRecord::decode(LEGACY.as_bytes()).expect("a legacy record");
        let _ = record.advance(Timestamp::from_unix_micros(7), 0);
        let written = String::from_utf8(record.encode().to_vec()).expect("JSON is UTF-8");
        for kept in [
            r#""big":123456789012345678901234567890"#,
            r#""text":"\ud83d\ude80 \u0041""#,
            r#""nested":{"b":[ ],"a":1.0}"#,
            r#""_meta":{"term":0,"rev":7,"sum":""#,
        ] {
            assert!(written.contains(kept), "{kept} is not in {written}");
        }
    }

    #[test]
    fn meta_of_a_later_version_survives() {
        let later = r#"{"id":"t","title":"a","status":"pending","created_at":"2026-01-01T00:00:00Z",
            "_meta":{"term":1,"rev":2,"pending":[{"x":1}]}}"#;
        let mut record = TaskRecord::decode(later.as_bytes()).expect("a record");
        record.revision = Some(Revision { term: 1, rev: 2 });
        let again = TaskRecord::decode(&record.encode()).expect("our own record");
        assert_eq!(again.revision, Some(Revision { term: 1, rev: 2 }));
        assert!(again.foreign_meta.has("pending"));
    }

    #[test]
    fn a_record_without_a_revision_has_a_tag_of_its_content() {
        let one = TaskRecord::decode(LEGACY.as_bytes()).expect("a legacy record");
        let other = LEGACY.replace("\"a\"", "\"b\"");
        let other = TaskRecord::decode(other.as_bytes()).expect("a legacy record");
        assert_eq!(one.revision, None);
        assert_ne!(one.tag(), other.tag());
    }

    #[test]
    fn a_revision_that_a_foreign_writer_kept_does_not_count() {
        let mut ours = TaskRecord::decode(LEGACY.as_bytes()).expect("a legacy record");
        let revision = ours.advance(Timestamp::from_unix_micros(7), 0);
        let written = String::from_utf8(ours.encode().to_vec()).expect("JSON is UTF-8");
        let read = |text: &str| TaskRecord::decode(text.as_bytes()).expect("a record");
        assert_eq!(read(&written).revision, Some(revision));
        for (from, to) in [
            (r#""status":"pending""#, r#""status":"completed""#),
            (r#""big":1"#, r#""big":2"#),
            (r#""rev":7"#, r#""rev":8"#),
            (r#","sum":""#, r#","was":""#),
        ] {
            let changed = written.replacen(from, to, 1);
            assert_ne!(changed, written, "{from} is not in {written}");
            let mut foreign = read(&changed);
            assert_eq!(foreign.revision, None, "{to}");
            assert_ne!(foreign.tag(), ours.tag(), "{to}");
            // Above what was there, also if the clock is far behind.
            let next = foreign.advance(Timestamp::from_unix_micros(3), 0);
            assert!(next.rev > revision.rev, "{next:?} after {to}");
            assert_eq!(
                read(std::str::from_utf8(&foreign.encode()).expect("JSON")).revision,
                Some(next)
            );
        }
    }

    #[test]
    fn a_meta_that_is_not_ours_loses_no_task() {
        for meta in ["null", "7", "[]", "\"x\""] {
            let text = LEGACY.replace(r#""big":"#, &format!(r#""_meta":{meta},"big":"#));
            let record = TaskRecord::decode(text.as_bytes()).expect("a record");
            assert_eq!(record.revision, None, "{meta}");
        }
    }

    #[test]
    fn null_and_whole_floats_are_read_as_other_writers_mean_them() {
        for (priority, expected) in [("null", 1), ("2.0", 2), ("7", 7)] {
            let text = LEGACY.replace(r#""priority":2"#, &format!(r#""priority":{priority}"#));
            let text = text.replace(
                r#""updated_at":"2026-11-21T02:38:34.418718""#,
                r#""updated_at":null"#,
            );
            let task = TaskRecord::decode(text.as_bytes()).expect("a record").task;
            assert_eq!(task.draft.priority.get(), expected);
            assert_eq!(task.updated_at, task.created_at);
        }
    }

    #[test]
    fn what_is_no_record_is_refused_with_the_field() {
        for (text, named) in [
            ("[]", "JSON object"),
            ("{}", "created_at is missing"),
            (&LEGACY.replace("pending", "lost"), "status"),
            (
                &LEGACY.replace("2026-11-21T02:38:34.036210", "soon"),
                "created_at",
            ),
            (
                &LEGACY.replace(r#""priority":2"#, r#""priority":"2""#),
                "priority",
            ),
        ] {
            let error = TaskRecord::decode(text.as_bytes()).expect_err("no record");
            assert!(error.to_string().contains(named), "{error}");
        }
        assert!(TaskRecord::decode(b"\xff").is_err());
    }
}
