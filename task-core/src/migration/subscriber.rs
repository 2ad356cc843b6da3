//! Which groups hear both buses: the consumers move first.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ports::{
    Group, Key, Kind, MAX_KEY_BYTES, PortError, PutOptions, StateCapability, StateStore, Stored,
    Subscription, Topic, WriteMode,
};

/// Where they are known, on the old side.
const SUBSCRIBERS: Kind = Kind::listed("subscriber");

/// How long it counts that a group does not hear the new bus; it is said again before.
const SAID_FOR: Duration = Duration::from_secs(60);

/// Subscribers in one page of a look.
const PAGE: usize = 256;

/// A group, and whether it has a position on the new bus.
///
/// Before that, what is published there alone is lost for it, so no event may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Subscriber {
    pub(super) topic: Box<str>,
    pub(super) group: Box<str>,
    /// Whether the new bus knows the group.
    pub(super) hears_new: bool,
}

impl Subscriber {
    pub(super) fn of(subscription: &Subscription) -> Self {
        Self {
            topic: subscription.topic.as_str().into(),
            group: subscription.group.as_str().into(),
            hears_new: false,
        }
    }

    /// Says that the group is there and does not hear the new bus, unless it is known to.
    ///
    /// It is said before it hears anything, and again while that lasts: what nobody says any more ends by itself.
    ///
    /// # Errors
    /// As the store.
    pub(super) async fn announce(&self, records: &dyn StateStore) -> Result<(), PortError> {
        let mode = match records.get(&self.key()).await? {
            Some(stored) if Self::decode(&stored).is_some_and(|found| found.hears_new) => {
                return Ok(());
            }
            Some(stored) => WriteMode::Match(stored.etag),
            None => WriteMode::Create,
        };
        let can_end = records.capabilities().has(StateCapability::Ttl);
        match self.put(records, mode, can_end.then_some(SAID_FOR)).await {
            // Another replica has said something.
            Err(error) if error.is_conflict() => Ok(()),
            put => put,
        }
    }

    /// Says that the new bus knows the group; that never ends.
    ///
    /// # Errors
    /// As the store.
    pub(super) async fn hears_new(&self, records: &dyn StateStore) -> Result<(), PortError> {
        let heard = Self {
            hears_new: true,
            ..self.clone()
        };
        heard.put(records, WriteMode::Overwrite, None).await
    }

    fn decode(stored: &Stored) -> Option<Self> {
        serde_json::from_slice(&stored.value).ok()
    }

    async fn put(
        &self,
        records: &dyn StateStore,
        mode: WriteMode,
        ttl: Option<Duration>,
    ) -> Result<(), PortError> {
        let json = serde_json::to_vec(self).expect("text is JSON");
        let options = PutOptions { mode, ttl };
        let key = self.key();
        records.put(&key, Bytes::from(json), options).await?;
        Ok(())
    }

    fn key(&self) -> Key {
        let name = format!("{}/{}", self.topic, self.group);
        if name.len() <= MAX_KEY_BYTES {
            return Key::new(SUBSCRIBERS, name);
        }
        let hash = xxhash_rust::xxh3::xxh3_128(name.as_bytes());
        Key::new(SUBSCRIBERS, format!("{hash:032x}"))
    }
}

/// A group that does not hear the new bus yet.
///
/// # Errors
/// As the store.
pub(super) async fn first_deaf(
    records: &dyn StateStore,
) -> Result<Option<(Topic, Group)>, PortError> {
    let mut from = None;
    loop {
        let page = records.scan(SUBSCRIBERS, from, PAGE).await?;
        for (_, stored) in page.entries {
            if let Some(found) = Subscriber::decode(&stored)
                && !found.hears_new
            {
                let named = (Topic::new(found.topic), Group::new(found.group));
                return Ok(Some(named));
            }
        }
        from = page.next;
        if from.is_none() {
            return Ok(None);
        }
    }
}
