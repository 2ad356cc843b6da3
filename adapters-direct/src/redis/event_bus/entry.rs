//! Entries of a stream, as `pubsub.redis` of Dapr writes and reads them.
//!
//! Dapr writes two fields: `data`, the payload, and, where the request had any, `metadata`, a JSON object
//! of texts. It reads these two and ignores every other field, so a dead letter says in fields of ours why
//! it is one, and the key of an event travels in a field
//! `key` of ours. An entry without that field has the key that its publisher meant by Dapr's means:
//! `partitionKey` of the metadata, else `subject` of the CloudEvents envelope. Both are the task's id in
//! events of ours, so they are in order with those that were published directly. Any other foreign event
//! has no key, and no order.
//!
//! *Source:* components-contrib 1.16 to 1.18, `pubsub/redis/redis.go`, `Publish` and
//! `createRedisMessageWrapper`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use redis::{RedisWrite, ToRedisArgs, Value};
use serde::Deserialize;

use super::super::answer::{converted, not_understood};
use super::super::error::{Effect, Failure};

/// The payload.
const DATA: &[u8] = b"data";

/// The key of an event: ours, Dapr does not know it.
const KEY: &[u8] = b"key";

/// What a publisher told Dapr beside the payload, as JSON.
const METADATA: &[u8] = b"metadata";

/// The fields of an event, in the order in which they are written.
pub(super) fn fields<'a>(key: &'a str, payload: &'a [u8]) -> [&'a [u8]; 4] {
    [DATA, payload, KEY, key.as_bytes()]
}

/// The place of an entry in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(in crate::redis) struct EntryId {
    /// Milliseconds since 1970, by the server's clock.
    milliseconds: u64,
    /// Keeps those of a millisecond apart.
    sequence: u64,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.milliseconds, self.sequence)
    }
}

impl FromStr for EntryId {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let number = |part: &str| match part.starts_with('+') {
            true => None,
            false => part.parse().ok(),
        };
        let parse = || {
            let (milliseconds, sequence) = text.split_once('-')?;
            Some(Self {
                milliseconds: number(milliseconds)?,
                sequence: number(sequence)?,
            })
        };
        let found = format!("{text:?} is no id of an entry");
        parse().ok_or_else(|| not_understood(&found, Effect::Write))
    }
}

impl ToRedisArgs for EntryId {
    fn write_redis_args<W: RedisWrite + ?Sized>(&self, out: &mut W) {
        out.write_arg_fmt(self);
    }
}

/// An entry of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: EntryId,
    pub(super) key: Box<str>,
    /// Empty where the entry has no `data`, as Dapr takes it.
    pub(super) payload: Bytes,
}

impl Entry {
    /// Reads `[id, [field, value, …]]`.
    ///
    /// `None` for a pending entry that is not in the stream any more: Redis before 7.0 answers it without
    /// fields.
    pub(super) fn parse(value: Value) -> Result<Option<Self>, Failure> {
        let entry: Option<(String, Option<Vec<Vec<u8>>>)> = converted(value, Effect::Write)?;
        let Some((id, Some(fields))) = entry else {
            return Ok(None);
        };
        let (mut data, mut key, mut metadata) = (None, None, None);
        let mut fields = fields.into_iter();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            match name.as_slice() {
                DATA => data = Some(value),
                KEY => key = String::from_utf8(value).ok(),
                METADATA => metadata = Some(value),
                _ => {}
            }
        }
        let payload = Bytes::from(data.unwrap_or_default());
        let key = key
            .or_else(|| partition_key(&metadata?))
            .or_else(|| subject(&payload));
        Ok(Some(Self {
            id: id.parse()?,
            key: key.unwrap_or_default().into(),
            payload,
        }))
    }
}

/// The key that a publisher gave to Dapr.
fn partition_key(metadata: &[u8]) -> Option<String> {
    let mut metadata: HashMap<String, String> = serde_json::from_slice(metadata).ok()?;
    metadata.remove("partitionKey")
}

/// What an event is about, if the payload is an envelope.
fn subject(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        specversion: Option<Cow<'a, str>>,
        #[serde(borrow)]
        subject: Option<Cow<'a, str>>,
    }
    let envelope: Envelope<'_> = serde_json::from_slice(payload).ok()?;
    envelope.specversion?;
    envelope.subject.map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(fields: &[(&str, &str)]) -> Entry {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let fields = fields
            .iter()
            .flat_map(|(name, value)| [text(name), text(value)]);
        let value = Value::Array(vec![text("7-3"), Value::Array(fields.collect())]);
        let entry = Entry::parse(value).expect("an entry");
        entry.expect("an entry that is still there")
    }

    #[test]
    fn ids_are_ordered_by_number_and_written_as_they_were_read() {
        let ids = [
            "9-0",
            "10-9",
            "10-10",
            "18446744073709551615-18446744073709551615",
        ];
        let parsed = ids.map(|id| id.parse::<EntryId>().expect("an id"));
        assert!(parsed.is_sorted());
        assert_eq!(parsed.map(|id| id.to_string()), ids);
        for text in [
            "",
            "1",
            "-",
            "1-",
            "-1",
            "1-x",
            "1-2-3",
            "+1-2",
            "(1-2",
            "1 -2",
            "18446744073709551616-0",
        ] {
            assert!(text.parse::<EntryId>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_key_is_ours_then_that_of_dapr_then_the_subject() {
        let envelope = r#"{"specversion":"1.0","subject":"s","data":{"subject":"no"}}"#;
        let metadata = r#"{"partitionKey":"p","rawPayload":"true"}"#;
        let all = [("metadata", metadata), ("key", "k"), ("data", envelope)];
        let key = |fields: &[(&str, &str)]| entry(fields).key;
        assert_eq!(&*key(&all), "k");
        assert_eq!(&*key(&[all[2], all[0]]), "p");
        assert_eq!(&*key(&[all[2]]), "s");
        assert_eq!(&*key(&[all[2], ("metadata", "{}")]), "s");
        assert_eq!(&*key(&[all[2], ("key", "")]), "");
    }

    #[test]
    fn what_is_no_envelope_has_no_key() {
        for payload in [
            r#"{"subject":"s"}"#,
            r#"{"specversion":"1.0"}"#,
            "not JSON",
            "[]",
            "null",
            "",
        ] {
            assert_eq!(&*entry(&[("data", payload)]).key, "", "{payload}");
        }
    }

    #[test]
    fn the_payload_is_kept_and_unknown_fields_are_ignored() {
        let entry = entry(&[("x", "y"), ("data", "{\"a\": 1.0}\n"), ("z", "")]);
        assert_eq!(entry.payload, "{\"a\": 1.0}\n");
        assert_eq!(entry.id.to_string(), "7-3");
    }

    #[test]
    fn an_entry_that_is_gone_is_none() {
        assert_eq!(Entry::parse(Value::Nil).expect("nothing"), None);
        let id = Value::BulkString(b"7-3".to_vec());
        let gone = Value::Array(vec![id, Value::Nil]);
        assert_eq!(Entry::parse(gone).expect("nothing"), None);
    }
}
