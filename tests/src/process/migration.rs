//! `task-server migration` as a user runs it.

use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use super::{TaskServer, program};
use crate::config;

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it told besides.
    pub stderr: String,
}

impl Said {
    /// What it printed, if it ended with this code.
    ///
    /// # Panics
    /// If it ended with another one.
    pub fn with(&self, code: i32) -> &str {
        assert_eq!(self.code, code, "{}\n{}", self.stdout, self.stderr);
        &self.stdout
    }

    /// What it printed, as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }
}

/// Runs `task-server migration` with these words against a service.
///
/// # Panics
/// If it does not end by itself.
pub async fn migration(server: &TaskServer, words: &str) -> Said {
    migration_at(&server.admin(), words).await
}

/// Runs `task-server migration` with these words against an address.
///
/// # Panics
/// If it does not end by itself.
pub async fn migration_at(admin: &str, words: &str) -> Said {
    let mut command = Command::new(program());
    for name in config::VARIABLES {
        command.env_remove(name);
    }
    let output = command
        .args(["migration", "--admin", admin])
        .args(words.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .await
        .expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("it prints UTF-8");
    Said {
        code: output.status.code().expect("it ends by itself"),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// The stages of a port that have records, the furthest first, with commas between them.
///
/// # Panics
/// If the service does not say.
pub async fn stages(server: &TaskServer, port: &str) -> String {
    let status = migration(server, "status --json").await;
    status.with(0);
    let status = status.json();
    let mut ports = status["ports"].as_array().into_iter().flatten();
    let port = ports.find(|found| found["port"] == port).expect("it moves");
    let stages = port["stages"].as_array().into_iter().flatten();
    let stages = stages.filter_map(|one| one["stage"].as_str());
    stages.collect::<Vec<_>>().join(",")
}
