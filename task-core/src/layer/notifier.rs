//! A notifier behind a policy.

use std::sync::Arc;

use async_trait::async_trait;

use super::{CallKind, Operation, Policy};
use crate::ports::{Notification, Notifier, PortError};

/// A [`Notifier`] whose calls are limited, repeated, broken off and observed.
#[derive(Debug)]
pub struct GuardedNotifier {
    inner: Arc<dyn Notifier>,
    backend: &'static str,
    policy: Policy,
}

impl GuardedNotifier {
    /// Guards a notifier; `backend` names it in errors and observations.
    #[must_use]
    pub fn new(inner: Arc<dyn Notifier>, backend: &'static str, policy: Policy) -> Self {
        Self {
            inner,
            backend,
            policy,
        }
    }

    fn operation(&self, kind: CallKind, name: &'static str) -> Operation {
        Operation {
            port: "notifier",
            backend: self.backend,
            name,
            kind,
        }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Notifier for GuardedNotifier {
    async fn notify(&self, notification: &Notification) -> Result<(), PortError> {
        let operation = self.operation(CallKind::IdempotentWrite, "notify");
        self.policy
            .call(operation, || self.inner.notify(notification))
            .await
    }

    async fn check(&self) -> Result<(), PortError> {
        self.policy
            .call(self.operation(CallKind::Probe, "check"), || {
                self.inner.check()
            })
            .await
    }
}

#[cfg(all(test, feature = "mock"))]
mod tests {
    use super::*;
    use crate::layer::{BreakerState, CircuitBreaker, RetryPolicy};
    use crate::ports::{ErrorKind, MockNotifier};

    fn notification() -> Notification {
        Notification {
            idempotency_key: "e-1".into(),
            body: "{}".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_refuses_all_work_opens_the_circuit_though_it_can_be_reached() {
        let mut mock = MockNotifier::new();
        mock.expect_notify()
            .withf(|given| *given == notification())
            .times(2)
            .returning(|_| Err(PortError::new(ErrorKind::Unavailable, "mock", "notify")));
        mock.expect_check().times(2).returning(|| Ok(()));
        let breaker = Arc::new(CircuitBreaker::new(2, std::time::Duration::from_secs(5)));
        let policy = Policy {
            breaker: Some(Arc::clone(&breaker)),
            retry: RetryPolicy::NEVER,
            ..Policy::default()
        };
        let notifier = GuardedNotifier::new(Arc::new(mock), "mock", policy);
        for _ in 0..2 {
            notifier.notify(&notification()).await.expect_err("refused");
            notifier.check().await.expect("reached");
        }
        assert!(matches!(breaker.state(), BreakerState::Open { .. }));
        notifier.notify(&notification()).await.expect_err("open");
    }
}
