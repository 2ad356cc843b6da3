//! Waiting for new entries, on a connection that nobody else uses.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::super::connection::Connection;
use super::super::dedicated::Dedicated;
use super::super::error::Failure;
use super::consumer::Consumer;
use super::entry::Entry;

/// How long the server holds back an answer without entries: so long a subscription takes to stop.
const WAIT: Duration = Duration::from_millis(500);

/// Pause before a read after one that failed.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

type Answer = Result<Vec<Entry>, Failure>;

/// A read that was sent has to be waited for: its entries are ours, whether we see them or not.
type Reading = Pin<Box<dyn Future<Output = (Option<Dedicated>, Answer)> + Send>>;

/// Reads one batch after the other.
#[derive(Default)]
pub(super) struct Reader {
    idle: Option<Dedicated>,
    reading: Option<Reading>,
    after_error: bool,
}

impl Reader {
    /// Begins to read, unless it is at it.
    pub(super) fn begin(
        &mut self,
        connection: &Arc<Connection>,
        consumer: &Consumer,
        limit: usize,
    ) {
        if self.reading.is_some() {
            return;
        }
        let (connection, consumer) = (Arc::clone(connection), consumer.clone());
        let (idle, after_error) = (self.idle.take(), self.after_error);
        self.reading = Some(Box::pin(async move {
            if after_error {
                sleep(PAUSE_AFTER_ERROR).await;
            }
            let mut own = match idle {
                Some(own) => own,
                None => match connection.dedicated(WAIT).await {
                    Ok(own) => own,
                    Err(error) => return (None, Err(error)),
                },
            };
            let answer = consumer.read(&mut own, limit, WAIT).await;
            // A connection that has failed may still owe an answer.
            (answer.is_ok().then_some(own), answer)
        }));
    }

    /// Waits for the read to end; for ever if there is none.
    ///
    /// # Cancel safety
    /// Cancel safe: the read goes on.
    pub(super) async fn ended(&mut self) -> Answer {
        let Some(reading) = &mut self.reading else {
            return pending().await;
        };
        let (idle, answer) = reading.as_mut().await;
        self.reading = None;
        self.idle = idle;
        self.after_error = answer.is_err();
        answer
    }

    /// Waits for the read to end, if there is one, as long as it may take while the server works.
    pub(super) async fn last(&mut self) -> Vec<Entry> {
        if self.reading.is_none() {
            return Vec::new();
        }
        let answer = timeout(2 * WAIT, self.ended()).await;
        answer.ok().and_then(Result::ok).unwrap_or_default()
    }
}
