//! Whose processes and files a PostgreSQL server's are: it refuses to run as root.

use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Command;

/// The user that the server runs as.
#[derive(Debug)]
pub(super) struct Owner {
    /// Another user's id and group; `None` runs as who runs the test.
    other: Option<(u32, u32)>,
}

impl Owner {
    /// Who runs the test or, if that is root, the user of the system's package.
    pub(super) fn new() -> Self {
        let this = std::fs::metadata("/proc/self").expect("a process has an entry in /proc");
        let is_root = this.uid() == 0;
        Self {
            other: is_root.then(|| (id("-u"), id("-g"))),
        }
    }

    /// Makes a file or directory the owner's.
    pub(super) fn give(&self, path: &Path) {
        if let Some((user, group)) = self.other {
            chown(path, Some(user), Some(group)).expect("root can give files away");
        }
    }

    /// Words before a program that the owner is to run.
    ///
    /// The program has shared memory of its own, which goes with its last process: a killed server does not remove it.
    pub(super) fn words(&self) -> Vec<OsString> {
        let words = match self.other {
            Some((user, group)) => vec![
                "unshare".to_owned(),
                "--ipc".to_owned(),
                "setpriv".to_owned(),
                format!("--reuid={user}"),
                format!("--regid={group}"),
                "--clear-groups".to_owned(),
            ],
            None => ["unshare", "--map-current-user", "--ipc"]
                .map(str::to_owned)
                .into(),
        };
        words.into_iter().map(OsString::from).collect()
    }
}

/// A number of the user `postgres`.
fn id(which: &str) -> u32 {
    let output = Command::new("id").args([which, "postgres"]).output();
    let output = output.expect("id runs");
    let number = String::from_utf8_lossy(&output.stdout).trim().parse();
    number.expect("the package of PostgreSQL makes the user postgres")
}
