//! The sidecar's adapters against every case, on the real Dapr.
//!
//! Cargo runs it when it is named: `cargo test -p task-tests --all-features --test dapr_conformance`.

use libtest_mimic::{Arguments, Trial};
use task_tests::backends::DAPR_TABLE;
use task_tests::backends::dapr::NOT_KEPT;
use task_tests::trials::{of_case_not_kept, of_rows};

/// More than there are cores, because most trials wait.
const THREADS: usize = 4;

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    libtest_mimic::run(&arguments, trials()).exit();
}

/// Every case of the table; those that are known not to be kept are shown not to be.
fn trials() -> Vec<Trial> {
    let mut trials = of_rows(DAPR_TABLE);
    for (name, case, why) in NOT_KEPT {
        let row = DAPR_TABLE.iter().find(|row| row.name == *name);
        let bus = row.and_then(|row| row.event_bus);
        let bus = bus.unwrap_or_else(|| panic!("the table has no bus {name}"));
        let kept = format!("{name}::event_bus::{case}");
        trials.retain(|trial| trial.name() != kept);
        trials.push(of_case_not_kept(name, bus, case, why));
    }
    trials
}
