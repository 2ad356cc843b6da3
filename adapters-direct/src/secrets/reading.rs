//! Reads a file of bounded size, away from the threads that serve requests.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::config::MAX_FILE_BYTES;
use super::error::Failure;

/// Who may be able to open the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Its owner and its group.
    OwnerAndGroup,
    /// Whoever can reach it.
    Anyone,
}

pub(super) async fn read(path: PathBuf, access: Access) -> Result<String, Failure> {
    let reading = tokio::task::spawn_blocking(move || read_now(&path, access));
    let read = reading.await;
    read.map_err(|error| Failure::Unreadable(io::Error::other(error)))?
}

fn read_now(path: &Path, access: Access) -> Result<String, Failure> {
    let file = File::open(path)?;
    // Of the file that is open, not of one that took its place.
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(Failure::HasKeys);
    }
    match open_to_others(&metadata) {
        Some(mode) if access == Access::OwnerAndGroup => return Err(Failure::Exposed { mode }),
        Some(_) | None => {}
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX);
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(Failure::TooLarge);
    }
    String::from_utf8(bytes).map_err(|_| Failure::NotText)
}

/// The file's mode, if it lets others read or write.
#[cfg(unix)]
fn open_to_others(metadata: &Metadata) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o7777;
    (mode & 0o006 != 0).then_some(mode)
}

#[cfg(not(unix))]
fn open_to_others(_: &Metadata) -> Option<u32> {
    None
}
