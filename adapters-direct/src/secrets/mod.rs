//! Secrets from the environment, from a file, and from a directory of files.
//!
//! | store | `api-key` | `redis/password` |
//! | --- | --- | --- |
//! | [`EnvironmentSecretStore`] | `TASK_SECRET_API_KEY` | `TASK_SECRET_REDIS__PASSWORD` |
//! | [`FileSecretStore`] | `{"api-key": "…"}` | `{"redis": {"password": "…"}}` |
//! | [`DirectorySecretStore`] | `DIR/api-key` | `DIR/redis/password` |
//!
//! The file is the one that Dapr's `secretstores.local.file` reads, the directory is what Kubernetes
//! mounts; `redis:password` is another spelling of `redis/password`. Files are read for each call, so
//! that a changed secret is seen at once. The environment is as it was when the process began.
//!
//! *Source:*
//! <https://docs.dapr.io/reference/components-reference/supported-secret-stores/file-secret-store/>,
//! <https://kubernetes.io/docs/concepts/configuration/secret/>.

mod config;
mod directory;
mod environment;
mod error;
mod file;
mod reading;
#[cfg(test)]
mod tests;

pub use config::{MAX_FILE_BYTES, VARIABLE_PREFIX, Variables};
pub use directory::DirectorySecretStore;
pub use environment::EnvironmentSecretStore;
pub use file::FileSecretStore;
