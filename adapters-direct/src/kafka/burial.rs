//! How an event gets into its dead-letter topic, whatever stands against it.
//!
//! Key and payload are those of the event, and its headers are followed by ours: why it is dead, where
//! it was, and how often it was delivered.
//!
//! What the dead-letter topic refuses for its size can never be written there. A small JSON object is
//! written instead, which says where the event lies and how to recognise it, so that the group goes on:
//!
//! ```text
//! {"bytes":2000000,"key":"t-1","offset":17,"partition":2,"reason":"too large","sha256":"…","topic":"task-events"}
//! ```
//!
//! Any other refusal may be healed by who runs the brokers. It is tried again until it is, with one
//! line in the log every 30 s; meanwhile the events of other keys are handled and committed.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::message::{Header, Headers as _, OwnedHeaders};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use task_core::dispatch::DeadReason;
use task_core::ports::{Delivery, Topic};
use tokio::time::{Instant, sleep};

use super::error::{Failure, is_too_large, port_error};
use super::event_bus::Brokers;
use super::message::Origin;
use super::partitions::Place;
use super::producer::Record;
use crate::dead_letter::{DELIVERIES, OFFSET, REASON, TOPIC};
use crate::trouble::Trouble;

/// Pause after the first refusal; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Longest key that a substitute has, in bytes; a longer one is cut off.
const MAX_KEY_BYTES: usize = 1024;

/// The partition that the event was in.
const PARTITION: &str = "x-original-partition";

/// Why a substitute lies where an event should.
const TOO_LARGE: &str = "too large";

/// An event on its way to the dead-letter topic.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) topic: Topic,
    pub(super) delivery: Delivery,
    pub(super) origin: Option<Arc<Origin>>,
    pub(super) place: Place,
    pub(super) reason: DeadReason,
}

impl Letter {
    /// Writes it, or its substitute, however often that fails.
    pub(super) async fn bury(self, brokers: Arc<Brokers>, unwritten: Arc<Trouble>) -> Place {
        // It may be refused with its whole batch: then once more, by itself.
        for batch in [Batch::Shared, Batch::Own] {
            let written = self.write(&brokers, &unwritten, self.record(), batch).await;
            if written.is_ok() {
                return self.place;
            }
        }
        self.bury_substitute(&brokers, &unwritten).await;
        self.place
    }

    async fn bury_substitute(&self, brokers: &Brokers, unwritten: &Trouble) {
        let Place {
            partition, offset, ..
        } = self.place;
        let (topic, bytes) = (&self.delivery.topic, self.delivery.payload.len());
        tracing::error!(
            %topic, partition, offset, bytes, dead_letter = %self.topic,
            "event is too large for the dead-letter topic, which is given a substitute"
        );
        let (key, payload) = (self.short_key(), self.substitute());
        let record = Record {
            topic: self.topic.as_str(),
            key,
            payload: payload.as_bytes(),
            headers: Some(self.own_headers(&OwnedHeaders::new(), TOO_LARGE)),
        };
        // Even this one may be too large until somebody raises the topic's limit.
        while let Err(TooLarge) = self
            .write(brokers, unwritten, record.clone(), Batch::Own)
            .await
        {
            self.refused(
                unwritten,
                &"the substitute is too large for the dead-letter topic",
            );
            sleep(LONGEST_PAUSE).await;
        }
    }

    /// Writes a record, as long as it is refused for anything but its size.
    async fn write(
        &self,
        brokers: &Brokers,
        unwritten: &Trouble,
        record: Record<'_>,
        batch: Batch,
    ) -> Result<(), TooLarge> {
        let mut pause = FIRST_PAUSE;
        loop {
            let failure = match send(brokers, record.clone(), batch).await {
                Ok(()) => break,
                Err(failure) if is_too_large(&failure) => return Err(TooLarge),
                Err(failure) => failure,
            };
            self.refused(unwritten, &port_error("bury", failure));
            sleep(pause).await;
            pause = LONGEST_PAUSE.min(2 * pause);
        }
        if let Some(lasted) = unwritten.over(Instant::now(), Duration::ZERO) {
            let lasted_ms = lasted.as_millis();
            tracing::info!(dead_letter = %self.topic, lasted_ms, "dead letters are written again");
        }
        Ok(())
    }

    fn refused(&self, unwritten: &Trouble, error: &dyn std::fmt::Display) {
        let (dead_letter, key) = (&self.topic, &self.delivery.key);
        match unwritten.failed(Instant::now()) {
            Some(unsaid) => tracing::warn!(
                %error, %dead_letter, %key, unsaid, "dead letters are not written and are tried again"
            ),
            None => tracing::debug!(%error, %dead_letter, %key, "dead letter is not written"),
        }
    }

    fn record(&self) -> Record<'_> {
        let headers = self
            .origin
            .as_ref()
            .and_then(|origin| origin.headers.clone());
        let headers = headers.unwrap_or_default();
        Record {
            topic: self.topic.as_str(),
            key: self.key(),
            payload: &self.delivery.payload,
            headers: Some(self.own_headers(&headers, &self.reason.to_string())),
        }
    }

    fn key(&self) -> Option<&[u8]> {
        match &self.origin {
            Some(origin) => origin.key.as_deref(),
            None => Some(self.delivery.key.as_bytes()),
        }
    }

    fn short_key(&self) -> Option<&[u8]> {
        self.key().map(|key| &key[..key.len().min(MAX_KEY_BYTES)])
    }

    /// The headers with ours behind them; those of an earlier burial are replaced.
    fn own_headers(&self, before: &OwnedHeaders, reason: &str) -> OwnedHeaders {
        let ours = [
            (REASON, reason.to_owned()),
            (TOPIC, self.delivery.topic.to_string()),
            (PARTITION, self.place.partition.to_string()),
            (OFFSET, self.place.offset.to_string()),
            (DELIVERIES, self.delivery.attempt.to_string()),
        ];
        let is_ours = |key: &str| ours.iter().any(|(name, _)| *name == key);
        let others = before.iter().filter(|header| !is_ours(header.key));
        let headers = others.fold(OwnedHeaders::new(), OwnedHeaders::insert);
        ours.iter().fold(headers, |headers, (key, value)| {
            let value = Some(value);
            headers.insert(Header { key, value })
        })
    }

    fn substitute(&self) -> String {
        let payload = &self.delivery.payload;
        let mut sha256 = String::with_capacity(64);
        for byte in Sha256::digest(payload) {
            // Writing to a string cannot fail.
            let _ = write!(sha256, "{byte:02x}");
        }
        let key = self.short_key().map(String::from_utf8_lossy);
        json!({
            "topic": self.delivery.topic.as_str(),
            "partition": self.place.partition,
            "offset": self.place.offset,
            "key": key,
            "bytes": payload.len(),
            "sha256": sha256,
            "reason": TOO_LARGE,
        })
        .to_string()
    }
}

/// Sends a record of a letter. Those that may share a batch go together, the others one by one; nobody
/// holds a place during a pause.
async fn send(brokers: &Brokers, record: Record<'_>, batch: Batch) -> Result<(), Failure> {
    let (_shared, _own);
    match batch {
        Batch::Shared => _shared = brokers.burials.read().await,
        Batch::Own => _own = brokers.burials.write().await,
    }
    brokers.send(record).await
}

/// With what a record travels: a batch is refused as a whole.
#[derive(Debug, Clone, Copy)]
enum Batch {
    /// Perhaps with records of other letters.
    Shared,
    /// With no other letter's.
    Own,
}

/// The topic will never take this record.
#[derive(Debug)]
struct TooLarge;
