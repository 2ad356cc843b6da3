//! Events as they come in: our own envelope, those of others, and bare events of the replaced service.
//!
//! Read are CloudEvents 1.x and 0.3, with the data as JSON, as a text that holds JSON, or in base64. As
//! daprd does, an event whose `expiration` is over is passed over, and one that is no time is none.
//!
//! *Source:* CloudEvents 1.0.2 `json-format.md` section 3.1; CloudEvents 0.3 `spec.md`,
//! `datacontentencoding`; components-contrib `pubsub/envelope.go`, `HasExpired`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use crate::domain::{TaskEvent, Timestamp};

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
    /// From when on nobody wants to hear it, if the publisher says so.
    pub expires: Option<Timestamp>,
}

/// Longest id, source, task id and type of an event, in bytes.
const MAX_NAME_BYTES: usize = 512;

/// Longest version that an error repeats, in bytes.
const MAX_VERSION_BYTES: usize = 16;

/// Reads a JSON object; serde would take an array for one as well.
///
/// What is wrong is told by its place: serde's words may repeat any part of the payload.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, PoisonError> {
    if !text.trim_start().starts_with('{') {
        return Err(PoisonError("not a JSON object".to_owned()));
    }
    serde_json::from_str(text).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Data => "a field is there twice",
            serde_json::error::Category::Eof
            | serde_json::error::Category::Syntax
            | serde_json::error::Category::Io => "not JSON",
        };
        PoisonError(format!("{what}, column {}", error.column()))
    })
}

/// An envelope, or what may be one; which types its fields have is told by name.
#[derive(Deserialize)]
struct AnyEvent {
    specversion: Option<Value>,
    id: Option<Value>,
    source: Option<Value>,
    expiration: Option<Value>,
    datacontentencoding: Option<Value>,
    data: Option<Value>,
    data_base64: Option<Value>,
}

#[derive(Deserialize)]
struct AnyData {
    event_type: Option<Value>,
    task_id: Option<Value>,
    timestamp: Option<Value>,
}

/// A field that has to be there as a text.
fn text(name: &str, value: Option<Value>) -> Result<String, PoisonError> {
    let found = match value {
        Some(Value::String(text)) => return Ok(text),
        None => return Err(PoisonError(format!("its {name} is missing"))),
        Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "a boolean",
        Some(Value::Number(_)) => "a number",
        Some(Value::Array(_)) => "an array",
        Some(Value::Object(_)) => "an object",
    };
    Err(PoisonError(format!("its {name} is {found}, not a string")))
}

/// Refuses versions of CloudEvents that may mean anything.
fn check_version(value: Option<Value>) -> Result<(), PoisonError> {
    let version = text("specversion", value)?;
    if version == "0.3" || version.starts_with("1.") {
        return Ok(());
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '.';
    let shown = match version.len() <= MAX_VERSION_BYTES && version.chars().all(is_plain) {
        true => format!("{version:?}"),
        false => "another".to_owned(),
    };
    let problem = format!("its specversion must be 1.0 or 0.3, it is {shown}");
    Err(PoisonError(problem))
}

/// The JSON that base64 holds.
fn decoded(name: &str, value: Value) -> Result<String, PoisonError> {
    let bytes = STANDARD
        .decode(text(name, Some(value))?)
        .map_err(|_| PoisonError(format!("its {name} is not base64")))?;
    String::from_utf8(bytes).map_err(|_| PoisonError(format!("its {name} is not UTF-8")))
}

impl AnyEvent {
    fn data(&mut self) -> Result<AnyData, PoisonError> {
        let encoding = self.datacontentencoding.as_ref().and_then(Value::as_str);
        let in_base64 = encoding.is_some_and(|encoding| encoding.eq_ignore_ascii_case("base64"));
        match (self.data.take(), self.data_base64.take()) {
            (Some(_), Some(_)) => Err(PoisonError("it has both data and data_base64".to_owned())),
            (None, None) => Err(PoisonError("its data is missing".to_owned())),
            (None, Some(data)) => object(&decoded("data_base64", data)?),
            (Some(data), None) if in_base64 => object(&decoded("data", data)?),
            // Sent as text/plain, the data is a string that holds the JSON.
            (Some(Value::String(text)), None) => object(&text),
            (Some(data), None) => object(&data.to_string()),
        }
        .map_err(|PoisonError(problem)| match problem.starts_with("its ") {
            true => PoisonError(problem),
            false => PoisonError(format!("its data: {problem}")),
        })
    }
}

impl IncomingEvent {
    /// Reads an envelope, or a bare event of the replaced service.
    ///
    /// Only an object with `specversion` is an envelope: a bare event may have an `id` of its own.
    /// A bare event's id is made from its task, type and timestamp, the same at each delivery. Without a
    /// task, or without what the id is or is made from, an event cannot be told from others, and is none.
    ///
    /// # Errors
    /// Names the field and what is wrong with it. Trying again cannot help.
    pub fn parse(payload: &[u8]) -> Result<Self, PoisonError> {
        let json = std::str::from_utf8(payload).map_err(|_| PoisonError("not UTF-8".to_owned()))?;
        let mut envelope: AnyEvent = object(json)?;
        if envelope.specversion.is_none() {
            return Self::bare(object(json)?);
        }
        check_version(envelope.specversion.take())?;
        let data = envelope.data()?;
        let id = text("id", envelope.id)?;
        let source = text("source", envelope.source)?;
        let expires = envelope.expiration.as_ref().and_then(Value::as_str);
        Ok(Self {
            expires: expires.and_then(|expires| expires.trim().parse().ok()),
            ..Self::of(id, source, data)?
        })
    }

    fn bare(data: AnyData) -> Result<Self, PoisonError> {
        let timestamp = text("timestamp", data.timestamp)?;
        let event_type = text("event_type", data.event_type)?;
        let task_id = text("task_id", data.task_id)?;
        if timestamp.trim().is_empty() {
            return Err(PoisonError("its timestamp is empty".to_owned()));
        }
        let id = TaskEvent::legacy_id(&task_id, &event_type, timestamp.trim());
        let data = AnyData {
            event_type: Some(event_type.into()),
            task_id: Some(task_id.into()),
            timestamp: Some(timestamp.into()),
        };
        Self::of(id.to_string(), String::new(), data)
    }

    fn of(id: String, source: String, data: AnyData) -> Result<Self, PoisonError> {
        let task_id = text("task_id", data.task_id)?;
        let event_type = text("event_type", data.event_type)?;
        let timestamp = data.timestamp.unwrap_or_else(|| String::new().into());
        let timestamp = text("timestamp", Some(timestamp))?;
        for (name, value) in [("id", &id), ("task_id", &task_id)] {
            if value.trim().is_empty() {
                return Err(PoisonError(format!("its {name} is empty")));
            }
        }
        let names = [
            ("id", &id),
            ("source", &source),
            ("task_id", &task_id),
            ("event_type", &event_type),
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
            time: timestamp.trim().parse().ok(),
            expires: None,
            event_type,
            task_id,
        })
    }

    /// Whether nobody wants to hear it any more.
    #[must_use]
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires < now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn what_is_wrong_is_told_by_its_field() {
        for (poison, expected) in [
            (
                r#"{"event_type":"a","timestamp":"t"}"#,
                "its task_id is missing",
            ),
            (
                r#"{"event_type":"a","task_id":7,"timestamp":"t"}"#,
                "its task_id is a number, not a string",
            ),
            (
                r#"{"specversion":"1.0","id":7,"source":"s","data":{"event_type":"a","task_id":"b"}}"#,
                "its id is a number, not a string",
            ),
            (
                r#"{"specversion":"1.0","id":"1","source":"s","data":[1]}"#,
                "its data: not a JSON object",
            ),
            (
                r#"{"specversion":"1.0","id":"1","source":"s"}"#,
                "its data is missing",
            ),
            (
                r#"{"specversion":"1.0","id":"1","source":"s","data":{},"data_base64":"e30="}"#,
                "its data: it has both data and data_base64",
            ),
            (
                r#"{"specversion":"1.0","id":"1","source":"s","data_base64":"%"}"#,
                "its data_base64 is not base64",
            ),
            (
                r#"{"specversion":"0.2","id":"1","source":"s","data":{}}"#,
                r#"its specversion must be 1.0 or 0.3, it is "0.2""#,
            ),
            (
                r#"{"specversion":1.0,"id":"1","source":"s","data":{}}"#,
                "its specversion is a number, not a string",
            ),
        ] {
            let error = IncomingEvent::parse(poison.as_bytes()).expect_err(poison);
            assert_eq!(error.to_string(), format!("not an event: {expected}"));
        }
    }

    #[test]
    fn data_in_base64_is_understood_in_both_versions() {
        let data = STANDARD.encode(r#"{"event_type":"task.created","task_id":"t-\u00e4"}"#);
        for envelope in [
            format!(r#"{{"specversion":"1.0","id":"1","source":"s","data_base64":"{data}"}}"#),
            format!(
                r#"{{"specversion":"0.3","id":"1","source":"s","datacontentencoding":"Base64","data":"{data}"}}"#
            ),
        ] {
            let event = IncomingEvent::parse(envelope.as_bytes()).expect(&envelope);
            assert_eq!(event.task_id, "t-\u{e4}");
        }
    }

    #[test]
    fn an_event_expires_when_its_time_is_over_and_never_by_a_time_that_is_none() {
        let now: Timestamp = "2026-11-21T02:38:33Z".parse().expect("a time");
        for (expiration, expected) in [
            (r#""2026-11-21T02:38:32Z""#, true),
            (r#""2026-11-21T04:38:32+02:00""#, true),
            (r#""2026-11-21T02:38:33Z""#, false),
            (r#""soon""#, false),
            (r#""""#, false),
            ("7", false),
            ("null", false),
        ] {
            let envelope = format!(
                r#"{{"specversion":"1.0","id":"1","source":"s","expiration":{expiration},
                "data":{{"event_type":"a","task_id":"b"}}}}"#
            );
            let event = IncomingEvent::parse(envelope.as_bytes()).expect(&envelope);
            assert_eq!(event.has_expired(now), expected, "{expiration}");
        }
    }
}
