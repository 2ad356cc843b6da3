//! The way to the end: a signal stops the service, a second one stops waiting for it.

use std::io;

use tokio::sync::watch;

/// Exit code after a second signal, as shells report an interrupt.
pub const EXIT_INTERRUPTED: u8 = 130;

/// The right to stop a service.
#[derive(Debug)]
pub struct Shutdown(watch::Sender<bool>);

/// The request to stop, as a service sees it.
#[derive(Debug, Clone)]
pub struct Stopping(watch::Receiver<bool>);

/// A pair of the right to stop and the request to stop.
#[must_use]
pub fn channel() -> (Shutdown, Stopping) {
    let (sender, receiver) = watch::channel(false);
    (Shutdown(sender), Stopping(receiver))
}

impl Shutdown {
    /// Asks the service to stop: not ready, drain, flush.
    pub fn raise(&self) {
        self.0.send_replace(true);
    }
}

impl Stopping {
    /// Waits for the request to stop; the end of [`Shutdown`] is one too.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn raised(&mut self) {
        // An error means that nobody is left who could ask.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

/// The signals that ask a process to stop: `SIGTERM` and `SIGINT`, or Ctrl-C where there are none.
#[derive(Debug)]
pub struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    /// Begins to listen; from now on the signals no longer kill the process.
    ///
    /// # Errors
    /// The operating system refuses.
    #[cfg(unix)]
    pub fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Begins to listen; from now on the signals no longer kill the process.
    ///
    /// # Errors
    /// None here.
    #[cfg(not(unix))]
    pub fn listen() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for the next signal.
    ///
    /// # Cancel safety
    /// Cancel safe: no signal is lost.
    #[cfg(unix)]
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits for the next signal.
    #[cfg(not(unix))]
    pub async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
