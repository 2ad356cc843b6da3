//! How a connection comes to stand: TCP, TLS, the greeting, and the scripts.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, RedisConnectionInfo, RedisError, ServerError, Value};
use task_core::ports::{ErrorKind, Key, Kind, PortError, Secret};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::answer::{parts, text};
use super::config::{Address, Password, RedisConfig};
use super::error::{Effect, Failure, OpenError, is_login_refused};
use super::layout::Names;
use super::protocol;
use super::script::{self, Scripts};
use super::server::Server;
use super::tls::{self, Tls};

/// Commands that the socket's owner may be behind; more wait at the sender.
const QUEUE: usize = 256;

/// Whom to connect to, and what to say first.
#[derive(Debug)]
pub(super) struct Dialer {
    address: Address,
    tls: Option<Tls>,
    password: Option<Password>,
    /// The password that has worked last, for when its store cannot be asked.
    kept: Mutex<Option<Secret>>,
    /// Whether a connection has stood once.
    has_worked: AtomicBool,
    connect_timeout: Duration,
    response_timeout: Duration,
    scripts: Scripts,
    /// A key whose like the user has to be allowed to write.
    sample_key: String,
}

/// A connection on which the server has told who it is.
#[derive(Debug)]
pub(super) struct Dialed {
    pub(super) multiplexed: MultiplexedConnection,
    pub(super) server: Server,
    driver: Driver,
}

impl Dialed {
    pub(super) fn is_closed(&self) -> bool {
        self.driver.0.is_finished()
    }
}

/// The task that owns the socket; it ends with the connection, or with this.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Lets everybody who can run go first, each time before the socket's owner does.
///
/// A task that sends wakes the owner, which would otherwise write this one command at once. So all
/// commands of a moment go out in one write, and come back in one read.
async fn gathering(owner: impl Future<Output = ()>) {
    let mut owner = pin!(owner);
    let mut has_waited = false;
    poll_fn(move |context| {
        has_waited = !has_waited;
        if has_waited {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        owner.as_mut().poll(context)
    })
    .await;
}

impl Dialer {
    pub(super) fn new(config: &RedisConfig, scripts: Scripts) -> Result<Self, OpenError> {
        let address = config.checked()?.clone();
        Ok(Self {
            tls: tls::prepare(config, &address)?,
            password: config.password.clone(),
            kept: Mutex::new(None),
            has_worked: AtomicBool::new(false),
            address,
            connect_timeout: config.connect_timeout,
            response_timeout: config.response_timeout,
            scripts,
            sample_key: Names::new(config).value(&Key::new(Kind::TASK, "probe")),
        })
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn sample_key(&self) -> &str {
        &self.sample_key
    }

    pub(super) fn scripts(&self) -> &Scripts {
        &self.scripts
    }

    /// Connects once, each step within the limit.
    pub(super) async fn dial(&self) -> Result<Dialed, Failure> {
        let failure = match self.connect().await {
            Ok(dialed) => {
                self.has_worked.store(true, Ordering::Relaxed);
                return Ok(dialed);
            }
            Err(failure) => failure,
        };
        if self.has_worked.load(Ordering::Relaxed) && failure.is_denied() {
            return Err(Failure::ShutOut {
                address: self.address.to_string(),
                source: Box::new(failure),
            });
        }
        if !is_silence(&failure) {
            return Err(failure);
        }
        match protocol::misunderstanding(&self.address).await {
            None => Err(failure),
            Some(reason) => Err(Failure::Unfit {
                address: self.address.to_string(),
                reason: reason.to_owned(),
            }),
        }
    }

    /// Gives one step its time: several are no reason to give up a server that is far away.
    async fn step<T>(&self, step: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let limit = self.connect_timeout;
        let done = timeout(limit, step).await;
        done.unwrap_or_else(|_| {
            Err(Failure::ConnectTimeout {
                address: self.address.to_string(),
                limit,
            })
        })
    }

    async fn connect(&self) -> Result<Dialed, Failure> {
        let password = self.password().await?;
        let login = self.login(password.as_ref());
        let socket = self.step(self.socket()).await?;
        let (multiplexed, driver) = match &self.tls {
            None => self.step(self.speak(socket, &login)).await?,
            Some(tls) => {
                let private = self.step(self.shake_hands(tls, socket)).await?;
                self.step(self.speak(private, &login)).await?
            }
        };
        // By themselves, because a server cuts off strangers who say much.
        let mut questions = Pipeline::new();
        questions.cmd("HELLO").cmd("INFO");
        // A user who needs no other database need not be allowed to choose one.
        match self.address.database {
            0 => questions.cmd("PING"),
            database => questions.cmd("SELECT").arg(database),
        };
        let answers = self.step(self.ask(&multiplexed, &questions)).await?;
        let server = self.judge(&answers)?;
        let mut questions = Pipeline::new();
        questions.add_command(script::ask_permissions(&self.sample_key));
        for script in self.scripts.all() {
            questions.add_command(script.load());
        }
        let answers = self.step(self.ask(&multiplexed, &questions)).await?;
        self.prepared(&answers)?;
        *self.lock_kept() = password;
        Ok(Dialed {
            multiplexed,
            server,
            driver,
        })
    }

    /// What the password is now, or was when its store could be asked.
    async fn password(&self) -> Result<Option<Secret>, Failure> {
        let Some(password) = &self.password else {
            return Ok(None);
        };
        let read = async {
            let read = password.read().await;
            read.map_err(|source| Failure::Password { source })
        };
        let failure = match self.step(read).await {
            Ok(secret) => return Ok(Some(secret)),
            Err(failure) => failure,
        };
        let kept = self.lock_kept().clone();
        match kept {
            Some(kept) if is_unasked(&failure) => {
                tracing::debug!(error = %failure, "the password that has worked last is used");
                Ok(Some(kept))
            }
            Some(_) | None => Err(failure),
        }
    }

    fn lock_kept(&self) -> MutexGuard<'_, Option<Secret>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn login(&self, password: Option<&Secret>) -> RedisConnectionInfo {
        let mut login = RedisConnectionInfo::default();
        if let Some(user) = &self.address.user {
            login = login.set_username(user);
        }
        if let Some(password) = password {
            login = login.set_password(password.expose());
        }
        login
    }

    async fn socket(&self) -> Result<TcpStream, Failure> {
        let refused = |source| Failure::Connect {
            address: self.address.to_string(),
            source,
        };
        let host_and_port = (self.address.host.as_ref(), self.address.port);
        let socket = TcpStream::connect(host_and_port).await.map_err(refused)?;
        socket.set_nodelay(true).map_err(refused)?;
        Ok(socket)
    }

    async fn shake_hands(
        &self,
        tls: &Tls,
        socket: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        let address = || self.address.to_string();
        let private = tls.connector.connect(tls.server.clone(), socket).await;
        private.map_err(|source| match tls::is_refusal(&source) {
            true => Failure::Untrusted {
                address: address(),
                source,
            },
            false => Failure::Connect {
                address: address(),
                source,
            },
        })
    }

    async fn ask(
        &self,
        multiplexed: &MultiplexedConnection,
        questions: &Pipeline,
    ) -> Result<Vec<Value>, Failure> {
        let mut multiplexed = multiplexed.clone();
        let answers = multiplexed.send_packed_commands(questions, 0, questions.len());
        answers.await.map_err(|source| self.no_greeting(source))
    }

    fn no_greeting(&self, source: RedisError) -> Failure {
        Failure::Greeting {
            address: self.address.to_string(),
            source,
        }
    }

    /// Names the user.
    async fn speak<S>(
        &self,
        stream: S,
        login: &RedisConnectionInfo,
    ) -> Result<(MultiplexedConnection, Driver), Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            // Also ends a command that came too late to be given up with its connection; nobody else would.
            // (`dropped_connections_lose_nothing`)
            .set_response_timeout(Some(self.response_timeout))
            .set_pipeline_buffer_size(QUEUE);
        let speaking = MultiplexedConnection::new_with_config(login, stream, config);
        let spoken = speaking.await.map_err(|source| self.no_greeting(source));
        let (multiplexed, driver) = spoken?;
        Ok((multiplexed, Driver(tokio::spawn(gathering(driver)))))
    }

    /// Looks at the answers to `HELLO`, `INFO` and the choice of a database.
    fn judge(&self, answers: &[Value]) -> Result<Server, Failure> {
        let [hello, info, select] = answers else {
            return Err(incomplete(answers));
        };
        // Permissions may be missing, a login may not.
        if let Value::ServerError(error) = hello
            && matches!(error.code(), "NOAUTH" | "WRONGPASS")
        {
            return Err(refused(error));
        }
        let server = Server::read(hello, info);
        let reason = match (server.refusal(), select) {
            (None, Value::ServerError(error)) if is_out_of_range(error) => {
                format!("it has no database {}", self.address.database)
            }
            (None, Value::ServerError(error)) => return Err(refused(error)),
            (None, _) => return Ok(server),
            (Some(reason), _) => reason,
        };
        Err(Failure::Unfit {
            address: self.address.to_string(),
            reason,
        })
    }

    /// Looks at the answers to the question for permissions and to the scripts.
    fn prepared(&self, answers: &[Value]) -> Result<(), Failure> {
        for answer in answers {
            if let Value::ServerError(error) = answer {
                return Err(refused(error));
            }
        }
        let forbidden = answers.first().ok_or_else(|| incomplete(answers))?;
        let forbidden: Vec<&str> = parts(forbidden).iter().filter_map(text).collect();
        if forbidden.is_empty() {
            return Ok(());
        }
        Err(Failure::Forbidden {
            address: self.address.to_string(),
            commands: forbidden.join(", "),
        })
    }
}

/// Whether the store of the password said nothing of it.
fn is_unasked(failure: &Failure) -> bool {
    let is_away = |source: &PortError| {
        let kind = source.kind();
        matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout)
    };
    matches!(failure, Failure::ConnectTimeout { .. })
        || matches!(failure, Failure::Password { source } if is_away(source))
}

/// Whether nobody answered whom we understand, for whatever reason.
fn is_silence(failure: &Failure) -> bool {
    let is_refused = |source: &io::Error| source.kind() == io::ErrorKind::ConnectionRefused;
    matches!(failure, Failure::ConnectTimeout { .. })
        || matches!(failure, Failure::Connect { source, .. } if !is_refused(source))
        || matches!(failure, Failure::Untrusted { source, .. } if tls::is_something_else(source))
        || matches!(failure, Failure::Greeting { source, .. } if !is_login_refused(source))
}

/// What a server says of a database that it does not have.
fn is_out_of_range(error: &ServerError) -> bool {
    let details = error.details().unwrap_or_default();
    error.code() == "ERR" && details.contains("DB index is out of range")
}

fn refused(error: &ServerError) -> Failure {
    Failure::Refused {
        error: error.clone(),
        effect: Effect::Read,
    }
}

fn incomplete(answers: &[Value]) -> Failure {
    Failure::Answer {
        answer: format!("{} answers to a greeting", answers.len()),
        effect: Effect::Read,
    }
}
