//! The benches of the ports: ratios within one run, in one table.
//!
//! ```text
//! cargo bench -p task-tests                    everything, in full
//! cargo bench -p task-tests -- --short         everything, in seconds
//! cargo bench -p task-tests -- P4 P5           some of it
//! cargo bench -p task-tests -- --workers=2     with this many runtime workers on either side
//! ```
//!
//! A time or a rate of a shared machine is worth nothing alone. What is measured here is compared with
//! a probe of the same machine in the same minute: the disk's own sync, or an axum server that does
//! nothing. Subject and probe take turns, and the median of the rounds counts.
//! A disturbance slows a probe as well, so of its turns around a subject the better one counts; where
//! the probes differ too much between rounds, the row is `unsteady` instead of good or bad. A missed target is
//! reported and does not fail the run; a server that does not start, or answers wrongly, does.
//!
//! Data lies in the system's temporary directory (`TMPDIR`), on whose file system the result depends.

mod calls;
mod dapr;
mod direct;
mod durable;
mod figures;
mod kafka;
mod load;
mod machine;
mod memory;
mod moves;
mod noop;
mod options;
mod probe;
mod proc;
mod redis;
mod report;
mod server;
mod start;
mod store;
mod whole;

use std::error::Error;
use std::process::ExitCode;

use options::Options;
use report::{Report, Row};

/// What a bench answers: a row of the table, or why it could not run.
pub(crate) type BenchResult<T> = Result<T, Box<dyn Error>>;

/// One bench: its number in the table of targets, and how it is run.
type Bench = (&'static str, fn(&Options) -> BenchResult<Row>);

/// Every bench, in the order of the table.
const BENCHES: [Bench; 15] = [
    ("P1", redis::get_and_put),
    ("P2", redis::put_as_dapr),
    ("P3", direct::request_rate),
    ("P4", durable::create_rate),
    ("P5", durable::create_latency),
    ("P6", dapr::get_and_change),
    ("P7", whole::task_api),
    ("P8", kafka::publish_rate),
    ("P9", moves::off),
    ("P10", moves::dual),
    ("P11", moves::backfill),
    ("P16", start::start_to_ready),
    ("P17", memory::resident_memory),
    ("P18", redis::round_trips),
    ("STORE", store::create_rate),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [noop::ARGUMENT, workers] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..]
    {
        return noop::serve(workers);
    }
    let options = Options::parse(&arguments);
    // Built and on disk before anything is measured: a compiler's files slow down every sync.
    let _ = task_tests::process::program();
    probe::flush_all();
    let mut report = Report::begin(&options);
    for (number, run) in BENCHES {
        if !options.selects(number) {
            report.not_run(number, "not selected");
            continue;
        }
        report.running(number);
        match run(&options) {
            Ok(row) => report.add(row),
            Err(error) => report.failed(number, &*error),
        }
    }
    for unknown in options.unknown(&BENCHES.map(|(number, _)| number)) {
        report.not_run(unknown, "not part of this bench");
    }
    report.finish()
}
