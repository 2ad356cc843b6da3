//! The scripts, and the hashes by which a server knows them.

use redis::Cmd;
use sha1::{Digest, Sha1};

/// A Lua text that servers keep.
#[derive(Debug)]
pub(super) struct Script {
    text: &'static str,
    hash: Box<str>,
}

impl Script {
    pub(super) fn new(text: &'static str) -> Self {
        let hash = digest(text.as_bytes());
        Self { text, hash }
    }

    /// Gives the script to a server.
    pub(super) fn load(&self) -> Cmd {
        let mut command = Cmd::new();
        command.arg("SCRIPT").arg("LOAD").arg(self.text);
        command
    }

    /// Begins a call; the number of keys, the keys and the arguments are still to come.
    pub(super) fn call(&self, arguments: usize, bytes: usize) -> Cmd {
        let mut command = Cmd::with_capacity(arguments + 3, bytes + 64);
        command.arg("EVALSHA").arg(self.hash.as_ref());
        command
    }
}

/// What the other scripts run, and what asks whether the server takes writes.
const COMMANDS: [&str; 16] = [
    "get", "set", "setrange", "del", "exists", "hmget", "hset", "persist", "pexpire", "pttl",
    "time", "type", "xadd", "zadd", "zrem", "zscore",
];

/// Asks which commands the user may not run on a key of theirs.
pub(super) fn ask_permissions(key: &str) -> Cmd {
    let mut command = Cmd::new();
    command
        .arg("EVAL")
        .arg(include_str!("scripts/permissions.lua"));
    command.arg(0).arg(key).arg(COMMANDS.as_slice());
    command
}

/// Every script of this backend; a server gets them with the greeting.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) legacy_commit: Script,
    pub(super) dapr_commit: Script,
    pub(super) lease_commit: Script,
    pub(super) convert: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        const LEGACY_COMMIT: &str = concat!(
            include_str!("scripts/legacy.lua"),
            "local layout = legacy\n",
            include_str!("scripts/commit.lua"),
        );
        const LEASE_COMMIT: &str = concat!(
            include_str!("scripts/legacy.lua"),
            "local layout = legacy\nlegacy.when_full = true\n",
            include_str!("scripts/commit.lua"),
        );
        const DAPR_COMMIT: &str = concat!(
            include_str!("scripts/dapr.lua"),
            "local layout = dapr\n",
            include_str!("scripts/commit.lua"),
        );
        const CONVERT: &str = concat!(
            include_str!("scripts/legacy.lua"),
            include_str!("scripts/dapr.lua"),
            include_str!("scripts/convert.lua"),
        );
        Self {
            legacy_commit: Script::new(LEGACY_COMMIT),
            dapr_commit: Script::new(DAPR_COMMIT),
            lease_commit: Script::new(LEASE_COMMIT),
            convert: Script::new(CONVERT),
        }
    }

    pub(super) fn all(&self) -> [&Script; 4] {
        [
            &self.legacy_commit,
            &self.dapr_commit,
            &self.lease_commit,
            &self.convert,
        ]
    }
}

/// SHA-1 in lower-case hexadecimal digits, as `redis.sha1hex` answers it.
pub(super) fn digest(bytes: &[u8]) -> Box<str> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digest = Sha1::digest(bytes);
    let mut text = [0; 40];
    for (pair, byte) in text.chunks_exact_mut(2).zip(digest) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    std::str::from_utf8(&text).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_of_a_script_is_asked_for() {
        for script in Scripts::new().all() {
            for call in script.text.split("call('").skip(1) {
                let name = call.split('\'').next().expect("a name").to_lowercase();
                assert!(COMMANDS.contains(&name.as_str()), "{name}");
            }
        }
    }

    #[test]
    fn a_digest_is_that_of_redis() {
        // EVAL "return redis.sha1hex('')" 0, and the first example of FIPS 180-1.
        assert_eq!(&*digest(b""), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        assert_eq!(&*digest(b"abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
    }
}
