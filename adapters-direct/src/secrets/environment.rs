//! Secrets from the environment.

use async_trait::async_trait;
use task_core::ports::{PortError, Secret, SecretName, SecretStore};

use super::config::{Value, Variables};
use super::error::{Failure, port_error};

/// Answers secrets from the variables `TASK_SECRET_…`.
///
/// The mapping of [`Variables::name_of`] makes one variable of some names, for example of `api-key`
/// and `API_KEY`: they are one secret here. A process hands its variables to those that it starts.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use adapters_direct::secrets::{EnvironmentSecretStore, Variables};
/// use task_core::ports::{SecretName, SecretStore};
///
/// let variables = [("TASK_SECRET_REDIS__PASSWORD".to_owned(), "hunter2".into())];
/// let secrets = EnvironmentSecretStore::new(variables.into_iter().collect());
/// let name = SecretName::parse("redis/password").unwrap();
/// assert!(secrets.get(&name).await.unwrap().matches("hunter2"));
/// # });
/// ```
#[derive(Debug)]
pub struct EnvironmentSecretStore {
    variables: Variables,
}

impl EnvironmentSecretStore {
    /// Answers from these variables.
    #[must_use]
    pub fn new(variables: Variables) -> Self {
        Self { variables }
    }
}

#[async_trait]
impl SecretStore for EnvironmentSecretStore {
    async fn get(&self, name: &SecretName) -> Result<Secret, PortError> {
        let variable = Variables::name_of(name);
        let failure = match self.variables.get(&variable) {
            Some(Value::Secret(secret)) => return Ok(secret.clone()),
            Some(Value::NotText) => Failure::NotText,
            None => Failure::Missing,
        };
        let place = format!("variable {variable}");
        Err(port_error("environment", name, &place, failure))
    }
}
