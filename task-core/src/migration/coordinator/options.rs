//! How long a coordinator waits.

use std::time::Duration;

/// How long the coordinator waits.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct CoordinatorOptions {
    /// The lease of the replicas; one that is silent for twice as long is gone.
    pub lease: Duration,
    /// Longest wait for the replicas to follow a step, and for the turn of another coordinator to end.
    pub adoption: Duration,
    /// Longest time in which nobody may write.
    pub handoff: Duration,
}

impl Default for CoordinatorOptions {
    /// A lease of 5 s, half a minute for a step, 2 s without writes.
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(5),
            adoption: Duration::from_secs(30),
            handoff: Duration::from_secs(2),
        }
    }
}
