//! Foreign clients: the libraries that Python services use, in programs of ours.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::OnceCell;

use super::installed::installed;

/// Longest run of a script.
const DEADLINE: Duration = Duration::from_secs(120);

/// A Python environment with the packages of a file in `tests/python`.
#[derive(Debug)]
pub struct Python {
    interpreter: PathBuf,
}

impl Python {
    /// The environment with the clients of Redis and Kafka: `requirements.txt`.
    ///
    /// # Panics
    /// If it cannot be made.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Python> = OnceCell::const_new();
        SHARED.get_or_init(async || Self::find("python")).await
    }

    /// The environment with the SDK of Dapr: `requirements-dapr.txt`.
    ///
    /// # Panics
    /// If it cannot be made.
    pub async fn with_dapr() -> &'static Self {
        static SHARED: OnceCell<Python> = OnceCell::const_new();
        let find = async || Self::find("python-dapr");
        SHARED.get_or_init(find).await
    }

    fn find(name: &str) -> Self {
        Self {
            interpreter: installed(name),
        }
    }

    /// The interpreter's path.
    #[must_use]
    pub fn interpreter(&self) -> &Path {
        &self.interpreter
    }

    /// Runs a script of `tests/python` and answers what it printed.
    ///
    /// # Panics
    /// If it fails or does not end within two minutes; the message has what it wrote.
    pub async fn run(&self, script: &str, arguments: &[&str]) -> String {
        self.run_with(script, &[], arguments).await
    }

    /// Runs a script with variables of its environment.
    ///
    /// # Panics
    /// As [`Self::run`] does.
    pub async fn run_with(
        &self,
        script: &str,
        variables: &[(&str, &str)],
        arguments: &[&str],
    ) -> String {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
        let run = Command::new(&self.interpreter)
            .arg(folder.join(script))
            .args(arguments)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(DEADLINE, run)
            .await
            .unwrap_or_else(|_| panic!("{script} does not end"))
            .expect("the interpreter runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script} fails:\n{error}");
        String::from_utf8(output.stdout).expect("the script prints UTF-8")
    }
}
