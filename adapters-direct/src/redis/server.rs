//! What a server says of itself when it is greeted, and whether that will do.
//!
//! `HELLO` and `INFO` together, because an ACL may forbid either: what neither tells counts as fine.

use redis::Value;

use super::answer::{parts, text};

/// Oldest version that has everything that is used here, `XRANGE` after a place above all.
const OLDEST: (u32, u32) = (6, 2);

/// What is known of a server; `None` is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Server {
    /// Changes with every start of the server.
    pub(super) run_id: Option<Box<str>>,
    /// Whether it writes an append-only file.
    pub(super) append_only: Option<bool>,
    /// What it does when its memory is full.
    memory_policy: Option<Box<str>>,
    version: Option<Box<str>>,
    mode: Option<Box<str>>,
    role: Option<Box<str>>,
}

impl Server {
    /// Reads the answers to `HELLO` and `INFO`, of which one or both may be refusals.
    pub(super) fn read(hello: &Value, info: &Value) -> Self {
        let mut server = Self::default();
        for pair in parts(hello).chunks_exact(2) {
            if let (Some(name), Some(value)) = (text(&pair[0]), text(&pair[1])) {
                server.note(name, value);
            }
        }
        let lines = text(info).unwrap_or_default().lines();
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            server.note(name, value.trim_end());
        }
        server
    }

    fn note(&mut self, name: &str, value: &str) {
        let field = match name {
            "run_id" => &mut self.run_id,
            "version" | "redis_version" => &mut self.version,
            "mode" | "redis_mode" => &mut self.mode,
            "role" => &mut self.role,
            "maxmemory_policy" => &mut self.memory_policy,
            "aof_enabled" => {
                self.append_only = Some(value == "1");
                return;
            }
            _ => return,
        };
        *field = Some(value.into());
    }

    /// The policy by which it gives data away when its memory is full, if it has one.
    pub(super) fn eviction(&self) -> Option<&str> {
        let policy = self.memory_policy.as_deref();
        policy.filter(|policy| *policy != "noeviction")
    }

    /// Why this server cannot be used, if it cannot.
    pub(super) fn refusal(&self) -> Option<String> {
        match self.mode.as_deref() {
            Some("cluster") => {
                return Some(
                    "it is part of a Redis Cluster, where a record and its event may be on different nodes"
                        .to_owned(),
                );
            }
            Some("sentinel") => {
                return Some(
                    "it is a Redis Sentinel and holds no data; name the master".to_owned(),
                );
            }
            Some(_) | None => {}
        }
        if matches!(self.role.as_deref(), Some("slave" | "replica")) {
            return Some("it is a replica, which takes no writes; name the master".to_owned());
        }
        let version = self.version.as_deref()?;
        let (major, minor) = OLDEST;
        (numbers(version)? < OLDEST).then(|| {
            format!("it has version {version}, the oldest that will do is {major}.{minor}")
        })
    }
}

/// Major and minor number of a version; `None` if it has none.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    let mut next = || parts.next()?.parse().ok();
    Some((next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn hello(version: &str, mode: &str, role: &str) -> Value {
        let words = [
            "server", "redis", "version", version, "mode", mode, "role", role,
        ];
        Value::Array(words.map(bulk).into())
    }

    #[test]
    fn a_server_that_cannot_be_used_is_refused_for_a_reason() {
        for (version, mode, role, expected) in [
            ("7.0.15", "standalone", "master", None),
            ("6.2.0", "standalone", "master", None),
            ("10.0.0", "standalone", "master", None),
            ("6.0.16", "standalone", "master", Some("version 6.0.16")),
            ("5.0", "standalone", "master", Some("6.2")),
            ("7.0.15", "cluster", "master", Some("Cluster")),
            ("7.0.15", "sentinel", "sentinel", Some("Sentinel")),
            ("7.0.15", "standalone", "replica", Some("replica")),
        ] {
            let server = Server::read(&hello(version, mode, role), &Value::Nil);
            let refusal = server.refusal();
            match expected {
                None => assert_eq!(refusal, None, "{version} {mode} {role}"),
                Some(part) => assert!(refusal.expect("refused").contains(part), "{part}"),
            }
        }
    }

    #[test]
    fn info_tells_what_hello_does_not() {
        let info = "# Server\r\nredis_version:6.0.1\r\nredis_mode:standalone\r\nrun_id:abc\r\n\
                    # Memory\r\nmaxmemory_policy:volatile-lru\r\n\
                    # Persistence\r\naof_enabled:1\r\n# Replication\r\nrole:slave\r\n";
        let server = Server::read(&Value::Nil, &bulk(info));
        assert_eq!(server.run_id.as_deref(), Some("abc"));
        assert_eq!(server.append_only, Some(true));
        assert_eq!(server.eviction(), Some("volatile-lru"));
        let kept = Server::read(&Value::Nil, &bulk("maxmemory_policy:noeviction\r\n"));
        assert_eq!(kept.eviction(), None);
        assert!(server.refusal().expect("a replica").contains("replica"));
    }

    #[test]
    fn what_nobody_tells_counts_as_fine() {
        let server = Server::read(&Value::Nil, &Value::Nil);
        assert_eq!(server, Server::default());
        assert_eq!(server.refusal(), None);
    }
}
