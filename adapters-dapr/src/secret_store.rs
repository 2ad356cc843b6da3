//! Secrets of the sidecar's secret store, `kubernetes-secrets` unless named otherwise.
//!
//! Dapr answers a map for a name: `redis/password` is the entry `password` of the answer for `redis`, and
//! `api-key` is the entry `api-key` of the answer for `api-key`. A file of `secretstores.local.file` has
//! entries of that kind with `multiValued: "true"`; without it, a nested value is called `redis:password`.
//!
//! A secret that is not there and a store that is broken are both `INTERNAL` to the sidecar. They are told
//! apart by the words of local files and of Kubernetes, and what is not recognised counts as broken: a
//! secret that seems to be missing might be done without. `secretstores.local.env` answers an empty value.
//!
//! *Source:* <https://docs.dapr.io/reference/api/secrets_api/>; components-contrib 1.16, `secretstores`.

use std::collections::HashMap;

use async_trait::async_trait;
use dapr::dapr::proto::runtime::v1::GetSecretRequest;
use task_core::ports::{ErrorKind, PortError, Secret, SecretName, SecretStore};
use tonic::{Code, Status};

use crate::error::{BACKEND, Effect, Failure};
use crate::sidecar::{Grpc, Sidecar};

/// How the types of Dapr's secret stores begin.
const KIND: &str = "secretstores.";

/// A [`SecretStore`] of the sidecar's; every call asks it anew. A clone shares its connections.
#[derive(Debug, Clone)]
pub struct DaprSecretStore {
    sidecar: Sidecar,
}

impl DaprSecretStore {
    /// Opens the secret store that the sidecar's configuration names; no secret is read.
    ///
    /// # Errors
    /// `NotFound` without the component, `Invalid` if it is of another kind; otherwise as
    /// [`Sidecar::metadata`].
    pub async fn open(sidecar: &Sidecar) -> Result<Self, PortError> {
        let metadata = sidecar.metadata().await?;
        let component = metadata.needed(&sidecar.config().components.secret_store)?;
        if !component.kind.starts_with(KIND) {
            let context = format!("the component {component} is no store of secrets");
            let error = PortError::new(ErrorKind::Invalid, BACKEND, "open");
            return Err(error.context(context));
        }
        let sidecar = sidecar.clone();
        Ok(Self { sidecar })
    }

    async fn read(&self, name: &SecretName) -> Result<Secret, Failure> {
        let request = GetSecretRequest {
            store_name: self.sidecar.config().components.secret_store.clone(),
            key: name.name().to_owned(),
            metadata: HashMap::new(),
        };
        let read = async |mut grpc: Grpc| grpc.get_secret(request).await;
        let mut answer = match self.sidecar.call(Effect::Read, read).await {
            Err(Failure::Status { status, .. }) if is_missing(&status, name) => {
                return Err(missing(name));
            }
            answer => answer?,
        };
        let entry = answer.data.remove(name.key().unwrap_or(name.name()));
        entry.and_then(Secret::new).ok_or_else(|| missing(name))
    }
}

#[async_trait]
impl SecretStore for DaprSecretStore {
    async fn get(&self, name: &SecretName) -> Result<Secret, PortError> {
        let secret = self.read(name).await;
        secret.map_err(|failure| failure.into_port("get"))
    }
}

fn missing(name: &SecretName) -> Failure {
    Failure::Missing(format!("secret {name}"))
}

/// Says whether a store means that it has no secret of this name.
///
/// Whatever else is "not found", a namespace or a host, is said of another word.
fn is_missing(status: &Status, name: &SecretName) -> bool {
    let name = name.name();
    let said = status.message();
    let words = [
        // Local files.
        format!("secret {name} not found"),
        // Kubernetes.
        format!("secrets \"{name}\" not found"),
    ];
    status.code() == Code::Internal && words.iter().any(|words| said.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_secret_is_told_from_a_broken_store() {
        let name = SecretName::parse("redis/password").expect("valid");
        let prefix = "failed getting secret with key redis from secret store s: ";
        for (code, said, expected) in [
            (Code::Internal, "secret redis not found", true),
            (Code::Internal, "secrets \"redis\" not found", true),
            (Code::Internal, "secrets \"other\" not found", false),
            (Code::Internal, "namespaces \"redis\" not found", false),
            (Code::Internal, "connection refused", false),
            (Code::Internal, "secrets \"redis\" is forbidden", false),
            (Code::Unavailable, "secret redis not found", false),
        ] {
            let status = Status::new(code, format!("{prefix}{said}"));
            assert_eq!(is_missing(&status, &name), expected, "{code:?} {said}");
        }
    }
}
