//! Secrets from one JSON file.

use std::path::PathBuf;

use async_trait::async_trait;
use serde_json::{Map, Value};
use task_core::ports::{PortError, Secret, SecretName, SecretStore};

use super::error::{Failure, port_error};
use super::reading::{Access, read};

/// Answers secrets from a JSON file of names and strings, which Dapr can read as well.
///
/// `{"a": {"b": "x"}}` holds `a/b`, and `a:b` is another spelling of it. A component
/// `secretstores.local.file` has it under the first name if its `multiValued` is `"true"`, and under the
/// second one if not. What is not a string is refused, because Dapr would garble it.
///
/// On Unix a file that others may read or write is refused.
#[derive(Debug)]
pub struct FileSecretStore {
    path: PathBuf,
}

impl FileSecretStore {
    /// Answers from this file, which is opened for each call and may come later.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    async fn find(&self, name: &SecretName) -> Result<Secret, Failure> {
        let text = read(self.path.clone(), Access::OwnerAndGroup).await?;
        let root: Map<String, Value> = serde_json::from_str(&text)?;
        let path = match name.key() {
            Some(key) => format!("{}:{key}", name.name()),
            None => name.name().to_owned(),
        };
        let mut found = Vec::new();
        collect(&root, &path, &mut found);
        match found[..] {
            [] => Err(Failure::Missing),
            [Value::String(text)] => Secret::new(text).ok_or(Failure::Missing),
            [Value::Object(_)] => Err(Failure::HasKeys),
            [_] => Err(Failure::NotAString),
            [..] => Err(Failure::Ambiguous),
        }
    }
}

/// Collects what has this path; a key may hold the separator itself.
fn collect<'a>(members: &'a Map<String, Value>, path: &str, found: &mut Vec<&'a Value>) {
    for (key, value) in members {
        match path.strip_prefix(key.as_str()) {
            Some("") => found.push(value),
            Some(rest) => {
                if let (Some(rest), Value::Object(members)) = (rest.strip_prefix(':'), value) {
                    collect(members, rest, found);
                }
            }
            None => {}
        }
    }
}

#[async_trait]
impl SecretStore for FileSecretStore {
    async fn get(&self, name: &SecretName) -> Result<Secret, PortError> {
        let found = self.find(name).await;
        let place = || format!("file {}", self.path.display());
        found.map_err(|failure| port_error("secrets file", name, &place(), failure))
    }
}
