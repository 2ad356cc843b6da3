//! A value with a header before it.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::{Carried, CarriedError, Content, Limit, Written};

/// What a frame begins with; no text does.
const MAGIC: &[u8] = b"\0carried\x01";

/// Bytes of the header's length.
const LENGTH: usize = 4;

#[derive(Debug, Serialize, Deserialize)]
struct Header<'a> {
    /// Absent for a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deleted: Option<Deleted>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<Limited>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pending: Vec<Written<'a>>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Deleted {
    Plain,
    Tombstone,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Limited {
    Kept,
    UntilUnixMs(i64),
}

pub(super) fn is_framed(value: &[u8]) -> bool {
    value.starts_with(MAGIC)
}

pub(super) fn write(record: &Carried) -> Bytes {
    let (deleted, value) = match &record.content {
        Content::Value(value) => (None, value.as_ref()),
        Content::Deleted { tombstone: true } => (Some(Deleted::Tombstone), &b""[..]),
        Content::Deleted { tombstone: false } => (Some(Deleted::Plain), &b""[..]),
    };
    let header = Header {
        deleted,
        limit: match record.limit {
            Limit::None => None,
            Limit::Kept => Some(Limited::Kept),
            Limit::Until(time) => Some(Limited::UntilUnixMs(time)),
        },
        pending: record.events.iter().map(Written::of).collect(),
    };
    let header = serde_json::to_vec(&header).expect("texts and numbers are JSON");
    let length = u32::try_from(header.len()).expect("a header has a few MiB at most");
    let mut frame = BytesMut::with_capacity(MAGIC.len() + LENGTH + header.len() + value.len());
    frame.put_slice(MAGIC);
    frame.put_u32(length);
    frame.put_slice(&header);
    frame.put_slice(value);
    frame.freeze()
}

pub(super) fn read(mut frame: Bytes) -> Result<Carried, CarriedError> {
    let short = || CarriedError("it is cut short".to_owned());
    let mut rest = frame.split_off(MAGIC.len());
    let length = rest.first_chunk::<LENGTH>().ok_or_else(short)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| short())?;
    let mut rest = rest.split_off(LENGTH);
    if rest.len() < length {
        return Err(short());
    }
    let value = rest.split_off(length);
    let header: Header<'_> =
        serde_json::from_slice(&rest).map_err(|error| CarriedError(error.to_string()))?;
    let events = header.pending.into_iter().map(Written::into_event);
    let events = events.collect::<Option<Vec<_>>>();
    Ok(Carried {
        content: match header.deleted {
            None => Content::Value(value),
            Some(Deleted::Plain) => Content::Deleted { tombstone: false },
            Some(Deleted::Tombstone) => Content::Deleted { tombstone: true },
        },
        limit: match header.limit {
            None => Limit::None,
            Some(Limited::Kept) => Limit::Kept,
            Some(Limited::UntilUnixMs(time)) => Limit::Until(time),
        },
        events: events.ok_or_else(|| CarriedError("an event has no payload".to_owned()))?,
    })
}
