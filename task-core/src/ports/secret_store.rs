//! The secret store port: one secret text under one name, never shown.

use std::fmt::{self, Debug};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::PortError;
use crate::domain::FieldError;

/// A secret text, never empty, never shown, and wiped when dropped.
///
/// `Debug` shows three stars. It has no `Display`, no comparison and no serialized form, so that the
/// only ways out are [`expose`](Self::expose), which is easy to find in a review, and
/// [`matches`](Self::matches). Copies that were made before, by a parser or by the environment, are
/// not wiped.
///
/// ```
/// use task_core::ports::Secret;
/// let secret = Secret::new("hunter2").unwrap();
/// assert_eq!(format!("{secret:?}"), "Secret(***)");
/// assert_eq!(secret.expose(), "hunter2");
/// assert!(secret.matches("hunter2") && !secret.matches("hunter3"));
/// assert!(Secret::new("").is_none());
/// ```
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes a text; an empty one is no secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let secret = SecretString::from(text.into());
        (!secret.expose_secret().is_empty()).then_some(Self(secret))
    }

    /// The text itself, for the call that needs it and for nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Compares in a time that depends on the lengths only, never on the content.
    #[must_use]
    pub fn matches(&self, candidate: &str) -> bool {
        self.expose().as_bytes().ct_eq(candidate.as_bytes()).into()
    }
}

impl Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// What a secret is called: `NAME`, or `NAME/KEY` where one secret holds several values.
///
/// Each of the two has 1 to 253 of `A-Z a-z 0-9 - . _ :`; between colons stands something other than
/// `.` that does not begin with `..`. That is what Kubernetes allows, and the `:` of nested keys in a
/// file. Without a key, the value is the one that is called like the secret.
///
/// The rule comes from Dapr, which answers a map for a name: `redis/password` is the entry
/// `password` of the answer for `redis`, as from `kubernetes-secrets`, and `api-key` is the entry
/// `api-key` of the answer for `api-key`, as from a store that has one value a name.
///
/// ```
/// use task_core::ports::SecretName;
/// let name = SecretName::parse("redis/password").unwrap();
/// assert_eq!((name.name(), name.key()), ("redis", Some("password")));
/// assert_eq!(SecretName::parse("api-key").unwrap().key(), None);
/// assert!(SecretName::parse("../passwd").is_err());
/// ```
///
/// *Source:* <https://docs.dapr.io/reference/api/secrets_api/>.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName {
    name: Box<str>,
    key: Option<Box<str>>,
}

impl SecretName {
    /// Longest part of a name, in bytes.
    pub const MAX_PART_BYTES: usize = 253;

    /// Reads a name.
    ///
    /// # Errors
    /// Names the limit or the first character that a name cannot have.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        match text.split_once('/') {
            Some((name, key)) => Ok(Self {
                name: part(name)?,
                key: Some(part(key)?),
            }),
            None => Ok(Self {
                name: part(text)?,
                key: None,
            }),
        }
    }

    /// What a store is asked for.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which of the secret's values is meant, if it says so.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }
}

fn part(text: &str) -> Result<Box<str>, FieldError> {
    let refuse = |detail| Err(FieldError::new("secret", detail));
    if text.is_empty() || text.len() > SecretName::MAX_PART_BYTES {
        return refuse(format!(
            "a name and a key have 1 to {} bytes, this one has {}",
            SecretName::MAX_PART_BYTES,
            text.len()
        ));
    }
    let foreign = |c: &char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':'));
    if let Some(c) = text.chars().find(foreign) {
        return refuse(format!("{c:?} is not one of A-Z a-z 0-9 - . _ :"));
    }
    // A path below a directory may be made of it.
    if let Some(bad) = text
        .split(':')
        .find(|one| matches!(*one, "" | ".") || one.starts_with(".."))
    {
        return refuse(format!("{bad:?} is not a name, and none begins with .."));
    }
    Ok(text.into())
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.key {
            Some(key) => write!(f, "/{key}"),
            None => Ok(()),
        }
    }
}

/// Answers secrets by name.
///
/// Names that differ only in case or in `-`, `.` and `_` are the same where a backend cannot tell
/// them apart, and so are `a/b` and `a:b`: call no two secrets like that. How soon a changed secret
/// is seen is for the adapter to say.
///
/// # Contract
/// - **SEC1** A secret MUST be answered as it was stored, byte for byte. One line end after the last
///   line of a file that holds nothing else belongs to the file.
///   (`a_secret_is_answered_unchanged`)
/// - **SEC2** A name MUST NOT be answered with what another name holds, be the other one longer,
///   shorter, or another key of the same secret; also while many are asked for at once.
///   (`each_name_has_its_own_value`, `racing_readers_get_their_own_values`)
/// - **SEC3** A name that nothing is stored under MUST be refused as `NotFound`, in a text that names
///   it. (`a_missing_secret_is_not_found_by_its_name`)
/// - **SEC4** An empty value MUST count as missing: a token that was forgotten protects nothing.
///   (`an_empty_secret_is_missing`)
/// - **SEC5** An error MUST NOT show a value, neither as text, nor for debugging, nor in its sources.
///   (`no_error_shows_a_value`)
///
/// # Errors
/// `NotFound` as above; `Denied` when the store may not be read, or could be read by others;
/// `Corrupt` when what is stored is no text; `Unavailable` and `Timeout` when a later attempt may
/// succeed.
///
/// # Cancel safety
/// A call changes nothing and may be dropped at any time.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait SecretStore: Debug + Send + Sync + 'static {
    /// Answers the secret of this name.
    async fn get(&self, name: &SecretName) -> Result<Secret, PortError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_every_backend_can_carry() {
        let longest = "x".repeat(SecretName::MAX_PART_BYTES);
        for good in [
            "a",
            "redisPassword",
            "db/.dockerconfigjson",
            "a:b/c_d",
            &longest,
        ] {
            let name = SecretName::parse(good).expect(good);
            assert_eq!(name.to_string(), good);
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a/b/c",
            ".",
            "..",
            "a/..",
            "..a",
            "a b",
            "ä",
            "a\0",
            "a\\b",
            ":a",
            "a::b",
            "a:",
            "a:..:b",
            "a/b:.",
            &format!("{longest}x"),
        ] {
            assert!(SecretName::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_secret_matches_itself_alone() {
        let secret = Secret::new("hunter2").expect("not empty");
        assert!(secret.matches("hunter2"));
        for other in ["", "hunter", "hunter22", "Hunter2", "hunter3"] {
            assert!(!secret.matches(other), "{other:?} matches");
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::new("hunter2").expect("not empty");
        let shown = format!("{secret:?} {:#?} {:?}", secret, Some(secret.clone()));
        assert!(!shown.contains("hunter"), "{shown}");
    }
}
