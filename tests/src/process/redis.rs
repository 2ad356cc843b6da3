//! A real `redis-server`, and what may happen to one.

mod certificates;

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::{AsyncConnectionConfig, Client, Cmd, RedisResult, Value};
use tokio::sync::OnceCell;

pub use certificates::Certificates;

use super::TestDirectory;
use super::installed::installed;
use super::port::free_port;
use super::supervised::Supervised;
use crate::wait::until;

/// Databases of a server, so that each case can have one.
const DATABASES: u32 = 4096;

/// Longest wait for an answer.
const DEADLINE: Duration = Duration::from_secs(30);

/// What a server writes to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AppendOnly {
    /// Nothing: a restart is empty.
    Off,
    /// Every change, synced once a second: a killed process loses nothing, a lost power up to a second.
    #[default]
    EverySecond,
    /// Every change, synced before it is answered.
    Always,
}

/// Whether a server has an encrypted port beside the plain one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encryption {
    /// The plain port only.
    #[default]
    Off,
    /// An encrypted port that anybody may use.
    Server,
    /// An encrypted port for clients that show a certificate.
    Mutual,
}

/// How a [`RedisServer`] is started.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// What it writes to disk.
    pub append_only: AppendOnly,
    /// Password of the user `default`, in letters and digits.
    pub password: Option<String>,
    /// More users, each as `ACL SETUSER` takes it: `alice on >secret ~* &* +@all`.
    pub users: Vec<String>,
    /// The encrypted port.
    pub encryption: Encryption,
    /// Bytes of data from which on writes are refused.
    pub max_memory: Option<u64>,
    /// More lines of its configuration.
    pub lines: Vec<String>,
}

/// A running `redis-server`, killed and removed when dropped or when the test process ends.
///
/// It listens on loopback, on a port that it keeps over restarts, and has its data in a directory of its own.
#[derive(Debug)]
pub struct RedisServer {
    // Dropped first: it writes to the directory.
    server: Supervised,
    directory: TestDirectory,
    port: u16,
    password: Option<String>,
    certificates: Option<Certificates>,
    tls_port: Option<u16>,
    next_database: AtomicU32,
}

impl RedisServer {
    /// The server of this test process, started on first use with the default options.
    ///
    /// Each case takes a database of its own, see [`Self::next_database_url`]. Faults are for servers that
    /// a case has started itself.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<RedisServer> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// Starts a server with the default options and waits until it answers.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start() -> Self {
        Self::start_with(RedisOptions::default()).await
    }

    /// Starts a server and waits until it answers.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start_with(options: RedisOptions) -> Self {
        let directory = TestDirectory::new("redis");
        let port = free_port();
        let encrypted = options.encryption != Encryption::Off;
        let certificates = encrypted.then(|| Certificates::write_to(directory.path()));
        let tls_port = encrypted.then(free_port);
        let mut lines = configuration(&options, port);
        if lines.iter().any(|line| line == "cluster-enabled yes") {
            // The default lies where the operating system takes ports of connections from.
            lines.push(format!("cluster-port {}", free_port()));
        }
        if let (Some(certificates), Some(port)) = (&certificates, tls_port) {
            lines.extend(encrypted_port(options.encryption, port, certificates));
        }
        let written = fs::write(directory.path().join("redis.conf"), lines.join("\n"));
        written.expect("a test directory can be written");
        let mut server = Self {
            server: launch(&directory),
            directory,
            port,
            password: options.password,
            certificates,
            tls_port,
            next_database: AtomicU32::new(1),
        };
        server.ready().await;
        server
    }

    /// The plain port of loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `redis://127.0.0.1:PORT/`, with the password of the user `default` if there is one.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("redis", self.port, "")
    }

    /// The URL with a database that this call is the first to answer, and that is empty.
    ///
    /// # Panics
    /// If all 4095 are in use.
    #[must_use]
    pub fn next_database_url(&self) -> String {
        let database = self.next_database.fetch_add(1, Ordering::Relaxed);
        assert!(database < DATABASES, "every database is in use");
        self.url_of("redis", self.port, &database.to_string())
    }

    /// `rediss://127.0.0.1:PORT/`, the encrypted port.
    ///
    /// # Panics
    /// If it was started without one.
    #[must_use]
    pub fn tls_url(&self) -> String {
        let port = self.tls_port.expect("it was started without encryption");
        self.url_of("rediss", port, "")
    }

    /// What the encrypted port shows, and what a client may show it.
    ///
    /// # Panics
    /// If it was started without one.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        let certificates = self.certificates.as_ref();
        certificates.expect("it was started without encryption")
    }

    fn url_of(&self, scheme: &str, port: u16, database: &str) -> String {
        let password = self.password.as_deref();
        let user = password.map_or_else(String::new, |password| format!("default:{password}@"));
        format!("{scheme}://{user}127.0.0.1:{port}/{database}")
    }

    /// Runs one command in database 0, as the user `default`.
    ///
    /// # Panics
    /// If it is refused or not answered.
    pub async fn command(&self, words: &[&str]) -> Value {
        command(&self.url(), words).await
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

    /// Ends it at once, as a power failure would end the process. Its data stay.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Asks it to stop and waits for its end. Its data stay.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn stop(&mut self) {
        self.server.stop().await;
    }

    /// Starts it again on the same ports and data, and waits until it answers. If it runs, it is killed first.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn restart(&mut self) {
        self.server.kill();
        self.server = launch(&self.directory);
        self.ready().await;
    }

    /// Stops it from doing anything; its connections stay open and silent.
    pub fn pause(&self) {
        self.server.signal("STOP");
    }

    /// Lets it go on after [`Self::pause`].
    pub fn resume(&self) {
        self.server.signal("CONT");
    }

    /// Waits until the data are loaded and commands are answered.
    async fn ready(&mut self) {
        let url = self.url();
        until("redis-server answers", async || {
            assert!(
                self.server.is_running(),
                "redis-server does not start:\n{}",
                self.server.log()
            );
            try_command(&url, &["PING"]).await.ok().map(drop)
        })
        .await;
    }
}

/// Runs one command at a URL, for example in the database of a case.
///
/// # Panics
/// If it is refused or not answered.
pub async fn command(url: &str, words: &[&str]) -> Value {
    let answer = try_command(url, words).await;
    answer.unwrap_or_else(|error| panic!("redis refuses {}: {error}", words[0]))
}

/// Runs one command at a URL on a connection of its own.
///
/// # Errors
/// When it is refused or not answered.
pub async fn try_command(url: &str, words: &[&str]) -> RedisResult<Value> {
    let client = Client::open(url)?;
    // The library's own limit is half a second, which a busy machine can take.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(DEADLINE))
        .set_response_timeout(Some(DEADLINE));
    let connection = client.get_multiplexed_async_connection_with_config(&config);
    let mut connection = connection.await?;
    let mut command = Cmd::new();
    command.arg(words);
    command.query_async(&mut connection).await
}

fn launch(directory: &TestDirectory) -> Supervised {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| installed("redis"));
    let words = [
        OsString::from(program),
        directory.path().join("redis.conf").into(),
        "--dir".into(),
        directory.path().into(),
    ];
    Supervised::start(&words, directory.path())
}

fn configuration(options: &RedisOptions, port: u16) -> Vec<String> {
    let (append_only, sync) = match options.append_only {
        AppendOnly::Off => ("no", "no"),
        AppendOnly::EverySecond => ("yes", "everysec"),
        AppendOnly::Always => ("yes", "always"),
    };
    let mut lines = vec![
        "bind 127.0.0.1".to_owned(),
        format!("port {port}"),
        "save \"\"".to_owned(),
        format!("appendonly {append_only}"),
        format!("appendfsync {sync}"),
        format!("databases {DATABASES}"),
    ];
    if let Some(password) = &options.password {
        lines.push(format!("user default on >{password} ~* &* +@all"));
    }
    lines.extend(options.users.iter().map(|user| format!("user {user}")));
    if let Some(bytes) = options.max_memory {
        lines.push(format!("maxmemory {bytes}"));
        lines.push("maxmemory-policy noeviction".to_owned());
    }
    lines.extend(options.lines.iter().cloned());
    lines
}

fn encrypted_port(encryption: Encryption, port: u16, certificates: &Certificates) -> [String; 5] {
    let clients = match encryption {
        Encryption::Off | Encryption::Server => "no",
        Encryption::Mutual => "yes",
    };
    let quoted = |path: PathBuf| format!("\"{}\"", path.display());
    [
        format!("tls-port {port}"),
        format!(
            "tls-cert-file {}",
            quoted(certificates.server_certificate())
        ),
        format!("tls-key-file {}", quoted(certificates.server_key())),
        format!("tls-ca-cert-file {}", quoted(certificates.authority())),
        format!("tls-auth-clients {clients}"),
    ]
}
