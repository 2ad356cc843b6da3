//! What a process talks to, as the kernel is asked for it: no connection is too short to be seen.
//!
//! `strace` stops the process at each of its calls about sockets, from its first instruction to its end, with
//! all its threads and all that it starts. What would go past these calls, `io_uring`, is reported as well.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::TestDirectory;
use super::installed::installed;

/// Calls that say whom they want to reach.
const TOWARDS: [&str; 4] = ["connect(", "sendto(", "sendmsg(", "sendmmsg("];

/// Where the C library asks for names of users and hosts, if a cache of them runs; it tries on any machine.
const NAME_CACHE: &str = "sun_path=\"/var/run/nscd/socket\"";

/// A watch over the sockets of one process.
#[derive(Debug)]
pub struct Watch {
    directory: TestDirectory,
    program: PathBuf,
}

/// The addresses of a process that has ended.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Whom it wanted to reach but the cache of names: `IP:PORT`, or the call where it is nothing of the kind.
    pub towards: BTreeSet<String>,
    /// Where it waited for others.
    pub listens: BTreeSet<String>,
    /// How many of its calls named somebody to reach.
    pub attempts: usize,
}

impl Watch {
    /// A watch that has not seen anything.
    ///
    /// # Panics
    /// If there is no `strace` and it cannot be had.
    #[must_use]
    pub fn new() -> Self {
        Self {
            directory: TestDirectory::new("sockets"),
            program: installed("strace"),
        }
    }

    /// Words that stand before those of the process. It keeps its parent and its id.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let mut words = vec![self.program.display().to_string()];
        // Payloads are left out: they may hold tokens.
        let options = "-D -f -q -s 0 -e signal=none -e trace=%network,io_uring_setup -o";
        words.extend(options.split(' ').map(str::to_owned));
        words.push(self.report().display().to_string());
        words
    }

    fn report(&self) -> PathBuf {
        self.directory.path().join("report")
    }

    /// What the process has done, once it has ended; `None` before.
    ///
    /// # Panics
    /// If nothing was watched.
    #[must_use]
    pub fn seen(&self, id: u32) -> Option<Sockets> {
        let report = fs::read_to_string(self.report()).expect("the watch writes a report");
        let mut lines = report.lines();
        let of_process = |line: &str| line.split_whitespace().next() == Some(&*id.to_string());
        let ended = lines.any(|line| of_process(line) && line.contains("+++ "));
        ended.then(|| Sockets::in_report(&report))
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}

impl Sockets {
    fn in_report(report: &str) -> Self {
        let mut sockets = Self::default();
        for line in report.lines() {
            // The process that made the call stands first; the end of a call repeats its beginning.
            let call = line
                .trim_start()
                .split_once(' ')
                .map_or("", |(_, call)| call);
            let call = call.trim_start();
            let named = call.contains("sa_family=") && !call.contains(NAME_CACHE);
            if call.starts_with("io_uring_setup(") {
                sockets.towards.insert(call.to_owned());
            } else if call.starts_with("bind(") {
                sockets.listens.insert(address_in(call));
            } else if named && TOWARDS.iter().any(|name| call.starts_with(name)) {
                sockets.attempts += 1;
                sockets.towards.insert(address_in(call));
            }
        }
        sockets
    }
}

/// `IP:PORT` in a call, or the call itself if it names another kind of address.
fn address_in(call: &str) -> String {
    let between = |before: &str, after: char| {
        let (_, rest) = call.split_once(before)?;
        rest.split(after).next()
    };
    let port = between("_port=htons(", ')');
    let ip = between("sin_addr=inet_addr(\"", '"');
    let ip = ip.or_else(|| between("inet_pton(AF_INET6, \"", '"'));
    match (ip, port) {
        (Some(ip), Some(port)) => format!("{ip}:{port}"),
        _ => call.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::process::Command;

    use super::*;
    use crate::wait::until;

    /// What the shell does, and what is seen of it.
    async fn watched(script: &str) -> Sockets {
        let watch = Watch::new();
        let words = watch.words();
        let mut shell = Command::new(&words[0]);
        shell.args(&words[1..]).args(["bash", "-c", script]);
        // Without it, the shell looks its user up through the cache of names, which is no peer of it.
        shell.env_remove("SHELL");
        let mut shell = shell.spawn().unwrap();
        shell.wait().unwrap();
        until("the report is complete", async || watch.seen(shell.id())).await
    }

    #[tokio::test]
    async fn the_shortest_connection_and_a_single_datagram_are_seen() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let udp = udp.local_addr().unwrap();
        // In processes of their own, and one of them to where nobody listens any more.
        let script = format!(
            "(: > /dev/tcp/127.0.0.1/{}) 2> /dev/null; (echo x > /dev/udp/127.0.0.1/{}); true",
            tcp.port(),
            udp.port()
        );
        let seen = watched(&script).await;
        assert_eq!(
            seen.towards,
            BTreeSet::from([tcp, udp].map(|one| one.to_string()))
        );
        assert_eq!(seen.attempts, 2);
        let seen = watched("true").await;
        assert_eq!((seen.attempts, seen.listens.len()), (0, 0));
    }

    #[test]
    fn what_is_no_address_of_a_network_is_shown_as_the_call_that_names_it() {
        let report = r#"7 connect(3, {sa_family=AF_INET6, sin6_port=htons(53), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "::1", &sin6_addr), sin6_scope_id=0}, 28 <unfinished ...>
7 <... connect resumed>) = 0
8 sendto(5, ""..., 9, MSG_NOSIGNAL, NULL, 0) = 9
9 connect(4, {sa_family=AF_UNIX, sun_path="/run/x"}, 110) = 0
9 bind(4, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("0.0.0.0")}, 16) = 0
12 io_uring_setup(8, {flags=0}) = 4
"#;
        let seen = Sockets::in_report(report);
        let towards: Vec<_> = seen.towards.iter().map(String::as_str).collect();
        let unix = r#"connect(4, {sa_family=AF_UNIX, sun_path="/run/x"}, 110) = 0"#;
        assert_eq!(
            towards,
            ["::1:53", unix, "io_uring_setup(8, {flags=0}) = 4"]
        );
        assert_eq!(seen.listens, BTreeSet::from(["0.0.0.0:80".to_owned()]));
        assert_eq!(seen.attempts, 2);
    }
}
