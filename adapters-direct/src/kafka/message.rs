//! A message as it is read, and what of it a delivery does not show.

use std::sync::Arc;

use bytes::Bytes;
use rdkafka::Message as _;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, OwnedHeaders};
use task_core::ports::{Delivery, Topic};

use super::member::GroupConsumer;
use super::partitions::Place;
use super::witness::Witness;

/// One message of the log.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) partition: i32,
    /// Its offset, and by what it is known again.
    pub(super) witness: Witness,
    key: Option<Vec<u8>>,
    /// `None` is a tombstone: the mark of a compacted topic that a key is gone.
    payload: Option<Bytes>,
    headers: Option<OwnedHeaders>,
}

/// Key and headers as they were, where the delivery alone does not say.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) key: Option<Vec<u8>>,
    pub(super) headers: Option<OwnedHeaders>,
}

/// An event in hand: what it takes to finish it or to bury it.
#[derive(Debug, Clone)]
pub(super) struct InHand {
    pub(super) place: Place,
    pub(super) origin: Option<Arc<Origin>>,
}

impl Message {
    /// The next message of a consumer.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn receive(consumer: &GroupConsumer) -> Result<Self, KafkaError> {
        consumer.recv().await.map(|message| Self::copy(&message))
    }

    fn copy(message: &BorrowedMessage<'_>) -> Self {
        Self {
            partition: message.partition(),
            witness: Witness::of(message),
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(Bytes::copy_from_slice),
            headers: message.headers().map(|headers| headers.detach()),
        }
    }

    /// Bytes that it takes in memory, but for its headers.
    pub(super) fn bytes(&self) -> usize {
        let key = self.key.as_ref().map_or(0, Vec::len);
        key + self.payload.as_ref().map_or(0, Bytes::len)
    }

    /// The delivery, and what it does not show; `None` for a tombstone.
    pub(super) fn into_delivery(
        self,
        topic: &Topic,
        attempt: u32,
    ) -> Option<(Delivery, Option<Arc<Origin>>)> {
        let key = self.key.as_deref().unwrap_or_default();
        let delivery = Delivery {
            topic: topic.clone(),
            key: String::from_utf8_lossy(key).into(),
            payload: self.payload?,
            attempt,
        };
        let says_it_all =
            self.headers.is_none() && !key.is_empty() && *delivery.key.as_bytes() == *key;
        let origin = (!says_it_all).then(|| {
            Arc::new(Origin {
                key: self.key,
                headers: self.headers,
            })
        });
        Some((delivery, origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(key: Option<&[u8]>, payload: Option<&'static [u8]>) -> Message {
        Message {
            partition: 0,
            witness: Witness {
                offset: 0,
                time_ms: 0,
                digest: 0,
            },
            key: key.map(<[u8]>::to_vec),
            payload: payload.map(Bytes::from_static),
            headers: None,
        }
    }

    #[test]
    fn a_key_that_a_delivery_cannot_show_is_kept() {
        for (key, shown, kept) in [
            (Some(&b"t-1"[..]), "t-1", false),
            (Some(b""), "", true),
            (None, "", true),
            (Some(b"\xff"), "\u{fffd}", true),
        ] {
            let message = message(key, Some(b"{}"));
            let topic = Topic::new("t");
            let (delivery, origin) = message.into_delivery(&topic, 2).expect("a delivery");
            assert_eq!((&*delivery.key, delivery.attempt), (shown, 2), "{key:?}");
            assert_eq!(origin.is_some(), kept, "{key:?}");
            let original = origin.as_ref().and_then(|origin| origin.key.as_deref());
            assert!(!kept || original == key, "{key:?}");
        }
    }

    #[test]
    fn a_tombstone_is_no_delivery() {
        let tombstone = message(Some(b"t-1"), None);
        assert!(tombstone.into_delivery(&Topic::new("t"), 1).is_none());
    }
}
