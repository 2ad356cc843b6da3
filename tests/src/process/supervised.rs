//! Servers as child processes that end with the test process, even if that one is killed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use crate::wait::until;

/// Longest wait for the end of a process that cannot refuse.
const DEADLINE: Duration = Duration::from_secs(30);

/// A server and the shell that watches over it.
///
/// A `static` is never dropped, and a killed process drops nothing. So the shell holds the other end of a
/// pipe and kills the server when the pipe closes: `tests/servers/supervise`. (`PR_SET_PDEATHSIG` would kill it as soon as the *thread*
/// that started it ends.)
#[derive(Debug)]
pub(super) struct Supervised {
    supervisor: Child,
    owner: Option<ChildStdin>,
    id: u32,
    log: PathBuf,
}

impl Supervised {
    /// Starts a server whose data lie in a directory; its output goes to `log` in there.
    pub(super) fn start(words: &[OsString], directory: &Path) -> Self {
        let path = directory.join("log");
        let log = File::options().create(true).append(true).open(&path);
        let supervise = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/supervise");
        let mut supervisor = Command::new(supervise)
            .arg(directory)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.expect("a test directory can be written"))
            .spawn()
            .expect("a shell starts");
        let mut id = String::new();
        let output = supervisor.stdout.take().expect("a pipe");
        let read = BufReader::new(output).read_line(&mut id);
        read.expect("the supervisor tells the id");
        Self {
            owner: supervisor.stdin.take(),
            supervisor,
            id: id.trim().parse().expect("the supervisor tells the id"),
            log: path,
        }
    }

    /// The server's process id.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn is_running(&mut self) -> bool {
        let ended = self.supervisor.try_wait();
        ended.expect("a child can be waited for").is_none()
    }

    /// Everything it wrote, over all starts in its directory.
    pub(super) fn log(&self) -> String {
        fs::read(&self.log).map_or_else(
            |error| format!("no log: {error}"),
            |log| String::from_utf8_lossy(&log).into_owned(),
        )
    }

    /// Sends a signal, for example `STOP`; it must run.
    pub(super) fn signal(&self, name: &str) {
        let sent = signal(self.id, name);
        assert!(sent, "cannot send {name} to {}:\n{}", self.id, self.log());
    }

    /// Stops it from doing anything, and waits until the last of its threads has noticed.
    pub(super) fn pause(&self) {
        self.signal("STOP");
        let deadline = Instant::now() + DEADLINE;
        while !is_paused(self.id) {
            assert!(Instant::now() < deadline, "{} does not stop", self.id);
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Kills it, paused or not, and waits until it is gone. Its directory stays.
    pub(super) fn kill(&mut self) {
        if self.is_running() {
            self.signal("KILL");
            self.wait();
        }
    }

    /// Asks it to stop, and waits until it is gone. Its directory stays.
    pub(super) async fn stop(&mut self) {
        self.stop_by("TERM").await;
    }

    /// Asks it to stop by another signal, and waits until it is gone.
    pub(super) async fn stop_by(&mut self, signal: &str) {
        if self.is_running() {
            self.signal(signal);
        }
        until("a server has stopped", async || {
            (!self.is_running()).then_some(())
        })
        .await;
    }

    /// Lets go of the server, as a killed test process would, and waits until both are gone.
    fn abandon(&mut self) {
        drop(self.owner.take());
        self.wait();
    }

    fn wait(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        while self.is_running() && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // A failed test keeps its directory, so that one can look inside.
        if std::thread::panicking() {
            self.kill();
        } else {
            self.abandon();
        }
    }
}

/// Sends a signal, for example `STOP`; answers whether there was a process to get it.
pub(super) fn signal(id: u32, name: &str) -> bool {
    let id = id.to_string();
    let sent = Command::new("kill")
        .args(["-s", name, id.as_str()])
        .stderr(Stdio::null())
        .status();
    sent.is_ok_and(|status| status.success())
}

/// The processes that a process has started and that still run.
pub(super) fn children(id: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
    let list = list.unwrap_or_default();
    let ids = list.split_whitespace().map(str::parse);
    ids.filter_map(Result::ok).collect()
}

/// Whether a process is gone, or is a zombie that nobody has waited for.
pub(super) fn has_ended(id: u32) -> bool {
    let state = state(Path::new(&format!("/proc/{id}/stat")));
    state.is_none_or(|state| matches!(state, 'Z' | 'X'))
}

/// Whether every thread of a process is stopped.
fn is_paused(id: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{id}/task"));
    let mut threads = threads.into_iter().flatten().flatten();
    threads.all(|thread| state(&thread.path().join("stat")).is_none_or(|state| state == 'T'))
}

/// The letter for the state of a process or a thread; `None` if it is gone.
fn state(stat: &Path) -> Option<char> {
    let line = fs::read_to_string(stat).ok()?;
    // The name before it may hold anything.
    line.rsplit(") ").next()?.chars().next()
}

#[cfg(test)]
mod tests {
    use super::super::TestDirectory;
    use super::*;

    fn start(directory: &TestDirectory) -> Supervised {
        let words = ["sleep", "300"].map(OsString::from);
        Supervised::start(&words, directory.path())
    }

    fn exists(id: u32) -> bool {
        Path::new("/proc").join(id.to_string()).exists()
    }

    #[test]
    fn a_server_is_killed_and_its_directory_removed_when_the_pipe_closes() {
        let directory = TestDirectory::new("supervised");
        let mut server = start(&directory);
        // A paused server hears nothing but SIGKILL.
        server.signal("STOP");
        assert!(exists(server.id()));
        server.abandon();
        assert!(!exists(server.id()), "it survived its owner");
        assert!(!directory.path().exists(), "its directory is left behind");
    }

    #[tokio::test]
    async fn what_a_server_has_started_ends_with_it_even_if_paused() {
        let directory = TestDirectory::new("supervised");
        let words = ["sh", "-c", "sleep 300 & wait"].map(OsString::from);
        let mut server = Supervised::start(&words, directory.path());
        let child = until("the server has started another", async || {
            children(server.id()).first().copied()
        })
        .await;
        assert!(signal(child, "STOP"));
        assert!(!has_ended(child));
        server.abandon();
        until("the other has ended", async || {
            has_ended(child).then_some(())
        })
        .await;
    }

    #[test]
    fn a_killed_server_leaves_its_directory_for_the_next_start() {
        let directory = TestDirectory::new("supervised");
        let mut server = start(&directory);
        server.kill();
        assert!(!exists(server.id()));
        drop(server);
        assert!(directory.path().exists());
    }
}
