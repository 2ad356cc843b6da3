//! Whose turn it is to move buckets: one coordinator's at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::MoveError;
use super::sides::Sides;
use crate::application::Lease;

/// The name of the lease, on the old side.
const LEASE: &str = "migration-coordinator";

/// Pause between two looks at a turn that another one has.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The right to move buckets, which one coordinator of all replicas has at a time.
///
/// The control record changes by compare-and-set whoever has the turn. What the turn keeps apart is a
/// coordinator that waits for others while nobody may write, and one that takes such a time for forgotten.
#[derive(Debug)]
pub(super) struct Turn {
    lease: Lease,
    /// Whether several steps belong together.
    is_kept: bool,
}

impl Turn {
    pub(super) fn new(sides: &Sides, length: Duration) -> Self {
        let owner = sides.name_of_write();
        let (store, clock) = (Arc::clone(&sides.old), Arc::clone(&sides.clock));
        let lease = Lease::of_owner(&owner, store, LEASE, length, clock);
        Self {
            lease: lease.expect("an old side has conditional writes"),
            is_kept: false,
        }
    }

    /// Waits until it is ours; that of a coordinator that is gone ends after two leases.
    pub(super) async fn take(&mut self, longest: Duration) -> Result<(), MoveError> {
        let began = Instant::now();
        while !self.lease.hold().await? {
            let waited = began.elapsed();
            if waited >= longest {
                return Err(MoveError::Busy { waited });
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Keeps it during a wait.
    pub(super) async fn keep(&mut self) -> Result<(), MoveError> {
        match self.lease.hold().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(MoveError::Overtaken),
            Err(_) if self.lease.is_held() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Has it for several steps, until it is [given up](Self::give_up).
    pub(super) async fn lead(&mut self, longest: Duration) -> Result<(), MoveError> {
        self.take(longest).await?;
        self.is_kept = true;
        Ok(())
    }

    /// Lets the next one have it.
    pub(super) async fn give_up(&mut self) {
        self.is_kept = false;
        self.end().await;
    }

    /// Lets the next one have it, unless there are more steps.
    pub(super) async fn end(&mut self) {
        if self.is_kept {
            return;
        }
        if let Err(error) = self.lease.release().await {
            tracing::debug!(%error, "the next coordinator waits until the lease is over");
        }
    }
}
