//! The real `kubectl`, as an operator of the cluster runs it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

/// `kubectl` with an administrator's rights.
#[derive(Debug, Clone)]
pub struct Kubectl {
    words: Vec<OsString>,
    folder: PathBuf,
}

impl Kubectl {
    pub(super) fn new(kube: &Path, configuration: &Path, folder: &Path) -> Self {
        let mut words: Vec<OsString> = vec![kube.into(), "kubectl".into()];
        words.extend(["--kubeconfig".into(), configuration.into()]);
        words.extend(["--cache-dir".into(), folder.join("cache").into()]);
        Self {
            words,
            folder: folder.to_owned(),
        }
    }

    /// Runs it in the folder of the workspace and answers what it prints.
    ///
    /// # Panics
    /// If it fails.
    pub async fn run(&self, arguments: &[&str]) -> String {
        let answer = self.try_run(arguments).await;
        answer.unwrap_or_else(|error| panic!("kubectl {}: {error}", arguments.join(" ")))
    }

    /// The same.
    ///
    /// # Errors
    /// What it says when it fails.
    pub async fn try_run(&self, arguments: &[&str]) -> Result<String, String> {
        let output = tokio::process::Command::new(&self.words[0])
            .args(&self.words[1..])
            .args(arguments)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    /// Runs it for JSON.
    ///
    /// # Panics
    /// If it fails.
    pub async fn json(&self, arguments: &[&str]) -> Value {
        let answer = self.run(&[arguments, &["-o", "json"]].concat()).await;
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// Applies a resource that no file has.
    pub(super) async fn apply(&self, name: &str, resource: &Value) {
        let file = self.folder.join(format!("{name}.json"));
        let written = std::fs::write(&file, resource.to_string());
        written.expect("a test directory can be written");
        self.run(&["apply", "-f", &file.display().to_string()])
            .await;
    }
}
