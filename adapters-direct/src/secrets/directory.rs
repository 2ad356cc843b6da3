//! Secrets from a directory, one file each.

use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use task_core::ports::{PortError, Secret, SecretName, SecretStore};

use super::error::{Failure, port_error};
use super::reading::{Access, read};

/// Answers secrets from files below a directory, as Kubernetes and Docker mount them.
///
/// One line end at the end of a file is no part of the secret. Permissions are not looked at: a
/// mounted Secret is readable by everyone unless told otherwise, in a file system of its pod alone.
#[derive(Debug)]
pub struct DirectorySecretStore {
    root: PathBuf,
}

impl DirectorySecretStore {
    /// Answers from this directory.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where a secret is; its name can hold nothing that leads out of the directory.
    fn path(&self, name: &SecretName) -> PathBuf {
        let mut path = self.root.clone();
        path.extend(name.name().split(':'));
        path.extend(name.key().into_iter().flat_map(|key| key.split(':')));
        path
    }

    async fn find(&self, path: PathBuf) -> Result<Secret, Failure> {
        let text = match read(path, Access::Anyone).await {
            Err(Failure::Unreadable(error)) if is_absence(&error) => Err(Failure::Missing),
            read => read,
        }?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        Secret::new(text).ok_or(Failure::Missing)
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[async_trait]
impl SecretStore for DirectorySecretStore {
    async fn get(&self, name: &SecretName) -> Result<Secret, PortError> {
        let path = self.path(name);
        let place = format!("file {}", path.display());
        let found = self.find(path).await;
        found.map_err(|failure| port_error("secrets directory", name, &place, failure))
    }
}
