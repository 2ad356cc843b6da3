//! Where a state store keeps a value, and what it calls the value's version.

use std::fmt;

use bytes::Bytes;

use super::{ErrorKind, PortError};

/// Largest value that a store takes, in bytes. There is no empty one: some backends read it as missing.
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;

/// Longest key id, in bytes.
pub const MAX_KEY_BYTES: usize = 512;

/// A namespace of keys, for example `task`. Each adapter renders it in its own layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    name: &'static str,
    is_listed: bool,
}

impl Kind {
    /// The tasks of the Task API.
    pub const TASK: Self = Self::new("task");
    /// The marks of events that a consumer has finished.
    pub const SEEN: Self = Self::new("seen");
    /// Who may do something alone.
    pub const LEASE: Self = Self::new("lease");
    /// Since when a consumer group is there.
    pub const GROUP: Self = Self::new("group");

    /// A namespace of a caller's own, in lower-case letters.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        let is_listed = false;
        Self { name, is_listed }
    }

    /// The same for few keys that are looked for often.
    ///
    /// A backend that finds the keys of a kind only by looking at all it has keeps a list of these. So nobody may write
    /// one but by a [`StateStore`](super::StateStore) of that backend, and a kind that has keys never becomes a listed one.
    #[must_use]
    pub const fn listed(name: &'static str) -> Self {
        let is_listed = true;
        Self { name, is_listed }
    }

    /// The namespace as text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.name
    }

    /// Whether a backend should keep a list of its keys.
    #[must_use]
    pub fn is_listed(self) -> bool {
        self.is_listed
    }
}

/// Where a value is stored: a kind, and an id of 1 to [`MAX_KEY_BYTES`] bytes within it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The namespace.
    pub kind: Kind,
    /// The id within the namespace.
    pub id: Box<str>,
}

impl Key {
    /// Names a value.
    #[must_use]
    pub fn new(kind: Kind, id: impl Into<Box<str>>) -> Self {
        Self {
            kind,
            id: id.into(),
        }
    }

    /// Refuses an id beyond the port's limits.
    ///
    /// # Errors
    /// `Invalid`, with the limit and the size.
    pub fn check(&self, backend: &'static str, operation: &'static str) -> Result<(), PortError> {
        if (1..=MAX_KEY_BYTES).contains(&self.id.len()) {
            return Ok(());
        }
        Err(
            PortError::new(ErrorKind::Invalid, backend, operation).context(format!(
                "a key id has 1 to {MAX_KEY_BYTES} bytes, this one has {}",
                self.id.len()
            )),
        )
    }

    /// Refuses an id or a value beyond the port's limits.
    ///
    /// # Errors
    /// `Invalid`, with the limit and the size.
    pub fn check_with(
        &self,
        value: &[u8],
        backend: &'static str,
        operation: &'static str,
    ) -> Result<(), PortError> {
        self.check(backend, operation)?;
        if (1..=MAX_VALUE_BYTES).contains(&value.len()) {
            return Ok(());
        }
        Err(
            PortError::new(ErrorKind::Invalid, backend, operation).context(format!(
                "a value has 1 to {MAX_VALUE_BYTES} bytes, this one has {}",
                value.len()
            )),
        )
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.name, self.id)
    }
}

/// A store's own version of a value. Opaque: compare it, and hand it back, nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ETag(Box<str>);

impl ETag {
    /// Wraps what the backend calls the version.
    #[must_use]
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The version as the backend wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A value and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The bytes, as they were put.
    pub value: Bytes,
    /// Their version.
    pub etag: ETag,
}
