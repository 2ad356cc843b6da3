//! Refuses for good a write that may still be under way.
//!
//! A write whose sidecar has given it up may lie on a connection that stands, or in a process that was stopped, for as
//! long as it likes. Its note must not be dropped before nothing can come of it.

use task_core::ports::PortError;

use super::Shared;
use super::calls::{Life, When, is_refusal};
use super::decision::Fate;
use super::journal::Entry;
use super::record::{LEFT, LEFT_FOR, Record};
use crate::error::Failure;

/// Most attempts; a version that `state.redis` gives to a missing key may be the one that was noted.
const MOST_ATTEMPTS: usize = 4;

impl Shared {
    /// Writes what lies there over the version that a write is based on, and answers what became of that write.
    ///
    /// Where there is nothing, what a deletion leaves is left. `Waits` if it is still not clear.
    pub(super) async fn refuse(&self, entry: &Entry) -> Result<Fate, PortError> {
        let failed = |failure: Failure| failure.into_port("pending");
        let creation = self.profile.abilities.creation;
        for _ in 0..MOST_ATTEMPTS {
            let found = self.calls.get(&entry.name).await.map_err(failed)?;
            let (data, etag) = (found.data.clone(), found.etag.clone());
            let record = Record::read(&entry.name, found, self.clock.now()).map_err(failed)?;
            let fate = entry.fate(&record, self.profile.abilities.keeps.missing_is_refused);
            if fate != Fate::Waits {
                return Ok(fate);
            }
            let (when, value, life) = match etag.as_deref() {
                None => (When::Missing, LEFT.into(), Life::of(LEFT_FOR)),
                Some(etag) if data == LEFT => (When::Match(etag), data, Life::of(LEFT_FOR)),
                Some(etag) => (When::Match(etag), data, Life::Same),
            };
            let saved = self.calls.save(&entry.name, &value, when, creation, life);
            match saved.await {
                Err(failure) if !is_refusal(&failure, creation) => return Err(failed(failure)),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(Fate::Waits)
    }
}
