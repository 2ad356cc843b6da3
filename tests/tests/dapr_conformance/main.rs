//! The sidecar's adapters against every case, also in each stage of a move to them, on the real Dapr.
//!
//! Cargo runs it when it is named: `cargo test -p task-tests --all-features --test dapr_conformance`.

use libtest_mimic::Arguments;
use task_tests::backends::dapr::NOT_KEPT;
use task_tests::backends::{DAPR_BUS_MOVES, DAPR_STORE_MOVES, DAPR_TABLE};
use task_tests::trials;

/// More than there are cores, because most trials wait.
const THREADS: usize = 4;

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    // Those that are known not to be kept are shown not to be.
    let mut all = trials::of_rows(DAPR_TABLE, NOT_KEPT);
    all.extend(trials::of_store_moves(DAPR_STORE_MOVES));
    all.extend(trials::of_bus_moves(DAPR_BUS_MOVES, NOT_KEPT));
    trials::tell_left_out(&arguments, DAPR_STORE_MOVES, DAPR_BUS_MOVES);
    libtest_mimic::run(&arguments, all).exit();
}
