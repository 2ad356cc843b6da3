//! The open file: its lock, its writer and its readers.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::Connection;
use task_core::ports::{Clock, PortError};
use tokio::sync::Notify;

use super::config::EmbeddedConfig;
use super::error::{Error, OpenError};
use super::event_bus::Subscribed;
use super::reader::Readers;
use super::schema;
use super::writer::{Session, Urgency, Writer};

/// An open database file.
#[derive(Debug)]
pub(super) struct Database {
    // Dropped in this order: the threads end and close their connections before the lock goes.
    writer: Writer,
    readers: Readers,
    clock: Arc<dyn Clock>,
    published: Notify,
    subscribed: Subscribed,
    _owner: File,
}

impl Database {
    pub(super) fn open(config: &EmbeddedConfig, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let owner = own(config)?;
        let path = config.database_file();
        create_private_file(&path).map_err(|source| OpenError::Io {
            path: path.clone(),
            source,
        })?;
        let writer = Writer::start(schema::open_writer(&path)?, Arc::clone(&clock));
        let writer = writer.map_err(|source| OpenError::Io {
            path: path.clone(),
            source,
        })?;
        let readers = Readers::start(&path)?;
        Ok(Self {
            writer,
            readers,
            clock,
            published: Notify::new(),
            subscribed: Subscribed::default(),
            _owner: owner,
        })
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Woken whenever events were published.
    pub(super) fn published(&self) -> &Notify {
        &self.published
    }

    /// The groups with a running subscription, on whichever handle of the bus.
    pub(super) fn subscribed(&self) -> &Subscribed {
        &self.subscribed
    }

    /// Empties the journal. A connection that may not change anything may do that.
    pub(super) async fn checkpoint(&self) -> Result<(), PortError> {
        self.read("checkpoint", |connection| {
            let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
            connection.query_row(sql, [], |_| Ok(()))?;
            Ok(())
        })
        .await
    }

    /// Says whether the file can be read and its writer is alive.
    pub(super) async fn check(&self) -> Result<(), PortError> {
        self.read("check", |connection| {
            let sql = "SELECT ceiling FROM counter";
            connection.prepare_cached(sql)?.query_row([], |_| Ok(()))?;
            Ok(())
        })
        .await?;
        self.write("check", Urgency::Background, |_| Ok(())).await
    }

    /// Runs a write in the writer's next transaction and returns after that is on disk.
    ///
    /// # Cancel safety
    /// Once queued, the write is done whole or not at all, whether or not anybody waits.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        urgency: Urgency,
        job: impl FnOnce(&mut Session<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, PortError> {
        let result = self.writer.run(urgency, job).await;
        result.map_err(|error| error.into_port(operation))
    }

    /// Runs a read on a snapshot of what is committed.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        job: impl FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, PortError> {
        let result = self.readers.run(job).await;
        result.map_err(|error| error.into_port(operation))
    }
}

/// Makes a directory that only its owner can look into; one that exists stays as it is.
fn create_private(directory: &std::path::Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// Makes a file that only its owner can read, and SQLite its journal alike; one that exists stays.
fn create_private_file(path: &std::path::Path) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.create_new(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

/// Takes the directory's lock, which the operating system frees when this process ends.
fn own(config: &EmbeddedConfig) -> Result<File, OpenError> {
    let io = |path: PathBuf| move |source| OpenError::Io { path, source };
    let directory = &config.directory;
    create_private(directory).map_err(io(directory.clone()))?;
    let path = config.lock_file();
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io(path.clone()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            directory: directory.clone(),
        }),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { path, source }),
    }
}
