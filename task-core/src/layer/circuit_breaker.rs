//! Leaves a backend alone that keeps failing, and finds out when it works again.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::Operation;
use crate::memory::lock;
use crate::ports::{ErrorKind, PortError, Retry};

/// Longest pause that a backend may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(60 * 60);

/// Refuses calls to a backend that has failed several times in a row.
///
/// Closed, it lets every call pass and counts consecutive failures that are the backend's fault:
/// `Unavailable`, `Timeout`, `Throttled` and `Unexpected`. At the limit it opens, and for a pause
/// refuses at once, as `Unavailable` with [`Retry::After`] the rest of the pause, and not applied.
/// Then it is half-open: one call passes as a probe, all others are still refused. The probe closes
/// the circuit or opens it again.
///
/// Whether `Throttled` is a failure is for who makes the breaker to say, see
/// [`Self::passing_throttled`].
///
/// A backend that is `Throttled` or `Unavailable` and says for how long ([`Retry::After`]) is believed
/// at once: the circuit opens until then, an hour at most.
///
/// `Conflict`, `NotFound`, `Denied` and `Corrupt` are answers of a backend that works, and count as
/// success. `Invalid` and `Unsupported` are often said by the adapter without asking the backend, so
/// they prove nothing and count as nothing.
///
/// Share one breaker between the ports that one backend serves. Time is [`tokio::time::Instant`],
/// which tests can pause.
pub struct CircuitBreaker {
    failures: u32,
    pause: Duration,
    throttled: Verdict,
    state: Mutex<State>,
}

/// Where a circuit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls pass.
    Closed,
    /// Calls are refused for this long.
    Open {
        /// The rest of the pause.
        remaining: Duration,
    },
    /// One call at a time passes, as a probe.
    HalfOpen,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Rises with every change of phase: the result of a call that was let through in an earlier
    /// phase says nothing about this one (`a_late_result_of_an_earlier_phase_is_ignored`).
    generation: u64,
}

#[derive(Debug)]
enum Phase {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { probing: bool },
}

impl CircuitBreaker {
    /// A closed circuit that opens after so many consecutive failures, for this pause.
    ///
    /// 0 failures count as 1.
    #[must_use]
    pub fn new(failures: u32, pause: Duration) -> Self {
        Self {
            failures: failures.max(1),
            pause,
            throttled: Verdict::Fails,
            state: Mutex::new(State {
                phase: Phase::Closed { failures: 0 },
                generation: 0,
            }),
        }
    }

    /// The same one, to which `Throttled` proves nothing unless it says for how long.
    ///
    /// For a backend that refuses some calls for want of room and goes on with the others: a full store is
    /// still read. One that is asked for too much by all calls alike is better left alone.
    #[must_use]
    pub fn passing_throttled(mut self) -> Self {
        self.throttled = Verdict::Nothing;
        self
    }

    /// Where the circuit stands now.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        let state = lock(&self.state);
        match state.phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
            Phase::Open { until } => match remaining(until) {
                Some(remaining) => BreakerState::Open { remaining },
                None => BreakerState::HalfOpen,
            },
        }
    }

    /// Lets a call pass, or refuses it without waiting.
    pub(super) fn admit(&self, operation: Operation) -> Result<Permit<'_>, PortError> {
        let mut state = lock(&self.state);
        match state.phase {
            Phase::Closed { .. } => {}
            Phase::Open { until } => {
                if let Some(remaining) = remaining(until) {
                    return Err(open_for(operation, remaining));
                }
                state.enter(Phase::HalfOpen { probing: true });
            }
            Phase::HalfOpen { probing: true } => return Err(being_probed(operation)),
            Phase::HalfOpen { probing: false } => state.phase = Phase::HalfOpen { probing: true },
        }
        Ok(Permit {
            breaker: self,
            operation,
            generation: state.generation,
            verdict: Verdict::Nothing,
        })
    }

    /// Takes a result into account and says what changed.
    fn settle(&self, generation: u64, verdict: Verdict) -> Option<Change> {
        let mut state = lock(&self.state);
        if state.generation != generation {
            return None;
        }
        match (&mut state.phase, verdict) {
            (Phase::Closed { failures }, Verdict::Works) => {
                *failures = 0;
                None
            }
            (Phase::Closed { failures }, Verdict::Fails) => {
                *failures += 1;
                (*failures >= self.failures).then(|| open(&mut state, self.pause))
            }
            (Phase::HalfOpen { .. }, Verdict::Works) => {
                state.enter(Phase::Closed { failures: 0 });
                Some(Change::Closed)
            }
            (Phase::Closed { .. }, Verdict::Asks(pause)) => Some(open(&mut state, pause)),
            (Phase::HalfOpen { .. }, Verdict::Fails) => Some(reopen(&mut state, self.pause)),
            (Phase::HalfOpen { .. }, Verdict::Asks(pause)) => Some(reopen(&mut state, pause)),
            (Phase::HalfOpen { probing }, Verdict::Nothing) => {
                *probing = false;
                None
            }
            (Phase::Closed { .. }, Verdict::Nothing) | (Phase::Open { .. }, _) => None,
        }
    }
}

fn open(state: &mut State, pause: Duration) -> Change {
    let until = Instant::now() + pause;
    state.enter(Phase::Open { until });
    Change::Opened(pause)
}

fn reopen(state: &mut State, pause: Duration) -> Change {
    open(state, pause);
    Change::StaysOpen(pause)
}

impl Default for CircuitBreaker {
    /// Opens after 5 failures in a row, for 5 s.
    fn default() -> Self {
        Self::new(5, Duration::from_secs(5))
    }
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("failures", &self.failures)
            .field("pause", &self.pause)
            .field("state", &self.state())
            .finish()
    }
}

impl State {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
    }
}

fn remaining(until: Instant) -> Option<Duration> {
    let remaining = until.saturating_duration_since(Instant::now());
    (!remaining.is_zero()).then_some(remaining)
}

fn open_for(operation: Operation, remaining: Duration) -> PortError {
    PortError::new(ErrorKind::Unavailable, operation.backend, operation.name)
        .context(format!(
            "the circuit is open for another {} ms",
            remaining.as_millis()
        ))
        .retry(Retry::After(remaining))
}

fn being_probed(operation: Operation) -> PortError {
    PortError::new(ErrorKind::Unavailable, operation.backend, operation.name)
        .context("the circuit is half-open and another call is its probe")
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Opened(Duration),
    /// Its probe has failed: nothing that was not known.
    StaysOpen(Duration),
    Closed,
}

/// What one attempt proves about the backend.
#[derive(Debug, Clone, Copy)]
enum Verdict {
    Works,
    Fails,
    /// It fails, and wants to be left alone for this long.
    Asks(Duration),
    Nothing,
}

impl Verdict {
    fn of(error: &PortError, throttled: Self) -> Self {
        match (error.kind(), error.retryable()) {
            (ErrorKind::Throttled | ErrorKind::Unavailable, Retry::After(pause))
                if !pause.is_zero() =>
            {
                Self::Asks(pause.min(LONGEST_ASKED))
            }
            (ErrorKind::Throttled, _) => throttled,
            (kind, _) => Self::of_kind(kind),
        }
    }

    fn of_kind(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Unavailable
            | ErrorKind::Timeout
            | ErrorKind::Throttled
            | ErrorKind::Unexpected => Self::Fails,
            ErrorKind::NotFound
            | ErrorKind::Conflict
            | ErrorKind::Denied
            | ErrorKind::Fenced
            | ErrorKind::Corrupt => Self::Works,
            ErrorKind::Invalid | ErrorKind::Unsupported => Self::Nothing,
        }
    }
}

/// The right to make one attempt.
///
/// Dropped without a result it proves nothing, and a probe's place is free again: without that, a
/// cancelled probe would keep the circuit half-open for ever
/// (`a_cancelled_probe_does_not_wedge_a_half_open_circuit`).
#[must_use]
#[derive(Debug)]
pub(super) struct Permit<'a> {
    breaker: &'a CircuitBreaker,
    operation: Operation,
    generation: u64,
    verdict: Verdict,
}

impl Permit<'_> {
    /// Hands the attempt's result in.
    pub(super) fn report<T>(mut self, result: &Result<T, PortError>) {
        self.verdict = match result {
            Ok(_) => Verdict::Works,
            Err(error) => Verdict::of(error, self.breaker.throttled),
        };
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let Operation { port, backend, .. } = self.operation;
        match self.breaker.settle(self.generation, self.verdict) {
            Some(Change::Opened(pause)) => {
                let pause_ms = pause.as_millis();
                tracing::warn!(port, backend, pause_ms, "circuit opened");
            }
            Some(Change::StaysOpen(pause)) => {
                let pause_ms = pause.as_millis();
                tracing::debug!(port, backend, pause_ms, "circuit stays open");
            }
            Some(Change::Closed) => tracing::info!(port, backend, "circuit closed"),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Outcome;

    const PAUSE: Duration = Duration::from_secs(5);
    const OPERATION: Operation = Operation {
        port: "state",
        backend: "test",
        name: "get",
        kind: crate::layer::CallKind::Read,
    };

    fn report(breaker: &CircuitBreaker, result: Result<(), ErrorKind>) {
        let result = result.map_err(|kind| PortError::new(kind, "test", "get"));
        breaker.admit(OPERATION).expect("let pass").report(&result);
    }

    fn fail(breaker: &CircuitBreaker, times: u32) {
        for _ in 0..times {
            report(breaker, Err(ErrorKind::Unavailable));
        }
    }

    fn opened() -> CircuitBreaker {
        let breaker = CircuitBreaker::new(3, PAUSE);
        fail(&breaker, 3);
        assert_eq!(breaker.state(), BreakerState::Open { remaining: PAUSE });
        breaker
    }

    async fn half_open() -> CircuitBreaker {
        let breaker = opened();
        tokio::time::advance(PAUSE).await;
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_at_the_limit_and_refuses_for_the_rest_of_the_pause() {
        let breaker = CircuitBreaker::new(3, PAUSE);
        fail(&breaker, 2);
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&breaker, 1);
        tokio::time::advance(Duration::from_secs(2)).await;
        let error = breaker.admit(OPERATION).expect_err("open");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.outcome(), Outcome::NotApplied);
        assert_eq!(error.retryable(), Retry::After(Duration::from_secs(3)));
        assert_eq!(
            error.to_string(),
            "test get: unavailable: the circuit is open for another 3000 ms"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_backends_own_failures_count() {
        for kind in [
            ErrorKind::Unavailable,
            ErrorKind::Timeout,
            ErrorKind::Throttled,
            ErrorKind::Unexpected,
        ] {
            let breaker = CircuitBreaker::new(1, PAUSE);
            report(&breaker, Err(kind));
            assert_ne!(breaker.state(), BreakerState::Closed, "{kind}");
        }
        for kind in [
            ErrorKind::Conflict,
            ErrorKind::Invalid,
            ErrorKind::NotFound,
            ErrorKind::Unsupported,
            ErrorKind::Denied,
            ErrorKind::Corrupt,
        ] {
            let breaker = CircuitBreaker::new(1, PAUSE);
            report(&breaker, Err(kind));
            assert_eq!(breaker.state(), BreakerState::Closed, "{kind}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_without_room_keeps_its_circuit_closed_unless_it_asks_for_a_pause() {
        let breaker = CircuitBreaker::new(1, PAUSE).passing_throttled();
        report(&breaker, Err(ErrorKind::Throttled));
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&breaker, 1);
        tokio::time::advance(PAUSE).await;
        report(&breaker, Err(ErrorKind::Throttled));
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        report(&breaker, Ok(()));
        let error = PortError::new(ErrorKind::Throttled, "test", "get");
        let admitted = breaker.admit(OPERATION).expect("let pass");
        admitted.report::<()>(&Err(error.retry(Retry::After(PAUSE))));
        assert_eq!(breaker.state(), BreakerState::Open { remaining: PAUSE });
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ends_a_row_of_failures_and_a_local_refusal_does_not() {
        let breaker = CircuitBreaker::new(3, PAUSE);
        fail(&breaker, 2);
        report(&breaker, Err(ErrorKind::Conflict));
        fail(&breaker, 2);
        report(&breaker, Err(ErrorKind::Invalid));
        assert_eq!(breaker.state(), BreakerState::Closed);
        fail(&breaker, 1);
        assert_ne!(breaker.state(), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_asks_for_a_pause_gets_exactly_that() {
        let seconds = Duration::from_secs;
        for (kind, asked, open) in [
            (ErrorKind::Throttled, seconds(1), Some(seconds(1))),
            (ErrorKind::Unavailable, seconds(90), Some(seconds(90))),
            (ErrorKind::Throttled, Duration::MAX, Some(LONGEST_ASKED)),
            (ErrorKind::Throttled, Duration::ZERO, None),
            (ErrorKind::Conflict, seconds(1), None),
        ] {
            let breaker = CircuitBreaker::new(3, PAUSE);
            let error = PortError::new(kind, "test", "get").retry(Retry::After(asked));
            let admitted = breaker.admit(OPERATION).expect("let pass");
            admitted.report::<()>(&Err(error));
            let expected = open.map_or(BreakerState::Closed, |remaining| BreakerState::Open {
                remaining,
            });
            assert_eq!(breaker.state(), expected, "{kind} for {asked:?}");
        }
        let breaker = half_open().await;
        let asks = PortError::new(ErrorKind::Unavailable, "test", "get");
        let probe = breaker.admit(OPERATION).expect("the probe");
        probe.report::<()>(&Err(asks.retry(Retry::After(seconds(60)))));
        let remaining = seconds(60);
        assert_eq!(breaker.state(), BreakerState::Open { remaining });
    }

    #[tokio::test(start_paused = true)]
    async fn one_probe_passes_a_half_open_circuit_and_decides() {
        let breaker = half_open().await;
        let probe = breaker.admit(OPERATION).expect("the probe");
        let refused = breaker.admit(OPERATION).expect_err("one probe at a time");
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        probe.report(&Ok(()));
        assert_eq!(breaker.state(), BreakerState::Closed);

        let breaker = half_open().await;
        fail(&breaker, 1);
        assert_eq!(breaker.state(), BreakerState::Open { remaining: PAUSE });
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_probe_does_not_wedge_a_half_open_circuit() {
        let breaker = half_open().await;
        drop(breaker.admit(OPERATION).expect("the probe"));
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        report(&breaker, Ok(()));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_result_of_an_earlier_phase_is_ignored() {
        let breaker = CircuitBreaker::new(3, PAUSE);
        let [early, late] = [(); 2].map(|()| breaker.admit(OPERATION).expect("closed"));
        fail(&breaker, 3);
        early.report(&Ok(()));
        assert_eq!(breaker.state(), BreakerState::Open { remaining: PAUSE });
        tokio::time::advance(PAUSE).await;
        let probe = breaker.admit(OPERATION).expect("the probe");
        late.report(&Ok(()));
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        probe.report(&Ok(()));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
