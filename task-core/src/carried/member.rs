//! Events as the last member of a JSON object, put in and taken out as text.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{CarriedEvent, MEMBER, Written};

/// The members of an object, as far as they matter here: where each value lies.
struct Members<'a>(Vec<(bool, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) =
                    map.next_entry::<std::borrow::Cow<'de, str>, &'de RawValue>()?
                {
                    members.push((name == MEMBER, value));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

fn members(text: &str) -> Option<Vec<(bool, &RawValue)>> {
    let members: Members<'_> = serde_json::from_str(text).ok()?;
    Some(members.0)
}

/// Puts the events behind the last member; `None` for what is no object, or carries events already.
pub(super) fn add(value: &Bytes, events: &[CarriedEvent]) -> Option<Bytes> {
    let text = std::str::from_utf8(value).ok()?;
    let members = members(text)?;
    if members.iter().any(|(is_ours, _)| *is_ours) && take(value).is_some() {
        return None;
    }
    let end = text.rfind('}')?;
    let events: Vec<Written<'_>> = events.iter().map(Written::of).collect();
    let events = serde_json::to_string(&events).expect("texts are JSON");
    let comma = if members.is_empty() { "" } else { "," };
    let joined = [
        &text[..end],
        comma,
        "\"",
        MEMBER,
        "\":",
        &events,
        &text[end..],
    ];
    Some(Bytes::from(joined.concat()))
}

/// Where the member lies in the text: its value, and what has to go with it.
struct Place {
    value: Range<usize>,
    cut: Range<usize>,
}

/// Finds the member; of a name that stands twice the last one counts.
fn find(value: &[u8]) -> Option<Place> {
    let text = std::str::from_utf8(value).ok()?;
    let members = members(text)?;
    let range = |raw: &RawValue| {
        let start = raw.get().as_ptr() as usize - text.as_ptr() as usize;
        start..start + raw.get().len()
    };
    let at = members.iter().rposition(|(is_ours, _)| *is_ours)?;
    let own = range(members[at].1);
    let cut = match (at.checked_sub(1), members.get(at + 1)) {
        // With the comma before it.
        (Some(before), _) => {
            let end = range(members[before].1).end;
            end + text[end..].find(',')?..own.end
        }
        // With the comma after it.
        (None, Some(_)) => {
            let start = text.find('"')?;
            let comma = own.end + text[own.end..].find(',')?;
            start..comma + text[comma..].find('"')?
        }
        (None, None) => text.find('"')?..own.end,
    };
    Some(Place { value: own, cut })
}

/// Takes the events out; `None` if the member is not there or is not ours.
pub(super) fn take(stored: &[u8]) -> Option<(Bytes, Vec<CarriedEvent>)> {
    let place = find(stored)?;
    let events: Vec<Written<'_>> = serde_json::from_slice(&stored[place.value]).ok()?;
    if events.is_empty() {
        return None;
    }
    let events = events.into_iter().map(Written::into_event);
    let events = events.collect::<Option<Vec<_>>>()?;
    let mut value = Vec::with_capacity(stored.len() - place.cut.len());
    value.extend_from_slice(&stored[..place.cut.start]);
    value.extend_from_slice(&stored[place.cut.end..]);
    Some((value.into(), events))
}
