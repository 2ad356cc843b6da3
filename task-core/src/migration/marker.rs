//! Marks on the old side that name records of which the other side may be behind.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::application::SEEN_TTL;
use crate::domain::Timestamp;
use crate::ports::{ETag, Event, Key, Kind, MAX_KEY_BYTES, Topic, Write};

/// Records that the new side may lack.
pub(super) const DIRTY: Kind = Kind::listed("dirty");

/// Records that the old side may lack, while the new one accepts writes.
pub(super) const REVERSE: Kind = Kind::listed("reverse");

/// Where the mark of a record is.
///
/// Kinds share one namespace of marks, so the kind is a part of the id. A name that is too long for that has a hash
/// in its place, and the mark itself holds it.
pub(super) fn mark_of(kind: Kind, key: &Key) -> Key {
    let name = key.to_string();
    match name.len() <= MAX_KEY_BYTES {
        true => Key::new(kind, name),
        false => {
            let hash = xxhash_rust::xxh3::xxh3_128(name.as_bytes());
            Key::new(kind, format!("{HASHED}{hash:032x}"))
        }
    }
}

/// What begins a mark's id that is a hash. No kind has it.
const HASHED: &str = "#";

/// The name of a record that its mark has to hold.
pub(super) fn name_in_mark(key: &Key) -> Option<String> {
    let name = key.to_string();
    (name.len() > MAX_KEY_BYTES).then_some(name)
}

/// The record that a mark names, of these kinds.
pub(super) fn key_of(mark: &Key, value: &[u8], kinds: &[Kind]) -> Option<Key> {
    let held: Named;
    let name = match mark.id.starts_with(HASHED) {
        true => {
            held = serde_json::from_slice(value).ok()?;
            &*held.name
        }
        false => &*mark.id,
    };
    let (kind, id) = name.split_once('/')?;
    let kind = kinds.iter().find(|known| known.as_str() == kind)?;
    Some(Key::new(*kind, id))
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

/// Until when the result of a write stays, which no read of a store tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Limits {
    /// When the value ends, in microseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    until_us: Option<i64>,
    /// How long a deletion is remembered, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    kept_ms: Option<u64>,
}

impl Limits {
    pub(super) fn of(write: Option<&Write>, now: Timestamp) -> Self {
        match write {
            Some(Write::Put { options, .. }) => Self {
                until_us: options.ttl.and_then(|ttl| {
                    let ttl = i64::try_from(ttl.as_micros()).ok()?;
                    now.unix_micros().checked_add(ttl)
                }),
                kept_ms: None,
            },
            Some(Write::Delete { options, .. }) => Self {
                until_us: None,
                kept_ms: options
                    .tombstone
                    .map(|kept| u64::try_from(kept.as_millis()).unwrap_or(u64::MAX)),
            },
            None => Self::default(),
        }
    }

    /// How long the value still lives; `None` is for ever.
    ///
    /// One whose time is over lives for a moment more: it takes the place of an older one that has time left.
    pub(super) fn rest(self, key: &Key, now: Timestamp) -> Option<Duration> {
        const MOMENT: Duration = Duration::from_millis(1);
        let Some(until) = self.until_us else {
            // Nothing tells when a record ends that was written before the move. Of these it is known how long at most.
            return (key.kind == Kind::SEEN).then_some(SEEN_TTL);
        };
        let left = u64::try_from(until - now.unix_micros()).unwrap_or(0);
        Some(Duration::from_micros(left).max(MOMENT))
    }

    /// For how long a deletion forbids that the record is created again.
    pub(super) fn kept(self) -> Option<Duration> {
        self.kept_ms.map(|kept| match kept {
            u64::MAX => Duration::MAX,
            kept => Duration::from_millis(kept),
        })
    }
}

/// Says that the new side may lack what the old one holds.
///
/// No two are alike, so that one is removed only by who has seen that very one before it copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Dirty {
    /// Replica and number of the write.
    pub write: String,
    /// When it was set, in microseconds since 1970; told to people, and nothing depends on it.
    #[serde(default)]
    pub at_us: i64,
    /// The record, where the mark's own name has no room for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    #[serde(flatten)]
    pub limits: Limits,
}

impl Dirty {
    pub(super) fn encode(&self) -> Bytes {
        let json = serde_json::to_vec(self);
        json.expect("text and numbers are JSON").into()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// Says what a write wants to make of a record on the new side, before it is tried there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Intent {
    /// Replica and number of the write.
    pub write: String,
    /// When it was set, as in [`Dirty`].
    #[serde(default)]
    pub at_us: i64,
    /// As that of [`Dirty`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// The content's tag after the write; `None` is a deletion.
    pub result: Option<String>,
    /// The record is not there before; the old side has its content with this intent.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub is_birth: bool,
    #[serde(flatten)]
    pub limits: Limits,
    /// The events of the write.
    pub events: Vec<IntendedEvent>,
}

/// An event as it lies in an intent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IntendedEvent {
    topic: String,
    key: String,
    /// The payload, a character for each byte: text stays readable, and nothing is lost.
    data: String,
}

impl Intent {
    pub(super) fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("text is JSON").into()
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// Whether a record is as the write wants it.
    pub(super) fn makes(&self, value: Option<&Bytes>) -> bool {
        let tag = value.map(|value| tag_of(value));
        self.result.as_deref() == tag.as_ref().map(ETag::as_str)
    }

    pub(super) fn events(&self) -> impl Iterator<Item = Event> {
        self.events.iter().map(|one| Event {
            topic: Topic::new(one.topic.clone()),
            key: one.key.clone().into(),
            payload: one.data.chars().map(|c| c as u32 as u8).collect(),
        })
    }
}

impl From<&Event> for IntendedEvent {
    fn from(event: &Event) -> Self {
        Self {
            topic: event.topic.as_str().to_owned(),
            key: event.key.clone().into(),
            data: event.payload.iter().copied().map(char::from).collect(),
        }
    }
}

/// The version of a value that is the same on both sides: of its content.
pub(super) fn tag_of(value: &[u8]) -> ETag {
    ETag::new(format!("{:032x}", xxhash_rust::xxh3::xxh3_128(value)))
}
