//! Volatile adapters: no server, no disk, gone with the process.
//!
//! They are the shortest reading of each contract, pass the same conformance suite as every other
//! backend, and carry the examples. Use them in tests and where losing everything is fine.

mod clock;
mod entropy;
mod event_bus;
mod notifier;
mod secret_store;
mod state_store;

pub use clock::ManualClock;
pub use entropy::SeededEntropy;
pub use event_bus::MemoryEventBus;
pub use notifier::MemoryNotifier;
pub use secret_store::MemorySecretStore;
pub use state_store::MemoryStateStore;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex whose holder may have panicked.
///
/// Every critical section here leaves its data whole before anything in it can panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
