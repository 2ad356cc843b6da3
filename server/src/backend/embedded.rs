//! The embedded backend: one SQLite file, and notifications into it or over HTTP.

use std::sync::Arc;
use std::time::Duration;

use adapters_direct::embedded::{Embedded, EmbeddedConfig, EmbeddedNotifier, OpenError};
use async_trait::async_trait;
use serde_json::value::RawValue;
use task_core::layer::{GuardedEventBus, GuardedNotifier, GuardedStateStore, Policy, RetryPolicy};
use task_core::ports::{ErrorKind, Notifier, PortError, SystemClock};

use super::Backend;
use crate::app::StartError;
use crate::config::{Config, NotificationUrl};
use crate::http::{Inbox, Received, ReceivedNotification};

const BACKEND: &str = "embedded";

/// Longest time of one call to the file. A healthy disk needs a thousandth of it.
const FILE_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens the file and everything on it.
pub(super) async fn open(config: &Config) -> Result<Backend, StartError> {
    let wanted = EmbeddedConfig::new(&config.data_dir);
    let file = wanted.database_file();
    let opening =
        tokio::task::spawn_blocking(move || Embedded::open(&wanted, Arc::new(SystemClock)));
    let embedded = match opening.await {
        Ok(opened) => opened.map_err(refusal)?,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    };
    let (notifier, inbox) = notifier(config, &embedded)?;
    // Events stay in this file, so that a commit can publish them and needs no relay.
    let store = embedded.publishing_state_store().await;
    let store = store.map_err(|error| StartError::Backend {
        name: BACKEND,
        advice: "free some space, or choose another --data-dir",
        source: Box::new(error),
    })?;
    Ok(Backend {
        store: Arc::new(GuardedStateStore::new(
            Arc::new(store),
            BACKEND,
            policy(FILE_TIMEOUT),
        )),
        bus: Arc::new(GuardedEventBus::new(
            Arc::new(embedded.event_bus()),
            BACKEND,
            policy(FILE_TIMEOUT),
        )),
        notifier,
        inbox,
        place: file.display().to_string(),
    })
}

/// One attempt: a file that fails now fails again at once, and the relay and the bus try again.
fn policy(timeout: Duration) -> Policy {
    Policy {
        timeout,
        retry: RetryPolicy::NEVER,
        ..Policy::default()
    }
}

type Notifications = (Arc<dyn Notifier>, Option<Arc<dyn Inbox>>);

fn notifier(config: &Config, embedded: &Embedded) -> Result<Notifications, StartError> {
    match &config.notification_url {
        Some(url) => Ok((over_http(config, url)?, None)),
        None => {
            let notifier = embedded.notifier();
            let inbox = Arc::new(LocalInbox(notifier.clone()));
            let guarded = GuardedNotifier::new(Arc::new(notifier), BACKEND, policy(FILE_TIMEOUT));
            Ok((Arc::new(guarded), Some(inbox)))
        }
    }
}

#[cfg(feature = "http")]
fn over_http(config: &Config, url: &NotificationUrl) -> Result<Arc<dyn Notifier>, StartError> {
    use adapters_direct::http::{HttpConfig, HttpNotifier};
    use task_core::layer::CircuitBreaker;

    let refused = |source: Box<dyn std::error::Error + Send + Sync>| StartError::Backend {
        name: "http",
        advice: "check notification_url",
        source,
    };
    let mut http = HttpConfig::new(url.base()).map_err(|error| refused(error.into()))?;
    http.deadline = config.notification_timeout;
    http.connect_timeout = http.connect_timeout.min(config.notification_timeout);
    let notifier = HttpNotifier::new(http).map_err(|error| refused(error.into()))?;
    // The bus delivers a failed event again, so that nothing here repeats a call.
    let policy = Policy {
        breaker: Some(Arc::new(CircuitBreaker::default())),
        // Longer than the call's own deadline, whose error says more.
        ..policy(config.notification_timeout + Duration::from_secs(1))
    };
    let guarded = GuardedNotifier::new(Arc::new(notifier), "http", policy);
    Ok(Arc::new(guarded))
}

#[cfg(not(feature = "http"))]
fn over_http(_: &Config, _: &NotificationUrl) -> Result<Arc<dyn Notifier>, StartError> {
    unreachable!("HTTP is not compiled in, which was checked")
}

fn refusal(error: OpenError) -> StartError {
    let advice = match &error {
        OpenError::InUse { .. } => "stop the other process, or choose another --data-dir",
        OpenError::Io { .. } | OpenError::Foreign { .. } => "choose another --data-dir",
        OpenError::TooNew { .. } => "start the later version of this program",
        OpenError::Database { .. } => "restore a backup, or choose another --data-dir",
    };
    StartError::Backend {
        name: BACKEND,
        advice,
        source: Box::new(error),
    }
}

/// Shows what the embedded notifier keeps.
#[derive(Debug)]
struct LocalInbox(EmbeddedNotifier);

#[async_trait]
impl Inbox for LocalInbox {
    async fn latest(&self, limit: usize) -> Result<Received, PortError> {
        let (count, mut received) = self.0.received(limit).await?;
        received.reverse();
        let notifications = received.into_iter().map(|received| {
            let json = String::from_utf8_lossy(&received.notification.body).into_owned();
            let notification = RawValue::from_string(json).map_err(|error| {
                PortError::new(ErrorKind::Corrupt, BACKEND, "received").caused_by(error)
            })?;
            Ok(ReceivedNotification {
                idempotency_key: Some(received.notification.idempotency_key),
                received_at: received.received_at,
                notification: notification.into(),
            })
        });
        Ok(Received {
            count,
            notifications: notifications.collect::<Result<_, PortError>>()?,
        })
    }
}
