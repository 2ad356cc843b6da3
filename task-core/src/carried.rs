//! A value and its pending events as one value, for stores that write one key at a time.
//!
//! Where a store has no transaction, an event can only be written in one atomic step with its record if it
//! is a part of it. So it is joined to the value before the write and split off after the read, byte for
//! byte. There are two forms:
//!
//! - A JSON object that stays for ever gets a last member `_pending`, an array of
//!   `{"op":…,"topic":…,"key":…,"data":…}`. A foreign reader sees its record and one more field; one that
//!   writes the record again with other spaces, or in another order, keeps the events. A member of that name that
//!   is no such array, or an empty one, is somebody else's: it stays a part of the value, and ours goes behind it.
//! - Everything else is put into a frame: a magic number, a header of JSON, the value. Here also lies what a
//!   store may not be able to tell: that a value has a limit, or that it is a deletion with events of its
//!   own.
//!
//! What carries nothing is stored as it is.

mod frame;
mod member;

use bytes::Bytes;
use memchr::memmem;

use crate::ports::Event;

/// The member that carries the events of a JSON object.
const MEMBER: &str = "_pending";

/// An event that travels inside a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedEvent {
    /// What its writer calls it, a name and a number with a point in between; tells the reader that this very write
    /// took effect.
    pub op: Box<str>,
    /// The event.
    pub event: Event,
}

/// What a record says, besides its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A value.
    Value(Bytes),
    /// The key has no value.
    Deleted {
        /// Whether it may be created again.
        tombstone: bool,
    },
}

/// How long a record stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Limit {
    /// For ever, or as long as the store says.
    #[default]
    None,
    /// The store ends it; noted because not every store tells.
    Kept,
    /// Until this time in milliseconds since 1970; the store keeps it for the sake of its events.
    Until(i64),
}

/// A record as it lies in the store, taken apart.
///
/// ```
/// use bytes::Bytes;
/// use task_core::carried::{Carried, CarriedEvent};
/// use task_core::ports::{Event, Topic};
///
/// let event = Event { topic: Topic::new("t"), key: "7".into(), payload: Bytes::from_static(b"{}") };
/// let mut record = Carried::value(Bytes::from_static(br#"{"id":"7"}"#));
/// record.events.push(CarriedEvent { op: "r.1".into(), event });
/// let stored = record.join();
/// assert_eq!(stored, r#"{"id":"7","_pending":[{"op":"r.1","topic":"t","key":"7","data":"{}"}]}"#);
/// assert_eq!(Carried::split(stored).unwrap(), record);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The value, or that there is none.
    pub content: Content,
    /// How long it stays.
    pub limit: Limit,
    /// The events, in the order of their writes.
    pub events: Vec<CarriedEvent>,
}

/// A record that nobody of ours has written.
#[derive(Debug, thiserror::Error)]
#[error("a frame of pending events cannot be read: {0}")]
pub struct CarriedError(String);

impl Carried {
    /// Most events of one record.
    pub const MAX_EVENTS: usize = 64;

    /// Most bytes that the events of one record take.
    pub const MAX_EVENT_BYTES: usize = 1024 * 1024;

    /// A record that is nothing but a value.
    #[must_use]
    pub fn value(value: Bytes) -> Self {
        Self {
            content: Content::Value(value),
            limit: Limit::None,
            events: Vec::new(),
        }
    }

    /// Says whether a value of a caller would be taken for a joined one.
    #[must_use]
    pub fn is_taken(value: &[u8]) -> bool {
        frame::is_framed(value) || mentions(value) && member::take(value).is_some()
    }

    /// The record as one value.
    ///
    /// A record that says nothing but its value is that value, unchanged.
    #[must_use]
    pub fn join(&self) -> Bytes {
        match &self.content {
            Content::Value(value) if self.limit == Limit::None => {
                if self.events.is_empty() {
                    return value.clone();
                }
                member::add(value, &self.events).unwrap_or_else(|| frame::write(self))
            }
            Content::Value(_) | Content::Deleted { .. } => frame::write(self),
        }
    }

    /// Takes a stored value apart. What no form is recognised in is a value that carries nothing.
    ///
    /// # Errors
    /// A frame that is cut short or not as this version writes it.
    pub fn split(stored: Bytes) -> Result<Self, CarriedError> {
        if frame::is_framed(&stored) {
            return frame::read(stored);
        }
        if mentions(&stored)
            && let Some((value, events)) = member::take(&stored)
        {
            let mut record = Self::value(value);
            record.events = events;
            return Ok(record);
        }
        Ok(Self::value(stored))
    }

    /// Bytes that the events take, about.
    #[must_use]
    pub fn event_bytes(&self) -> usize {
        let bytes = |carried: &CarriedEvent| {
            let event = &carried.event;
            let texts = carried.op.len() + event.topic.as_str().len() + event.key.len();
            texts + event.payload.len()
        };
        self.events.iter().map(bytes).sum()
    }
}

/// A look that costs next to nothing where there is nothing.
fn mentions(value: &[u8]) -> bool {
    value.first().is_some_and(|first| *first != 0)
        && memmem::find(value, MEMBER.as_bytes()).is_some()
}

/// An event in JSON. A payload that is no text is written in hexadecimal digits.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    op: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    topic: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    key: std::borrow::Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    data: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    hex: Option<std::borrow::Cow<'a, str>>,
}

impl<'a> Written<'a> {
    fn of(carried: &'a CarriedEvent) -> Self {
        let event = &carried.event;
        let data = std::str::from_utf8(&event.payload).ok();
        Self {
            op: (&*carried.op).into(),
            topic: event.topic.as_str().into(),
            key: (&*event.key).into(),
            data: data.map(Into::into),
            hex: data.is_none().then(|| hex(&event.payload).into()),
        }
    }

    fn into_event(self) -> Option<CarriedEvent> {
        let payload = match (self.data, self.hex) {
            (Some(text), None) => Bytes::from(text.into_owned()),
            (None, Some(hex)) => unhex(&hex)?,
            (Some(_), Some(_)) | (None, None) => return None,
        };
        let (_, number) = self.op.rsplit_once('.')?;
        number.parse::<u64>().ok()?;
        Some(CarriedEvent {
            op: self.op.into(),
            event: Event {
                topic: crate::ports::Topic::new(self.topic),
                key: self.key.into(),
                payload,
            },
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Bytes> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.as_bytes().chunks(2);
    let bytes = pairs.map(|pair| match pair {
        [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
        _ => None,
    });
    bytes.collect::<Option<Vec<u8>>>().map(Bytes::from)
}

#[cfg(test)]
mod tests;
