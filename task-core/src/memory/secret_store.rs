//! Secrets in a map.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::ports::{ErrorKind, PortError, Secret, SecretName, SecretStore};

/// Answers the secrets that it was made with.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use task_core::memory::MemorySecretStore;
/// use task_core::ports::{ErrorKind, Secret, SecretName, SecretStore};
///
/// let name = SecretName::parse("redis/password").unwrap();
/// let secrets = MemorySecretStore::new([(name.clone(), Secret::new("hunter2").unwrap())]);
/// assert!(secrets.get(&name).await.unwrap().matches("hunter2"));
///
/// let missing = secrets.get(&SecretName::parse("redis/user").unwrap()).await.unwrap_err();
/// assert_eq!(missing.kind(), ErrorKind::NotFound);
/// # });
/// ```
#[derive(Debug, Default)]
pub struct MemorySecretStore(BTreeMap<SecretName, Secret>);

impl MemorySecretStore {
    /// A store of these secrets; of two with one name the later counts.
    #[must_use]
    pub fn new(secrets: impl IntoIterator<Item = (SecretName, Secret)>) -> Self {
        Self(secrets.into_iter().collect())
    }
}

#[async_trait]
impl SecretStore for MemorySecretStore {
    async fn get(&self, name: &SecretName) -> Result<Secret, PortError> {
        self.0.get(name).cloned().ok_or_else(|| {
            PortError::new(ErrorKind::NotFound, "memory", "get").context(format!("secret {name}"))
        })
    }
}
