//! Secret stores under test: in memory, in variables, in a file and in a directory.

use std::sync::Arc;

use adapters_direct::secrets::{
    DirectorySecretStore, EnvironmentSecretStore, FileSecretStore, Variables,
};
use async_trait::async_trait;
use task_core::memory::MemorySecretStore;
use task_core::ports::{Secret, SecretName, SecretStore};

use crate::conformance::Failure;
use crate::conformance::secret_store::SecretStoreBackend;
use crate::process::TestDirectory;

/// Secrets in memory.
#[derive(Debug)]
pub struct MemorySecrets;

#[async_trait]
impl SecretStoreBackend for MemorySecrets {
    async fn open(&self, texts: &[(SecretName, &str)]) -> Result<Arc<dyn SecretStore>, Failure> {
        let secrets = texts
            .iter()
            .filter_map(|(name, text)| Some((name.clone(), Secret::new(*text)?)));
        Ok(Arc::new(MemorySecretStore::new(secrets)))
    }

    async fn close(&self) {}
}

/// Secrets in variables, which no process has to have.
#[derive(Debug)]
pub struct EnvironmentSecrets;

#[async_trait]
impl SecretStoreBackend for EnvironmentSecrets {
    async fn open(&self, texts: &[(SecretName, &str)]) -> Result<Arc<dyn SecretStore>, Failure> {
        let variables: Variables = texts
            .iter()
            .map(|(name, text)| (Variables::name_of(name), text.into()))
            .collect();
        Ok(Arc::new(EnvironmentSecretStore::new(variables)))
    }

    async fn close(&self) {}
}

/// Secrets in one JSON file, nested as in a file of Dapr's.
#[derive(Debug)]
pub struct FileSecrets(TestDirectory);

impl FileSecrets {
    /// A backend in a fresh directory.
    #[must_use]
    pub fn fresh() -> Arc<Self> {
        Arc::new(Self(TestDirectory::new("secrets-file")))
    }
}

#[async_trait]
impl SecretStoreBackend for FileSecrets {
    async fn open(&self, texts: &[(SecretName, &str)]) -> Result<Arc<dyn SecretStore>, Failure> {
        let mut root = serde_json::Value::Object(serde_json::Map::new());
        for (name, text) in texts {
            match name.key() {
                Some(key) => root[name.name()][key] = (*text).into(),
                None => root[name.name()] = (*text).into(),
            }
        }
        let path = self.0.path().join("secrets.json");
        std::fs::write(&path, root.to_string())?;
        keep_to_the_owner(&path)?;
        Ok(Arc::new(FileSecretStore::new(path)))
    }

    async fn close(&self) {}
}

#[cfg(unix)]
fn keep_to_the_owner(path: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn keep_to_the_owner(_: &std::path::Path) -> std::io::Result<()> {
    Ok(())
}

/// Secrets in files of their own, as an editor leaves them: with a line end.
#[derive(Debug)]
pub struct DirectorySecrets(TestDirectory);

impl DirectorySecrets {
    /// A backend in a fresh directory.
    #[must_use]
    pub fn fresh() -> Arc<Self> {
        Arc::new(Self(TestDirectory::new("secrets-directory")))
    }
}

#[async_trait]
impl SecretStoreBackend for DirectorySecrets {
    async fn open(&self, texts: &[(SecretName, &str)]) -> Result<Arc<dyn SecretStore>, Failure> {
        for (name, text) in texts {
            let mut path = self.0.path().to_owned();
            if name.key().is_some() {
                path.push(name.name());
                std::fs::create_dir_all(&path)?;
            }
            path.push(name.key().unwrap_or(name.name()));
            std::fs::write(&path, format!("{text}\n"))?;
        }
        Ok(Arc::new(DirectorySecretStore::new(self.0.path())))
    }

    async fn close(&self) {}
}
