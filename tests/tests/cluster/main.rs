//! SC-1 on a real Kubernetes API server with the real Dapr: what an operator applies becomes pods with sidecars.
//!
//! Cargo runs it when it is named: `cargo test -p task-tests --all-features --test cluster`. It builds Kubernetes and
//! Dapr on first use, which takes a quarter of an hour, and prints a line for each check. What needs a kubelet is
//! printed as NOT RUN.

mod image;
mod pods;
mod resources;

use std::path::Path;
use std::time::Instant;

use task_tests::criteria::{Criterion, Outcome};
use task_tests::process::cluster::{self, Cluster};
use task_tests::process::program;

/// The argument by which this program knows that it is in the cluster's network; the server's program follows it.
const INSIDE: &str = "--inside";

fn main() {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if let [first, server] = arguments.as_slice()
        && first == INSIDE
    {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
        return runtime.block_on(check(Path::new(server)));
    }
    // Out here is what they may have to be built from.
    cluster::prepare();
    let error = cluster::enter(&[INSIDE.as_ref(), program().as_os_str()]);
    panic!("unshare cannot be run: {error}");
}

#[expect(clippy::print_stdout, reason = "the lines are what it is for")]
async fn check(server: &Path) {
    let start = Instant::now();
    let cluster = Cluster::start().await;
    let mut criterion = Criterion::new("SC-1");
    resources::check(cluster.kubectl(), &mut criterion).await;
    let pods = pods::check(&cluster, server, &mut criterion).await;
    let seconds = start.elapsed().as_secs_f32();
    println!("{} in {seconds:.1} s", criterion.summary());
    // Here, so that a failure keeps the logs of the pods and of the cluster.
    assert_eq!(criterion.count(Outcome::Fail), 0, "SC-1 fails");
    drop(pods);
}
