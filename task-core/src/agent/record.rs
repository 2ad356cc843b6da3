//! Actors as stores hold them: versioned JSON that keeps fields which this version does not know.
//!
//! A replica of a later version may have added some, and one of this version writes the record next.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The version of the records that this code writes, and the only one that it reads.
const VERSION: u32 = 1;

/// Fields of a record that this version does not know.
pub(super) type Foreign = Map<String, Value>;

/// Bytes that are no record of an actor.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A version that this code does not read.
    #[error("an actor's record has version {found}, only {VERSION} is known")]
    Version {
        /// The version found.
        found: u32,
    },
    /// Anything else.
    #[error("not an actor's record")]
    Malformed(#[source] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
struct Record<B> {
    v: u32,
    #[serde(flatten)]
    body: B,
    #[serde(flatten)]
    foreign: Foreign,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

pub(super) fn encode<B: Serialize>(body: B, foreign: &Foreign) -> Bytes {
    let record = Record {
        v: VERSION,
        body,
        foreign: foreign.clone(),
    };
    Bytes::from(serde_json::to_vec(&record).expect("a record has only string keys"))
}

pub(super) fn decode<B: DeserializeOwned>(bytes: &[u8]) -> Result<(B, Foreign), RecordError> {
    let Version { v: found } = serde_json::from_slice(bytes).map_err(RecordError::Malformed)?;
    if found != VERSION {
        return Err(RecordError::Version { found });
    }
    let record: Record<B> = serde_json::from_slice(bytes).map_err(RecordError::Malformed)?;
    Ok((record.body, record.foreign))
}
