//! A secret store behind a policy.

use std::sync::Arc;

use async_trait::async_trait;

use super::{CallKind, Operation, Policy};
use crate::ports::{PortError, Secret, SecretName, SecretStore};

/// A [`SecretStore`] whose calls are limited, repeated, broken off and observed.
#[derive(Debug)]
pub struct GuardedSecretStore {
    inner: Arc<dyn SecretStore>,
    backend: &'static str,
    policy: Policy,
}

impl GuardedSecretStore {
    /// Guards a secret store; `backend` names it in errors and observations.
    #[must_use]
    pub fn new(inner: Arc<dyn SecretStore>, backend: &'static str, policy: Policy) -> Self {
        Self {
            inner,
            backend,
            policy,
        }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl SecretStore for GuardedSecretStore {
    async fn get(&self, name: &SecretName) -> Result<Secret, PortError> {
        let operation = Operation {
            port: "secrets",
            backend: self.backend,
            name: "get",
            kind: CallKind::Read,
        };
        self.policy.call(operation, || self.inner.get(name)).await
    }
}

#[cfg(all(test, feature = "mock"))]
mod tests {
    use super::*;
    use crate::ports::{ErrorKind, MockSecretStore};

    async fn asked(kind: ErrorKind, times: usize) -> PortError {
        let name = SecretName::parse("redis/password").expect("a valid name");
        let mut mock = MockSecretStore::new();
        let wanted = name.clone();
        mock.expect_get()
            .withf(move |name| *name == wanted)
            .times(times)
            // A write of unknown outcome would not be repeated.
            .returning(move |_| Err(PortError::new(kind, "mock", "get").unknown_outcome()));
        let store = GuardedSecretStore::new(Arc::new(mock), "mock", Policy::default());
        store.get(&name).await.expect_err("refused")
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_away_is_asked_again_and_a_missing_secret_is_not() {
        let attempts = Policy::default().retry.attempts;
        let attempts = usize::try_from(attempts).expect("a small number");
        assert!(attempts > 1);
        let away = asked(ErrorKind::Unavailable, attempts).await;
        assert_eq!(away.kind(), ErrorKind::Unavailable);
        let missing = asked(ErrorKind::NotFound, 1).await;
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }
}
