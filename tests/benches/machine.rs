//! On what the numbers were measured.

use std::path::Path;

use serde_json::{Value, json};
use task_core::ports::{Clock, SystemClock};

use crate::options::{Length, Options};

/// File systems that keep nothing, so that a sync costs nothing.
const VOLATILE: [&str; 2] = ["tmpfs", "ramfs"];

/// The machine, and how it is used.
#[derive(Debug)]
pub(crate) struct Machine {
    date: String,
    cpu: String,
    cores: usize,
    file_system: String,
    load: String,
    workers: usize,
    length: Length,
}

impl Machine {
    /// Looks around; what the system does not tell is `unknown`.
    pub(crate) fn here(options: &Options) -> Self {
        let unknown = || "unknown".to_owned();
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo").lines().find_map(|line| {
            Some(line.strip_prefix("model name")?.split_once(':')?.1.trim())?
                .to_owned()
                .into()
        });
        let load = read("/proc/loadavg");
        let load = load.split_whitespace().next().map(str::to_owned);
        Self {
            date: SystemClock.now().to_string(),
            cpu: cpu.unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            file_system: file_system(&std::env::temp_dir(), &read("/proc/self/mounts"))
                .unwrap_or_else(unknown),
            load: load.unwrap_or_else(unknown),
            workers: options.workers,
            length: options.length,
        }
    }

    /// One line about it.
    pub(crate) fn line(&self) -> String {
        let length = match self.length {
            Length::Short => "short run",
            Length::Full => "full run",
        };
        format!(
            "{} · {} · {} cores · {} runtime worker(s) a server, 1 load thread · data on {} · \
             load average {} at the start · {length}",
            self.date, self.cpu, self.cores, self.workers, self.file_system, self.load
        )
    }

    /// Why the numbers may mean little.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if VOLATILE.contains(&self.file_system.as_str()) {
            warnings.push(format!(
                "a sync costs nothing on {}: set TMPDIR to a disk for P4 and P5",
                self.file_system
            ));
        }
        if cfg!(debug_assertions) {
            warnings.push("not optimised: run it by cargo bench".to_owned());
        }
        warnings
    }

    /// The same as JSON.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "date": self.date,
            "cpu": self.cpu,
            "cores": self.cores,
            "file_system": self.file_system,
            "load_average": self.load,
            "workers": self.workers,
            "short": self.length == Length::Short,
        })
    }
}

/// The type of the file system that holds a path.
fn file_system(path: &Path, mounts: &str) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    mounts
        .filter(|(mounted, _)| path.starts_with(mounted))
        .max_by_key(|(mounted, _)| mounted.len())
        .map(|(_, kind)| kind.to_owned())
}
