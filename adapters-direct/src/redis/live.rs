//! A connection that stands, and the watch over its silence.
//!
//! Answers come in the order of the commands, so silence concerns everybody who waits. One task therefore
//! watches the time for all of them, and a command costs no timer of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use redis::{Cmd, Pipeline, RedisError, Value};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::sleep;

use super::dialer::Dialed;
use super::server::Server;

/// Looks at a connection within one time limit, so that silence is noticed at most a quarter late.
const LOOKS: u32 = 4;

/// A connection in use.
#[derive(Debug)]
pub(super) struct Live {
    dialed: Dialed,
    heard: Arc<Heard>,
    watch: JoinHandle<()>,
}

/// What the watch sees of a connection.
#[derive(Debug, Default)]
struct Heard {
    answers: AtomicU64,
    fell_silent: AtomicBool,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Live {
    /// Begins to watch: a connection on which commands wait and nothing is answered for `limit` is closed.
    pub(super) fn new(dialed: Dialed, waiting: Arc<AtomicUsize>, limit: Duration) -> Self {
        let heard = Arc::new(Heard::default());
        let closing = dialed.closing();
        let watch = tokio::spawn(watch(Arc::clone(&heard), waiting, limit, closing));
        Self {
            dialed,
            heard,
            watch,
        }
    }

    pub(super) fn server(&self) -> &Server {
        &self.dialed.server
    }

    pub(super) fn is_closed(&self) -> bool {
        self.dialed.is_closed()
    }

    /// Says whether it was closed because it was silent for too long.
    pub(super) fn fell_silent(&self) -> bool {
        self.heard.fell_silent.load(Ordering::Acquire)
    }

    pub(super) async fn command(&self, command: &Cmd) -> Result<Value, RedisError> {
        let mut multiplexed = self.dialed.multiplexed.clone();
        let answer = multiplexed.send_packed_command(command).await;
        self.heard.answers.fetch_add(1, Ordering::Relaxed);
        answer
    }

    pub(super) async fn pipeline(&self, commands: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let mut multiplexed = self.dialed.multiplexed.clone();
        let answers = multiplexed.send_packed_commands(commands, 0, commands.len());
        let answers = answers.await;
        self.heard.answers.fetch_add(1, Ordering::Relaxed);
        answers
    }
}

async fn watch(
    heard: Arc<Heard>,
    waiting: Arc<AtomicUsize>,
    limit: Duration,
    closing: AbortHandle,
) {
    let (mut last, mut quiet) = (0, 0);
    loop {
        sleep(limit / LOOKS).await;
        let answers = heard.answers.load(Ordering::Relaxed);
        let is_quiet = waiting.load(Ordering::Relaxed) > 0 && answers == last;
        quiet = if is_quiet { quiet + 1 } else { 0 };
        last = answers;
        // The first quiet look may follow a command at once.
        if quiet > LOOKS {
            heard.fell_silent.store(true, Ordering::Release);
            closing.abort();
            return;
        }
    }
}
