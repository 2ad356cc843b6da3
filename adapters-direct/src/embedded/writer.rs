//! The one thread that writes.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::{CachedStatement, Connection, ErrorCode, Params};
use task_core::ports::Clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::error::Error;
use super::records;

/// Writes that wait or run at once; a further one waits for its turn to be queued.
const MAX_QUEUED: usize = 1024;

/// Writes of one transaction.
const MAX_BATCH: usize = 512;

/// How long work that nobody waits for stays open for a request to share its fsync.
const LINGER: Duration = Duration::from_millis(2);

/// Numbers taken from the stored counter at once; unused ones are skipped at the next start.
const COUNTER_BLOCK: i64 = 1 << 20;

/// Transactions between two sweeps of expired records, while a sweep finds less than it may remove.
const SWEEP_EVERY: u64 = 256;

/// How soon a write must be on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Somebody waits for the answer.
    Request,
    /// It may wait a moment for company.
    Background,
}

/// Answers one caller when the outcome of the transaction is known.
type Reply = Box<dyn FnOnce(Result<(), &Failure>) + Send>;

/// One write: runs within a transaction, unless that could not begin, and tells whether it broke it.
type Run =
    Box<dyn FnOnce(Result<&mut Session<'_>, &Failure>) -> (Reply, Result<(), Failure>) + Send>;

struct Job {
    urgency: Urgency,
    run: Run,
    _queued: OwnedSemaphorePermit,
}

/// Why a whole transaction did not happen.
#[derive(Debug, Clone)]
struct Failure {
    cause: String,
    code: ErrorCode,
    stage: Stage,
}

/// How far a transaction came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begin,
    Writes,
    Commit,
}

impl Failure {
    fn of(error: &rusqlite::Error, stage: Stage) -> Self {
        Self {
            cause: error.to_string(),
            code: error.sqlite_error_code().unwrap_or(ErrorCode::Unknown),
            stage,
        }
    }

    /// A bug of ours; the transaction is taken back, and the writer lives on.
    fn of_panic() -> Self {
        Self {
            cause: "a write panicked".to_owned(),
            code: ErrorCode::InternalMalfunction,
            stage: Stage::Writes,
        }
    }

    fn to_error(&self) -> Error {
        let cause = self.cause.clone();
        match self.stage {
            Stage::Begin => Error::Begin(cause, self.code),
            Stage::Writes => Error::Batch(cause),
            Stage::Commit => Error::Commit(cause, self.code),
        }
    }
}

/// The handle of the writer thread; dropping it finishes what is queued and joins the thread.
pub(super) struct Writer {
    jobs: Option<Sender<Job>>,
    queue: Arc<Semaphore>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queued = MAX_QUEUED - self.queue.available_permits();
        f.debug_struct("Writer")
            .field("queued", &queued)
            .finish_non_exhaustive()
    }
}

impl Writer {
    pub(super) fn start(connection: Connection, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let (sender, receiver) = channel();
        let thread = WriterThread {
            connection,
            clock,
            counter: Counter::default(),
            transactions: 0,
            must_sweep: false,
        };
        let thread = std::thread::Builder::new()
            .name("task-writer".to_owned())
            .spawn(move || thread.run(&receiver))?;
        Ok(Self {
            jobs: Some(sender),
            queue: Arc::new(Semaphore::new(MAX_QUEUED)),
            thread: Some(thread),
        })
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        urgency: Urgency,
        job: impl FnOnce(&mut Session<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = Arc::clone(&self.queue).acquire_owned().await;
        let queued = permit.map_err(|_| Error::Closed)?;
        let (sender, receiver) = oneshot::channel();
        let run = move |session: Result<&mut Session<'_>, &Failure>| {
            let result = session.map_err(Failure::to_error).and_then(job);
            let broken = match &result {
                Err(Error::Sqlite(error)) => Err(Failure::of(error, Stage::Writes)),
                _ => Ok(()),
            };
            let reply: Reply = Box::new(move |outcome| {
                let answer = match (result, outcome) {
                    (Ok(value), Ok(())) => Ok(value),
                    (Ok(_), Err(failure)) => Err(failure.to_error()),
                    (Err(error), _) => Err(error),
                };
                // The caller may have gone: then nobody needs the answer.
                let _ = sender.send(answer);
            });
            (reply, broken)
        };
        let job = Job {
            urgency,
            run: Box::new(run),
            _queued: queued,
        };
        let jobs = self.jobs.as_ref().ok_or(Error::Closed)?;
        jobs.send(job).map_err(|_| Error::Closed)?;
        receiver.await.map_err(|_| Error::Closed)?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the writer thread panicked");
        }
    }
}

struct WriterThread {
    connection: Connection,
    clock: Arc<dyn Clock>,
    counter: Counter,
    transactions: u64,
    /// The last sweep left expired records behind.
    must_sweep: bool,
}

impl WriterThread {
    fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let mut rest = gather(first, jobs);
            // A job that breaks its transaction ends it; the jobs behind it get one of their own.
            while !rest.is_empty() {
                rest = self.transaction(rest);
            }
        }
    }

    /// Commits what it can of a batch, answers it, and returns the jobs that did not run.
    fn transaction(&mut self, batch: VecDeque<Job>) -> VecDeque<Job> {
        let mut ran = Vec::with_capacity(batch.len());
        let mut rest = batch;
        let outcome = self.try_transaction(&mut ran, &mut rest);
        if let Err(failure) = &outcome {
            if !self.connection.is_autocommit() {
                // A rollback that fails leaves the next BEGIN to fail and say so.
                let _ = self.connection.execute_batch("ROLLBACK");
            }
            self.counter = Counter::default();
            if ran.is_empty() {
                // Not even BEGIN worked: none of the jobs would fare better.
                ran.extend(rest.drain(..).map(|job| (job.run)(Err(failure)).0));
            }
        }
        for reply in ran {
            reply(outcome.as_ref().copied());
        }
        rest
    }

    fn try_transaction(
        &mut self,
        ran: &mut Vec<Reply>,
        rest: &mut VecDeque<Job>,
    ) -> Result<(), Failure> {
        let in_transaction = |error: rusqlite::Error| Failure::of(&error, Stage::Writes);
        execute(&self.connection, "BEGIN IMMEDIATE")
            .map_err(|error| Failure::of(&error, Stage::Begin))?;
        let mut session = Session {
            connection: &self.connection,
            counter: &mut self.counter,
        };
        while let Some(job) = rest.pop_front() {
            let run = AssertUnwindSafe(|| (job.run)(Ok(&mut session)));
            let (reply, result) = catch_unwind(run).map_err(|_| Failure::of_panic())?;
            ran.push(reply);
            result?;
        }
        self.transactions += 1;
        if self.must_sweep || self.transactions.is_multiple_of(SWEEP_EVERY) {
            let swept = records::sweep(&self.connection, self.clock.now());
            self.must_sweep = swept.map_err(in_transaction)? == records::SWEEP_LIMIT;
        }
        execute(&self.connection, "COMMIT").map_err(|error| Failure::of(&error, Stage::Commit))
    }
}

/// Takes what is queued behind the first job; waits a moment if nobody waits for any of it.
fn gather(first: Job, jobs: &Receiver<Job>) -> VecDeque<Job> {
    let deadline = Instant::now() + LINGER;
    let mut awaited = first.urgency == Urgency::Request;
    let mut batch = VecDeque::from([first]);
    while batch.len() < MAX_BATCH {
        let patience = if awaited {
            Duration::ZERO
        } else {
            deadline.saturating_duration_since(Instant::now())
        };
        match jobs.recv_timeout(patience) {
            Ok(job) => {
                awaited |= job.urgency == Urgency::Request;
                batch.push_back(job);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    batch
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

/// Numbers that are never given twice, not even after a crash.
///
/// The stored ceiling is raised, within the transaction that first needs it, before a number below
/// it is given. A transaction that fails forgets the block, and the next one reads the ceiling anew.
#[derive(Debug, Default)]
struct Counter {
    last: i64,
    ceiling: i64,
}

/// What a job may do within the writer's transaction.
pub(super) struct Session<'a> {
    connection: &'a Connection,
    counter: &'a mut Counter,
}

impl Session<'_> {
    /// The connection, to read what this transaction has written so far.
    pub(super) fn connection(&self) -> &Connection {
        self.connection
    }

    /// A prepared statement.
    pub(super) fn prepare(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        self.connection.prepare_cached(sql)
    }

    /// Executes a statement and answers how many rows it changed.
    pub(super) fn execute(&self, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
        self.prepare(sql)?.execute(params)
    }

    /// The next number: greater than every one before.
    pub(super) fn next(&mut self) -> rusqlite::Result<i64> {
        if self.counter.last == self.counter.ceiling {
            let ceiling: i64 = self
                .prepare("SELECT ceiling FROM counter")?
                .query_row([], |row| row.get(0))?;
            let raised = ceiling + COUNTER_BLOCK;
            self.execute("UPDATE counter SET ceiling = ?1", [raised])?;
            *self.counter = Counter {
                last: ceiling,
                ceiling: raised,
            };
        }
        self.counter.last += 1;
        Ok(self.counter.last)
    }

    /// Runs several writes so that a refused one takes the others back with it.
    pub(super) fn all_or_nothing<T>(
        &mut self,
        writes: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        execute(self.connection, "SAVEPOINT writes")?;
        let result = writes(self);
        match &result {
            Err(Error::Conflict(_)) => {
                execute(self.connection, "ROLLBACK TO writes")?;
                // The counter's block may have been taken back, too.
                *self.counter = Counter::default();
                execute(self.connection, "RELEASE writes")?;
            }
            Ok(_) => execute(self.connection, "RELEASE writes")?,
            // The whole transaction is about to be rolled back.
            Err(_) => {}
        }
        result
    }
}
