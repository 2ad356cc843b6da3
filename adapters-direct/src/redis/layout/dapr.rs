//! The layout of Dapr's `state.redis`: hashes with `data` and `version`.
//!
//! *Source:* dapr/components-contrib 1.16 to 1.18, `state/redis/redis.go`; dapr/dapr,
//! `pkg/components/state/state_config.go`.

use redis::{Cmd, Value};
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

pub(super) fn stored(key: &Key, answer: Value) -> Result<Option<Stored>, Failure> {
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
    Ok((!data.is_empty()).then(|| Stored {
        value: data.into(),
        etag: ETag::new(version),
    }))
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
        let read = |data, version| stored(&key, Value::Array(vec![data, version]));
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
