//! The engine against scripted attempts, in paused time.

use std::collections::VecDeque;
use std::error::Error;
use std::future::pending;
use std::sync::Mutex;

use super::*;
use crate::layer::{BreakerState, CountingObserver};
use crate::memory::{SeededEntropy, lock};
use crate::ports::{ErrorKind, Retry};

const OPERATION: Operation = Operation {
    port: "state",
    backend: "test",
    name: "call",
    kind: CallKind::Read,
};

const TIMEOUT: Duration = Duration::from_secs(2);

/// Answers attempts in order; `None` never answers, and so does everything after the last one.
struct Script {
    answers: Mutex<VecDeque<Option<Result<u32, PortError>>>>,
    made: Mutex<Vec<Instant>>,
}

impl Script {
    fn new(answers: impl IntoIterator<Item = Option<Result<u32, PortError>>>) -> Self {
        Self {
            answers: Mutex::new(answers.into_iter().collect()),
            made: Mutex::default(),
        }
    }

    fn failing(kinds: &[ErrorKind]) -> Self {
        Self::new(kinds.iter().map(|&kind| Some(Err(failure(kind)))))
    }

    async fn attempt(&self) -> Result<u32, PortError> {
        lock(&self.made).push(Instant::now());
        let answer = lock(&self.answers).pop_front().flatten();
        match answer {
            Some(answer) => answer,
            None => pending().await,
        }
    }

    fn made(&self) -> usize {
        lock(&self.made).len()
    }

    fn pauses(&self) -> Vec<Duration> {
        let made = lock(&self.made);
        made.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    async fn run(&self, policy: &Policy, kind: CallKind) -> Result<u32, PortError> {
        let operation = Operation { kind, ..OPERATION };
        policy.call(operation, || self.attempt()).await
    }
}

fn failure(kind: ErrorKind) -> PortError {
    PortError::new(kind, "test", "call")
}

fn policy() -> Policy {
    Policy {
        timeout: TIMEOUT,
        entropy: Arc::new(SeededEntropy::new(1)),
        ..Policy::default()
    }
}

fn broken_by(failures: u32) -> (Policy, Arc<CircuitBreaker>) {
    let breaker = Arc::new(CircuitBreaker::new(failures, Duration::from_secs(5)));
    let policy = Policy {
        breaker: Some(Arc::clone(&breaker)),
        ..policy()
    };
    (policy, breaker)
}

#[tokio::test(start_paused = true)]
async fn a_call_is_attempted_until_it_succeeds() {
    let script = Script::new([
        Some(Err(failure(ErrorKind::Unavailable))),
        Some(Err(failure(ErrorKind::Throttled))),
        Some(Ok(7)),
    ]);
    let value = script.run(&policy(), CallKind::Read).await;
    assert_eq!(value.expect("the third attempt"), 7);
    assert_eq!(script.made(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_attempted_exactly_as_often_as_allowed() {
    for attempts in [0, 1, 2, 5] {
        let script = Script::failing(&[ErrorKind::Unavailable; 9]);
        let retry = RetryPolicy {
            attempts,
            ..RetryPolicy::default()
        };
        let policy = Policy { retry, ..policy() };
        let error = script.run(&policy, CallKind::Read).await;
        assert_eq!(error.expect_err("fails").kind(), ErrorKind::Unavailable);
        assert_eq!(script.made(), attempts.max(1) as usize);
    }
}

#[tokio::test(start_paused = true)]
async fn the_pauses_come_from_entropy_and_repeat_with_its_seed() {
    let mut runs = Vec::new();
    for seed in [3, 3, 4] {
        let script = Script::failing(&[ErrorKind::Unavailable; 3]);
        let entropy = Arc::new(SeededEntropy::new(seed));
        let policy = Policy {
            entropy,
            ..policy()
        };
        script
            .run(&policy, CallKind::Read)
            .await
            .expect_err("fails");
        runs.push(script.pauses());
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
    for (pause, longest) in runs[0].iter().zip([50, 100]) {
        // Tokio's timer counts whole milliseconds and rounds up.
        let range = Duration::from_millis(longest / 2)..=Duration::from_millis(longest + 1);
        assert!(range.contains(pause), "{pause:?} is not within {range:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_the_backend_asks_for_is_waited_for() {
    let asked = Duration::from_millis(700);
    let throttled = failure(ErrorKind::Throttled).retry(Retry::After(asked));
    let script = Script::new([Some(Err(throttled)), Some(Ok(1))]);
    script
        .run(&policy(), CallKind::Read)
        .await
        .expect("the second");
    assert_eq!(script.pauses(), [asked]);
}

#[tokio::test(start_paused = true)]
async fn a_pause_beyond_the_longest_is_left_to_the_caller() {
    let asked = Duration::from_secs(60);
    let throttled = failure(ErrorKind::Throttled).retry(Retry::After(asked));
    let script = Script::new([Some(Err(throttled))]);
    let error = script
        .run(&policy(), CallKind::Read)
        .await
        .expect_err("too long");
    assert_eq!(error.retryable(), Retry::After(asked));
    assert_eq!(script.made(), 1);
}

#[tokio::test(start_paused = true)]
async fn each_attempt_has_a_limit_of_its_own() {
    let script = Script::new([None, None, Some(Ok(1))]);
    let started = Instant::now();
    script
        .run(&policy(), CallKind::Read)
        .await
        .expect("the third");
    assert_eq!(script.made(), 3);
    assert!(started.elapsed() >= 2 * TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_write_with_an_unknown_outcome_is_not_repeated() {
    let hanging = Script::new([None, Some(Ok(1))]);
    let error = hanging.run(&policy(), CallKind::Write).await;
    let error = error.expect_err("timed out");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert_eq!(hanging.made(), 1);

    let torn = failure(ErrorKind::Unavailable).unknown_outcome();
    let script = Script::new([Some(Err(torn)), Some(Ok(1))]);
    script
        .run(&policy(), CallKind::Write)
        .await
        .expect_err("torn");
    assert_eq!(script.made(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_not_applied_is_repeated() {
    let script = Script::new([Some(Err(failure(ErrorKind::Unavailable))), Some(Ok(1))]);
    script
        .run(&policy(), CallKind::Write)
        .await
        .expect("the second");
    assert_eq!(script.made(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_stays_unknown_whatever_the_next_attempt_says() {
    let script = Script::new([None, Some(Err(failure(ErrorKind::Denied)))]);
    let error = script.run(&policy(), CallKind::IdempotentWrite).await;
    let error = error.expect_err("denied");
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(error.outcome(), Outcome::Unknown);
}

#[tokio::test(start_paused = true)]
async fn the_breaker_counts_attempts_and_ends_the_call_that_opened_it() {
    let (policy, breaker) = broken_by(2);
    let script = Script::new([None, Some(Err(failure(ErrorKind::Unavailable)))]);
    let error = script.run(&policy, CallKind::IdempotentWrite).await;
    let error = error.expect_err("open");
    assert_eq!(script.made(), 2);
    assert!(matches!(breaker.state(), BreakerState::Open { .. }));
    assert!(matches!(error.retryable(), Retry::After(_)), "{error}");
    assert_eq!(error.outcome(), Outcome::Unknown);
    let cause = Error::source(&error)
        .expect("the attempt before")
        .to_string();
    assert_eq!(cause, "test call: unavailable (outcome unknown)");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_attempted_before_the_circuit_refused_it_was_made() {
    let (policy, _breaker) = broken_by(1);
    let script = Script::failing(&[ErrorKind::Unavailable]);
    let error = script.run(&policy, CallKind::Write).await;
    assert_eq!(error.expect_err("open").outcome(), Outcome::NotApplied);
    assert_eq!(script.made(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_refuses_in_no_time_and_without_an_attempt() {
    let (policy, _breaker) = broken_by(1);
    let script = Script::failing(&[ErrorKind::Unavailable]);
    script
        .run(&policy, CallKind::Read)
        .await
        .expect_err("opens");
    // Within the longest pause of a retry, and still not waited for.
    tokio::time::advance(Duration::from_millis(4500)).await;
    let started = Instant::now();
    let error = script
        .run(&policy, CallKind::Write)
        .await
        .expect_err("open");
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(error.outcome(), Outcome::NotMade);
    assert_eq!(script.made(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_probe_reaches_the_backend_through_an_open_circuit_and_does_not_count() {
    let (policy, breaker) = broken_by(1);
    let script = Script::new([
        Some(Err(failure(ErrorKind::Unavailable))),
        Some(Ok(1)),
        Some(Err(failure(ErrorKind::Unexpected))),
    ]);
    script
        .run(&policy, CallKind::Read)
        .await
        .expect_err("opens");
    let open = breaker.state();
    script
        .run(&policy, CallKind::Probe)
        .await
        .expect("reaches it");
    assert_eq!(breaker.state(), open);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_does_not_wedge_the_half_open_circuit() {
    let (policy, breaker) = broken_by(1);
    let script = Script::new([
        Some(Err(failure(ErrorKind::Unavailable))),
        None,
        Some(Ok(1)),
    ]);
    script
        .run(&policy, CallKind::Read)
        .await
        .expect_err("opens");
    tokio::time::advance(Duration::from_secs(5)).await;

    let probe = script.run(&policy, CallKind::Read);
    let cut_off = tokio::time::timeout(TIMEOUT / 2, probe).await;
    assert!(cut_off.is_err(), "the probe hangs");
    assert_eq!(breaker.state(), BreakerState::HalfOpen);

    script
        .run(&policy, CallKind::Read)
        .await
        .expect("the next probe");
    assert_eq!(breaker.state(), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn one_call_is_observed_once_with_all_its_attempts() {
    let counts = Arc::new(CountingObserver::default());
    let observer = Arc::<CountingObserver>::clone(&counts);
    let policy = Policy {
        observer,
        ..policy()
    };
    let script = Script::new([None, Some(Ok(1))]);
    script
        .run(&policy, CallKind::Read)
        .await
        .expect("the second");
    script
        .run(&policy, CallKind::Write)
        .await
        .expect_err("hangs");
    let seen = counts.snapshot();
    let summary: Vec<_> = seen
        .iter()
        .map(|count| (count.error, count.calls))
        .collect();
    assert_eq!(summary, [(None, 1), (Some(ErrorKind::Timeout), 1)]);
    assert!(seen[0].elapsed > TIMEOUT, "attempts and pauses count");
    assert_eq!(seen[1].elapsed, TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn retries_end_with_their_budget_and_the_first_attempt_never_does() {
    let policy = Policy {
        retry: RetryPolicy {
            attempts: 2,
            first_pause: Duration::from_millis(1),
            longest_pause: Duration::from_millis(1),
        },
        budget: Some(Arc::default()),
        ..policy()
    };
    const CALLS: usize = 100;
    let script = Script::failing(&[ErrorKind::Unavailable; 2 * CALLS]);
    for _ in 0..CALLS {
        let failed = script.run(&policy, CallKind::IdempotentWrite).await;
        failed.expect_err("the script only fails");
    }
    // A fifth of the calls, and the ten that were saved up; the pauses are too short to add any.
    let retries = script.made() - CALLS;
    assert!((28..=31).contains(&retries), "{retries} retries");
}
