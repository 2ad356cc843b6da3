//! One change at a time per task within this process.
//!
//! Conditional writes alone are correct, but writers of one task would beat each other again and
//! again. Taking turns costs nothing across tasks and leaves conflicts to other processes.

use tokio::sync::{Mutex, MutexGuard};

use crate::domain::TaskId;

/// Locks to share; tasks that share one wait for each other, which is rare and harmless.
const STRIPES: usize = 256;

#[derive(Debug)]
pub(super) struct Turns(Box<[Mutex<()>]>);

impl Turns {
    pub(super) fn new() -> Self {
        Self((0..STRIPES).map(|_| Mutex::new(())).collect())
    }

    pub(super) async fn take(&self, id: &TaskId) -> MutexGuard<'_, ()> {
        let hash = xxhash_rust::xxh3::xxh3_64(id.as_str().as_bytes());
        let stripe = usize::try_from(hash % STRIPES as u64).unwrap_or(0);
        self.0[stripe].lock().await
    }
}
