//! Secrets that the configuration names but does not hold.
//!
//! A key `…_secret` is the name of a secret in the store that the key `secrets` chooses. The wiring
//! opens the store once, and resolves each such key when it needs the value: the value goes from here
//! to the client that logs in with it, and nowhere else.

use std::sync::Arc;
use std::time::Duration;

use adapters_direct::secrets::{DirectorySecretStore, EnvironmentSecretStore, FileSecretStore};
use task_core::layer::{GuardedSecretStore, Policy, RetryPolicy};
use task_core::ports::{Secret, SecretName, SecretStore};

use crate::app::StartError;
use crate::backend;
use crate::config::{Config, SecretSource};

/// Longest time to read one secret. A healthy disk needs a thousandth of it.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens the store that the configuration chooses; nothing is read yet.
///
/// # Errors
/// A sidecar that is to answer does not come, or has no such component.
#[cfg_attr(
    not(feature = "dapr"),
    expect(clippy::unused_async, reason = "a sidecar is waited for")
)]
pub async fn open(config: &Config) -> Result<Arc<dyn SecretStore>, StartError> {
    let (store, backend): (Arc<dyn SecretStore>, _) = match &config.secrets {
        #[cfg(feature = "dapr")]
        SecretSource::Sidecar(_) => (backend::secrets_of_sidecar(config).await?, "dapr"),
        #[cfg(not(feature = "dapr"))]
        SecretSource::Sidecar(_) => return Err(backend::NO_SIDECAR_SECRETS),
        SecretSource::Environment => {
            let variables = config.secret_variables.clone();
            (
                Arc::new(EnvironmentSecretStore::new(variables)),
                "environment",
            )
        }
        SecretSource::File(path) => (Arc::new(FileSecretStore::new(path)), "secrets file"),
        SecretSource::Directory(path) => (
            Arc::new(DirectorySecretStore::new(path)),
            "secrets directory",
        ),
    };
    // One attempt: what cannot be read now cannot be read in a moment either.
    let policy = Policy {
        timeout: READ_TIMEOUT,
        retry: RetryPolicy::NEVER,
        ..Policy::default()
    };
    Ok(Arc::new(GuardedSecretStore::new(store, backend, policy)))
}

/// Reads the secret that a configuration key names; a key that is not set has none.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use task_core::ports::SecretName;
/// use task_server::{config::Config, secrets};
///
/// let store = secrets::open(&Config::defaults()).await.unwrap();
/// let name = SecretName::parse("redis/password").unwrap();
/// let error = secrets::resolve(&*store, "redis_password_secret", Some(&name)).await.unwrap_err();
/// assert_eq!(error.to_string(), "cannot read the secret that redis_password_secret names");
/// # });
/// ```
///
/// # Errors
/// [`StartError::Secret`] if the store does not answer it.
pub async fn resolve(
    store: &dyn SecretStore,
    key: &'static str,
    name: Option<&SecretName>,
) -> Result<Option<Secret>, StartError> {
    let Some(name) = name else { return Ok(None) };
    match store.get(name).await {
        Ok(secret) => Ok(Some(secret)),
        Err(source) => Err(StartError::Secret { key, source }),
    }
}

#[cfg(test)]
mod tests {
    use task_core::memory::MemorySecretStore;

    use super::*;
    use crate::telemetry::chain;

    fn name(text: &str) -> SecretName {
        SecretName::parse(text).expect("a valid name")
    }

    #[tokio::test]
    async fn a_key_is_resolved_to_the_secret_that_it_names() {
        let secret = Secret::new("canary-3b9e").expect("not empty");
        let store = MemorySecretStore::new([(name("redis/password"), secret)]);
        let wanted = name("redis/password");
        let resolved = resolve(&store, "redis_password_secret", Some(&wanted)).await;
        let resolved = resolved.expect("it is there").expect("the key is set");
        assert!(resolved.matches("canary-3b9e"));
        let unset = resolve(&store, "redis_password_secret", None).await;
        assert!(unset.expect("nothing to read").is_none());
    }

    #[tokio::test]
    async fn a_secret_that_is_not_there_is_refused_by_key_and_name() {
        let secret = Secret::new("canary-3b9e").expect("not empty");
        let store = MemorySecretStore::new([(name("redis/password"), secret)]);
        let wanted = name("redis/user");
        let refused = resolve(&store, "redis_password_secret", Some(&wanted)).await;
        let error = refused.expect_err("missing");
        assert_eq!(
            chain(&error),
            "cannot read the secret that redis_password_secret names: \
             memory get: not found: secret redis/user"
        );
        assert!(!format!("{error:?}").contains("canary"));
        assert!(error.advice().is_some());
    }

    #[tokio::test]
    async fn each_source_opens_its_store() {
        let mut config = Config::defaults();
        for (source, backend) in [
            (SecretSource::Environment, "environment"),
            (
                SecretSource::File("nonexistent.json".into()),
                "secrets file",
            ),
            (
                SecretSource::Directory("nonexistent".into()),
                "secrets directory",
            ),
        ] {
            config.secrets = source;
            let store = open(&config).await.expect("nothing is read");
            let error = store.get(&name("a")).await.expect_err("nothing there");
            assert_eq!(error.backend(), backend);
        }
    }
}
