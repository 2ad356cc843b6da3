//! Retry, timeout, circuit breaker and observation: what stands between a use case and an adapter.
//!
//! A [`GuardedStateStore`], a [`GuardedEventBus`], a [`GuardedNotifier`] or a [`GuardedSecretStore`]
//! wraps an adapter of its port and is used in its place. They are thin: every call goes through the
//! one engine, [`Policy::call`], and nothing else in the workspace retries a port. An adapter that
//! retried as well would multiply the attempts, so a client library's own retries are switched off.
//!
//! # The order
//!
//! ```text
//! caller ─► observe ─► retry ─► circuit breaker ─► timeout ─► adapter
//! ```
//!
//! - **Observe** is outermost: it sees what the caller sees, one result a call, with every pause and
//!   attempt in the elapsed time.
//! - **Retry** is outside the breaker, so that the breaker counts attempts: a backend that is down
//!   is noticed within one call. Once the circuit is open, the rest of the attempts are not made.
//! - **Circuit breaker** is outside the timeout, because a timeout is the failure that it most needs
//!   to count.
//! - **Timeout** is innermost, so that each attempt has its own limit. Outside the retry, one slow
//!   attempt would use up the time of all the others and be cut off in the middle of the second one.
//!
//! # What is tried again
//!
//! | [`CallKind`] | Operations | Tried again | A timeout says |
//! | --- | --- | --- | --- |
//! | `Read` | `get`, `get_many`, `pending`, `scan`, `identity` | if [`PortError::retryable`] says so | not applied |
//! | `Probe` | `check` | as `Read`; passes the breaker by | not applied |
//! | `IdempotentWrite` | `settle`, `publish`, `notify` | as `Read` | outcome unknown |
//! | `Write` | `put`, `delete`, `commit` | if it also was not applied for certain | outcome unknown |
//!
//! A conditional write that may have been applied is never repeated here: the repetition would meet
//! its own first attempt and report a conflict that nobody caused. Only the caller can read and
//! decide. An unconditional `put` is a `Write` as well, because a late repetition could cover
//! somebody else's newer value.
//!
//! Once one attempt of a write has an unknown outcome, the call keeps it, whatever later attempts
//! answer: a refused second attempt says nothing about the first.
//!
//! [`Retry::After`] is waited for exactly, if it is not longer than
//! [`RetryPolicy::longest_pause`]. If it is, the call ends at once with that error: asking sooner
//! than the backend said is a call for nothing, and the caller can wait better than a request can. A
//! circuit breaker opens for that long, so that nobody else asks sooner either. A call that it did not
//! let begin says [`Outcome::NotMade`]: whoever counts attempts does not count that one.
//!
//! A [`RetryBudget`] limits the retries of all calls together: while a backend fails, its callers would
//! otherwise multiply the load that it fails under. Pauses have jitter, so that they do not come together.
//!
//! A `check` asks the backend itself, also while the circuit is open, and does not count: readiness
//! shows the truth, and a port that accepts connections while it refuses all work stays open.
//!
//! `subscribe` is observed and otherwise passed through: it fixes a group's position, which is no
//! call to repeat, and the subscription has a redelivery of its own.
//!
//! # Cancel safety
//!
//! Dropping a call drops the attempt, whose outcome is then as the port's contract says. It is not
//! observed and not counted, and a dropped probe gives its place in a half-open circuit back.
//!
//! # Example
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use std::sync::Arc;
//! use task_core::layer::{CircuitBreaker, CountingObserver, GuardedStateStore, Policy};
//! use task_core::memory::{ManualClock, MemoryStateStore};
//! use task_core::ports::{Key, Kind, StateStore};
//!
//! let counts = Arc::new(CountingObserver::default());
//! let breaker = Arc::new(CircuitBreaker::default());
//! let policy = Policy {
//!     breaker: Some(breaker.clone()),
//!     observer: counts.clone(),
//!     ..Policy::default()
//! };
//! let memory = MemoryStateStore::new(Arc::new(ManualClock::default()));
//! let store = GuardedStateStore::new(Arc::new(memory), "memory", policy);
//!
//! assert_eq!(store.get(&Key::new(Kind::TASK, "t-1")).await.unwrap(), None);
//! assert_eq!(counts.snapshot()[0].calls, 1);
//! # });
//! ```
//!
//! [`PortError::retryable`]: crate::ports::PortError::retryable
//! [`Outcome::NotMade`]: crate::ports::Outcome::NotMade
//! [`Retry::After`]: crate::ports::Retry::After

mod circuit_breaker;
mod event_bus;
mod notifier;
mod observe;
mod policy;
mod retry;
mod retry_budget;
mod secret_store;
mod state_store;
mod timeout;

pub use circuit_breaker::{BreakerState, CircuitBreaker};
pub use event_bus::GuardedEventBus;
pub use notifier::GuardedNotifier;
pub use observe::{Count, CountingObserver, LogObserver, Observer, Operation};
pub use policy::{CallKind, Policy};
pub use retry::RetryPolicy;
pub use retry_budget::RetryBudget;
pub use secret_store::GuardedSecretStore;
pub use state_store::GuardedStateStore;
