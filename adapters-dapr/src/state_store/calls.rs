//! The calls of the sidecar's state API, each of them once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dapr::dapr::proto::common::v1::state_options::{StateConcurrency, StateConsistency};
use dapr::dapr::proto::common::v1::{Etag, StateItem, StateOptions};
use dapr::dapr::proto::runtime::v1::{
    BulkStateItem, DeleteStateRequest, GetBulkStateRequest, GetStateRequest, SaveStateRequest,
};
use tonic::Code;

use super::probe::Creation;
use crate::error::{Effect, Failure};
use crate::sidecar::{Grpc, Sidecar};

/// Most keys of one bulk read.
const MOST_KEYS: usize = 100;

/// Keys of one bulk read that a component looks up at the same time, if it does so one by one.
const PARALLEL: i32 = 10;

/// The version that no key of `state.redis` has. One that is no versioned value at all is written over by it.
pub(super) const SENTINEL: &str = "2147483647";

/// A key that is never written.
pub(super) const NOBODY: &str = "probe-check";

/// What a read finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) data: Bytes,
    /// Absent for a missing key.
    pub(super) etag: Option<Box<str>>,
}

/// When a save takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When<'a> {
    Always,
    Missing,
    Match(&'a str),
}

/// How long a value stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// Whatever limit it had before. `state.redis` needs a command of its own for that.
    Ever,
    /// As long as before, which is for ever as far as is known.
    Same,
    Seconds(u32),
}

impl Life {
    /// In whole seconds, rounded up; what is longer than 68 years is for ever.
    pub(super) fn of(time: Duration) -> Self {
        let part = u64::from(time.subsec_nanos() > 0);
        let seconds = time.as_secs().saturating_add(part);
        let seconds = i32::try_from(seconds).ok();
        match seconds.and_then(|seconds| u32::try_from(seconds.max(1)).ok()) {
            Some(seconds) => Self::Seconds(seconds),
            None => Self::Ever,
        }
    }
}

/// One component of one sidecar. A clone shares the connection.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    sidecar: Sidecar,
    component: Arc<str>,
}

impl Calls {
    pub(super) fn new(sidecar: &Sidecar) -> Self {
        Self {
            sidecar: sidecar.clone(),
            component: sidecar.config().components.state_store.as_str().into(),
        }
    }

    pub(super) async fn get(&self, name: &str) -> Result<Found, Failure> {
        let request = GetStateRequest {
            store_name: self.component.to_string(),
            key: name.to_owned(),
            consistency: StateConsistency::ConsistencyStrong.into(),
            metadata: HashMap::new(),
        };
        let ask = async |mut grpc: Grpc| grpc.get_state(request).await;
        let answer = self.sidecar.call(Effect::Read, ask).await?;
        Ok(found(answer.data, &answer.etag))
    }

    /// Reads several keys, which may repeat, in as few calls as their size allows.
    ///
    /// A key that holds what no component can read fails alone.
    pub(super) async fn get_many(
        &self,
        names: &[String],
    ) -> Result<Vec<Result<Found, Failure>>, Failure> {
        let mut unique: Vec<&String> = names.iter().collect();
        unique.sort_unstable();
        unique.dedup();
        let mut known: HashMap<String, Result<Found, String>> = HashMap::new();
        let mut parts: Vec<&[&String]> = unique.chunks(MOST_KEYS).collect();
        while let Some(part) = parts.pop() {
            match self.bulk(part).await {
                Ok(items) => {
                    for item in items {
                        let found = match item.error.is_empty() {
                            true => Ok(found(item.data, &item.etag)),
                            false => Err(item.error),
                        };
                        known.insert(item.key, found);
                    }
                }
                // Together they are more than one answer takes.
                Err(failure) if is_too_large(&failure) && part.len() > 1 => {
                    let (one, other) = part.split_at(part.len() / 2);
                    parts.extend([one, other]);
                }
                Err(failure) => return Err(failure),
            }
        }
        // In an outage each key has an error, and so has one that nobody writes.
        if known.values().any(Result::is_err) {
            self.get(NOBODY).await?;
        }
        let answer = names.iter().map(|name| match known.get(name) {
            None => Ok(nothing()),
            Some(found) => found.clone().map_err(Failure::Item),
        });
        Ok(answer.collect())
    }

    async fn bulk(&self, names: &[&String]) -> Result<Vec<BulkStateItem>, Failure> {
        let request = GetBulkStateRequest {
            store_name: self.component.to_string(),
            keys: names.iter().map(|name| (*name).clone()).collect(),
            parallelism: PARALLEL,
            metadata: HashMap::new(),
        };
        let ask = async |mut grpc: Grpc| grpc.get_bulk_state(request).await;
        Ok(self.sidecar.call(Effect::Read, ask).await?.items)
    }

    pub(super) async fn save(
        &self,
        name: &str,
        value: &Bytes,
        when: When<'_>,
        creation: Creation,
        life: Life,
    ) -> Result<(), Failure> {
        // Last-write by name would make `state.redis` ignore the ETag.
        let mut concurrency = StateConcurrency::ConcurrencyUnspecified;
        let etag = match (when, creation) {
            (When::Always, _) => None,
            (When::Match(etag), _) => Some(etag),
            (When::Missing, Creation::Sentinel) => Some(SENTINEL),
            (When::Missing, Creation::FirstWrite) => {
                concurrency = StateConcurrency::ConcurrencyFirstWrite;
                None
            }
        };
        let seconds = match life {
            Life::Same => None,
            Life::Ever => Some("-1".to_owned()),
            Life::Seconds(seconds) => Some(seconds.to_string()),
        };
        let ttl = seconds.map(|seconds| ("ttlInSeconds".to_owned(), seconds));
        let item = StateItem {
            key: name.to_owned(),
            value: value.to_vec(),
            etag: etag.map(|etag| Etag {
                value: etag.to_owned(),
            }),
            metadata: ttl.into_iter().collect(),
            options: Some(StateOptions {
                concurrency: concurrency.into(),
                // The component's own: a stronger one makes `state.redis` wait for all its replicas.
                consistency: StateConsistency::ConsistencyUnspecified.into(),
            }),
        };
        let request = SaveStateRequest {
            store_name: self.component.to_string(),
            states: vec![item],
        };
        let ask = async |mut grpc: Grpc| grpc.save_state(request).await;
        self.sidecar.call(Effect::Write, ask).await
    }

    /// Removes a key that nobody writes with a version.
    pub(super) async fn remove(&self, name: &str) -> Result<(), Failure> {
        let request = DeleteStateRequest {
            store_name: self.component.to_string(),
            key: name.to_owned(),
            ..DeleteStateRequest::default()
        };
        let ask = async |mut grpc: Grpc| grpc.delete_state(request).await;
        self.sidecar.call(Effect::Write, ask).await
    }
}

fn found(data: Vec<u8>, etag: &str) -> Found {
    Found {
        data: data.into(),
        etag: (!etag.is_empty()).then(|| etag.into()),
    }
}

fn nothing() -> Found {
    found(Vec::new(), "")
}

fn is_too_large(failure: &Failure) -> bool {
    let Failure::Status { status, .. } = failure else {
        return false;
    };
    matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted)
}

/// Says whether a failed conditional save was refused for its condition, as far as the component tells.
///
/// `state.redis` answers every failure in this way, so there the script has to speak; its client may have
/// sent a save twice, so even then the record has to be read.
pub(super) fn is_refusal(failure: &Failure, creation: Creation) -> bool {
    let Failure::Status { status, .. } = failure else {
        return false;
    };
    let says = |text: &str| status.message().contains(text);
    match (creation, status.code()) {
        (Creation::Sentinel, Code::Aborted) => says("user_script") || says("failed to set key"),
        (Creation::FirstWrite, Code::Aborted) => true,
        // What `state.postgresql` says of a key that is there.
        (Creation::FirstWrite, Code::Internal) => says("no item was updated"),
        (Creation::Sentinel | Creation::FirstWrite, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    #[test]
    fn an_outage_is_not_taken_for_a_refusal() {
        let mismatch = "possible etag mismatch. error from state store: ";
        for (creation, code, text, expected) in [
            (
                Creation::Sentinel,
                Code::Aborted,
                "ERR user_script:14: failed to set key task-7",
                true,
            ),
            (
                Creation::Sentinel,
                Code::Aborted,
                "read tcp 127.0.0.1:6379: i/o timeout",
                false,
            ),
            (
                Creation::Sentinel,
                Code::Aborted,
                "dial tcp 127.0.0.1:6379: connect: connection refused",
                false,
            ),
            (
                Creation::Sentinel,
                Code::Internal,
                "no item was updated",
                false,
            ),
            (Creation::FirstWrite, Code::Aborted, "", true),
            (
                Creation::FirstWrite,
                Code::Internal,
                "no item was updated",
                true,
            ),
            (
                Creation::FirstWrite,
                Code::Internal,
                "failed to connect to `host=127.0.0.1`",
                false,
            ),
            (
                Creation::FirstWrite,
                Code::Unavailable,
                "no item was updated",
                false,
            ),
        ] {
            let status = Box::new(Status::new(code, format!("{mismatch}{text}")));
            let effect = Effect::Write;
            let failure = Failure::Status { status, effect };
            assert_eq!(is_refusal(&failure, creation), expected, "{code} {text}");
        }
        let limit = Duration::from_secs(3);
        let effect = Effect::Write;
        let failure = Failure::NoAnswer { limit, effect };
        assert!(!is_refusal(&failure, Creation::FirstWrite));
    }
}
