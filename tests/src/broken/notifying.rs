//! The wrapper, the table and the faults of broken notifiers.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use task_core::ports::{ErrorKind, Notification, Notifier, PortError, Retry};

use crate::backends::MemoryNotifiers;
use crate::conformance::Failure;
use crate::conformance::notifier::{NotifierBackend, Refusal};

type Fresh = fn() -> Arc<dyn NotifierBackend>;

/// Name, the cases that reject it, and how to make one.
pub(super) const BROKEN: &[(&str, &[&str], Fresh)] = &[
    ("swallows_refusals", &["a_refusal_is_an_error"], || {
        faulty(SwallowsRefusals)
    }),
    ("sends_twice", &["a_repeated_key_arrives_once"], || {
        faulty(SendsTwice::default())
    }),
    (
        "refuses_repetitions",
        &["a_repeated_key_arrives_once"],
        || faulty(RefusesRepetitions::default()),
    ),
    (
        "always_says_not_now",
        &["never_and_not_now_are_told_apart"],
        || faulty(AlwaysSays(Retry::Maybe)),
    ),
    (
        "always_says_never",
        &["never_and_not_now_are_told_apart"],
        || faulty(AlwaysSays(Retry::Never)),
    ),
    (
        "rewrites_the_body",
        &["an_accepted_notification_arrives_unchanged"],
        || faulty(RewritesTheBody),
    ),
];

/// One thing that a notifier does wrong.
#[async_trait]
trait NotifierFault: Debug + Send + Sync + 'static {
    async fn notify(&self, inner: &dyn Notifier, one: &Notification) -> Result<(), PortError>;
}

#[derive(Debug)]
struct FaultyNotifier<F> {
    inner: Arc<dyn Notifier>,
    fault: Arc<F>,
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<F: NotifierFault> Notifier for FaultyNotifier<F> {
    async fn notify(&self, notification: &Notification) -> Result<(), PortError> {
        self.fault.notify(&*self.inner, notification).await
    }

    async fn check(&self) -> Result<(), PortError> {
        self.inner.check().await
    }
}

#[derive(Debug)]
struct FaultyNotifiers<F> {
    memory: MemoryNotifiers,
    fault: Arc<F>,
}

fn faulty<F: NotifierFault>(fault: F) -> Arc<dyn NotifierBackend> {
    Arc::new(FaultyNotifiers {
        memory: MemoryNotifiers::default(),
        fault: Arc::new(fault),
    })
}

#[async_trait]
impl<F: NotifierFault> NotifierBackend for FaultyNotifiers<F> {
    async fn open(&self) -> Result<Arc<dyn Notifier>, Failure> {
        Ok(Arc::new(FaultyNotifier {
            inner: self.memory.open().await?,
            fault: Arc::clone(&self.fault),
        }))
    }

    async fn received(&self) -> Vec<Notification> {
        let mut received = self.memory.received().await;
        for one in &mut received {
            if let Some((key, _)) = one.idempotency_key.split_once('#') {
                one.idempotency_key = key.into();
            }
        }
        received
    }

    async fn refuse(&self, refusal: Option<Refusal>) {
        self.memory.refuse(refusal).await;
    }

    async fn close(&self) {
        self.memory.close().await;
    }
}

/// Answers `Ok` whatever the receiver says.
#[derive(Debug)]
struct SwallowsRefusals;

#[async_trait]
impl NotifierFault for SwallowsRefusals {
    async fn notify(&self, inner: &dyn Notifier, one: &Notification) -> Result<(), PortError> {
        // The fault itself.
        let _ = inner.notify(one).await;
        Ok(())
    }
}

/// Hides from the receiver that two sends are one notification.
#[derive(Debug, Default)]
struct SendsTwice {
    sent: AtomicUsize,
}

#[async_trait]
impl NotifierFault for SendsTwice {
    async fn notify(&self, inner: &dyn Notifier, one: &Notification) -> Result<(), PortError> {
        let number = self.sent.fetch_add(1, Ordering::SeqCst);
        let key = format!("{}#{number}", one.idempotency_key);
        let one = Notification {
            idempotency_key: key.into(),
            ..one.clone()
        };
        inner.notify(&one).await
    }
}

/// Calls it an error that a notification was sent before.
#[derive(Debug, Default)]
struct RefusesRepetitions {
    accepted: Mutex<HashSet<Box<str>>>,
}

#[async_trait]
impl NotifierFault for RefusesRepetitions {
    async fn notify(&self, inner: &dyn Notifier, one: &Notification) -> Result<(), PortError> {
        inner.notify(one).await?;
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        if accepted.insert(one.idempotency_key.clone()) {
            return Ok(());
        }
        Err(PortError::new(ErrorKind::Conflict, "broken", "notify"))
    }
}

/// Says of every refusal that a retry makes this much sense.
#[derive(Debug)]
struct AlwaysSays(Retry);

#[async_trait]
impl NotifierFault for AlwaysSays {
    async fn notify(&self, inner: &dyn Notifier, one: &Notification) -> Result<(), PortError> {
        let result = inner.notify(one).await;
        result.map_err(|error| error.retry(self.0))
    }
}

/// Sends the body without the space at its end.
#[derive(Debug)]
struct RewritesTheBody;

#[async_trait]
impl NotifierFault for RewritesTheBody {
    async fn notify(&self, inner: &dyn Notifier, one: &Notification) -> Result<(), PortError> {
        let body = Bytes::copy_from_slice(one.body.trim_ascii_end());
        let one = Notification {
            body,
            ..one.clone()
        };
        inner.notify(&one).await
    }
}
