//! Records that carry the pending events of the adapter for Dapr, taken apart so that a script can write over them.
//!
//! Only Dapr's layout has them. A script that meets one answers it and changes nothing. Here it is taken apart, what is
//! settled is left out, and the script is called again with what was found; that is valid for the version that was
//! taken apart and no other.

use bytes::Bytes;
use redis::{Cmd, Value};
use task_core::carried::{Carried, CarriedEvent, Content, Limit};

use super::answer::{bytes, is, parts, text, unexpected};
use super::error::{Effect, Failure};
use super::layout::{Form, Record};
use super::{journal, read::Reader};

/// How often a write is tried against writers that change what it has taken apart.
pub(super) const MOST_ATTEMPTS: usize = 64;

/// A record at one version.
#[derive(Debug)]
pub(super) struct Known {
    name: String,
    version: String,
    content: Result<Record, String>,
}

/// The records that a script wants to know, if it does.
pub(super) fn wanted(answer: &Value) -> Option<&[Value]> {
    match parts(answer) {
        [word, records @ ..] if is(word, "carries") => Some(records),
        _ => None,
    }
}

/// Takes records apart as a script has answered them.
pub(super) async fn take_apart(
    reader: Reader<'_>,
    records: &[Value],
) -> Result<Vec<Known>, Failure> {
    let mut known = Vec::with_capacity(records.len());
    for record in records {
        let read = || match parts(record) {
            [name, version, data] => Some((text(name)?, text(version)?, bytes(data)?)),
            _ => None,
        };
        let (name, version, data) = read().ok_or_else(|| unexpected(record, Effect::Read))?;
        let content = Record::read(Bytes::copy_from_slice(data), reader.now);
        known.push(Known {
            name: name.to_owned(),
            version: version.to_owned(),
            content: content.map_err(|error| error.to_string()),
        });
    }
    let events = known.iter_mut().filter_map(|known| {
        let record = known.content.as_mut().ok()?;
        Some(&mut record.events)
    });
    journal::keep_unsettled(reader, events.collect()).await?;
    Ok(known)
}

/// The failure of a write that always found another version than it had taken apart.
pub(super) fn contended(what: impl Into<String>) -> Failure {
    Failure::Contended {
        what: what.into(),
        attempts: MOST_ATTEMPTS,
    }
}

impl Known {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its events, all of them unsettled.
    fn events(&self) -> &[CarriedEvent] {
        self.content.as_ref().map_or(&[], |record| &record.events)
    }

    /// Another value with the same events.
    pub(super) fn join(&self, value: &Bytes) -> Bytes {
        Carried {
            content: Content::Value(value.clone()),
            limit: Limit::None,
            events: self.events().to_vec(),
        }
        .join()
    }
}

/// Adds records to a script's call.
pub(super) fn add(known: &[Known], call: &mut Cmd) {
    call.arg(known.len());
    for record in known {
        call.arg(&record.name).arg(&record.version);
        match &record.content {
            Ok(Record { form, left, .. }) => {
                match form {
                    Form::Value(value) => call.arg("value").arg(value.as_ref()),
                    Form::Buried => call.arg("buried").arg(""),
                    Form::Left => call.arg("left").arg(""),
                };
                match left {
                    Some(left) => call.arg(*left),
                    None => call.arg(""),
                };
            }
            Err(why) => {
                call.arg("broken").arg(format!("is no record: {why}"));
                call.arg("");
            }
        }
        call.arg(record.events().len());
        for CarriedEvent { event, .. } in record.events() {
            call.arg(event.topic.as_str())
                .arg(event.key.as_ref())
                .arg(event.payload.as_ref());
        }
    }
}
