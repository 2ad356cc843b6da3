//! Identities: the task's own, and the client's key for a create that may be repeated.

use std::fmt;

use uuid::Uuid;

use super::FieldError;

/// Namespace of task ids that come from an idempotency key. Changing it forgets every key.
const IDEMPOTENCY_NAMESPACE: Uuid = Uuid::from_u128(0x6d0c_7a52_90f1_5c0e_8f3b_53f2_1f6f_4a11);

/// A task's identity, 1 to 128 unreserved URL characters (`A-Z a-z 0-9 - . _ ~`).
///
/// The set is what every backend can carry in a key without escaping. An id is never reused, not
/// even after its task was deleted.
///
/// ```
/// use task_core::domain::TaskId;
/// assert!(TaskId::parse("0970f17a-0bfc-4705-925f-febe243dbe99").is_ok());
/// assert!(TaskId::parse("a||b").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(Box<str>);

impl TaskId {
    /// Longest id, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// Reads an id.
    ///
    /// # Errors
    /// Names the limit or the first character that an id cannot have.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        if text.is_empty() || text.len() > Self::MAX_BYTES {
            return Err(FieldError::new(
                "id",
                format!(
                    "an id has 1 to {} bytes, this one has {}",
                    Self::MAX_BYTES,
                    text.len()
                ),
            ));
        }
        let foreign = |c: &char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~'));
        match text.chars().find(foreign) {
            Some(c) => Err(FieldError::new(
                "id",
                format!("{c:?} is not one of A-Z a-z 0-9 - . _ ~"),
            )),
            None => Ok(Self(text.into())),
        }
    }

    /// The id of the task that a create with this key makes, the same on every backend.
    #[must_use]
    pub fn for_idempotency_key(key: &IdempotencyKey) -> Self {
        Self(
            Uuid::new_v5(&IDEMPOTENCY_NAMESPACE, key.as_str().as_bytes())
                .to_string()
                .into(),
        )
    }

    /// A fresh time-ordered id (UUIDv7) from a time in milliseconds and ten random bytes.
    ///
    /// Neighbours in time are neighbours in an index, which keeps the embedded store's writes
    /// sequential.
    #[must_use]
    pub fn from_time(unix_ms: u64, random: &[u8; 10]) -> Self {
        let uuid = uuid::Builder::from_unix_timestamp_millis(unix_ms, random).into_uuid();
        Self(uuid.to_string().into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A client's name for one create: 1 to 255 visible ASCII characters or spaces.
///
/// *Source:* `draft-ietf-httpapi-idempotency-key-header-07`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(Box<str>);

impl IdempotencyKey {
    /// Longest key, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// Reads a key as it stands in the header.
    ///
    /// # Errors
    /// Names the limit or the character that a key cannot have.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        const FIELD: &str = "Idempotency-Key";
        if text.is_empty() || text.len() > Self::MAX_BYTES {
            return Err(FieldError::new(
                FIELD,
                format!(
                    "a key has 1 to {} bytes, this one has {}",
                    Self::MAX_BYTES,
                    text.len()
                ),
            ));
        }
        match text.chars().find(|c| !c.is_ascii_graphic() && *c != ' ') {
            Some(c) => Err(FieldError::new(
                FIELD,
                format!("{c:?} is not a visible ASCII character"),
            )),
            None => Ok(Self(text.into())),
        }
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_only_characters_that_every_backend_carries() {
        for bad in ["", "a b", "a/b", "a||b", "é", "{x}", &"x".repeat(129)] {
            assert!(TaskId::parse(bad).is_err(), "{bad:?} was accepted");
        }
        assert!(TaskId::parse(&"x".repeat(128)).is_ok());
    }

    #[test]
    fn the_id_of_a_key_is_pinned() {
        let key = IdempotencyKey::parse("order-7").expect("a valid key");
        // A change of this value would make every replay after an upgrade create a second task.
        assert_eq!(
            TaskId::for_idempotency_key(&key).as_str(),
            "1b5f4515-468d-5ed2-b893-05f64534cfa6"
        );
    }

    #[test]
    fn later_ids_sort_after_earlier_ones() {
        let early = TaskId::from_time(1_795_228_713_000, &[0xff; 10]);
        let late = TaskId::from_time(1_795_228_713_001, &[0; 10]);
        assert!(early < late);
    }
}
