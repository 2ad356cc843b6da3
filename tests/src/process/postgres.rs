//! A real PostgreSQL, and what may happen to one.

mod owner;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use super::TestDirectory;
use super::installed::installed;
use super::port::free_port;
use super::supervised::{Supervised, children, has_ended, signal};
use crate::wait::until;
use owner::Owner;

/// The superuser of a server, who needs no password.
const USER: &str = "postgres";

/// Longest wait for the end of what the server itself has started.
const DEADLINE: Duration = Duration::from_secs(30);

/// A running PostgreSQL, killed and removed when dropped or when the test process ends.
///
/// It listens on loopback, on a port that it keeps over restarts, and has its data in a directory of its own. A
/// killed server loses nothing; a lost power would cost it data, because it does not wait for the disk. A start takes
/// one to three seconds.
#[derive(Debug)]
pub struct PostgresServer {
    // Dropped first: it writes to the directory.
    server: Supervised,
    directory: TestDirectory,
    owner: Owner,
    port: u16,
    next_database: AtomicU32,
}

impl PostgresServer {
    /// The server of this test process, started on first use.
    ///
    /// Each case takes a database of its own, see [`Self::create_database`]. Faults are for servers that a case has
    /// started itself.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<PostgresServer> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// Starts a server and waits until it answers.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start() -> Self {
        let directory = TestDirectory::new("postgres");
        let owner = Owner::new();
        let port = free_port();
        create_cluster(&directory, &owner);
        let mut server = Self {
            server: launch(&directory, &owner, port),
            directory,
            owner,
            port,
            next_database: AtomicU32::new(1),
        };
        server.ready().await;
        server
    }

    /// The port of loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What a client of the database `postgres` needs, as `name=value` words.
    #[must_use]
    pub fn connection_string(&self) -> String {
        self.connection_to("postgres")
    }

    /// Creates an empty database and answers what its clients need, as `name=value` words.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn create_database(&self) -> String {
        let number = self.next_database.fetch_add(1, Ordering::Relaxed);
        let name = format!("case_{number}");
        self.query(&format!("CREATE DATABASE {name}")).await;
        self.connection_to(&name)
    }

    fn connection_to(&self, database: &str) -> String {
        let port = self.port;
        format!("host=127.0.0.1 port={port} user={USER} dbname={database}")
    }

    /// Runs a statement in the database `postgres`: a line for each row, `|` between columns.
    ///
    /// # Panics
    /// If it is refused or not answered.
    pub async fn query(&self, statement: &str) -> String {
        query(&self.connection_string(), statement).await
    }

    /// The server's process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.server.id()
    }

    /// What it has written so far, over all its starts.
    #[must_use]
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// Ends it and its connections at once, as a power failure would end the processes. Its data stay.
    pub fn kill(&mut self) {
        let children = children(self.server.id());
        self.server.kill();
        // They would end by themselves, but not if they are paused, and two servers must never share the data.
        for &child in &children {
            signal(child, "KILL");
        }
        let deadline = Instant::now() + DEADLINE;
        while !children.iter().all(|&child| has_ended(child)) && Instant::now() < deadline {
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// Asks it to stop and waits for its end. Its data stay; its connections are closed.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn stop(&mut self) {
        // SIGTERM would wait for the clients.
        self.server.stop_by("INT").await;
    }

    /// Starts it again on the same port and data, and waits until it answers. If it runs, it is killed first.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn restart(&mut self) {
        self.kill();
        self.server = launch(&self.directory, &self.owner, self.port);
        self.ready().await;
    }

    /// Stops it from doing anything; its connections stay open and silent.
    pub fn pause(&self) {
        // First the one that starts the others.
        self.server.signal("STOP");
        for child in children(self.server.id()) {
            signal(child, "STOP");
        }
    }

    /// Lets it go on after [`Self::pause`].
    pub fn resume(&self) {
        for child in children(self.server.id()) {
            signal(child, "CONT");
        }
        self.server.signal("CONT");
    }

    /// Waits until the data are recovered and statements are answered.
    async fn ready(&mut self) {
        let connection = self.connection_string();
        until("PostgreSQL answers", async || {
            assert!(
                self.server.is_running(),
                "PostgreSQL does not start:\n{}",
                self.server.log()
            );
            try_query(&connection, "SELECT 1").await.ok().map(drop)
        })
        .await;
    }
}

/// Runs a statement on a connection of its own: a line for each row, `|` between columns.
///
/// # Panics
/// If it is refused or not answered.
pub async fn query(connection: &str, statement: &str) -> String {
    let answer = try_query(connection, statement).await;
    answer.unwrap_or_else(|error| panic!("PostgreSQL refuses {statement}: {error}"))
}

/// Runs a statement on a connection of its own: a line for each row, `|` between columns.
///
/// # Errors
/// What `psql` says when it is refused or not answered.
pub async fn try_query(connection: &str, statement: &str) -> Result<String, String> {
    let run = tokio::process::Command::new(programs().join("psql"))
        .args([
            "--no-psqlrc",
            "--no-password",
            "--no-align",
            "--tuples-only",
        ])
        .args([
            "--set",
            "ON_ERROR_STOP=1",
            "--quiet",
            "--dbname",
            connection,
        ])
        .args(["--command", statement])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, run)
        .await
        .map_err(|_| "no answer".to_owned())?
        .map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| installed("postgres"))
}

fn data(directory: &TestDirectory) -> PathBuf {
    directory.path().join("data")
}

fn create_cluster(directory: &TestDirectory, owner: &Owner) {
    let data = data(directory);
    fs::create_dir(&data).expect("a test directory can be written");
    owner.give(&data);
    let mut words = owner.words();
    words.push(programs().join("initdb").into());
    let created = Command::new(&words[0])
        .args(&words[1..])
        .args(["--username", USER, "--auth", "trust", "--encoding", "UTF8"])
        .args(["--no-locale", "--no-sync", "--pgdata"])
        .arg(&data)
        // The owner may not look into the directory of the test run.
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .output()
        .expect("initdb runs");
    let error = String::from_utf8_lossy(&created.stderr);
    assert!(created.status.success(), "initdb fails:\n{error}");
}

fn launch(directory: &TestDirectory, owner: &Owner, port: u16) -> Supervised {
    let mut words = owner.words();
    words.push(programs().join("postgres").into());
    words.push("-D".into());
    words.push(data(directory).into());
    let settings = [
        "listen_addresses=127.0.0.1".to_owned(),
        format!("port={port}"),
        "unix_socket_directories=".to_owned(),
        "max_connections=300".to_owned(),
        "fsync=off".to_owned(),
        // In the data directory, so that a killed server leaves nothing elsewhere.
        "dynamic_shared_memory_type=mmap".to_owned(),
    ];
    for setting in settings {
        words.push("-c".into());
        words.push(OsString::from(setting));
    }
    Supervised::start(&words, directory.path())
}
