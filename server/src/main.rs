//! The `task-server` program.
fn main() {}
