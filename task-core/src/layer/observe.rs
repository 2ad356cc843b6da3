//! What is seen of every call: its name, its time and its result.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Debug;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::CallKind;
use crate::episode::Episode;
use crate::memory::lock;
use crate::ports::{ErrorKind, Outcome, PortError};

/// Names a call of a port; every part is a constant, so it fits a metric's labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Operation {
    /// The port, for example `state`.
    pub port: &'static str,
    /// The backend behind it, for example `redis`.
    pub backend: &'static str,
    /// The method, for example `get`.
    pub name: &'static str,
    /// What a repetition of it may do.
    pub kind: CallKind,
}

/// Is told of every finished call of a guarded port.
///
/// It runs inside the call: it returns at once and never waits. A pair of observers is an observer.
pub trait Observer: Debug + Send + Sync + 'static {
    /// One call, with all its attempts and pauses, has ended.
    ///
    /// A call that was dropped before its end is not told of.
    fn call(&self, operation: Operation, elapsed: Duration, result: Result<(), &PortError>);
}

impl<A: Observer, B: Observer> Observer for (A, B) {
    fn call(&self, operation: Operation, elapsed: Duration, result: Result<(), &PortError>) {
        self.0.call(operation, elapsed, result);
        self.1.call(operation, elapsed, result);
    }
}

/// Writes every call to the log, at the level `debug`, and outages of a backend above it.
///
/// An outage is one line at its beginning (`warn`), one every 30 s while calls still fail, and one when
/// they succeed again (`info`), however many calls and attempts there are. Reads and writes are told
/// apart: a backend may refuse the one and do the other. An end that has to wait is told with the first
/// call after its time, whatever it calls and however it ends. A refusal that is no outage, such as a
/// conflict, is for the boundary that answers it.
#[derive(Debug, Default)]
pub struct LogObserver {
    /// Whether there is an outage: calls that succeed need not look.
    troubled: AtomicBool,
    outages: Mutex<HashMap<Side, Episode>>,
}

/// Port, backend, and whether it is about writes.
type Side = (&'static str, &'static str, bool);

impl LogObserver {
    fn outage(&self, operation: Operation, result: Result<(), &PortError>) {
        let Operation {
            port,
            backend,
            name,
            kind,
        } = operation;
        let verdict = verdict(kind, result);
        if !matches!(verdict, Some(Err(_))) && !self.troubled.load(Ordering::Relaxed) {
            return;
        }
        let side = (port, backend, kind.is_write());
        let now = Instant::now();
        let mut outages = lock(&self.outages);
        match verdict {
            Some(Err(error)) if outages.entry(side).or_default().fails(now) => {
                let error = with_causes(error);
                tracing::warn!(port, backend, operation = name, error, "calls fail");
            }
            Some(Ok(())) => {
                let outage = outages.get_mut(&side);
                tell_end(side, outage.and_then(|outage| outage.works(now)));
            }
            Some(Err(_)) | None => {}
        }
        for (side, outage) in &mut *outages {
            tell_end(*side, outage.overdue(now));
        }
        let troubled = outages.values().any(Episode::lasts);
        self.troubled.store(troubled, Ordering::Relaxed);
    }
}

fn tell_end((port, backend, _): Side, lasted: Option<Duration>) {
    if let Some(lasted) = lasted {
        let lasted_ms = lasted.as_millis();
        tracing::info!(port, backend, lasted_ms, "calls succeed again");
    }
}

/// What a call says of the backend: it works, it is out of work, or nothing.
fn verdict(kind: CallKind, result: Result<(), &PortError>) -> Option<Result<(), &PortError>> {
    // Who checks says what it found. That a receiver can be reached is no end of its refusals.
    if kind == CallKind::Probe {
        return None;
    }
    let Err(error) = result else {
        return Some(Ok(()));
    };
    match error.kind() {
        // A guard of ours asked nobody.
        _ if error.outcome() == Outcome::NotMade => None,
        ErrorKind::Unavailable
        | ErrorKind::Timeout
        | ErrorKind::Throttled
        | ErrorKind::Denied
        | ErrorKind::Unexpected => Some(Err(error)),
        ErrorKind::NotFound | ErrorKind::Conflict | ErrorKind::Fenced | ErrorKind::Corrupt => {
            Some(Ok(()))
        }
        ErrorKind::Invalid | ErrorKind::Unsupported => None,
    }
}

fn with_causes(error: &PortError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(current) = cause {
        let own = current.to_string();
        // Some errors print their source as well.
        if !text.contains(&own) {
            text = format!("{text}: {own}");
        }
        cause = current.source();
    }
    text
}

impl Observer for LogObserver {
    fn call(&self, operation: Operation, elapsed: Duration, result: Result<(), &PortError>) {
        self.outage(operation, result);
        let Operation {
            port,
            backend,
            name,
            kind: _,
        } = operation;
        // Fields are evaluated only where the level is enabled: nothing is formatted otherwise.
        match result {
            Ok(()) => tracing::debug!(
                port,
                backend,
                operation = name,
                elapsed_us = micros(elapsed),
                "call succeeded"
            ),
            Err(error) => tracing::debug!(
                port,
                backend,
                operation = name,
                elapsed_us = micros(elapsed),
                %error,
                "call failed"
            ),
        }
    }
}

fn micros(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

/// How often an operation ended in one way, and how long that took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// The operation.
    pub operation: Operation,
    /// How it ended; `None` is success.
    pub error: Option<ErrorKind>,
    /// The number of calls.
    pub calls: u64,
    /// The sum of their times.
    pub elapsed: Duration,
}

/// Counts calls and sums their times, per operation and result.
///
/// It holds one entry for each pair that occurred; operations and error kinds are constants of the
/// program, so there are few.
#[derive(Debug, Default)]
pub struct CountingObserver {
    counts: Mutex<HashMap<(Operation, Option<ErrorKind>), Sums>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    calls: u64,
    elapsed: Duration,
}

impl CountingObserver {
    /// The counts so far, in the order of their operations, success first.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Count> {
        let mut counts: Vec<Count> = lock(&self.counts)
            .iter()
            .map(|(&(operation, error), sums)| Count {
                operation,
                error,
                calls: sums.calls,
                elapsed: sums.elapsed,
            })
            .collect();
        counts.sort_by_cached_key(|count| {
            (count.operation, count.error.map(|error| error.to_string()))
        });
        counts
    }
}

impl Observer for CountingObserver {
    fn call(&self, operation: Operation, elapsed: Duration, result: Result<(), &PortError>) {
        let mut counts = lock(&self.counts);
        let sums = counts
            .entry((operation, result.err().map(PortError::kind)))
            .or_default();
        sums.calls += 1;
        sums.elapsed = sums.elapsed.saturating_add(elapsed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get_and_put() -> (Operation, Operation) {
        let get = Operation {
            port: "state",
            backend: "test",
            name: "get",
            kind: CallKind::Read,
        };
        let put = Operation {
            name: "put",
            kind: CallKind::Write,
            ..get
        };
        (get, put)
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_waits_is_told_although_nothing_of_its_side_is_called_again() {
        let (get, put) = get_and_put();
        let check = Operation {
            name: "check",
            kind: CallKind::Probe,
            ..get
        };
        let observer = LogObserver::default();
        let away = PortError::new(ErrorKind::Unavailable, "test", "put");
        let no_time = Duration::ZERO;
        let is_troubled = || observer.troubled.load(Ordering::Relaxed);
        observer.call(put, no_time, Err(&away));
        observer.call(put, no_time, Ok(()));
        assert!(!is_troubled(), "the first end is told at once");
        observer.call(put, no_time, Err(&away));
        observer.call(put, no_time, Ok(()));
        for wait in [10, 10] {
            tokio::time::advance(Duration::from_secs(wait)).await;
            observer.call(check, no_time, Ok(()));
            assert!(is_troubled(), "the second one waits");
        }
        tokio::time::advance(Duration::from_secs(10)).await;
        observer.call(check, no_time, Err(&away));
        assert!(!is_troubled(), "it was told");
    }

    #[test]
    fn calls_are_counted_by_operation_and_result() {
        let (get, put) = get_and_put();
        let observer = (LogObserver::default(), CountingObserver::default());
        let ms = Duration::from_millis;
        let conflict = PortError::new(ErrorKind::Conflict, "test", "put");
        observer.call(put, ms(5), Err(&conflict));
        observer.call(get, ms(2), Ok(()));
        observer.call(get, ms(3), Ok(()));
        observer.call(put, ms(1), Ok(()));
        let count = |operation, error, calls, elapsed| Count {
            operation,
            error,
            calls,
            elapsed,
        };
        assert_eq!(
            observer.1.snapshot(),
            [
                count(get, None, 2, ms(5)),
                count(put, None, 1, ms(1)),
                count(put, Some(ErrorKind::Conflict), 1, ms(5)),
            ]
        );
    }
}
