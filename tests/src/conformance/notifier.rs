//! The cases of the [`Notifier`] port, promises N1 to N4.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use task_core::ports::{Notification, Notifier, Retry};

use super::{Failure, Verdict, cases, ensure, ensure_eq};

/// How a receiver refuses a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It will never take it.
    Never,
    /// It cannot take it now.
    NotNow,
}

/// How an adapter is put under test, with the receiver at its other end; one instance serves one
/// case.
#[async_trait]
pub trait NotifierBackend: Debug + Send + Sync + 'static {
    /// Opens a notifier whose receiver has received nothing. The suite calls it once.
    async fn open(&self) -> Result<Arc<dyn Notifier>, Failure>;

    /// What the receiver, which honours idempotency keys, shows.
    async fn received(&self) -> Vec<Notification>;

    /// Makes the receiver refuse everything, or take everything again.
    async fn refuse(&self, refusal: Option<Refusal>);

    /// Removes everything that [`open`](Self::open) made.
    async fn close(&self);
}

/// What a case is given: a notifier, and the backend that it belongs to.
#[derive(Debug)]
pub struct Subject {
    /// The notifier under test.
    pub notifier: Arc<dyn Notifier>,
    /// Its receiver.
    pub backend: Arc<dyn NotifierBackend>,
}

/// The port has no capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoCapability {}

/// A requirement of the notifier port.
pub type Case = super::Case<Subject, NoCapability>;

/// Every case, in the order of the promises, the race over an exact total last.
pub const CASES: &[Case] = cases![
    "N1" own::an_accepted_notification_arrives_unchanged [],
    "N3" own::a_refusal_is_an_error [],
    "N4" own::never_and_not_now_are_told_apart [],
    "N2" own::a_repeated_key_arrives_once [],
];

use self as own;

/// The case of this name.
#[must_use]
pub fn case(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}

/// Runs a case on a fresh backend.
///
/// # Errors
/// The first promise that was not kept. A panic of the adapter is one as well.
pub async fn run(case: &'static Case, backend: Arc<dyn NotifierBackend>) -> Verdict {
    let owner = Arc::clone(&backend);
    let verdict = tokio::spawn(async move {
        let notifier = backend.open().await?;
        (case.body)(Subject { notifier, backend }).await
    });
    let verdict = verdict.await;
    owner.close().await;
    verdict?
}

fn notification(key: &str, body: &str) -> Notification {
    Notification {
        idempotency_key: key.into(),
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

/// What was accepted is at the receiver, key and body byte for byte.
pub async fn an_accepted_notification_arrives_unchanged(subject: Subject) -> Verdict {
    let sent = [
        notification("n-1", "{}"),
        notification("n-2", "{\"z\": 1.0,  \"a\":\"\\u00e4\u{e4}\"}\n"),
        notification("3f0c1f5e-8f0e-5f7c-9a31-0242ac120002", "{\"n\":[null]}"),
    ];
    for (index, one) in sent.iter().enumerate() {
        subject.notifier.notify(one).await?;
        let received = subject.backend.received().await;
        ensure_eq!(received, sent[..=index], "what was received");
    }
    Ok(())
}

/// Racing and repeated sends of one key all succeed, and the receiver shows each key once.
pub async fn a_repeated_key_arrives_once(subject: Subject) -> Verdict {
    const KEYS: usize = 8;
    const SENDERS: usize = 4;
    let one = notification("repeated", "{\"n\": 0}");
    for _ in 0..3 {
        subject.notifier.notify(&one).await?;
    }
    let received = subject.backend.received().await;
    ensure_eq!(received, [one], "one key sent three times");

    let senders = (0..SENDERS).map(|_| {
        let notifier = Arc::clone(&subject.notifier);
        tokio::spawn(async move {
            for key in 0..KEYS {
                let one = notification(&format!("n-{key}"), &format!("{{\"n\": {key}}}"));
                notifier.notify(&one).await?;
            }
            Ok::<_, Failure>(())
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await??;
    }
    let mut times: BTreeMap<Box<str>, usize> = BTreeMap::new();
    for one in subject.backend.received().await {
        *times.entry(one.idempotency_key).or_default() += 1;
    }
    ensure_eq!(times.len(), KEYS + 1, "the keys that arrived");
    ensure!(
        times.values().all(|times| *times == 1),
        "some keys arrived more than once: {times:?}"
    );
    Ok(())
}

/// What the receiver refuses is an error, and arrives when it is sent again and accepted.
pub async fn a_refusal_is_an_error(subject: Subject) -> Verdict {
    for refusal in [Refusal::Never, Refusal::NotNow] {
        let one = notification(&format!("{refusal:?}"), "{}");
        subject.backend.refuse(Some(refusal)).await;
        let result = subject.notifier.notify(&one).await;
        ensure!(result.is_err(), "{refusal:?} was answered by {result:?}");
        let received = subject.backend.received().await;
        ensure!(!received.contains(&one), "a refused notification arrived");
        subject.backend.refuse(None).await;
        subject.notifier.notify(&one).await?;
        let received = subject.backend.received().await;
        ensure!(received.contains(&one), "an accepted one did not arrive");
    }
    Ok(())
}

/// "Never" says that a retry makes no sense, "not now" says that it may.
pub async fn never_and_not_now_are_told_apart(subject: Subject) -> Verdict {
    for refusal in [Refusal::Never, Refusal::NotNow] {
        subject.backend.refuse(Some(refusal)).await;
        let one = notification(&format!("{refusal:?}"), "{}");
        // That there is an error at all is for N3.
        if let Err(error) = subject.notifier.notify(&one).await {
            let never = error.retryable() == Retry::Never;
            ensure_eq!(never, refusal == Refusal::Never, "{refusal:?} as {error}");
        }
    }
    Ok(())
}
