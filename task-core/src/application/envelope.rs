//! Events as they travel: CloudEvents 1.0, structured JSON.
//!
//! The envelope is built once, when the change is committed, and stored as bytes. Every attempt and
//! every bus sends the same bytes with the same id.
//!
//! *Source:* CloudEvents 1.0.2; the attributes `topic` and `pubsubname` are what Dapr adds.

use bytes::Bytes;
use serde::Serialize;

use super::record::Displayed;
use crate::domain::{Revision, TaskEvent, Timestamp};
use crate::ports::{Event, Topic};

/// The topic of task events.
pub const TASK_EVENTS_TOPIC: &str = "task-events";

/// The `source` of our events: the service's app id.
pub const EVENT_SOURCE: &str = "task-api";

/// The name of the pub/sub component that carries our events.
pub const PUBSUB_NAME: &str = "pubsub";

/// An event before it becomes bytes.
pub(crate) struct Envelope<'a, D> {
    pub(crate) id: uuid::Uuid,
    pub(crate) source: &'static str,
    pub(crate) r#type: &'static str,
    pub(crate) subject: &'a str,
    pub(crate) time: Timestamp,
    pub(crate) topic: &'static str,
    pub(crate) revision: Option<Revision>,
    pub(crate) data: D,
}

impl<D: Serialize> Envelope<'_, D> {
    /// The event as every bus carries it.
    pub(crate) fn to_bytes(&self) -> Bytes {
        let written = Written {
            specversion: "1.0",
            id: Displayed(self.id),
            source: self.source,
            r#type: self.r#type,
            subject: self.subject,
            time: Displayed(self.time),
            datacontenttype: "application/json",
            topic: self.topic,
            pubsubname: PUBSUB_NAME,
            taskrev: self.revision.map(Displayed),
            data: &self.data,
        };
        let json = serde_json::to_vec(&written).expect("an envelope has only string keys");
        Bytes::from(json)
    }
}

#[derive(Serialize)]
struct Written<'a, D> {
    specversion: &'static str,
    id: Displayed<uuid::Uuid>,
    source: &'static str,
    r#type: &'static str,
    subject: &'a str,
    time: Displayed<Timestamp>,
    datacontenttype: &'static str,
    topic: &'static str,
    pubsubname: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    taskrev: Option<Displayed<Revision>>,
    data: &'a D,
}

#[derive(Serialize)]
struct Data<'a> {
    event_type: &'static str,
    task_id: &'a str,
    title: &'a str,
    status: &'static str,
    timestamp: Displayed<Timestamp>,
}

/// The event of one change, ready for any bus.
#[must_use]
pub fn task_event(event: &TaskEvent, revision: Revision) -> Event {
    let envelope = Envelope {
        id: event.id(revision),
        source: EVENT_SOURCE,
        r#type: event.event_type.as_str(),
        subject: event.task_id.as_str(),
        time: event.timestamp,
        topic: TASK_EVENTS_TOPIC,
        revision: Some(revision),
        data: Data {
            event_type: event.event_type.as_str(),
            task_id: event.task_id.as_str(),
            title: &event.title,
            status: event.status.as_str(),
            timestamp: Displayed(event.timestamp),
        },
    };
    Event {
        topic: Topic::new(TASK_EVENTS_TOPIC),
        key: event.task_id.as_str().into(),
        payload: envelope.to_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::application::IncomingEvent;
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
}
