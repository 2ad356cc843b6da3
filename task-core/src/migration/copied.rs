//! A copy of the control record on the new side, for a loss of the old one.

use std::time::Duration;

use tokio::time::timeout;

use super::control::KIND;
use super::sides::{BACKEND, Sides};
use super::{Control, gone};
use crate::ports::{Commit, ErrorKind, Key, PortError};

/// Longest wait for a copy that nothing depends on.
const QUIET_LIMIT: Duration = Duration::from_millis(500);

/// How often a copy is tried against others.
const MOST_ATTEMPTS: usize = 8;

impl Sides {
    /// The control record as the new side has it.
    ///
    /// # Errors
    /// As the new side; `Corrupt` for one that cannot be read.
    pub(super) async fn copied_control(&self) -> Result<Option<Control>, PortError> {
        let found = self.new.get(&key()).await?;
        let found = found.map(|stored| Control::decode(&stored.value));
        found.transpose().map_err(|error| {
            PortError::new(
                ErrorKind::Corrupt,
                BACKEND,
                "read the copied control record",
            )
            .caused_by(error)
        })
    }

    /// Copies the control record. A later one of the same move stays.
    ///
    /// # Errors
    /// As the new side.
    pub(super) async fn copy_control(&self, control: &Control) -> Result<(), PortError> {
        for _ in 0..MOST_ATTEMPTS {
            let found = self.new.get(&key()).await?;
            let known = found.as_ref().map(|stored| Control::decode(&stored.value));
            if let Some(Ok(known)) = known
                && known.salt == control.salt
                && known.epoch >= control.epoch
            {
                return Ok(());
            }
            let put = gone::put(&key(), control.encode(), found.as_ref(), None);
            match self.new.commit(Commit::of(put)).await {
                Err(error) if error.is_conflict() => {}
                copied => return copied.map(drop),
            }
        }
        let error = PortError::new(ErrorKind::Throttled, BACKEND, "copy the control record");
        Err(error.context(format!("it changed {MOST_ATTEMPTS} times meanwhile")))
    }

    /// The same where nothing depends on it: the new side may be away.
    pub(super) async fn copy_quietly(&self, control: &Control) {
        match timeout(QUIET_LIMIT, self.copy_control(control)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the new side has an older control record"),
            Err(_) => tracing::debug!("the new side may have an older control record"),
        }
    }
}

/// Not where a control record is: the next move may go the other way.
fn key() -> Key {
    Key::new(KIND, "copy")
}
