//! What a running process has in memory.

/// Memory of a process, in KiB.
///
/// # Panics
/// If it does not run.
#[must_use]
pub fn resident_kib(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"));
    let status = status.expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let words = line.and_then(|line| line.split_whitespace().next());
    let kib = words.and_then(|word| word.parse().ok());
    kib.expect("a process has memory")
}
