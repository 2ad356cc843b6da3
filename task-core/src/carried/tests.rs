//! Random values and events through both forms, and what foreign writers make of them.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::ports::Topic;

fn event(payload: impl Into<Bytes>) -> CarriedEvent {
    CarriedEvent {
        op: "r-1.7".into(),
        event: Event {
            topic: Topic::new("tasks"),
            key: "k".into(),
            payload: payload.into(),
        },
    }
}

fn events() -> impl Strategy<Value = Vec<CarriedEvent>> {
    let payload = prop_oneof![
        vec(any::<u8>(), 0..40),
        "\\PC{0,20}".prop_map(String::into_bytes)
    ];
    let op = ("\\PC{0,9}", any::<u32>()).prop_map(|(name, number)| format!("{name}.{number}"));
    let one = (op, "\\PC{0,9}", "\\PC{0,9}", payload).prop_map(|(op, topic, key, payload)| {
        CarriedEvent {
            op: op.into(),
            event: Event {
                topic: Topic::new(topic),
                key: key.into(),
                payload: payload.into(),
            },
        }
    });
    vec(one, 0..4)
}

/// Objects with odd spaces, nested ones and ones whose texts mention the member.
fn values() -> impl Strategy<Value = Bytes> {
    let member = prop_oneof![
        Just(r#""a":1"#),
        Just(r#" "b" : [ {"_pending":[]} ] "#),
        Just(r#""c":"_pending\"}""#),
        Just("\"d\":{}"),
        Just(r#""e":1e999999"#),
        Just("\n\"\u{e4}\":null"),
        Just(r#""_pending":"theirs""#),
        Just(r#""_pending" : []"#),
    ];
    let space = prop_oneof![Just(""), Just(" "), Just("\n\t ")];
    let object = (space.clone(), vec(member, 0..4), space).prop_map(|(before, members, after)| {
        let mut unique: Vec<&str> = Vec::new();
        for member in members {
            if !unique.contains(&member) {
                unique.push(member);
            }
        }
        Bytes::from(format!(
            "{before}{{{before}{}{after}}}{after}",
            unique.join(",")
        ))
    });
    let bytes = vec(any::<u8>(), 1..40).prop_map(Bytes::from);
    let other = prop_oneof![
        Just("7"),
        Just("\"_pending\""),
        Just("{\"_pending\":[]"),
        Just("{} {}")
    ];
    prop_oneof![object, bytes, other.prop_map(Bytes::from)]
}

fn contents() -> impl Strategy<Value = Content> {
    prop_oneof![
        4 => values().prop_map(Content::Value),
        1 => any::<bool>().prop_map(|tombstone| Content::Deleted { tombstone }),
    ]
}

fn limits() -> impl Strategy<Value = Limit> {
    prop_oneof![3 => Just(Limit::None), 1 => Just(Limit::Kept), 1 => any::<i64>().prop_map(Limit::Until)]
}

proptest! {
    #[test]
    fn what_was_joined_is_split_byte_for_byte(content in contents(), limit in limits(), events in events()) {
        let free = !matches!(&content, Content::Value(value) if Carried::is_taken(value));
        prop_assume!(free);
        let record = Carried { content, limit, events };
        let stored = record.join();
        prop_assert_eq!(Carried::split(stored).expect("ours"), record);
    }

    #[test]
    fn nothing_that_is_stored_makes_it_panic(bytes in vec(any::<u8>(), 0..60)) {
        let framed = [&b"\0carried\x01"[..], &bytes].concat();
        for stored in [bytes, framed] {
            drop(Carried::split(stored.into()));
        }
    }

    #[test]
    fn a_joined_value_is_refused_as_a_value(value in values(), events in events()) {
        prop_assume!(!events.is_empty());
        let mut record = Carried::value(value);
        record.events = events;
        prop_assert!(Carried::is_taken(&record.join()));
    }
}

#[test]
fn a_json_object_shows_its_events_as_its_last_member() {
    for (value, joined) in [
        ("{}", r#"{"_pending":EVENTS}"#),
        (r#"{"a":1}"#, r#"{"a":1,"_pending":EVENTS}"#),
        ("{ \"a\":1 }\n", "{ \"a\":1 ,\"_pending\":EVENTS}\n"),
    ] {
        let mut record = Carried::value(value.into());
        record.events = vec![event("{}")];
        let events = r#"[{"op":"r-1.7","topic":"tasks","key":"k","data":"{}"}]"#;
        assert_eq!(record.join(), joined.replace("EVENTS", events));
    }
}

#[test]
fn events_survive_a_writer_that_writes_the_record_again() {
    let own = r#"[ {"key": "k", "op": "r-1.7", "data": "{ }", "topic": "tasks", "more": 1} ]"#;
    for (stored, value) in [
        (r#"{"a": 1, "_pending": EVENTS}"#, r#"{"a": 1}"#),
        (r#"{"_pending": EVENTS, "a": 1}"#, r#"{"a": 1}"#),
        (
            r#"{"a": 1, "_pending": EVENTS , "b": 2}"#,
            r#"{"a": 1 , "b": 2}"#,
        ),
        (r#"{ "_pending": EVENTS }"#, "{  }"),
        (
            r#"{"x": "\"_pending\":", "_pending": EVENTS}"#,
            r#"{"x": "\"_pending\":"}"#,
        ),
    ] {
        let record = Carried::split(stored.replace("EVENTS", own).into()).expect("ours");
        assert_eq!(record.events, [event("{ }")], "{stored}");
        assert_eq!(record.content, Content::Value(value.into()), "{stored}");
    }
}

#[test]
fn a_member_of_somebody_else_is_part_of_the_value() {
    for value in [
        r#"{"_pending":7}"#,
        r#"{"_pending":null}"#,
        r#"{"_pending":[]}"#,
        r#"{"_pending":[{"op":"theirs","topic":"t","key":"k","data":""}]}"#,
        r#"{"_pending":[1]}"#,
        r#"{"_pending":[{"op":"x"}]}"#,
        r#"{"a":{"_pending":[]}}"#,
        r#"["_pending"]"#,
    ] {
        let record = Carried::split(value.into()).expect("a value");
        assert_eq!(record, Carried::value(value.into()), "{value}");
        assert!(!Carried::is_taken(value.as_bytes()), "{value}");
        let mut record = record;
        record.events = vec![event("x")];
        let joined = record.join();
        if let Some(members) = value.strip_suffix('}') {
            assert!(
                joined.starts_with(members.as_bytes()),
                "no frame: {joined:?}"
            );
        }
        assert_eq!(Carried::split(joined).expect("ours"), record, "{value}");
    }
}

#[test]
fn a_frame_that_is_cut_short_is_an_error() {
    let mut record = Carried::value("not JSON".into());
    record.events = vec![event("x")];
    let whole = record.join();
    let value = "not JSON".len();
    for length in b"\0carried\x01".len()..whole.len() - value {
        assert!(
            Carried::split(whole.slice(..length)).is_err(),
            "{length} bytes"
        );
    }
}
