//! The limit of one attempt.

use std::time::Duration;

use super::Operation;
use crate::ports::{ErrorKind, PortError};

/// Waits for an attempt no longer than `limit`.
pub(super) async fn limited<T: Send>(
    limit: Duration,
    operation: Operation,
    attempt: impl Future<Output = Result<T, PortError>> + Send,
) -> Result<T, PortError> {
    match tokio::time::timeout(limit, attempt).await {
        Ok(result) => result,
        Err(_) => Err(timed_out(limit, operation)),
    }
}

fn timed_out(limit: Duration, operation: Operation) -> PortError {
    let error = PortError::new(ErrorKind::Timeout, operation.backend, operation.name)
        .context(format!("no answer within {} ms", limit.as_millis()));
    match operation.kind.is_write() {
        true => error.unknown_outcome(),
        false => error,
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::layer::CallKind;
    use crate::ports::Outcome;

    const OPERATION: Operation = Operation {
        port: "state",
        backend: "test",
        name: "put",
        kind: CallKind::Write,
    };

    async fn outcome_of(kind: CallKind) -> Outcome {
        let limit = Duration::from_millis(250);
        let started = tokio::time::Instant::now();
        let operation = Operation { kind, ..OPERATION };
        let error = limited::<()>(limit, operation, pending())
            .await
            .expect_err("never answers");
        assert_eq!(started.elapsed(), limit);
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("no answer within 250 ms"));
        error.outcome()
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_timed_out_changed_nothing_and_a_write_may_have() {
        assert_eq!(outcome_of(CallKind::Read).await, Outcome::NotApplied);
        assert_eq!(outcome_of(CallKind::Probe).await, Outcome::NotApplied);
        assert_eq!(
            outcome_of(CallKind::IdempotentWrite).await,
            Outcome::Unknown
        );
        assert_eq!(outcome_of(CallKind::Write).await, Outcome::Unknown);
    }
}
