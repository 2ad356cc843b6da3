//! The values of the agent's commands, each with its rule.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::as_text;
use crate::domain::FieldError;

/// An actor's identity: 1 to 128 of `A-Z a-z 0-9 - . _ ~ @ + :`.
///
/// The set is what a path and every store's key carry without escaping; an e-mail address fits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActorId(Box<str>);

impl ActorId {
    /// Longest id, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// Reads an id, which is called by this name where it comes from.
    ///
    /// # Errors
    /// Names the limit, or the first character that an id cannot have.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, FieldError> {
        if text.is_empty() || text.len() > Self::MAX_BYTES {
            let (most, found) = (Self::MAX_BYTES, text.len());
            let detail = format!("an id has 1 to {most} bytes, this one has {found}");
            return Err(FieldError::new(field, detail));
        }
        let foreign = |c: &char| {
            let is_mark = matches!(c, '-' | '.' | '_' | '~' | '@' | '+' | ':');
            !(c.is_ascii_alphanumeric() || is_mark)
        };
        match text.chars().find(foreign) {
            Some(c) => {
                let detail = format!("{c:?} is not one of A-Z a-z 0-9 - . _ ~ @ + :");
                Err(FieldError::new(field, detail))
            }
            None => Ok(Self(text.into())),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ActorId {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse("id", text)
    }
}

impl Serialize for ActorId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        as_text::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for ActorId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        as_text::deserialize(deserializer)
    }
}

/// How long a task may take: 1 s to ten years, in whole seconds.
///
/// Never zero: a reminder without a pause would come for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Deadline(u64);

impl Deadline {
    /// Longest deadline, in seconds.
    pub const MAX_SECONDS: u64 = 10 * 365 * 24 * 3600;

    /// Reads a deadline in seconds.
    ///
    /// # Errors
    /// Names the range and the value when it lies outside.
    pub fn parse(seconds: u64) -> Result<Self, FieldError> {
        match seconds {
            1..=Self::MAX_SECONDS => Ok(Self(seconds)),
            _ => Err(FieldError::new(
                "deadline_seconds",
                format!(
                    "a deadline is 1 to {} seconds, this one is {seconds}",
                    Self::MAX_SECONDS
                ),
            )),
        }
    }

    /// The deadline in seconds.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0
    }

    /// The deadline as a duration.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl Default for Deadline {
    /// One hour.
    fn default() -> Self {
        Self(3600)
    }
}

impl TryFrom<u64> for Deadline {
    type Error = FieldError;

    fn try_from(seconds: u64) -> Result<Self, Self::Error> {
        Self::parse(seconds)
    }
}

impl From<Deadline> for u64 {
    fn from(deadline: Deadline) -> Self {
        deadline.0
    }
}

/// Where a task of the agent stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Nobody has it.
    Pending,
    /// Somebody has it.
    Assigned,
    /// It is being worked on.
    InProgress,
    /// It is done.
    Completed,
    /// Its deadline passed before it was done.
    Overdue,
}

impl TaskStatus {
    /// All statuses, in the order of a task's usual life.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Assigned,
        Self::InProgress,
        Self::Completed,
        Self::Overdue,
    ];

    /// The status as clients write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Overdue => "overdue",
        }
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TaskStatus {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|status| status.as_str() == text);
        found.ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            let detail = format!(
                "a status is pending, assigned, in_progress, completed or overdue, not {shown:?}"
            );
            FieldError::new("status", detail)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_id_has_only_characters_that_paths_and_keys_carry() {
        for bad in ["", "a b", "a/b", "a||b", "é", &"x".repeat(129)] {
            assert!(
                ActorId::parse("user_id", bad).is_err(),
                "{bad:?} was accepted"
            );
        }
        assert!(ActorId::parse("user_id", "ann+x@example.org").is_ok());
    }

    #[test]
    fn a_deadline_of_no_time_is_refused_wherever_it_comes_from() {
        assert!(serde_json::from_str::<Deadline>("0").is_err());
        assert!(Deadline::parse(Deadline::MAX_SECONDS + 1).is_err());
        assert_eq!(
            Deadline::parse(1).map(Deadline::duration),
            Ok(Duration::from_secs(1))
        );
    }

    #[test]
    fn every_status_reads_back_as_text_and_as_json() {
        for status in TaskStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
            let json = serde_json::to_string(&status).expect("text is JSON");
            assert_eq!(json, format!("\"{status}\""));
        }
        assert!("Pending".parse::<TaskStatus>().is_err());
    }
}
