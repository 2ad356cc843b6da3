//! The layout of Dapr's `state.redis`: hashes with `data` and `version`.
//!
//! *Source:* dapr/components-contrib 1.16 to 1.18, `state/redis/redis.go`; dapr/dapr,
//! `pkg/components/state/state_config.go`.

use bytes::Bytes;
use redis::{Cmd, Value};
use task_core::carried::{Carried, CarriedError, CarriedEvent, Content, Limit};
use task_core::domain::Timestamp;
use task_core::ports::{CapabilitySet, ETag, Key, Kind, StateCapability, Stored};

use crate::redis::answer::{bytes, unexpected};
use crate::redis::config::KeyPrefix;
use crate::redis::error::{Effect, Failure};

/// Everything.
pub(super) const CAPABILITIES: CapabilitySet<StateCapability> = CapabilitySet::of(&[
    StateCapability::ConditionalWrites,
    StateCapability::UniqueVersions,
    StateCapability::Ttl,
    StateCapability::Tombstones,
    StateCapability::Transactions,
    StateCapability::Outbox,
    StateCapability::Guards,
    StateCapability::Scan,
    StateCapability::Durable,
]);

/// What a deletion leaves that may be created again, here and by the adapter for Dapr.
const LEFT: &[u8] = &[0];

/// What `data` say, besides their events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::redis) enum Form {
    Value(Bytes),
    /// Missing, and it may not be created again.
    Buried,
    /// Missing.
    Left,
}

/// `data`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::redis) struct Record {
    pub(in crate::redis) form: Form,
    /// Milliseconds until the form is another, where the record itself says so.
    pub(in crate::redis) left: Option<u64>,
    pub(in crate::redis) events: Vec<CarriedEvent>,
}

impl Record {
    /// Reads them as the adapter for Dapr does.
    pub(in crate::redis) fn read(data: Bytes, now: Timestamp) -> Result<Self, CarriedError> {
        let form = match data.as_ref() {
            b"" => Some(Form::Buried),
            LEFT => Some(Form::Left),
            _ => None,
        };
        if let Some(form) = form {
            return Ok(Self {
                form,
                left: None,
                events: Vec::new(),
            });
        }
        let record = Carried::split(data)?;
        let left = match record.limit {
            Limit::Until(end) => Some(end.saturating_sub(now.unix_micros() / 1000)),
            Limit::None | Limit::Kept => None,
        };
        let left = left.map(|left| u64::try_from(left).unwrap_or(0));
        Ok(Self {
            form: match record.content {
                Content::Value(_) | Content::Deleted { .. } if left == Some(0) => Form::Left,
                Content::Value(value) => Form::Value(value),
                Content::Deleted { tombstone: true } => Form::Buried,
                Content::Deleted { tombstone: false } => Form::Left,
            },
            left,
            events: record.events,
        })
    }
}

/// Says whether a value of a caller would be taken for something else when it is read.
pub(super) fn is_taken(value: &[u8]) -> bool {
    value == LEFT || Carried::is_taken(value)
}

pub(super) fn begin(prefix: &KeyPrefix, kind: Kind, name: &mut String) {
    if let KeyPrefix::Text(prefix) = prefix {
        name.extend([prefix.as_ref(), "||"]);
    }
    name.extend([kind.as_str(), "-"]);
}

/// Adds an id as Dapr takes it: it refuses `||`, so `|` is `%7C`, and `%` is `%25`.
pub(super) fn escape(id: &str, name: &mut String) {
    if !id.contains(['|', '%']) {
        return name.push_str(id);
    }
    for character in id.chars() {
        match character {
            '|' => name.push_str("%7C"),
            '%' => name.push_str("%25"),
            other => name.push(other),
        }
    }
}

/// The id that [`escape`] gave this text for; `None` if there is none.
pub(super) fn unescape(text: &str) -> Option<String> {
    if !text.contains(['%', '|']) {
        return Some(text.to_owned());
    }
    let id = text.replace("%7C", "|").replace("%25", "%");
    let mut again = String::with_capacity(text.len());
    escape(&id, &mut again);
    (again == text).then_some(id)
}

pub(super) fn read(name: &str) -> Cmd {
    let mut command = Cmd::with_capacity(4, name.len() + 16);
    command.arg("HMGET").arg(name).arg("data").arg("version");
    command
}

pub(super) fn stored(key: &Key, answer: Value, now: Timestamp) -> Result<Option<Stored>, Failure> {
    let corrupt = |what| Err(Failure::Corrupt(format!("{key} is a hash without {what}")));
    let [data, version] = fields(answer)?;
    // Also a hash that is left with other fields: it can be created again.
    if data == Value::Nil && version == Value::Nil {
        return Ok(None);
    }
    let Value::BulkString(data) = data else {
        return corrupt("data");
    };
    let Some(version) = bytes(&version).and_then(valid) else {
        return corrupt("a valid version");
    };
    let record = Record::read(data.into(), now);
    let record = record.map_err(|error| Failure::Corrupt(format!("{key}: {error}")))?;
    Ok(match record.form {
        Form::Value(value) => Some(Stored {
            value,
            etag: ETag::new(version),
        }),
        Form::Buried | Form::Left => None,
    })
}

fn fields(answer: Value) -> Result<[Value; 2], Failure> {
    let Value::Array(fields) = answer else {
        return Err(unexpected(&answer, Effect::Read));
    };
    let fields = <[Value; 2]>::try_from(fields);
    fields.map_err(|fields| unexpected(&Value::Array(fields), Effect::Read))
}

/// A version as the script takes it: a whole number above 0 and below 2^53, without leading zeros.
fn valid(version: &[u8]) -> Option<&str> {
    const MOST: u64 = 1 << 53;
    let text = std::str::from_utf8(version).ok()?;
    let number: u64 = text.parse().ok()?;
    let plain = text.starts_with(|first| matches!(first, '1'..='9'));
    (plain && number < MOST).then_some(text)
}

#[cfg(test)]
mod tests {
    use task_core::ports::ErrorKind;

    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn a_hash_that_dapr_did_not_write_is_corrupt() {
        let key = Key::new(Kind::TASK, "7");
        let now = Timestamp::from_unix_micros(0);
        let read = |data, version| stored(&key, Value::Array(vec![data, version]), now);
        let found = read(bulk("{}"), bulk("3")).expect("valid").expect("there");
        assert_eq!(
            (found.value.as_ref(), found.etag.as_str()),
            (&b"{}"[..], "3")
        );
        assert_eq!(read(bulk(""), bulk("3")).expect("valid"), None);
        assert_eq!(read(Value::Nil, Value::Nil).expect("valid"), None);
        let mut broken = vec![read(Value::Nil, bulk("3")), read(bulk("{}"), Value::Nil)];
        for version in [
            "",
            "0",
            "-1",
            "+1",
            "01",
            "1.5",
            "x",
            "9007199254740992",
            "99999999999999999999",
        ] {
            broken.push(read(bulk("{}"), bulk(version)));
        }
        for found in broken {
            let error = found.expect_err("corrupt").into_port("get");
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        }
    }
}
