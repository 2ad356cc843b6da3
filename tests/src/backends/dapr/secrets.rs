//! The sidecar's secret store under test, on a file of secrets.

use std::sync::Arc;

use adapters_dapr::DaprSecretStore;
use async_trait::async_trait;
use task_core::ports::{SecretName, SecretStore};
use tokio::sync::Mutex;

use super::{plainly, start};
use crate::conformance::Failure;
use crate::conformance::secret_store::SecretStoreBackend;
use crate::process::TestDirectory;
use crate::process::dapr::{Component, Sidecar, SidecarOptions};

/// A sidecar of its own for each case.
#[derive(Debug, Default)]
pub struct DaprSecrets {
    running: Mutex<Option<(Sidecar, TestDirectory)>>,
}

#[async_trait]
impl SecretStoreBackend for DaprSecrets {
    async fn open(&self, texts: &[(SecretName, &str)]) -> Result<Arc<dyn SecretStore>, Failure> {
        let directory = TestDirectory::new("dapr-secrets");
        let mut root = serde_json::Value::Object(serde_json::Map::new());
        for (name, text) in texts {
            match name.key() {
                Some(key) => root[name.name()][key] = (*text).into(),
                None => root[name.name()] = (*text).into(),
            }
        }
        let path = directory.path().join("secrets.json");
        std::fs::write(&path, root.to_string())?;
        let store = Component::local_secrets("kubernetes-secrets", &path);
        // As Kubernetes answers: a map for a name.
        let store = store.with("multiValued", "true");
        let sidecar = start(SidecarOptions::of("task-api", [store])).await?;
        let secrets = DaprSecretStore::open(&plainly(&sidecar)?).await?;
        *self.running.lock().await = Some((sidecar, directory));
        Ok(Arc::new(secrets))
    }

    async fn close(&self) {
        self.running.lock().await.take();
    }
}
