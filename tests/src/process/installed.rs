//! Where the servers are that are no part of this workspace.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The path that `tests/servers/install` answers for a server; it prepares what is missing.
///
/// # Panics
/// If it cannot; the message is its own.
pub(super) fn installed(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("a test has a path");
    // <target>/<profile>/deps/<test>
    let target = this
        .ancestors()
        .nth(3)
        .expect("a test lies in a target folder");
    let install = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/install");
    let output = Command::new(&install)
        .arg(name)
        .env("CARGO_TARGET_DIR", target)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", install.display()));
    let answer = String::from_utf8_lossy(&output.stdout);
    let path = answer
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    match path {
        Some(path) if output.status.success() => PathBuf::from(path),
        Some(_) | None => panic!("{}", String::from_utf8_lossy(&output.stderr)),
    }
}
