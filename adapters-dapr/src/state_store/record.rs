//! What lies under a key, and how it is written.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use task_core::carried::{Carried, CarriedEvent, Content, Limit};
use task_core::domain::Timestamp;

use super::calls::{Found, Life};
use super::version::Version;
use crate::error::Failure;

/// What a deletion leaves that may be created again; a stale writer is refused as long as it is there.
pub(super) const LEFT: &[u8] = &[0];

/// How long that is: ten times the longest deadline of a request.
pub(super) const LEFT_FOR: Duration = Duration::from_secs(300);

/// Says whether a caller's value would be taken for something of ours.
pub(super) fn is_taken(value: &[u8]) -> bool {
    value == LEFT || Carried::is_taken(value)
}

/// What lies under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// Nothing at all.
    Missing,
    /// What a deletion left, or a value whose time is over.
    Gone {
        etag: Box<str>,
        is_buried: bool,
        limit: Limit,
        events: Vec<CarriedEvent>,
    },
    /// A value.
    There {
        version: Version,
        value: Bytes,
        limit: Limit,
        events: Vec<CarriedEvent>,
    },
}

impl Record {
    pub(super) fn read(name: &str, found: Found, now: Timestamp) -> Result<Self, Failure> {
        let Found { data, etag } = found;
        let Some(etag) = etag else {
            return match data.is_empty() {
                true => Ok(Self::Missing),
                // Every store that may be opened gives versions.
                false => Err(Failure::Corrupt(format!(
                    "{name} has a value without a version"
                ))),
            };
        };
        if data.is_empty() || data == LEFT {
            return Ok(Self::Gone {
                etag,
                is_buried: data.is_empty(),
                limit: Limit::Kept,
                events: Vec::new(),
            });
        }
        let carried = Carried::split(data);
        let carried = carried.map_err(|error| Failure::Corrupt(format!("{name}: {error}")))?;
        let Carried {
            content,
            limit,
            events,
        } = carried;
        let is_over = matches!(limit, Limit::Until(time) if time <= unix_ms(now));
        Ok(match content {
            Content::Value(value) if !is_over => Self::There {
                version: Version {
                    etag,
                    is_limited: limit != Limit::None,
                    has_events: !events.is_empty(),
                },
                value,
                limit,
                events,
            },
            Content::Value(_) | Content::Deleted { .. } => Self::Gone {
                etag,
                is_buried: !is_over && content == Content::Deleted { tombstone: true },
                limit,
                events,
            },
        })
    }

    /// What Dapr calls its version.
    pub(super) fn etag(&self) -> Option<&str> {
        match self {
            Self::Missing => None,
            Self::Gone { etag, .. } => Some(etag),
            Self::There { version, .. } => Some(&version.etag),
        }
    }

    pub(super) fn events(&self) -> &[CarriedEvent] {
        match self {
            Self::Missing => &[],
            Self::Gone { events, .. } | Self::There { events, .. } => events,
        }
    }

    /// What is to lie here once the events are published, if that is something else.
    ///
    /// Only of what reads as missing: a value would get a new version that nobody has asked for.
    pub(super) fn at_rest(&self, now: Timestamp) -> Option<New> {
        let Self::Gone {
            is_buried,
            limit,
            events,
            ..
        } = self
        else {
            return None;
        };
        let left = match limit {
            Limit::Until(time) => u64::try_from(time.saturating_sub(unix_ms(now))).unwrap_or(0),
            Limit::None | Limit::Kept => u64::MAX,
        };
        (!events.is_empty()).then(|| New::Deleted {
            tombstone: is_buried.then(|| Duration::from_millis(left)),
        })
    }

    /// Says whether it is what a deletion leaves for ever, without events.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Gone { is_buried: true, events, .. } if events.is_empty())
    }

    pub(super) fn carries(&self, op: &str) -> bool {
        self.events().iter().any(|event| *event.op == *op)
    }
}

/// What is to lie under a key.
#[derive(Debug, Clone)]
pub(super) enum New {
    Value { value: Bytes, ttl: Option<Duration> },
    Deleted { tombstone: Option<Duration> },
}

/// What the component can keep by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Keeps {
    /// An ETag of a key that is gone is refused; otherwise a limit has to be noted in the value.
    pub(super) missing_is_refused: bool,
    /// A value may be empty.
    pub(super) empty: bool,
}

impl New {
    /// The bytes and the limit to store with these events.
    pub(super) fn render(
        &self,
        events: Vec<CarriedEvent>,
        keeps: Keeps,
        now: Timestamp,
    ) -> (Bytes, Life) {
        let (content, time) = match self {
            Self::Value { value, ttl } => (Content::Value(value.clone()), *ttl),
            Self::Deleted { tombstone } => (
                Content::Deleted {
                    tombstone: tombstone.is_some(),
                },
                Some(tombstone.unwrap_or(LEFT_FOR)),
            ),
        };
        let life = time.map_or(Life::Ever, Life::of);
        if !events.is_empty() {
            // It must not end before its events are published; `settle` gives it its limit.
            let limit = match (life, time) {
                (Life::Seconds(_), Some(time)) => Limit::Until(end_of(time, now)),
                (Life::Ever | Life::Same | Life::Seconds(_), _) => Limit::None,
            };
            let carried = Carried {
                content,
                limit,
                events,
            };
            return (carried.join(), Life::Ever);
        }
        let limit = match life {
            Life::Seconds(_) if !keeps.missing_is_refused => Limit::Kept,
            Life::Seconds(_) | Life::Ever | Life::Same => Limit::None,
        };
        let bytes = match content {
            Content::Deleted { tombstone: false } => Bytes::from_static(LEFT),
            Content::Deleted { tombstone: true } if keeps.empty => Bytes::new(),
            Content::Deleted { tombstone: true } | Content::Value(_) => Carried {
                content,
                limit,
                events,
            }
            .join(),
        };
        (bytes, life)
    }
}

fn end_of(time: Duration, now: Timestamp) -> i64 {
    let time = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    unix_ms(now).saturating_add(time)
}

fn unix_ms(time: Timestamp) -> i64 {
    time.unix_micros() / 1000
}
