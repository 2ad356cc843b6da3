//! The layout of the replaced service: strings that `GET` and `SET` know.

use redis::{Cmd, Value};
use task_core::ports::{CapabilitySet, ETag, Key, Kind, StateCapability, Stored};

use crate::redis::answer::unexpected;
use crate::redis::error::{Effect, Failure};
use crate::redis::script::digest;

/// Everything but unique versions: a value that comes back has its old digest.
pub(super) const CAPABILITIES: CapabilitySet<StateCapability> = CapabilitySet::of(&[
    StateCapability::ConditionalWrites,
    StateCapability::Ttl,
    StateCapability::Tombstones,
    StateCapability::Transactions,
    StateCapability::Outbox,
    StateCapability::Guards,
    StateCapability::Scan,
    StateCapability::Durable,
]);

pub(super) fn begin(namespace: &str, kind: Kind, name: &mut String) {
    if kind == Kind::TASK {
        return name.push_str("task:");
    }
    name.extend([namespace, ":state:", kind.as_str(), ":"]);
}

pub(super) fn tombstone(namespace: &str, key: &Key) -> String {
    [namespace, ":tombstone:", key.kind.as_str(), ":", &key.id].concat()
}

pub(super) fn read(name: &str) -> Cmd {
    let mut command = Cmd::with_capacity(2, name.len() + 3);
    command.arg("GET").arg(name);
    command
}

pub(super) fn stored(answer: Value) -> Result<Option<Stored>, Failure> {
    if answer == Value::Nil {
        return Ok(None);
    }
    let Value::BulkString(value) = answer else {
        return Err(unexpected(&answer, Effect::Read));
    };
    // What nobody of ours writes counts as missing, as in every backend.
    Ok((!value.is_empty()).then(|| Stored {
        etag: ETag::new(digest(&value)),
        value: value.into(),
    }))
}
