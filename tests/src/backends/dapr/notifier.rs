//! The sidecar's invocation under test: a receiver behind a sidecar of its own.

use std::sync::Arc;

use adapters_dapr::DaprNotifier;
use async_trait::async_trait;
use task_core::ports::{Notification, Notifier};
use tokio::sync::Mutex;

use super::{plainly, start};
use crate::backends::HttpNotifiers;
use crate::conformance::Failure;
use crate::conformance::notifier::{NotifierBackend, Refusal};
use crate::process::dapr::{Component, Names, Sidecar, SidecarOptions};

/// Two sidecars, and the receiver of the HTTP notifier's tests behind the second.
#[derive(Debug, Default)]
pub struct DaprNotifiers {
    receiver: HttpNotifiers,
    running: Mutex<Option<(Names, [Sidecar; 2])>>,
}

#[async_trait]
impl NotifierBackend for DaprNotifiers {
    async fn open(&self) -> Result<Arc<dyn Notifier>, Failure> {
        let port = self.receiver.listen().await?;
        let names = Names::new();
        let nothing: [Component; 0] = [];
        let beside = |app_id: &str| SidecarOptions {
            names: Some(names.path()),
            ..SidecarOptions::of(app_id, &nothing)
        };
        let theirs = start(beside("notification-service").beside(port)).await?;
        let ours = start(beside("task-api")).await?;
        let notifier = DaprNotifier::new(plainly(&ours)?);
        *self.running.lock().await = Some((names, [theirs, ours]));
        Ok(Arc::new(notifier))
    }

    async fn received(&self) -> Vec<Notification> {
        self.receiver.received().await
    }

    async fn refuse(&self, refusal: Option<Refusal>) {
        self.receiver.refuse(refusal).await;
    }

    async fn close(&self) {
        self.running.lock().await.take();
        self.receiver.close().await;
    }
}
