//! The saga's log as bytes: a chain of records, each sealed with a sum over itself and the one before.
//!
//! ```json
//! {"v":1,"saga":"task-workflow-7","seq":2,"at":"…Z","entry":{"kind":"done","step":"create"},"sum":"…"}
//! ```
//!
//! A log that was torn, changed, reordered or mixed with another is refused by name, and never driven. The chain tells
//! damage and careless hands; it keeps nobody out who computes it anew.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::coordinator::{IllegalEntry, Saga};
use super::entry::Entry;
use super::workflow::Workflow;
use crate::agent::as_text;
use crate::domain::Timestamp;

/// The version of the records that this code writes, and the only one that it reads.
const VERSION: u32 = 1;

/// What stands before the sum, and behind it.
const BEFORE_SUM: &str = r#","sum":""#;
const BEHIND_SUM: &str = r#""}"#;

/// Hexadecimal digits of a sum.
const SUM_DIGITS: usize = 32;

/// A log that must not be driven.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A record ends too soon, or is no record at all.
    #[error("saga {saga}: entry {seq} is torn")]
    Torn {
        /// The saga.
        saga: String,
        /// The number of the record, from 0.
        seq: u64,
    },
    /// A record, or one before it, is not as it was written.
    #[error("saga {saga}: entry {seq} was tampered with")]
    Tampered {
        /// The saga.
        saga: String,
        /// The number of the record, from 0.
        seq: u64,
    },
    /// A record is another's, or stands in the wrong place.
    #[error("saga {saga}: entry {found_seq} of {found} stands in the place of entry {seq}")]
    Misplaced {
        /// The saga.
        saga: String,
        /// The number of the place, from 0.
        seq: u64,
        /// Whose record it is.
        found: String,
        /// Its number there.
        found_seq: u64,
    },
    /// Records are missing at the end, or there are too many.
    #[error("saga {saga}: the log has {found} entries, its head tells of {expected}")]
    Incomplete {
        /// The saga.
        saga: String,
        /// How many the head tells of, at least 1.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// A later version has written it, or plans another way.
    #[error("saga {saga}: entry {seq} has version {found}, which is not known")]
    Version {
        /// The saga.
        saga: String,
        /// The number of the record, from 0.
        seq: u64,
        /// The version.
        found: u32,
    },
    /// An entry that this version does not know.
    #[error("saga {saga}: entry {seq} is not known")]
    Unknown {
        /// The saga.
        saga: String,
        /// The number of the record, from 0.
        seq: u64,
        /// What is not known about it.
        source: serde_json::Error,
    },
    /// An entry that cannot follow on those before it.
    #[error("saga {saga}: entry {seq} is illegal")]
    Illegal {
        /// The saga.
        saga: String,
        /// The number of the record, from 0.
        seq: u64,
        /// Why.
        source: IllegalEntry,
    },
}

/// How long a log is and how it ends; kept beside the log, in the step that appends to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// How many entries there are.
    pub entries: u64,
    /// The sum of the last one.
    pub sum: String,
}

/// Where a log ends, and what the next record is chained to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    saga: String,
    head: Head,
}

#[derive(Serialize)]
struct Written<'a, E> {
    v: u32,
    saga: &'a str,
    seq: u64,
    #[serde(with = "as_text")]
    at: Timestamp,
    entry: &'a E,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read<'a> {
    #[serde(rename = "v")]
    _v: u32,
    #[serde(rename = "saga")]
    _saga: String,
    #[serde(rename = "seq")]
    _seq: u64,
    #[serde(with = "as_text")]
    at: Timestamp,
    #[serde(borrow)]
    entry: &'a RawValue,
    #[serde(rename = "sum")]
    _sum: String,
}

/// What says whose record it is; read before anything else of it counts.
#[derive(Deserialize)]
struct Place {
    v: u32,
    saga: String,
    seq: u64,
}

impl Chain {
    /// The chain of a log that has no entry yet.
    pub(super) fn new(workflow_id: impl Into<String>) -> Self {
        let head = Head {
            entries: 0,
            sum: String::new(),
        };
        Self {
            saga: workflow_id.into(),
            head,
        }
    }

    /// The chain of a saga's log and its first record, which says what is to be done.
    #[must_use]
    pub fn begin(saga: &Saga) -> (Self, Bytes) {
        let mut chain = Self::new(saga.run().workflow_id());
        let first = chain.seal(&saga.begun(), saga.run().started());
        (chain, first)
    }

    /// How long the log is and how it ends.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The record of the next entry.
    #[must_use]
    pub fn seal(&mut self, entry: &Entry, at: Timestamp) -> Bytes {
        self.seal_any(entry, at)
    }

    /// The record of an entry that no version of this code writes.
    #[cfg(test)]
    pub(super) fn seal_json(&mut self, entry: &str, at: Timestamp) -> Bytes {
        let entry = RawValue::from_string(entry.to_owned()).expect("JSON");
        self.seal_any(&entry, at)
    }

    fn seal_any(&mut self, entry: &impl Serialize, at: Timestamp) -> Bytes {
        let written = Written {
            v: VERSION,
            saga: &self.saga,
            seq: self.head.entries,
            at,
            entry,
        };
        let mut json = serde_json::to_vec(&written).expect("an entry has only string keys");
        json.truncate(json.len() - "}".len());
        let sum = self.sum_of(&json);
        for part in [BEFORE_SUM, &sum, BEHIND_SUM] {
            json.extend_from_slice(part.as_bytes());
        }
        self.follow(sum);
        Bytes::from(json)
    }

    /// Reads the record of the next entry.
    fn open(&mut self, record: &[u8]) -> Result<(Entry, Timestamp), LogError> {
        let (saga, seq) = (self.saga.clone(), self.head.entries);
        let Ok(place) = serde_json::from_slice::<Place>(record) else {
            return Err(LogError::Torn { saga, seq });
        };
        if place.v != VERSION {
            let found = place.v;
            return Err(LogError::Version { saga, seq, found });
        }
        if place.saga != saga || place.seq != seq {
            return Err(LogError::Misplaced {
                saga,
                seq,
                found: place.saga,
                found_seq: place.seq,
            });
        }
        let tail = BEFORE_SUM.len() + SUM_DIGITS + BEHIND_SUM.len();
        let unsealed = &record[..record.len().saturating_sub(tail)];
        let sum = self.sum_of(unsealed);
        let sealed = [
            unsealed,
            BEFORE_SUM.as_bytes(),
            sum.as_bytes(),
            BEHIND_SUM.as_bytes(),
        ];
        if sealed.concat() != record {
            return Err(LogError::Tampered { saga, seq });
        }
        self.follow(sum);
        let read = serde_json::from_slice::<Read<'_>>(record);
        let read = read.and_then(|read| Ok((serde_json::from_str(read.entry.get())?, read.at)));
        read.map_err(|source| LogError::Unknown { saga, seq, source })
    }

    fn sum_of(&self, unsealed: &[u8]) -> String {
        let mut hash = Sha256::new();
        hash.update(self.head.sum.as_bytes());
        hash.update(unsealed);
        let hash = hash.finalize();
        let digits = hash.iter().take(SUM_DIGITS / 2);
        digits.map(|byte| format!("{byte:02x}")).collect()
    }

    fn follow(&mut self, sum: String) {
        self.head.entries += 1;
        self.head.sum = sum;
    }
}

/// Reads a saga from the records of its log, oldest first, and says what the next record is chained to.
///
/// With a head it is known, too, that no record is missing at the end.
///
/// ```
/// use task_core::domain::Timestamp;
/// use task_core::saga::{Chain, ProcessTask, Saga, Workflow, read};
///
/// let text = str::to_owned;
/// let input = ProcessTask::new("7", text("write it"), text("the whole report"), text("ann"), None).unwrap();
/// let now = Timestamp::from_unix_micros(0);
/// let saga = Saga::begin(Workflow::TaskProcessing(input), now);
///
/// let (chain, first) = Chain::begin(&saga);
/// let (again, end) = read("task-workflow-7", [&first[..]], Some(chain.head())).unwrap();
/// assert_eq!((again, end), (saga, chain));
///
/// let torn = read("task-workflow-7", [&first[..40]], None).unwrap_err();
/// assert_eq!(torn.to_string(), "saga task-workflow-7: entry 0 is torn");
/// ```
///
/// # Errors
/// The log is not what it was, or not of this version; it names the entry.
pub fn read<'a>(
    workflow_id: &str,
    records: impl IntoIterator<Item = &'a [u8]>,
    head: Option<&Head>,
) -> Result<(Saga, Chain), LogError> {
    let mut chain = Chain::new(workflow_id);
    let mut saga: Option<Saga> = None;
    for record in records {
        let seq = chain.head.entries;
        let (entry, at) = chain.open(record)?;
        match &mut saga {
            None => saga = Some(begin(workflow_id, entry, at)?),
            Some(saga) => saga.apply(&entry, at).map_err(|source| LogError::Illegal {
                saga: workflow_id.to_owned(),
                seq,
                source,
            })?,
        }
    }
    let found = chain.head.entries;
    let expected = head.map_or(found.max(1), |head| head.entries);
    match saga {
        Some(saga) if head.is_none_or(|head| *head == chain.head) => Ok((saga, chain)),
        Some(_) if expected == found => Err(LogError::Tampered {
            saga: workflow_id.to_owned(),
            seq: found - 1,
        }),
        Some(_) | None => Err(LogError::Incomplete {
            saga: workflow_id.to_owned(),
            expected,
            found,
        }),
    }
}

fn begin(workflow_id: &str, entry: Entry, at: Timestamp) -> Result<Saga, LogError> {
    let saga = workflow_id.to_owned();
    let illegal = |what: &str| LogError::Illegal {
        saga: workflow_id.to_owned(),
        seq: 0,
        source: IllegalEntry {
            what: what.to_owned(),
        },
    };
    match entry {
        Entry::Begun { version, .. } if version != Workflow::VERSION => Err(LogError::Version {
            saga,
            seq: 0,
            found: version,
        }),
        Entry::Begun { workflow, .. } if workflow.id() != saga => {
            Err(illegal("the beginning of another saga"))
        }
        Entry::Begun { workflow, .. } => Ok(Saga::begin(workflow, at)),
        Entry::Done { .. }
        | Entry::Failed { .. }
        | Entry::Postponed { .. }
        | Entry::Undone { .. }
        | Entry::UndoFailed { .. }
        | Entry::Cancelled { .. }
        | Entry::Terminated { .. } => Err(illegal("anything but a beginning")),
    }
}
