//! The `task-server` program, built and run as a user would.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Connection, Response};
use crate::config;

/// Longest wait for a start or an end.
const DEADLINE: Duration = Duration::from_secs(30);

/// What is selected beside the program, so that cargo resolves the same features for it as for the test that
/// asks, and builds no dependency twice.
///
/// That test is part of a build of the whole workspace, or of this package alone. A test target, which is
/// built already, adds the features of development dependencies.
const SELECTION: &[&str] = if cfg!(feature = "workspace") {
    &["--workspace", "--all-features", "--test", "architecture"]
} else {
    &["--package", "task-server", "--package", "task-tests"]
};

/// What cargo tells a test about its package, and what some build scripts watch: with it they would run again,
/// and what depends on them would be built again, now and at the next build from a shell.
const OF_THE_TEST: [&str; 6] = [
    "CARGO_MANIFEST_DIR",
    "CARGO_PKG_NAME",
    "CARGO_PKG_VERSION_MAJOR",
    "CARGO_PKG_VERSION_MINOR",
    "CARGO_PKG_VERSION_PATCH",
    "CARGO_PKG_VERSION_PRE",
];

/// The program's path. It is built on first use, in the profile of the test that asks.
///
/// # Panics
/// If it cannot be built.
#[must_use]
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let this = std::env::current_exe().expect("a test has a path");
        // <target>/<profile>/deps/<test>
        let folder = this
            .ancestors()
            .nth(2)
            .expect("a test lies in a target folder");
        let profile = folder.file_name().and_then(|name| name.to_str());
        let mut build = Command::new(env!("CARGO"));
        build
            .args(["build", "--bin", "task-server"])
            .args(SELECTION);
        for variable in OF_THE_TEST {
            build.env_remove(variable);
        }
        if profile == Some("release") {
            build.arg("--release");
        }
        build
            .arg("--target-dir")
            .arg(folder.parent().expect("a profile lies in a target folder"));
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        let built = build.status().expect("cargo runs");
        assert!(built.success(), "task-server does not build");
        folder.join(format!("task-server{}", std::env::consts::EXE_SUFFIX))
    })
}

/// How a [`TaskServer`] is started.
#[derive(Debug, Clone)]
pub struct TaskServerOptions {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Arguments after `serve --listen … --data-dir …`.
    pub arguments: Vec<String>,
    /// Words before the program, for example a command that changes its surroundings.
    pub before: Vec<String>,
    /// The program; [`program`] if absent.
    pub program: Option<PathBuf>,
}

impl Default for TaskServerOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            arguments: Vec::new(),
            before: Vec::new(),
            program: None,
        }
    }
}

impl TaskServerOptions {
    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }
}

/// A running `task-server serve`, killed when dropped.
#[derive(Debug)]
pub struct TaskServer {
    process: Process,
    address: SocketAddr,
}

impl TaskServer {
    /// Starts the server on a free port and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready.
    pub async fn start(data: &Path) -> Self {
        Self::start_with(data, &TaskServerOptions::default()).await
    }

    /// Starts the server with more arguments.
    ///
    /// # Panics
    /// If it does not become ready.
    pub async fn start_with(data: &Path, options: &TaskServerOptions) -> Self {
        let started = Self::try_start(data, options).await;
        started.unwrap_or_else(|log| panic!("task-server does not start:\n{log}"))
    }

    /// Starts the server, which may refuse.
    ///
    /// # Errors
    /// What it wrote, when it does not become ready.
    pub async fn try_start(data: &Path, options: &TaskServerOptions) -> Result<Self, String> {
        Self::begin(data, options).ready().await
    }

    /// Begins to start the server, which may have to wait for something.
    #[must_use]
    pub fn begin(data: &Path, options: &TaskServerOptions) -> StartingServer {
        let mut words = options.before.clone();
        let program = options.program.as_deref().unwrap_or_else(|| program());
        words.push(program.display().to_string());
        words.extend(["serve", "--listen"].map(str::to_owned));
        words.push(options.listen.to_string());
        words.push("--data-dir".to_owned());
        words.push(data.display().to_string());
        words.extend(options.arguments.iter().cloned());
        let (process, address) = Process::begin(&words);
        StartingServer {
            process,
            address: Mutex::new(address),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its admin routes are, of a move that it takes part in.
    ///
    /// # Panics
    /// If it takes part in none.
    #[must_use]
    pub fn admin(&self) -> String {
        let log = self.log();
        let line = log.lines().find_map(|line| line.strip_prefix("admin"));
        let address = line.map(str::trim);
        address
            .unwrap_or_else(|| panic!("no admin routes:\n{log}"))
            .to_owned()
    }

    /// The process's id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.child.id()
    }

    /// What it has written to both outputs so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// A connection to it.
    ///
    /// # Panics
    /// If it does not listen.
    pub async fn connect(&self) -> Connection {
        let connection = Connection::open(self.address()).await;
        connection.unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// Sends one request on a connection of its own.
    ///
    /// # Panics
    /// If there is no answer.
    pub async fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        let mut connection = self.connect().await;
        let answer = connection.send(method, target, headers, body).await;
        answer.unwrap_or_else(|error| panic!("{method} {target}: {error}\n{}", self.log()))
    }

    /// Sends one `GET`.
    ///
    /// # Panics
    /// If there is no answer.
    pub async fn get(&self, target: &str) -> Response {
        self.send("GET", target, &[], "").await
    }

    /// Sends one `POST` of JSON.
    ///
    /// # Panics
    /// If there is no answer.
    pub async fn post(&self, target: &str, body: &str) -> Response {
        self.send("POST", target, &[], body).await
    }

    /// Ends it at once, as a power failure would end the process.
    pub fn kill(mut self) {
        self.process.end();
    }

    /// Asks it to stop and waits for its end.
    ///
    /// # Panics
    /// If it does not end.
    pub fn stop(mut self) -> ExitStatus {
        self.process.terminate();
        self.process.wait()
    }

    /// Asks it to stop without waiting.
    pub fn terminate(&self) {
        self.process.terminate();
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end.
    pub fn wait(mut self) -> ExitStatus {
        self.process.wait()
    }
}

/// A `task-server serve` that may not listen yet, killed when dropped.
#[derive(Debug)]
pub struct StartingServer {
    process: Process,
    // Only a lock makes it one that several may look at.
    address: Mutex<Receiver<SocketAddr>>,
}

impl StartingServer {
    /// What it has written to both outputs so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// What it wrote, when it does not become ready.
    pub async fn ready(self) -> Result<TaskServer, String> {
        let server = self.listening().await?;
        match server.get("/ready").await.status {
            200 => Ok(server),
            _ => Err(server.log()),
        }
    }

    /// Waits until it answers, ready or not.
    ///
    /// # Errors
    /// What it wrote, when it does not listen.
    pub async fn listening(self) -> Result<TaskServer, String> {
        let Self {
            mut process,
            address,
        } = self;
        let address = address.into_inner().unwrap_or_else(PoisonError::into_inner);
        let deadline = Instant::now() + DEADLINE;
        let address = loop {
            match address.try_recv() {
                Ok(address) => break address,
                Err(TryRecvError::Empty) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(_) => return Err(process.refusal()),
            }
        };
        Ok(TaskServer { process, address })
    }

    /// Asks it to stop without waiting.
    pub fn terminate(&self) {
        self.process.terminate();
    }

    /// Waits for its end and answers what it wrote.
    ///
    /// # Panics
    /// If it does not end.
    #[must_use]
    pub fn wait(mut self) -> (ExitStatus, String) {
        let status = self.process.wait();
        (status, self.process.whole_log())
    }
}

/// A running `task-server notification-service`, killed when dropped.
#[derive(Debug)]
pub struct NotificationService {
    process: Process,
    address: SocketAddr,
}

impl NotificationService {
    /// Starts the receiver on an address; port 0 takes a free one.
    ///
    /// # Panics
    /// If it does not listen.
    #[must_use]
    pub fn start(listen: &str) -> Self {
        Self::start_with(&[], listen)
    }

    /// Starts it with words before the program, for example a command that changes its surroundings.
    ///
    /// # Panics
    /// If it does not listen.
    #[must_use]
    pub fn start_with(before: &[&str], listen: &str) -> Self {
        let program = program().display().to_string();
        let words = [&program, "notification-service", "--listen", listen];
        let words = before.iter().copied().chain(words);
        let words: Vec<String> = words.map(str::to_owned).collect();
        let (mut process, address) = Process::begin(&words);
        match address.recv_timeout(DEADLINE) {
            Ok(address) => Self { process, address },
            Err(_) => panic!("the receiver does not start:\n{}", process.refusal()),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has received.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn received(&self) -> serde_json::Value {
        let mut connection = Connection::open(self.address()).await.expect("it listens");
        let answer = connection.send("GET", "/notifications", &[], "").await;
        answer.expect("it answers").json()
    }

    /// The tasks of all notifications so far, once for each idempotency key.
    ///
    /// # Panics
    /// If one of them names no task.
    #[must_use]
    pub fn notified(&self) -> Vec<String> {
        let log = self.log();
        let received = log.lines().filter(|line| line.starts_with('{'));
        let tasks = received.map(|line| {
            let received: serde_json::Value = serde_json::from_str(line).expect("one line each");
            let task = received["notification"]["task_id"].as_str();
            task.expect("a notification names its task").to_owned()
        });
        tasks.collect()
    }

    /// What it has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Ends it at once.
    pub fn kill(mut self) {
        self.process.end();
    }
}

#[derive(Debug)]
struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
    collectors: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts a program, which says where it listens once it does.
    fn begin(words: &[String]) -> (Self, Receiver<SocketAddr>) {
        let mut command = Command::new(&words[0]);
        for name in config::NAMES {
            command.env_remove(name);
        }
        let mut child = command
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", words[0]));
        let log = Arc::new(Mutex::new(String::new()));
        let (address, stdout) = collect(child.stdout.take().expect("a pipe"), &log);
        let (_, stderr) = collect(child.stderr.take().expect("a pipe"), &log);
        let process = Self {
            child,
            log,
            collectors: vec![stdout, stderr],
        };
        (process, address)
    }

    /// Ends it, and answers how it ended and what it wrote.
    fn refusal(&mut self) -> String {
        let _ = self.child.kill();
        let ended = self.child.wait();
        format!("it ended as {ended:?}:\n{}", self.whole_log())
    }

    /// Everything that a program wrote which has ended.
    fn whole_log(&mut self) -> String {
        for collector in self.collectors.drain(..) {
            collector.join().expect("lines are collected");
        }
        self.log()
    }

    fn log(&self) -> String {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn terminate(&self) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status();
        assert!(
            sent.is_ok_and(|status| status.success()),
            "cannot signal {id}"
        );
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "it does not end:\n{}",
                self.log()
            );
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Collects a program's output; answers the first address that stands in it.
fn collect(
    output: impl io::Read + Send + 'static,
    log: &Arc<Mutex<String>>,
) -> (Receiver<SocketAddr>, JoinHandle<()>) {
    let (sender, receiver) = channel();
    let log = Arc::clone(log);
    let collector = std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.push_str(&line);
            log.push('\n');
            drop(log);
            if let Some(address) = address_in(&line) {
                // Only the first one is waited for.
                let _ = sender.send(address);
            }
        }
    });
    (receiver, collector)
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("http://")?;
    let end = rest
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | ':' | '[' | ']')))
        .unwrap_or(rest.len());
    rest[..end].trim_end_matches([':', '.']).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_a_line() {
        let line = "  API      http://127.0.0.1:8000/tasks";
        let expected = "127.0.0.1:8000".parse().ok();
        assert_eq!(address_in(line), expected);
        assert_eq!(address_in("no address"), None);
    }
}
