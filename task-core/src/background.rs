//! Tasks that run beside the requests, each with an owner that stops and joins it.

use std::fmt;
use std::pin::pin;

use futures_util::future::{Either, join_all, select};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A running task and the right to stop it.
///
/// Dropping it asks the task to stop without waiting; [`stop`](Self::stop) waits.
#[must_use = "dropping a background task stops it"]
pub struct Background {
    name: &'static str,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

impl Background {
    /// Starts a task. It must return soon after its [`Stop`] is raised.
    pub fn spawn<F>(name: &'static str, body: impl FnOnce(Stop) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, receiver) = watch::channel(false);
        Self {
            name,
            stop: sender,
            task: Some(tokio::spawn(body(Stop(receiver)))),
        }
    }

    /// Several tasks as one, which ends when all of them have.
    pub fn of(name: &'static str, parts: Vec<Self>) -> Self {
        Self::spawn(name, |mut stop| async move {
            stop.raised().await;
            join_all(parts.into_iter().map(Self::stop)).await;
        })
    }

    /// Asks the task to stop and waits until it has; a panic of the task is logged.
    ///
    /// # Cancel safety
    /// A dropped future leaves the task asked to stop, and not joined.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if let Some(task) = self.task.take()
            && let Err(error) = task.await
            && error.is_panic()
        {
            tracing::error!(task = self.name, "background task panicked");
        }
    }

    /// Says whether the task has ended by itself.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background")
            .field("name", &self.name)
            .field("finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}

/// The request to stop, as the task sees it.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Says whether the task should stop.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the task should stop.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn raised(&mut self) {
        // An error means that the owner is gone, which is a request to stop as well.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Runs a future until it ends or the task should stop; `None` in the second case.
    pub async fn or<F: Future + Send>(&mut self, future: F) -> Option<F::Output> {
        match select(pin!(self.raised()), pin!(future)).await {
            Either::Left(((), _)) => None,
            Either::Right((output, _)) => Some(output),
        }
    }
}
