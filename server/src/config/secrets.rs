//! Where secrets are.

use std::path::PathBuf;

/// The store that answers the secrets which `…_secret` keys name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// The variables `TASK_SECRET_…`.
    Environment,
    /// One JSON file of names and values.
    File(PathBuf),
    /// A directory with one file for each secret.
    Directory(PathBuf),
    /// A component of a Dapr sidecar. What the sidecar asks of its callers cannot be in there.
    Sidecar(Box<str>),
}

impl SecretSource {
    /// Reads `env`, `file:PATH`, `dir:PATH` or `dapr:COMPONENT`.
    ///
    /// # Errors
    /// Says what such a source must look like.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "env" => Ok(Self::Environment),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("dir", path)) if !path.is_empty() => Ok(Self::Directory(path.into())),
            Some(("dapr", component)) if !component.is_empty() => {
                Ok(Self::Sidecar(component.into()))
            }
            Some(_) | None => Err("must be env, file:PATH, dir:PATH or dapr:COMPONENT".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_the_environment_a_file_a_directory_or_a_component() {
        let parsed = SecretSource::parse;
        assert_eq!(parsed("env"), Ok(SecretSource::Environment));
        assert_eq!(parsed("file:/a:b"), Ok(SecretSource::File("/a:b".into())));
        assert_eq!(parsed("dir:."), Ok(SecretSource::Directory(".".into())));
        let component = SecretSource::Sidecar("kubernetes-secrets".into());
        assert_eq!(parsed("dapr:kubernetes-secrets"), Ok(component));
        for bad in [
            "",
            "env:",
            "file",
            "file:",
            "dir:",
            "dapr",
            "dapr:",
            "vault:x",
            "/run/secrets",
            "ENV",
        ] {
            assert!(parsed(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
