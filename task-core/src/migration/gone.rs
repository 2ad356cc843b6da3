//! How the new side holds that a record is not there.
//!
//! A deletion has to beat a copy of the record that was begun before it and arrives after it. Only what has a version
//! can be written over conditionally, so during a move a deleted record leaves a value on the new side: JSON's `null`,
//! which others who read there take for nothing. It ends by itself, where values can.

use std::time::Duration;

use bytes::Bytes;

use super::marker::Limits;
use crate::ports::{CapabilitySet, Key, PutOptions, StateCapability, Stored, Write, WriteMode};

/// Longer than any backfill, verify and pause of a process that may still hold the deleted value.
const LEAST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// May be created again. The white space is a signature: nobody else writes `null` in this way.
const FREE: &[u8] = b"null \t\t \t \t\n";

/// Was deleted by somebody who forbade that.
const FORBIDDEN: &[u8] = b"null \t\t \t \n\n";

/// What is left of a record that is deleted with these limits.
pub(super) fn left_of(limits: Limits) -> &'static [u8] {
    match limits.kept() {
        Some(_) => FORBIDDEN,
        None => FREE,
    }
}

/// The write that leaves it over what was found.
pub(super) fn leave(
    key: &Key,
    found: Option<&Stored>,
    limits: Limits,
    abilities: CapabilitySet<StateCapability>,
) -> Write {
    let ttl = match limits.kept() {
        Some(Duration::MAX) => None,
        kept => Some(kept.unwrap_or_default().max(LEAST)),
    };
    let ttl = ttl.filter(|_| abilities.has(StateCapability::Ttl));
    put(key, Bytes::from_static(left_of(limits)), found, ttl)
}

/// The write of a value over exactly what was found.
pub(super) fn put(key: &Key, value: Bytes, found: Option<&Stored>, ttl: Option<Duration>) -> Write {
    let mode = match found {
        Some(stored) => WriteMode::Match(stored.etag.clone()),
        None => WriteMode::Create,
    };
    Write::Put {
        key: key.clone(),
        value,
        options: PutOptions { mode, ttl },
    }
}

/// Whether a value on the new side stands for none.
pub(super) fn is_left(value: &[u8]) -> bool {
    value == FREE || value == FORBIDDEN
}

/// The record, if what was found is one.
pub(super) fn present(found: Option<&Stored>) -> Option<&Stored> {
    found.filter(|stored| !is_left(&stored.value))
}

/// Whether a record may be created over what was found.
pub(super) fn allows_birth(found: Option<&Stored>) -> bool {
    found.is_none_or(|stored| stored.value == FREE)
}
