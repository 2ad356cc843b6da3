//! Threads that read, each with a connection of its own.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::error::{Error, OpenError};
use super::schema;

/// Reading threads. Reads take microseconds; two let a slow one not hold up the others.
const THREADS: usize = 2;

/// Reads that wait or run at once; a further one waits for its turn to be queued.
const MAX_QUEUED: usize = 1024;

struct Job {
    run: Box<dyn FnOnce(&Connection) + Send>,
    _queued: OwnedSemaphorePermit,
}

/// The handle of the reading threads; dropping it joins them.
pub(super) struct Readers {
    jobs: Option<Sender<Job>>,
    queue: Arc<Semaphore>,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queued = MAX_QUEUED - self.queue.available_permits();
        f.debug_struct("Readers")
            .field("queued", &queued)
            .finish_non_exhaustive()
    }
}

impl Readers {
    pub(super) fn start(path: &Path) -> Result<Self, OpenError> {
        let (sender, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let mut threads = Vec::with_capacity(THREADS);
        for _ in 0..THREADS {
            let connection = schema::open_reader(path)?;
            let receiver = Arc::clone(&receiver);
            let thread = std::thread::Builder::new()
                .name("task-reader".to_owned())
                .spawn(move || run(&connection, &receiver))
                .map_err(|source| OpenError::Io {
                    path: path.to_owned(),
                    source,
                })?;
            threads.push(thread);
        }
        Ok(Self {
            jobs: Some(sender),
            queue: Arc::new(Semaphore::new(MAX_QUEUED)),
            threads,
        })
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = Arc::clone(&self.queue).acquire_owned().await;
        let queued = permit.map_err(|_| Error::Closed)?;
        let (sender, receiver) = oneshot::channel();
        let run = move |connection: &Connection| {
            // The caller may have gone: then nobody needs the answer.
            let _ = sender.send(job(connection));
        };
        let job = Job {
            run: Box::new(run),
            _queued: queued,
        };
        let jobs = self.jobs.as_ref().ok_or(Error::Closed)?;
        jobs.send(job).map_err(|_| Error::Closed)?;
        receiver.await.map_err(|_| Error::Closed)?
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        drop(self.jobs.take());
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a reader thread panicked");
            }
        }
    }
}

fn run(connection: &Connection, jobs: &Mutex<Receiver<Job>>) {
    loop {
        // Held only to take one job: the other threads wait here instead of in `recv`.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => (job.run)(connection),
            Err(_) => return,
        }
    }
}
