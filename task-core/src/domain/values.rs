//! The values of a task's fields, each with its rule.

use std::fmt;

use super::FieldError;

/// A task's title, 1 to 200 Unicode scalar values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Title(String);

impl Title {
    /// Most Unicode scalar values a title may have.
    pub const MAX_CHARS: usize = 200;

    /// Checks a title that comes from a client.
    ///
    /// # Errors
    /// Names the limit and the length when the title is empty or too long.
    pub fn parse(text: String) -> Result<Self, FieldError> {
        match text.chars().count() {
            1..=Self::MAX_CHARS => Ok(Self(text)),
            chars => Err(FieldError::new(
                "title",
                format!(
                    "a title has 1 to {} characters, this one has {chars}",
                    Self::MAX_CHARS
                ),
            )),
        }
    }

    /// Takes a title that a store already holds, whatever its length.
    ///
    /// A limit binds what enters. A record that another writer stored beyond it stays readable.
    #[must_use]
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    /// The title as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A task's priority, 1 to 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority(i64);

impl Priority {
    /// Lowest priority that a client may give.
    pub const MIN: i64 = 1;
    /// Highest priority that a client may give.
    pub const MAX: i64 = 5;

    /// Checks a priority that comes from a client.
    ///
    /// # Errors
    /// Names the range and the value when it lies outside.
    pub fn parse(value: i64) -> Result<Self, FieldError> {
        if (Self::MIN..=Self::MAX).contains(&value) {
            Ok(Self(value))
        } else {
            Err(FieldError::new(
                "priority",
                format!(
                    "a priority is {} to {}, this one is {value}",
                    Self::MIN,
                    Self::MAX
                ),
            ))
        }
    }

    /// Takes a priority that a store already holds, whatever its value.
    #[must_use]
    pub fn stored(value: i64) -> Self {
        Self(value)
    }

    /// The priority as a number.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(Self::MIN)
    }
}

/// Where a task stands. Every change from one status to another is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Not begun.
    Pending,
    /// Being worked on.
    InProgress,
    /// Done.
    Completed,
}

impl Status {
    /// All statuses, in the order of a task's usual life.
    pub const ALL: [Self; 3] = [Self::Pending, Self::InProgress, Self::Completed];

    /// The status as clients and stores write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a status is pending, in_progress or completed, not {text:?}")]
pub struct ParseStatusError {
    text: String,
}

impl std::str::FromStr for Status {
    type Err = ParseStatusError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|status| status.as_str() == text);
        found.ok_or_else(|| ParseStatusError {
            text: text.chars().take(64).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_counted_in_characters_not_bytes() {
        assert!(Title::parse("é".repeat(200)).is_ok());
        let refused = Title::parse("é".repeat(201)).expect_err("201 characters");
        assert_eq!(
            refused.detail,
            "a title has 1 to 200 characters, this one has 201"
        );
        assert!(Title::parse(String::new()).is_err());
    }

    #[test]
    fn a_priority_outside_one_to_five_is_refused() {
        for bad in [i64::MIN, 0, 6, i64::MAX] {
            assert!(Priority::parse(bad).is_err());
        }
        assert!((1..=5).all(|good| Priority::parse(good).is_ok()));
    }
}
