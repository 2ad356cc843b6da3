//! What became of a write, from what was noted before it and what is found after it.

use super::record::Record;

/// What a conditional write was based on: a version, or that there is none.
pub(super) type Noted = Option<Box<str>>;

/// What is known of a write that did not simply succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It took effect.
    Done,
    /// It did not, and never will.
    Refused,
    /// It may still take effect.
    Waits,
}

/// Judges a write by the record that is there now.
///
/// `op` is what the write carries if it has events: found, it proves that the write took effect. Of one that
/// has none, equal bytes prove nothing, since another writer may have written the same.
///
/// A version that has moved on refuses the write, however late it comes. A missing key refuses it only where
/// the component does; `state.redis` would create it.
pub(super) fn fate(
    noted: &Noted,
    op: Option<&str>,
    found: &Record,
    missing_is_refused: bool,
) -> Fate {
    if op.is_some_and(|op| found.carries(op)) {
        return Fate::Done;
    }
    match (noted.as_deref(), found.etag()) {
        (None, None) => Fate::Waits,
        (None, Some(_)) => Fate::Refused,
        (Some(_), None) if missing_is_refused => Fate::Refused,
        (Some(_), None) => Fate::Waits,
        (Some(noted), Some(found)) if noted == found => Fate::Waits,
        (Some(_), Some(_)) => Fate::Refused,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use task_core::carried::{CarriedEvent, Limit};
    use task_core::ports::{Event, Topic};

    use super::*;

    fn gone(etag: &str, op: Option<&str>) -> Record {
        let carried = |op: &str| CarriedEvent {
            op: op.into(),
            event: Event {
                topic: Topic::new("t"),
                key: "k".into(),
                payload: Bytes::new(),
            },
        };
        Record::Gone {
            etag: etag.into(),
            is_buried: false,
            limit: Limit::None,
            events: op.map(carried).into_iter().collect(),
        }
    }

    #[test]
    fn a_write_is_judged_by_what_is_there_now() {
        use Fate::{Done, Refused, Waits};
        let moved = gone("2", None);
        let ours = gone("2", Some("r.1"));
        let theirs = gone("2", Some("r.2"));
        let same = gone("1", None);
        let at = |etag: &str| Some(Box::from(etag));
        for (noted, found, lenient, strict) in [
            (None, &Record::Missing, Waits, Waits),
            (None, &moved, Refused, Refused),
            (None, &ours, Done, Done),
            (at("1"), &Record::Missing, Waits, Refused),
            (at("1"), &same, Waits, Waits),
            (at("1"), &moved, Refused, Refused),
            (at("1"), &theirs, Refused, Refused),
            (at("1"), &ours, Done, Done),
        ] {
            assert_eq!(
                fate(&noted, Some("r.1"), found, false),
                lenient,
                "{noted:?} {found:?}"
            );
            assert_eq!(
                fate(&noted, Some("r.1"), found, true),
                strict,
                "{noted:?} {found:?}"
            );
        }
        assert_eq!(fate(&at("1"), None, &ours, true), Refused);
    }
}
