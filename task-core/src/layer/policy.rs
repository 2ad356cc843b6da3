//! The one engine that every guarded call goes through.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::circuit_breaker::{CircuitBreaker, Permit};
use super::observe::{LogObserver, Observer, Operation};
use super::retry::RetryPolicy;
use super::retry_budget::RetryBudget;
use super::timeout::limited;
use crate::ports::{Entropy, Outcome, PortError, SystemEntropy};

/// What a repetition of a call may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallKind {
    /// Changes nothing.
    Read,
    /// Changes nothing and asks after the backend's health, past the circuit breaker.
    Probe,
    /// Has the same effect once and many times.
    IdempotentWrite,
    /// May have another effect the second time.
    Write,
}

impl CallKind {
    /// Says whether a call may change something.
    #[must_use]
    pub fn is_write(self) -> bool {
        match self {
            Self::Read | Self::Probe => false,
            Self::IdempotentWrite | Self::Write => true,
        }
    }
}

/// How calls to one backend are guarded.
///
/// A clone shares the budget, the circuit breaker and the observer.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Limit of one attempt. It must be above zero.
    pub timeout: Duration,
    /// How often an attempt is made.
    pub retry: RetryPolicy,
    /// What all calls together may repeat; `None` is no limit.
    pub budget: Option<Arc<RetryBudget>>,
    /// What refuses calls while the backend is down; `None` never does.
    pub breaker: Option<Arc<CircuitBreaker>>,
    /// Who is told of every call.
    pub observer: Arc<dyn Observer>,
    /// Where the jitter of pauses comes from.
    pub entropy: Arc<dyn Entropy>,
}

impl Default for Policy {
    /// 2 s an attempt, the default retries, a log of calls and outages, and no circuit breaker.
    ///
    /// A breaker belongs to one backend, so it is never created by accident.
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(2),
            retry: RetryPolicy::default(),
            budget: None,
            breaker: None,
            observer: Arc::new(LogObserver::default()),
            entropy: Arc::new(SystemEntropy),
        }
    }
}

/// An attempt that failed, or that the circuit breaker did not let begin.
enum Failed {
    Attempt(PortError),
    Refused(PortError),
}

impl Policy {
    /// Makes a call in the order observe, retry, circuit breaker, timeout.
    ///
    /// `attempt` begins one attempt; it runs again for every repetition.
    ///
    /// # Errors
    /// What the last attempt answered, also where the budget allows no other; `Timeout` if it did not; `Unavailable` while the circuit is
    /// open, with the attempt's error before it, if any, as the source. The outcome is unknown if that of any
    /// attempt is, and "not made" if the circuit let none begin.
    ///
    /// # Cancel safety
    /// As the attempt is; see [the module](super#cancel-safety).
    pub async fn call<T, F>(
        &self,
        operation: Operation,
        attempt: impl FnMut() -> F + Send,
    ) -> Result<T, PortError>
    where
        T: Send,
        F: Future<Output = Result<T, PortError>> + Send,
    {
        let retried = self.retried(operation, attempt);
        observed(&*self.observer, operation, retried).await
    }

    async fn retried<T, F>(
        &self,
        operation: Operation,
        mut attempt: impl FnMut() -> F + Send,
    ) -> Result<T, PortError>
    where
        T: Send,
        F: Future<Output = Result<T, PortError>> + Send,
    {
        if let Some(budget) = &self.budget {
            budget.earn();
        }
        let mut made = 0;
        let mut last: Option<PortError> = None;
        loop {
            let error = match self.guarded(operation, &mut attempt).await {
                Ok(value) => return Ok(value),
                Err(Failed::Refused(refusal)) => return Err(after(refusal, last)),
                Err(Failed::Attempt(error)) => keep_outcome(error, last.as_ref()),
            };
            made += 1;
            let entropy = &*self.entropy;
            let Some(pause) = self
                .retry
                .pause_after(made, operation.kind, &error, entropy)
            else {
                return Err(error);
            };
            if self.budget.as_ref().is_some_and(|budget| !budget.spend()) {
                return Err(error);
            }
            last = Some(error);
            tokio::time::sleep(pause).await;
        }
    }

    /// One attempt, behind the circuit breaker and with its limit.
    async fn guarded<T, F>(
        &self,
        operation: Operation,
        attempt: &mut (impl FnMut() -> F + Send),
    ) -> Result<T, Failed>
    where
        T: Send,
        F: Future<Output = Result<T, PortError>> + Send,
    {
        let permit = self.admit(operation).map_err(Failed::Refused)?;
        let result = limited(self.timeout, operation, attempt()).await;
        if let Some(permit) = permit {
            permit.report(&result);
        }
        result.map_err(Failed::Attempt)
    }

    fn admit(&self, operation: Operation) -> Result<Option<Permit<'_>>, PortError> {
        match &self.breaker {
            Some(breaker) if operation.kind != CallKind::Probe => {
                breaker.admit(operation).map(Some)
            }
            Some(_) | None => Ok(None),
        }
    }
}

/// Tells an observer how a call ended and how long it took.
pub(super) async fn observed<T: Send>(
    observer: &dyn Observer,
    operation: Operation,
    call: impl Future<Output = Result<T, PortError>> + Send,
) -> Result<T, PortError> {
    let started = Instant::now();
    let result = call.await;
    observer.call(operation, started.elapsed(), result.as_ref().map(|_| ()));
    result
}

/// Keeps what an earlier attempt left unknown.
fn keep_outcome(error: PortError, earlier: Option<&PortError>) -> PortError {
    match earlier.map(PortError::outcome) {
        Some(Outcome::Unknown) => error.unknown_outcome(),
        Some(Outcome::NotMade | Outcome::NotApplied) | None => error,
    }
}

/// A refusal after attempts that failed: they are its cause. Without one, nothing was attempted.
fn after(refusal: PortError, last: Option<PortError>) -> PortError {
    match last {
        Some(last) => keep_outcome(refusal, Some(&last)).caused_by(last),
        None => refusal.not_made(),
    }
}

#[cfg(test)]
mod tests;
