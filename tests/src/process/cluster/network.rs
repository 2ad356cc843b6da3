//! A network and a mount namespace for a whole cluster: nothing in it is seen from outside.
//!
//! So the names, addresses and ports are those of any cluster, and no port of the machine is taken. What a
//! cluster's DNS and proxy would answer stands in `/etc/hosts`, with addresses on the loopback device.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The first address of the services, which is the API server's in every cluster.
pub(super) const API_SERVER: &str = "10.96.0.1";
pub(super) const SENTRY: &str = "10.77.0.11";
pub(super) const OPERATOR: &str = "10.77.0.12";
pub(super) const INJECTOR: &str = "10.77.0.13";
pub(super) const PLACEMENT: &str = "10.77.0.14";
pub(super) const REDIS: &str = "10.77.0.20";

/// The services of the cluster, by the names that Dapr's programs and our components know.
const SERVICES: [(&str, &str); 6] = [
    (API_SERVER, "kubernetes.default.svc"),
    (SENTRY, "dapr-sentry.dapr-system.svc.cluster.local"),
    (OPERATOR, "dapr-api.dapr-system.svc.cluster.local"),
    (INJECTOR, "dapr-sidecar-injector.dapr-system.svc"),
    (
        PLACEMENT,
        "dapr-placement-server.dapr-system.svc.cluster.local",
    ),
    (REDIS, "redis-master.default.svc.cluster.local"),
];

/// Starts this program again, in namespaces of its own and with these arguments; comes back only if it cannot.
///
/// No privilege is needed where users may make namespaces.
#[must_use]
pub fn enter<A: AsRef<OsStr>>(arguments: &[A]) -> io::Error {
    let this = match std::env::current_exe() {
        Ok(this) => this,
        Err(error) => return error,
    };
    Command::new("unshare")
        .args(["--map-root-user", "--net", "--mount"])
        .arg(this)
        .args(arguments)
        .exec()
}

/// Gives the namespaces what a node has.
///
/// # Panics
/// If this process is not in a network of its own, or the system refuses.
pub(super) fn prepare() {
    assert!(is_alone(), "a cluster needs a network of its own: enter");
    run("ip", &["link", "set", "lo", "up"]);
    let mut hosts = "127.0.0.1 localhost\n".to_owned();
    for (address, name) in SERVICES {
        run(
            "ip",
            &["address", "add", &format!("{address}/32"), "dev", "lo"],
        );
        hosts.push_str(&format!("{address} {name}\n"));
    }
    private_run(&[]);
    fs::write("/run/hosts", hosts).expect("the new folder can be written");
    run("mount", &["--bind", "/run/hosts", "/etc/hosts"]);
}

/// An empty `/run`, where programs look for their secrets, seen by nobody else. `before` names a namespace.
pub(super) fn private_run(before: &[&str]) {
    let words = [before, &["mount", "-t", "tmpfs", "tmpfs", "/run"]].concat();
    run(words[0], &words[1..]);
}

/// Runs a command to its end.
///
/// # Panics
/// If it fails; the message is its own.
pub(super) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments:?} fails: {error}"
    );
}

/// Whether there is no network device but loopback.
fn is_alone() -> bool {
    let devices = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    // Two lines of headings, then a device each: `name: numbers`.
    let mut names = devices
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next());
    names.all(|name| name.trim() == "lo")
}
