//! One connection that many commands share, and that is made again when it breaks.
//!
//! ```text
//!               ┌── live ──► command, answer
//!  command ──►──┤
//!               └── down ──► connect (one at a time, the others wait for it) ──► live
//!                               └── failed: nobody tries before the pause is over
//! ```
//!
//! Commands of all tasks go into one socket in turn and are answered in turn, so that one connection
//! is a pipeline. Nothing is sent twice: a command whose answer is lost fails, and the next one finds
//! a new connection. What is bounded: the commands that wait ([`RedisConfig::max_in_flight`]), the time
//! of each, the time of a connection attempt, and how often attempts are made.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Cmd, Pipeline, RedisError, ServerErrorKind, Value};
use tokio::time::Instant;

use super::config::{Address, RedisConfig};
use super::dedicated::Dedicated;
use super::dialer::{Dialed, Dialer};
use super::error::{Effect, Failure, OpenError};
use super::script::{Script, Scripts};
use super::server::Server;

/// Pause after the first failed attempt to connect; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A server, and the connection to it while there is one.
#[derive(Debug)]
pub(super) struct Connection {
    dialer: Dialer,
    response_timeout: Duration,
    max_in_flight: usize,
    in_flight: AtomicUsize,
    state: Mutex<State>,
    /// Held by whoever connects.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
enum State {
    Live(Arc<Live>),
    Down(Option<Pause>),
}

/// Why nobody connects just now.
#[derive(Debug)]
struct Pause {
    until: Instant,
    length: Duration,
    cause: String,
}

/// A connection that stands, as far as one knows.
#[derive(Debug)]
struct Live {
    dialed: Dialed,
    /// Answers so far; a time-out during which it stands still means a dead connection.
    answers: AtomicU64,
}

/// A command under way; it counts until it is answered or dropped.
struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    /// Prepares everything; the first command connects.
    pub(super) fn new(config: &RedisConfig, scripts: Scripts) -> Result<Self, OpenError> {
        Ok(Self {
            dialer: Dialer::new(config, scripts)?,
            response_timeout: config.response_timeout,
            max_in_flight: config.max_in_flight,
            in_flight: AtomicUsize::new(0),
            state: Mutex::new(State::Down(None)),
            turn: tokio::sync::Mutex::new(()),
        })
    }

    /// Makes another connection, on which the server may hold back an answer for so long.
    pub(super) async fn dedicated(&self, longest_wait: Duration) -> Result<Dedicated, Failure> {
        let limit = longest_wait + self.response_timeout;
        Ok(Dedicated::new(self.dialer.dial().await?, limit))
    }

    pub(super) fn address(&self) -> &Address {
        self.dialer.address()
    }

    /// A key whose like is written here.
    pub(super) fn sample_key(&self) -> &str {
        self.dialer.sample_key()
    }

    pub(super) fn scripts(&self) -> &Scripts {
        self.dialer.scripts()
    }

    /// The identity of the server at the other end, as long as there is a connection.
    pub(super) fn run_id(&self) -> Option<Box<str>> {
        self.current()?.dialed.server.run_id.clone()
    }

    /// Connects if need be, and answers what the server says of itself.
    pub(super) async fn server(&self) -> Result<Server, Failure> {
        Ok(self.live().await?.dialed.server.clone())
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Cancel safety
    /// A dropped call has been sent whole or not at all.
    pub(super) async fn command(&self, command: &Cmd, effect: Effect) -> Result<Value, Failure> {
        let _in_flight = self.begin()?;
        let live = self.live().await?;
        let answered = live.answers.load(Ordering::Relaxed);
        let mut multiplexed = live.dialed.multiplexed.clone();
        let answer = multiplexed.send_packed_command(command).await;
        let answer = self.heard(&live, answered, answer, effect)?;
        if let Value::ServerError(error) = answer {
            // It has become a replica, and an address may lead to another server by now. A new connection finds out.
            // (`a_failover_behind_the_address_is_followed`)
            if error.code() == "READONLY" {
                self.retire(&live);
            }
            return Err(Failure::Refused { error, effect });
        }
        Ok(answer)
    }

    /// Sends commands together and waits for all their answers, of which each may be a refusal.
    pub(super) async fn pipeline(
        &self,
        commands: &Pipeline,
        effect: Effect,
    ) -> Result<Vec<Value>, Failure> {
        let _in_flight = self.begin()?;
        let live = self.live().await?;
        let answered = live.answers.load(Ordering::Relaxed);
        let mut multiplexed = live.dialed.multiplexed.clone();
        let answers = multiplexed.send_packed_commands(commands, 0, commands.len());
        self.heard(&live, answered, answers.await, effect)
    }

    /// Calls a script, which the server gets again if it has forgotten it.
    pub(super) async fn call(
        &self,
        script: &Script,
        call: &Cmd,
        effect: Effect,
    ) -> Result<Value, Failure> {
        match self.command(call, effect).await {
            Err(Failure::Refused { error, .. })
                if error.kind() == Some(ServerErrorKind::NoScript) =>
            {
                let again = async {
                    self.command(&script.load(), Effect::Read).await?;
                    self.command(call, effect).await
                };
                Box::pin(again).await
            }
            answer => answer,
        }
    }

    /// Takes a place among the commands under way, if there is one.
    fn begin(&self) -> Result<InFlight<'_>, Failure> {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let place = InFlight(&self.in_flight);
        if before < self.max_in_flight {
            return Ok(place);
        }
        Err(Failure::Busy {
            limit: self.max_in_flight,
        })
    }

    /// Notes what became of a command on this connection.
    fn heard<T>(
        &self,
        live: &Arc<Live>,
        answered: u64,
        answer: Result<T, RedisError>,
        effect: Effect,
    ) -> Result<T, Failure> {
        let source = match answer {
            Ok(answer) => {
                live.answers.fetch_add(1, Ordering::Relaxed);
                return Ok(answer);
            }
            Err(source) => source,
        };
        if !source.is_timeout() {
            self.retire(live);
            return Err(Failure::Lost { source, effect });
        }
        // Others were answered meanwhile: the server is slow, not gone.
        if live.answers.load(Ordering::Relaxed) == answered {
            self.retire(live);
        }
        let limit = self.response_timeout;
        Err(Failure::NoAnswer { limit, effect })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets nobody begin on this connection any more. Who waits on it may still be answered.
    fn retire(&self, live: &Arc<Live>) {
        let mut state = self.state();
        if matches!(&*state, State::Live(current) if Arc::ptr_eq(current, live)) {
            *state = State::Down(None);
        }
    }

    fn current(&self) -> Option<Arc<Live>> {
        match &*self.state() {
            // On a closed one nothing would be sent, and the failure would not say so.
            State::Live(live) if !live.dialed.is_closed() => Some(Arc::clone(live)),
            State::Live(_) | State::Down(_) => None,
        }
    }

    async fn live(&self) -> Result<Arc<Live>, Failure> {
        match self.current() {
            Some(live) => Ok(live),
            // Apart on the heap, so that no command carries the state of a connection attempt.
            None => Box::pin(self.connected()).await,
        }
    }

    /// Connects, unless somebody else just has.
    async fn connected(&self) -> Result<Arc<Live>, Failure> {
        let _turn = self.turn.lock().await;
        if let Some(live) = self.current() {
            return Ok(live);
        }
        let last = self.pause()?;
        match self.dialer.dial().await {
            Ok(dialed) => {
                let live = Arc::new(Live {
                    dialed,
                    answers: AtomicU64::new(0),
                });
                *self.state() = State::Live(Arc::clone(&live));
                Ok(live)
            }
            Err(failure) => {
                let length = last.map_or(FIRST_PAUSE, |last| (2 * last).min(LONGEST_PAUSE));
                *self.state() = State::Down(Some(Pause {
                    until: Instant::now() + length,
                    length,
                    cause: failure.to_string(),
                }));
                Err(failure)
            }
        }
    }

    /// Refuses before the pause is over; answers its length afterwards.
    fn pause(&self) -> Result<Option<Duration>, Failure> {
        let state = self.state();
        let State::Down(Some(pause)) = &*state else {
            return Ok(None);
        };
        let next = pause.until.saturating_duration_since(Instant::now());
        if next.is_zero() {
            return Ok(Some(pause.length));
        }
        let cause = pause.cause.clone();
        Err(Failure::Pausing { cause, next })
    }
}
