//! A notifier whose receiver is a list.

use std::collections::HashSet;
use std::sync::Mutex;

use async_trait::async_trait;

use super::lock;
use crate::ports::{ErrorKind, Notification, Notifier, PortError};

const BACKEND: &str = "memory";

/// Keeps what it was told to send, each idempotency key once.
///
/// It grows without limit: it is for tests and examples.
#[derive(Debug, Default)]
pub struct MemoryNotifier {
    state: Mutex<Receiver>,
}

#[derive(Debug, Default)]
struct Receiver {
    received: Vec<Notification>,
    keys: HashSet<Box<str>>,
    refuse: Option<ErrorKind>,
}

impl MemoryNotifier {
    /// A notifier that has sent nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What arrived, in order.
    #[must_use]
    pub fn received(&self) -> Vec<Notification> {
        lock(&self.state).received.clone()
    }

    /// Refuses everything with an error of this kind, or accepts again.
    pub fn refuse(&self, kind: Option<ErrorKind>) {
        lock(&self.state).refuse = kind;
    }
}

#[async_trait]
impl Notifier for MemoryNotifier {
    async fn notify(&self, notification: &Notification) -> Result<(), PortError> {
        let mut receiver = lock(&self.state);
        if let Some(kind) = receiver.refuse {
            return Err(PortError::new(kind, BACKEND, "notify").context("told to refuse"));
        }
        if receiver.keys.insert(notification.idempotency_key.clone()) {
            receiver.received.push(notification.clone());
        }
        Ok(())
    }

    async fn check(&self) -> Result<(), PortError> {
        match lock(&self.state).refuse {
            Some(kind) => Err(PortError::new(kind, BACKEND, "check").context("told to refuse")),
            None => Ok(()),
        }
    }
}
