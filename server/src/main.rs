//! The `task-server` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    task_server::cli::main()
}
