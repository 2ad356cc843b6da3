//! For how long the new side has not followed.

use std::collections::HashMap;
use std::time::Duration;

use crate::migration::marker::DIRTY;
use crate::migration::sides::Sides;
use crate::ports::{ETag, Key, PortError};

/// Marks in one page of a look.
const PAGE: usize = 256;

/// Most marks that are looked at; where there are more, those beyond are as old.
const MOST: usize = 1024;

/// The marks that were there, and since when each has been the same.
///
/// A mark is as old as the time for which it was seen unchanged here, so no two clocks are compared.
#[derive(Debug, Default)]
pub(super) struct DirtyAge {
    seen: HashMap<Key, (ETag, Duration)>,
}

impl DirtyAge {
    /// The age of the oldest mark.
    ///
    /// # Errors
    /// As the old side; what was seen before is kept.
    pub(super) async fn look(&mut self, sides: &Sides) -> Result<Duration, PortError> {
        let mut found = HashMap::new();
        let mut from = None;
        loop {
            let page = sides.old.scan(DIRTY, from, PAGE).await?;
            let now = sides.clock.uptime();
            for (key, stored) in page.entries {
                if sides.marked(&key, &stored).is_none() {
                    continue;
                }
                let since = match self.seen.get(&key) {
                    Some((etag, since)) if *etag == stored.etag => *since,
                    Some(_) | None => now,
                };
                found.insert(key, (stored.etag, since));
            }
            from = page.next;
            if from.is_none() || found.len() >= MOST {
                break;
            }
        }
        self.seen = found;
        let now = sides.clock.uptime();
        let ages = self
            .seen
            .values()
            .map(|(_, since)| now.saturating_sub(*since));
        Ok(ages.max().unwrap_or_default())
    }
}
