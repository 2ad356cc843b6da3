//! Every backend of the table against every case, also in each stage of a move between two of them, and every
//! broken adapter against the case that has to reject it.

use libtest_mimic::Arguments;
use task_tests::backends::{BUS_MOVES, STORE_MOVES};
use task_tests::trials;

/// More than there are cores, because most trials wait.
const THREADS: usize = 8;

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let mut all = trials::of_table();
    all.extend(trials::of_store_moves(STORE_MOVES));
    all.extend(trials::of_bus_moves(BUS_MOVES, &[]));
    all.extend(trials::of_broken_adapters());
    trials::tell_left_out(&arguments, STORE_MOVES, BUS_MOVES);
    libtest_mimic::run(&arguments, all).exit();
}
