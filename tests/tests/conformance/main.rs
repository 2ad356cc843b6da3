//! Every backend of the table against every case, and every broken adapter against the case that
//! has to reject it.

use libtest_mimic::Arguments;

/// More than there are cores, because most trials wait.
const THREADS: usize = 8;

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let mut trials = task_tests::trials::of_table();
    trials.extend(task_tests::trials::of_broken_adapters());
    libtest_mimic::run(&arguments, trials).exit();
}
