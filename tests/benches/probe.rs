//! What the disk itself can do: one block overwritten and synced at a time.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::figures::{median, ms, per_second};

/// Bytes of one write: a page of a database.
const BLOCK: usize = 4096;

/// Blocks of the file, which is written before it is measured: overwriting changes no metadata.
const BLOCKS: usize = 4096;

/// Waits until the disk holds what others have written so far, where the system can do that.
pub(crate) fn flush_all() {
    // Without it the first turns of the probe are slower, which the report shows.
    let _ = Command::new("sync").status();
}

/// A preallocated file beside the data directory, written block by block.
#[derive(Debug)]
pub(crate) struct SyncProbe {
    file: File,
    next: usize,
}

impl SyncProbe {
    /// Makes and fills the file.
    pub(crate) fn new(directory: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(directory.join("sync-probe"))?;
        for _ in 0..BLOCKS {
            file.write_all(&[0x5a; BLOCK])?;
        }
        file.sync_all()?;
        Ok(Self { file, next: BLOCKS })
    }

    /// Writes for a time; answers blocks a second.
    pub(crate) fn rate(&mut self, time: Duration) -> io::Result<f64> {
        let begin = Instant::now();
        let mut count = 0;
        while begin.elapsed() < time {
            self.write()?;
            count += 1;
        }
        Ok(per_second(count, begin.elapsed()))
    }

    /// Writes a number of blocks; answers the median time of one, in milliseconds.
    pub(crate) fn p50_ms(&mut self, count: usize) -> io::Result<f64> {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            let begin = Instant::now();
            self.write()?;
            times.push(ms(begin.elapsed()));
        }
        Ok(median(times))
    }

    fn write(&mut self) -> io::Result<()> {
        if self.next == BLOCKS {
            self.file.seek(SeekFrom::Start(0))?;
            self.next = 0;
        }
        // Other bytes each time, or a clever disk writes nothing.
        let mut block = [0xa5; BLOCK];
        block[..8].copy_from_slice(&self.file.stream_position()?.to_le_bytes());
        self.next += 1;
        self.file.write_all(&block)?;
        self.file.sync_data()
    }
}
