//! Events as they travel: CloudEvents 1.0, structured JSON.
//!
//! The envelope is built once, when the change is committed, and stored as bytes. Every attempt and
//! every bus sends the same bytes with the same id.
//!
//! *Source:* CloudEvents 1.0.2; the attributes `topic` and `pubsubname` are what Dapr adds.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::record::Displayed;
use crate::domain::{Revision, TaskEvent, Timestamp};
use crate::ports::{Event, Topic};

/// The topic of task events.
pub const TASK_EVENTS_TOPIC: &str = "task-events";

/// The `source` of our events: the service's app id.
pub const EVENT_SOURCE: &str = "task-api";

/// The name of the pub/sub component that carries our events.
pub const PUBSUB_NAME: &str = "pubsub";

#[derive(Serialize)]
struct Envelope<'a> {
    specversion: &'static str,
    id: Displayed<uuid::Uuid>,
    source: &'static str,
    r#type: &'static str,
    subject: &'a str,
    time: Displayed<crate::domain::Timestamp>,
    datacontenttype: &'static str,
    topic: &'static str,
    pubsubname: &'static str,
    taskrev: Displayed<Revision>,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    event_type: &'static str,
    task_id: &'a str,
    title: &'a str,
    status: &'static str,
    timestamp: Displayed<crate::domain::Timestamp>,
}

/// The event of one change, ready for any bus.
#[must_use]
pub fn task_event(event: &TaskEvent, revision: Revision) -> Event {
    let envelope = Envelope {
        specversion: "1.0",
        id: Displayed(event.id(revision)),
        source: EVENT_SOURCE,
        r#type: event.event_type.as_str(),
        subject: event.task_id.as_str(),
        time: Displayed(event.timestamp),
        datacontenttype: "application/json",
        topic: TASK_EVENTS_TOPIC,
        pubsubname: PUBSUB_NAME,
        taskrev: Displayed(revision),
        data: Data {
            event_type: event.event_type.as_str(),
            task_id: event.task_id.as_str(),
            title: &event.title,
            status: event.status.as_str(),
            timestamp: Displayed(event.timestamp),
        },
    };
    let json = serde_json::to_vec(&envelope).expect("an envelope has only string keys");
    Event {
        topic: Topic::new(TASK_EVENTS_TOPIC),
        key: event.task_id.as_str().into(),
        payload: Bytes::from(json),
    }
}

/// A payload that no attempt will ever make readable.
#[derive(Debug, thiserror::Error)]
#[error("not an event: {0}")]
pub struct PoisonError(String);

/// A received task event, as far as a consumer needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingEvent {
    /// The event's id, unique within its source.
    pub id: String,
    /// Who published it; empty for a bare legacy event.
    pub source: String,
    /// What happened; possibly a type that we do not know.
    pub event_type: String,
    /// The task.
    pub task_id: String,
    /// When it happened, if the publisher says so.
    pub time: Option<Timestamp>,
}

/// Longest id, source, task id and type of an event, in bytes.
const MAX_NAME_BYTES: usize = 512;

/// Reads a JSON object; serde would take an array for one as well.
///
/// What is wrong is told by its place: serde's words may repeat any part of the payload.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, PoisonError> {
    if !text.trim_start().starts_with('{') {
        return Err(PoisonError("not a JSON object".to_owned()));
    }
    serde_json::from_str(text).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Data => "a field is missing or of another type",
            serde_json::error::Category::Eof
            | serde_json::error::Category::Syntax
            | serde_json::error::Category::Io => "not JSON",
        };
        PoisonError(format!("{what}, column {}", error.column()))
    })
}

#[derive(Deserialize)]
struct AnyEvent<'a> {
    specversion: Option<String>,
    id: Option<String>,
    source: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct AnyData {
    event_type: String,
    task_id: String,
    #[serde(default)]
    timestamp: String,
}

impl IncomingEvent {
    /// Reads an envelope, or a bare event of the replaced service.
    ///
    /// Only an object with `specversion` is an envelope: a bare event may have an `id` of its own.
    /// A bare event's id is made from its task, type and timestamp, the same at each delivery. Without a
    /// task, or without what the id is or is made from, an event cannot be told from others, and is none.
    ///
    /// # Errors
    /// Says what is missing. Trying again cannot help.
    pub fn parse(payload: &[u8]) -> Result<Self, PoisonError> {
        let text = std::str::from_utf8(payload).map_err(|_| PoisonError("not UTF-8".to_owned()))?;
        let is_envelope = object::<AnyEvent<'_>>(text)
            .ok()
            .filter(|any| any.specversion.is_some());
        let Some(envelope) = is_envelope else {
            let data: AnyData = object(text)?;
            let timestamp = data.timestamp.trim();
            if timestamp.is_empty() {
                return Err(PoisonError("a bare event has no timestamp".to_owned()));
            }
            let id = TaskEvent::legacy_id(&data.task_id, &data.event_type, timestamp);
            return Self::of(id.to_string(), String::new(), data);
        };
        let missing = |name: &str| PoisonError(format!("the envelope has no {name}"));
        let data = envelope.data.ok_or_else(|| missing("data"))?;
        let data: AnyData = match serde_json::from_str::<String>(data.get()) {
            // Sent as text/plain, the data is a string that holds the JSON.
            Ok(text) => object(&text)?,
            Err(_) => object(data.get())?,
        };
        let id = envelope.id.ok_or_else(|| missing("id"))?;
        let source = envelope.source.ok_or_else(|| missing("source"))?;
        Self::of(id, source, data)
    }

    fn of(id: String, source: String, data: AnyData) -> Result<Self, PoisonError> {
        for (name, value) in [("id", &id), ("task_id", &data.task_id)] {
            if value.trim().is_empty() {
                return Err(PoisonError(format!("its {name} is empty")));
            }
        }
        let names = [
            ("id", &id),
            ("source", &source),
            ("task_id", &data.task_id),
            ("event_type", &data.event_type),
        ];
        for (name, value) in names {
            // They stand in log lines, which they must neither end nor fill.
            if value.len() > MAX_NAME_BYTES {
                return Err(PoisonError(format!(
                    "its {name} has at most {MAX_NAME_BYTES} bytes, this one has {}",
                    value.len()
                )));
            }
            if value.chars().any(char::is_control) {
                return Err(PoisonError(format!("its {name} has a control character")));
            }
        }
        Ok(Self {
            id,
            source,
            time: data.timestamp.trim().parse().ok(),
            event_type: data.event_type,
            task_id: data.task_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EventType, Status, TaskId};

    fn event() -> TaskEvent {
        TaskEvent {
            event_type: EventType::Completed,
            task_id: TaskId::parse("t-1").expect("a valid id"),
            title: "say \"hi\"".to_owned(),
            status: Status::Completed,
            timestamp: Timestamp::from_unix_micros(1_795_228_713_868_859),
        }
    }

    #[test]
    fn the_envelope_is_pinned_byte_for_byte() {
        let sent = task_event(&event(), Revision { term: 0, rev: 2 });
        let text = std::str::from_utf8(&sent.payload).expect("JSON is UTF-8");
        let expected = format!(
            concat!(
                r#"{{"specversion":"1.0","id":"{id}","source":"task-api","type":"task.completed","#,
                r#""subject":"t-1","time":"2026-11-21T02:38:33.868859Z","#,
                r#""datacontenttype":"application/json","topic":"task-events","pubsubname":"pubsub","#,
                r#""taskrev":"0.2","data":{{"event_type":"task.completed","task_id":"t-1","#,
                r#""title":"say \"hi\"","status":"completed","timestamp":"2026-11-21T02:38:33.868859Z"}}}}"#,
            ),
            id = event().id(Revision { term: 0, rev: 2 })
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn our_own_envelope_is_understood() {
        let revision = Revision { term: 0, rev: 2 };
        let sent = task_event(&event(), revision);
        let received = IncomingEvent::parse(&sent.payload).expect("our own event");
        assert_eq!(received.id, event().id(revision).to_string());
        assert_eq!(received.source, "task-api");
        assert_eq!(received.event_type, "task.completed");
        assert_eq!(received.task_id, "t-1");
    }

    #[test]
    fn a_bare_event_has_the_same_id_each_time_and_never_its_own() {
        let bare =
            br#"{"event_type":"task.completed","task_id":"t-1","title":"a","status":"completed",
            "timestamp":"2026-11-21T02:38:33.868859","id":7}"#;
        let first = IncomingEvent::parse(bare).expect("a bare event");
        assert_eq!(first, IncomingEvent::parse(bare).expect("a bare event"));
        assert_ne!(first.id, "7");
    }

    #[test]
    fn data_sent_as_text_is_understood() {
        let text = br#"{"specversion":"1.0","id":"1","source":"s","datacontenttype":"text/plain",
            "data":"{\"event_type\":\"task.created\",\"task_id\":\"t-1\"}"}"#;
        assert_eq!(IncomingEvent::parse(text).expect("an event").task_id, "t-1");
    }

    #[test]
    fn garbage_is_poison() {
        for garbage in [
            &b"\xff\xfe"[..],
            b"",
            b"null",
            b"[1]",
            br#"{"id":7,"title":"x"}"#,
            br#"{"specversion":"1.0","id":"1","source":"s"}"#,
            br#"["task.completed","t-1","2026-11-21T02:38:33Z"]"#,
            br#"{"specversion":"1.0","id":"1","source":"s","data":["task.completed","t-1","t"]}"#,
            br#"{"specversion":"1.0","id":"1\n","source":"s","data":{"event_type":"a","task_id":"b"}}"#,
            br#"{"event_type":"a","task_id":"b\u001b[2J","timestamp":"2026-11-21T02:38:33Z"}"#,
            br#"{"specversion":"1.0","source":"s","data":{"event_type":"a","task_id":"b"}}"#,
            br#"{"specversion":"1.0","id":"","source":"s","data":{"event_type":"a","task_id":"b"}}"#,
            br#"{"specversion":"1.0","id":"1","source":"s","data":{"event_type":"a","task_id":" "}}"#,
            br#"{"event_type":"a","task_id":"","timestamp":"2026-11-21T02:38:33Z"}"#,
            br#"{"event_type":"a","task_id":"b"}"#,
        ] {
            assert!(IncomingEvent::parse(garbage).is_err(), "{garbage:?}");
        }
    }

    #[test]
    fn what_stands_in_log_lines_has_a_limit_and_repeats_no_payload() {
        let event = |id: &str| {
            format!(r#"{{"event_type":"a","task_id":"{id}","timestamp":"2026-11-21T02:38:33Z"}}"#)
        };
        let longest = "x".repeat(MAX_NAME_BYTES);
        assert!(IncomingEvent::parse(event(&longest).as_bytes()).is_ok());
        let error = IncomingEvent::parse(event(&format!("{longest}x")).as_bytes());
        let error = error.expect_err("too long").to_string();
        assert_eq!(
            error,
            "not an event: its task_id has at most 512 bytes, this one has 513"
        );
        let secret = br#"{"event_type":"hunter2","task_id":{"a":"hunter2"}}"#;
        let error = IncomingEvent::parse(secret).expect_err("no text");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
