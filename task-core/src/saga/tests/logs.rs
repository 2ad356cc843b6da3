//! Logs that are not what was written are refused by name, and none makes the reader panic.

use bytes::Bytes;

use super::*;
use crate::saga::{Chain, Entry, Head, LogError, Saga, read};

/// The log of a run that fails, and its head.
fn log() -> (Vec<Bytes>, Head, Saga) {
    let mut harness = Harness::new(task(), failing("notify", Fault::Refused));
    harness.run();
    let id = "task-workflow-7";
    let records = harness.log.iter().map(|record| &record[..]);
    let (saga, chain) = read(id, records, None).unwrap();
    (harness.log, chain.head().clone(), saga)
}

fn error_of(log: &[Bytes], head: Option<&Head>) -> LogError {
    let records = log.iter().map(|record| &record[..]);
    read("task-workflow-7", records, head).unwrap_err()
}

#[test]
fn the_records_of_a_log_are_pinned() {
    let (log, ..) = log();
    let text = |at: usize| std::str::from_utf8(&log[at]).unwrap();
    let unsealed = |at: usize| text(at).split_once(r#","sum":"#).unwrap().0.to_owned();
    assert_eq!(
        unsealed(0),
        concat!(
            r#"{"v":1,"saga":"task-workflow-7","seq":0,"at":"2026-01-01T00:00:00.000000Z","#,
            r#""entry":{"kind":"begun","version":1,"workflow":{"definition":"task_processing","input":"#,
            r#"{"task_id":"7","title":"write the report","description":"the one for March","assignee":"ann","#,
            r#""deadline_seconds":36000}}}"#
        )
    );
    assert!(
        text(0).ends_with(r#","sum":"53239dbd4d7438ecccd41b431c8c2117"}"#),
        "{}",
        text(0)
    );
    assert!(unsealed(2).ends_with(r#""entry":{"kind":"done","step":"create"}"#));
    let failed = r#""entry":{"kind":"failed","step":"notify","attempt":3,"reason":"the world is unjust","is_final":true}"#;
    assert!(unsealed(7).ends_with(failed), "{}", unsealed(7));
    assert!(unsealed(8).ends_with(r#""entry":{"kind":"undone","step":"set_reminder"}"#));
}

#[test]
fn a_log_reads_back_as_the_saga_that_wrote_it() {
    let (log, head, saga) = log();
    let records = log.iter().map(|record| &record[..]);
    let (again, chain) = read("task-workflow-7", records, Some(&head)).unwrap();
    assert_eq!((&again, chain.head()), (&saga, &head));
    assert_eq!(head.entries, 10);
}

#[test]
fn a_record_that_is_cut_off_anywhere_is_torn() {
    let (log, ..) = log();
    for at in 0..log.len() {
        for length in 0..log[at].len() {
            let mut torn = log[..=at].to_vec();
            torn[at].truncate(length);
            let error = error_of(&torn, None);
            assert!(
                matches!(error, LogError::Torn { seq, .. } if seq == at as u64),
                "{error}"
            );
        }
    }
}

#[test]
fn a_byte_that_was_changed_anywhere_is_found() {
    let (log, ..) = log();
    for at in 0..log.len() {
        for byte in 0..log[at].len() {
            for flipped in [1_u8, 0x20, 0x80] {
                let mut changed = log.clone();
                let mut record = changed[at].to_vec();
                record[byte] ^= flipped;
                changed[at] = Bytes::from(record);
                let _ = error_of(&changed, None);
            }
        }
    }
}

#[test]
fn a_reason_that_was_rewritten_is_tampering_even_if_it_is_still_json() {
    let (mut log, ..) = log();
    let text = std::str::from_utf8(&log[7]).unwrap();
    log[7] = Bytes::from(text.replace("unjust", "lovely"));
    let error = error_of(&log, None).to_string();
    assert_eq!(error, "saga task-workflow-7: entry 7 was tampered with");
}

#[test]
fn a_spare_field_and_a_second_sum_are_tampering() {
    let (log, ..) = log();
    let text = std::str::from_utf8(&log[2]).unwrap();
    for changed in [
        text.replace(r#","sum""#, r#","more":1,"sum""#),
        format!(" {text}"),
        format!("{text} "),
    ] {
        let mut log = log.clone();
        log[2] = Bytes::from(changed);
        assert!(matches!(
            error_of(&log, None),
            LogError::Tampered { seq: 2, .. }
        ));
    }
}

#[test]
fn records_in_another_order_missing_or_twice_are_misplaced() {
    let (log, ..) = log();
    let mut swapped = log.clone();
    swapped.swap(3, 4);
    let mut missing = log.clone();
    missing.remove(3);
    let mut twice = log.clone();
    twice.insert(3, log[2].clone());
    for log in [swapped, missing, twice] {
        assert!(matches!(
            error_of(&log, None),
            LogError::Misplaced { seq: 3, .. }
        ));
    }
    let records = log.iter().map(|record| &record[..]);
    let error = read("task-workflow-8", records, None)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "saga task-workflow-8: entry 0 of task-workflow-7 stands in the place of entry 0"
    );
}

#[test]
fn a_record_of_another_history_of_the_same_saga_breaks_the_chain() {
    let (log, ..) = log();
    let mut other = Harness::new(task(), failing("notify", Fault::RefusedForGood));
    other.run();
    assert_eq!(log[..5], other.log[..5]);
    let mut spliced = log;
    spliced[5] = other.log[5].clone();
    let error = error_of(&spliced, None);
    assert!(
        matches!(error, LogError::Tampered { seq: 6, .. }),
        "{error}"
    );
}

#[test]
fn the_end_of_a_log_is_missed_by_its_head() {
    let (log, head, _) = log();
    let error = error_of(&log[..9], Some(&head)).to_string();
    assert_eq!(
        error,
        "saga task-workflow-7: the log has 9 entries, its head tells of 10"
    );
    let other = Head {
        sum: "0".repeat(32),
        ..head
    };
    assert!(matches!(
        error_of(&log, Some(&other)),
        LogError::Tampered { seq: 9, .. }
    ));
    assert!(matches!(
        error_of(&[], None),
        LogError::Incomplete {
            expected: 1,
            found: 0,
            ..
        }
    ));
}

/// A log of one's own making, sealed as it should be.
fn sealed(json: &str) -> Vec<Bytes> {
    let (log, ..) = log();
    let mut chain = Chain::new("task-workflow-7");
    let begun: serde_json::Value = serde_json::from_slice(&log[0]).unwrap();
    let begun: Entry = serde_json::from_value(begun["entry"].clone()).unwrap();
    let first = chain.seal(&begun, noon());
    // The chain of a record whose entry this version could not even write.
    let record = chain.seal_json(json, noon());
    vec![first, record]
}

#[test]
fn entries_and_fields_and_versions_that_are_not_known_are_refused() {
    for unknown in [
        r#"{"kind":"suspended"}"#,
        r#"{"kind":"done","step":"validate","more":1}"#,
        r#"{"kind":"done"}"#,
    ] {
        let error = error_of(&sealed(unknown), None);
        assert!(
            matches!(error, LogError::Unknown { seq: 1, .. }),
            "{unknown}: {error}"
        );
    }
    let (log, ..) = log();
    let later = std::str::from_utf8(&log[0]).unwrap();
    let later = later.replace(r#"{"v":1"#, r#"{"v":2"#);
    let error = error_of(&[Bytes::from(later)], None);
    assert!(
        matches!(error, LogError::Version { found: 2, .. }),
        "{error}"
    );
}

#[test]
fn entries_that_cannot_follow_are_illegal() {
    for illegal in [
        r#"{"kind":"done","step":"assign"}"#,
        r#"{"kind":"done","step":"nothing"}"#,
        r#"{"kind":"undone","step":"assign"}"#,
        r#"{"kind":"failed","step":"validate","attempt":2,"reason":"","is_final":true}"#,
        r#"{"kind":"undo_failed","step":"assign","attempt":1,"reason":""}"#,
    ] {
        let error = error_of(&sealed(illegal), None);
        assert!(
            matches!(error, LogError::Illegal { seq: 1, .. }),
            "{illegal}: {error}"
        );
    }
    let (mut harness, ended) = (
        Harness::new(task(), |_| Fault::None),
        Entry::Cancelled {
            by: "ann".to_owned(),
        },
    );
    harness.run();
    assert!(harness.saga.apply(&ended, harness.now).is_err());
}

#[test]
fn another_plan_is_not_continued() {
    let (log, ..) = log();
    let mut begun: serde_json::Value = serde_json::from_slice(&log[0]).unwrap();
    begun["entry"]["version"] = 2.into();
    let mut chain = Chain::new("task-workflow-7");
    let record = chain.seal_json(&begun["entry"].to_string(), noon());
    let error = error_of(&[record], None);
    assert!(
        matches!(
            error,
            LogError::Version {
                seq: 0,
                found: 2,
                ..
            }
        ),
        "{error}"
    );
}
