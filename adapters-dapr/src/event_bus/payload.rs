//! What travels in the sidecar's messages, and whose key it has.
//!
//! The sidecar hands no key to a subscriber. An event of the service is a CloudEvents envelope whose
//! `subject` is its key, and travels as it is. Any other one travels in a carrier: an envelope whose
//! `subject` is the key and whose `data_base64` is the payload, which a subscriber of ours takes out again.
//!
//! Payloads are published raw, as the sidecar would otherwise read and write them again: it sorts the fields,
//! rounds integers above 2^53 and rewrites escapes.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use task_core::ports::Event;

/// The `type` of a carrier.
const CARRIER: &str = "task-core.carried";

/// Largest message that is taken: the largest event in a carrier, or in what a foreign publisher put around it.
pub(crate) const MAX_MESSAGE_BYTES: usize = 2 * Event::MAX_PAYLOAD_BYTES;

#[derive(Serialize, Deserialize)]
struct Carrier<'a> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    subject: Cow<'a, str>,
    #[serde(borrow)]
    data_base64: Cow<'a, str>,
}

/// What an envelope says of its key, if it is one.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    #[serde(borrow, default)]
    r#type: Cow<'a, str>,
    #[serde(borrow, default)]
    subject: Cow<'a, str>,
}

/// The message that carries an event.
pub(super) fn message(event: &Event) -> Bytes {
    if key_in(&event.payload).as_deref() == Some(&*event.key) {
        return event.payload.clone();
    }
    let mut hasher = DefaultHasher::new();
    (&event.key, &event.payload).hash(&mut hasher);
    let id = format!("{:016x}", hasher.finish());
    let carrier = Carrier {
        specversion: "1.0".into(),
        id: id.into(),
        source: "task-core".into(),
        r#type: CARRIER.into(),
        subject: (&*event.key).into(),
        data_base64: STANDARD.encode(&event.payload).into(),
    };
    // A struct of texts can always be written.
    serde_json::to_vec(&carrier).map_or_else(|_| event.payload.clone(), Bytes::from)
}

/// The key and the payload of a message, whoever published it.
pub(super) fn content(message: Bytes) -> (Box<str>, Bytes) {
    if let Some(content) = carried(&message) {
        return content;
    }
    let key = key_in(&message).unwrap_or_default();
    (key.into(), message)
}

fn carried(message: &[u8]) -> Option<(Box<str>, Bytes)> {
    let carrier: Carrier<'_> = serde_json::from_slice(message).ok()?;
    let ours = carrier.specversion == "1.0" && carrier.r#type == CARRIER;
    let payload = STANDARD.decode(&*carrier.data_base64).ok()?;
    ours.then(|| (carrier.subject.into(), payload.into()))
}

/// The `subject` of an envelope that is not a carrier.
fn key_in(message: &[u8]) -> Option<String> {
    let envelope: Envelope<'_> = serde_json::from_slice(message).ok()?;
    let sound = envelope.specversion == "1.0" && envelope.r#type != CARRIER;
    sound.then(|| envelope.subject.into_owned())
}

#[cfg(test)]
mod tests {
    use task_core::ports::Topic;

    use super::*;

    fn event(key: &str, payload: impl Into<Bytes>) -> Event {
        Event {
            topic: Topic::new("t"),
            key: key.into(),
            payload: payload.into(),
        }
    }

    #[test]
    fn an_envelope_with_its_key_travels_as_it_is() {
        let payload = r#"{"z":9007199254740993, "specversion":"1.0","subject":"k","type":"x"}"#;
        let sent = message(&event("k", payload));
        assert_eq!(sent, payload);
        assert_eq!(content(sent), ("k".into(), Bytes::from(payload)));
    }

    #[test]
    fn anything_else_is_carried_with_its_key() {
        let carrier = message(&event("inner", "x"));
        for (key, payload) in [
            ("k", Bytes::from_static(b"\x00\xff")),
            ("ä \"/", Bytes::from("{}")),
            ("", Bytes::new()),
            (
                "k",
                Bytes::from(r#"{"specversion":"1.0","subject":"other"}"#),
            ),
            ("k", Bytes::from(r#"{"subject":"k"}"#)),
            ("inner", carrier),
            ("k", Bytes::from(vec![b'x'; Event::MAX_PAYLOAD_BYTES])),
        ] {
            let sent = message(&event(key, payload.clone()));
            assert!(sent.len() <= MAX_MESSAGE_BYTES, "{} bytes", sent.len());
            assert_eq!(sent, message(&event(key, payload.clone())), "it varies");
            assert_ne!(sent, payload);
            assert_eq!(content(sent), (key.into(), payload));
        }
    }

    #[test]
    fn a_foreign_event_has_the_key_that_its_envelope_names() {
        for (message, key) in [
            (r#"{"specversion":"1.0","subject":"t-1","data":{}}"#, "t-1"),
            (r#"{"specversion":"1.0","data":{}}"#, ""),
            (r#"{"event_type":"task.created","subject":"t-1"}"#, ""),
            ("not JSON", ""),
        ] {
            let (found, payload) = content(Bytes::from(message));
            assert_eq!((&*found, &*payload), (key, message.as_bytes()));
        }
    }
}
