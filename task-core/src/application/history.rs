//! Where a consumer group begins on a bus that delivers what was published before the group was there.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;
use crate::ports::{
    Clock, ErrorKind, Group, Key, Kind, PortError, PutOptions, StateCapability, StateStore,
    WriteMode,
};

/// How far a publisher's clock may be behind ours: what is younger than the group by less counts as new.
///
/// A receiver that honours idempotency keys has no harm from what is notified again.
const TOLERANCE: Duration = Duration::from_secs(300);

/// The moment at which a group was seen first, kept in a store.
///
/// A bus may have no other way than to deliver its whole history to a group that it does not know. The
/// group then tells history from news by the events' own times, which publishers set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupStart(Timestamp);

#[derive(Serialize, Deserialize)]
struct Record {
    since: String,
}

impl GroupStart {
    /// Reads when the group was seen first, or keeps that it is now.
    ///
    /// # Errors
    /// As the store; `Corrupt` if what it has is not ours.
    pub async fn of(
        group: &Group,
        store: &dyn StateStore,
        clock: &dyn Clock,
    ) -> Result<Self, PortError> {
        let key = Key::new(Kind::GROUP, group.as_str());
        if let Some(stored) = store.get(&key).await? {
            return Self::read(&key, &stored.value);
        }
        let now = clock.now();
        let since = now.to_string();
        let json = serde_json::to_vec(&Record { since }).expect("text is JSON");
        let conditional = store.capabilities().has(StateCapability::ConditionalWrites);
        let mode = match conditional {
            true => WriteMode::Create,
            false => WriteMode::Overwrite,
        };
        let put = store.put(&key, Bytes::from(json), PutOptions { mode, ttl: None });
        match put.await {
            Ok(_) => Ok(Self(now)),
            // Another replica was faster.
            Err(error) if error.is_conflict() => match store.get(&key).await? {
                Some(stored) => Self::read(&key, &stored.value),
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    fn read(key: &Key, value: &[u8]) -> Result<Self, PortError> {
        let corrupt = || {
            PortError::new(ErrorKind::Corrupt, "group", "open")
                .context(format!("{key} does not say since when"))
        };
        let record: Record =
            serde_json::from_slice(value).map_err(|error| corrupt().caused_by(error))?;
        let since = record.since.parse();
        Ok(Self(since.map_err(|error| corrupt().caused_by(error))?))
    }

    /// Says whether an event of this time was published before the group began.
    #[must_use]
    pub fn is_history(self, time: Timestamp) -> bool {
        time.saturating_add(TOLERANCE) < self.0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::memory::{ManualClock, MemoryStateStore};

    fn fixture() -> (Arc<ManualClock>, MemoryStateStore) {
        let clock = Arc::new(ManualClock::default());
        let shown: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        (clock, MemoryStateStore::new(shown))
    }

    #[tokio::test]
    async fn the_first_sight_of_a_group_stays() {
        let (clock, store) = fixture();
        let group = Group::new("g");
        let first = GroupStart::of(&group, &store, &*clock).await;
        let first = first.expect("a new group");
        clock.advance(Duration::from_secs(3600));
        let again = GroupStart::of(&group, &store, &*clock).await;
        assert_eq!(again.expect("a known group"), first);
        let other = GroupStart::of(&Group::new("h"), &store, &*clock).await;
        assert_ne!(other.expect("another group"), first);
    }

    #[tokio::test]
    async fn history_is_what_is_older_by_more_than_clocks_differ() {
        let (clock, store) = fixture();
        let start = GroupStart::of(&Group::new("g"), &store, &*clock).await;
        let (start, now) = (start.expect("a new group"), clock.now());
        let before = |by: Duration| {
            let micros = i64::try_from(by.as_micros()).expect("small");
            Timestamp::from_unix_micros(now.unix_micros() - micros)
        };
        assert!(!start.is_history(now));
        assert!(!start.is_history(before(TOLERANCE)));
        assert!(start.is_history(before(TOLERANCE + Duration::from_micros(1))));
    }

    #[tokio::test]
    async fn what_is_not_a_start_is_refused() {
        let (clock, store) = fixture();
        let key = Key::new(Kind::GROUP, "g");
        for garbage in ["x", "{}", r#"{"since":"yesterday"}"#] {
            let put = store.put(&key, garbage.into(), PutOptions::default());
            put.await.expect("stored");
            let start = GroupStart::of(&Group::new("g"), &store, &*clock).await;
            assert_eq!(start.expect_err(garbage).kind(), ErrorKind::Corrupt);
        }
    }
}
