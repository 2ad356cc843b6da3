//! How calls of a backend are limited and repeated.

use std::time::Duration;

use task_core::layer::{Policy, RetryPolicy};

/// One attempt: who calls tries again, or nobody does.
pub(super) fn once(timeout: Duration) -> Policy {
    Policy {
        timeout,
        retry: RetryPolicy::NEVER,
        ..Policy::default()
    }
}

/// For a store on the network: a read, and a write that did not happen, is tried again here and nowhere
/// else.
///
/// Of a store that hangs, one request at a time waits for the answer, and the others are refused at once.
/// The rest is short: a server that comes back is used again before people notice. One that has no room left refuses
/// writes and is read all the same.
#[cfg(any(feature = "dapr", all(feature = "redis", feature = "http")))]
pub(super) fn store(timeout: Duration) -> Policy {
    use std::sync::Arc;

    use task_core::layer::CircuitBreaker;

    const FAILURES: u32 = 10;
    const REST: Duration = Duration::from_millis(200);

    let breaker = CircuitBreaker::new(FAILURES, REST).passing_throttled();
    Policy {
        timeout,
        breaker: Some(Arc::new(breaker)),
        ..Policy::default()
    }
}
