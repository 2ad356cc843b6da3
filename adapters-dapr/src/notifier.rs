//! Notifications by invocation of another app, found by its id.
//!
//! `POST /notify` to the sidecar's HTTP port with `dapr-app-id`: Dapr finds the app, and there is no address
//! of it anywhere. The app has accepted the notification once it answers 2xx; its other answers pass
//! through and mean what they mean in `error.rs`. That the app is absent, slow, or behind an open breaker
//! is told by the sidecar with one code, and told apart by its words.
//!
//! One call is one attempt, as far as this side goes: a resiliency policy of the operator's may make it more,
//! which the idempotency key allows.
//!
//! *Source:* <https://docs.dapr.io/reference/api/service_invocation_api/>.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use task_core::ports::{Notification, Notifier, PortError};

use crate::error::{Effect, Failure};
use crate::sidecar::Sidecar;

/// The header that names the app.
const APP_ID: &str = "dapr-app-id";

/// Longest time of one notification unless told otherwise.
const DEADLINE: Duration = Duration::from_secs(5);

/// A [`Notifier`] that invokes the app of the sidecar's configuration. A clone shares its connections.
#[derive(Debug, Clone)]
pub struct DaprNotifier {
    sidecar: Sidecar,
    deadline: Duration,
}

impl DaprNotifier {
    /// Notifications go to `notify` of the configured app, within 5 s a call.
    #[must_use]
    pub fn new(sidecar: Sidecar) -> Self {
        Self {
            sidecar,
            deadline: DEADLINE,
        }
    }

    /// Overrides the longest time of one call.
    #[must_use]
    pub fn within(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    async fn post(&self, notification: &Notification) -> Result<(), Failure> {
        let header = |text: &str, what| {
            let value = HeaderValue::from_str(text);
            value.map_err(|_| Failure::header(what))
        };
        let key = header(&notification.idempotency_key, "the idempotency key")?;
        let app = header(&self.sidecar.config().notification_app, "the app id")?;
        let http = self.sidecar.http();
        let request = http
            .request(Method::POST, "/notify")
            .header(APP_ID, app)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header("idempotency-key", key)
            .body(notification.body.clone());
        http.send(request, self.deadline, Effect::Write).await?;
        Ok(())
    }
}

#[async_trait]
impl Notifier for DaprNotifier {
    /// Invokes once.
    ///
    /// # Cancel safety
    /// A dropped call may have been accepted; send it again with the same key.
    async fn notify(&self, notification: &Notification) -> Result<(), PortError> {
        let posted = self.post(notification).await;
        posted.map_err(|failure| failure.into_port("notify"))
    }

    /// Says whether the sidecar is ready; whether the app is there, only a call could tell.
    async fn check(&self) -> Result<(), PortError> {
        self.sidecar.check().await
    }
}
