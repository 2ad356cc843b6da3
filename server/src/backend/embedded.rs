//! The embedded backend: one SQLite file, and notifications into it or over HTTP.

use std::sync::Arc;
use std::time::Duration;

use adapters_direct::embedded::{Embedded, EmbeddedConfig, EmbeddedNotifier, OpenError};
use async_trait::async_trait;
use serde_json::value::RawValue;
use task_core::layer::{GuardedEventBus, GuardedNotifier, GuardedStateStore};
use task_core::migration::UnmovedStateStore;
use task_core::ports::{ErrorKind, Notifier, PortError, StateStore, SystemClock};

use super::{Backend, Consumer, Parting, Replicas, Role, guards, notifier};
use crate::app::StartError;
use crate::config::Config;
use crate::http::{Inbox, Received, ReceivedNotification};

const BACKEND: &str = "embedded";

/// Longest time of one call to the file. A healthy disk needs a thousandth of it.
const FILE_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens the file and everything on it.
pub(super) async fn open(config: &Config, role: Role<'_>) -> Result<Backend, StartError> {
    let wanted = EmbeddedConfig::new(&config.data_dir);
    let file = wanted.database_file();
    let opening =
        tokio::task::spawn_blocking(move || Embedded::open(&wanted, Arc::new(SystemClock)));
    let embedded = match opening.await {
        Ok(opened) => opened.map_err(refusal)?,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    };
    let kept = embedded.clone();
    let parting = Parting::new(async move { kept.checkpoint().await });
    let (notifier, inbox) = notifications(config, &embedded)?;
    let store = store(&embedded, role).await?;
    Ok(Backend {
        store: Arc::clone(&store),
        bus: Arc::new(GuardedEventBus::new(
            Arc::new(embedded.event_bus()),
            BACKEND,
            guards::once(FILE_TIMEOUT),
        )),
        notifier,
        inbox,
        // A second process on the file is refused; so the lease, which only a move asks for, is never another's.
        replicas: match role {
            Role::Alone => Replicas::One,
            Role::Side | Role::Known(_) => Replicas::Many {
                leases: store,
                lease: "relay",
            },
        },
        consumer: Consumer::default(),
        callbacks: None,
        parting: Some(parting),
        profile: serde_json::Value::Null,
        parallel: None,
        receiver: config.notification_url.as_ref().map(ToString::to_string),
        place: file.display().to_string(),
    })
}

/// The store, behind what limits its calls.
async fn store(embedded: &Embedded, role: Role<'_>) -> Result<Arc<dyn StateStore>, StartError> {
    let guarded = |store| GuardedStateStore::new(store, BACKEND, guards::once(FILE_TIMEOUT));
    match role {
        // Events stay in this file, so that a commit can publish them and needs no relay.
        Role::Alone => {
            let store = embedded.publishing_state_store().await;
            let store = store.map_err(|error| StartError::Backend {
                name: BACKEND,
                advice: "free some space, or choose another --data-dir",
                source: Box::new(error),
            })?;
            let store = UnmovedStateStore::new(Arc::new(store))?;
            Ok(Arc::new(guarded(Arc::new(store))))
        }
        Role::Side | Role::Known(_) => Ok(Arc::new(guarded(Arc::new(embedded.state_store())))),
    }
}

type Notifications = (Arc<dyn Notifier>, Option<Arc<dyn Inbox>>);

fn notifications(config: &Config, embedded: &Embedded) -> Result<Notifications, StartError> {
    match &config.notification_url {
        Some(url) => Ok((notifier::over_http(config, url)?, None)),
        None => {
            let notifier = embedded.notifier();
            let inbox = Arc::new(LocalInbox(notifier.clone()));
            let guarded =
                GuardedNotifier::new(Arc::new(notifier), BACKEND, guards::once(FILE_TIMEOUT));
            Ok((Arc::new(guarded), Some(inbox)))
        }
    }
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
