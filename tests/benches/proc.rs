//! What Linux tells about a running process.

use std::io;
use std::time::{Duration, Instant};

/// How long a process must do nothing to count as quiet.
const QUIET: Duration = Duration::from_millis(200);

/// Longest wait for that.
const DEADLINE: Duration = Duration::from_secs(90);

/// Clock ticks (of 10 ms) that a quiet process may use: it looks around once in a while.
const IDLE_TICKS: u64 = 1;

/// Memory of a process, in megabytes of a million bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// What it has in memory now (`VmRSS`).
    pub(crate) resident_mb: f64,
    /// The most that it ever had (`VmHWM`).
    pub(crate) peak_mb: f64,
    /// The part that is its own, not a page of a file (`RssAnon`).
    pub(crate) anonymous_mb: f64,
}

/// Reads the memory of a process.
pub(crate) fn memory(id: u32) -> io::Result<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let megabytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kibibytes
            .map(|kibibytes| kibibytes * 1024.0 / 1e6)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no {name}")))
    };
    Ok(Memory {
        resident_mb: megabytes("VmRSS:")?,
        peak_mb: megabytes("VmHWM:")?,
        anonymous_mb: megabytes("RssAnon:")?,
    })
}

/// Waits until a process has finished what a load left behind; answers how long that took.
pub(crate) fn settle(id: u32) -> io::Result<Duration> {
    let begin = Instant::now();
    let mut last = ticks(id)?;
    loop {
        let look = Instant::now();
        while look.elapsed() < QUIET {
            std::thread::park_timeout(QUIET - look.elapsed().min(QUIET));
        }
        let now = ticks(id)?;
        if now - last <= IDLE_TICKS {
            return Ok(begin.elapsed().saturating_sub(QUIET));
        }
        if begin.elapsed() > DEADLINE {
            let message = format!("the server is still busy after {} s", DEADLINE.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
        last = now;
    }
}

/// Processor time of a process so far.
pub(crate) fn processor_time(id: u32) -> io::Result<Duration> {
    // A tick of this interface is 10 ms on every architecture that Rust's standard library knows.
    Ok(Duration::from_millis(10 * ticks(id)?))
}

/// Processor time of a process in clock ticks: user and system.
fn ticks(id: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The name in parentheses may hold anything; utime and stime are the 12th and 13th after it.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let fields = after.split_whitespace().skip(11).take(2);
    fields
        .map(|field| field.parse::<u64>())
        .sum::<Result<u64, _>>()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
