//! What a process of Dapr is, whatever it does: words to start it with, ports to ask it on, a directory, a log.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};

use crate::process::supervised::Supervised;
use crate::process::{Connection, Response, TestDirectory};
use crate::wait::until;

/// A process that can be killed and started again with the same words.
#[derive(Debug)]
pub(super) struct Service {
    // Dropped first: it writes to the directory.
    server: Supervised,
    directory: TestDirectory,
    words: Vec<OsString>,
    /// Where it is asked, and what, whether it is ready.
    ready: (u16, &'static str),
}

impl Service {
    /// Starts the process and waits until it is ready.
    pub(super) async fn start(
        words: Vec<OsString>,
        directory: TestDirectory,
        ready: (u16, &'static str),
    ) -> Self {
        let mut service = Self::launch(words, directory, ready);
        service.ready().await;
        service
    }

    /// Starts the process; it is ready when a path on a port answers 200 or 204.
    pub(super) fn launch(
        words: Vec<OsString>,
        directory: TestDirectory,
        ready: (u16, &'static str),
    ) -> Self {
        Self {
            server: Supervised::start(&words, directory.path()),
            directory,
            words,
            ready,
        }
    }

    pub(super) fn id(&self) -> u32 {
        self.server.id()
    }

    pub(super) fn log(&self) -> String {
        self.server.log()
    }

    pub(super) fn kill(&mut self) {
        self.server.kill();
    }

    pub(super) async fn stop(&mut self) {
        self.server.stop().await;
    }

    /// If it runs, it is killed first.
    pub(super) async fn restart(&mut self) {
        self.server.kill();
        self.server = Supervised::start(&self.words, self.directory.path());
        self.ready().await;
    }

    pub(super) fn pause(&self) {
        self.server.pause();
    }

    pub(super) fn resume(&self) {
        self.server.signal("CONT");
    }

    /// Waits until it is ready; panics if it ends before.
    pub(super) async fn ready(&mut self) {
        let (port, path) = self.ready;
        let program = self.words.iter().map(|word| word.to_string_lossy());
        let program = program.collect::<Vec<_>>().join(" ");
        until(&format!("ready on {port}: {program}"), async || {
            assert!(
                self.server.is_running(),
                "{program} does not start:\n{}",
                self.server.log()
            );
            let answer = ask(port, "GET", path, &[], "").await.ok()?;
            matches!(answer.status, 200 | 204).then_some(())
        })
        .await;
    }
}

/// Sends one request to a port of loopback, on a connection of its own.
pub(super) async fn ask(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<Response> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut connection = Connection::open(address).await?;
    connection.send(method, path, headers, body).await
}
