//! One run of a workflow, by which its steps are known again.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::as_text;
use crate::domain::Timestamp;

/// One run of a workflow: its id, and when it was started.
///
/// Every command of a saga carries it. Together with the kind of the command it says which step this is, so a
/// step that comes twice changes nothing the second time. Runs of one workflow are in the order of their start.
///
/// ```
/// use task_core::agent::Run;
/// use task_core::domain::Timestamp;
///
/// let run = Run::new("task-workflow-7", Timestamp::from_unix_micros(5));
/// assert_eq!(run.to_string(), "task-workflow-7@5");
/// assert_eq!("task-workflow-7@5".parse(), Ok(run));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Run {
    workflow_id: Box<str>,
    started: Timestamp,
}

impl Run {
    /// The run of a workflow that was started at a time.
    #[must_use]
    pub fn new(workflow_id: impl Into<Box<str>>, started: Timestamp) -> Self {
        Self {
            workflow_id: workflow_id.into(),
            started,
        }
    }

    /// The workflow's id.
    #[must_use]
    pub fn workflow_id(&self) -> &str {
        &self.workflow_id
    }

    /// When it was started.
    #[must_use]
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// Whether another run is this one, or an earlier one of the same workflow.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.workflow_id == other.workflow_id && other.started <= self.started
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.workflow_id, self.started.unix_micros())
    }
}

/// A text that names no run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a run is a workflow id, @ and a number of microseconds")]
pub struct ParseRunError;

impl FromStr for Run {
    type Err = ParseRunError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (workflow_id, micros) = text.rsplit_once('@').ok_or(ParseRunError)?;
        let micros = micros.parse().map_err(|_| ParseRunError)?;
        Ok(Self::new(workflow_id, Timestamp::from_unix_micros(micros)))
    }
}

impl Serialize for Run {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        as_text::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Run {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        as_text::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(workflow_id: &str, started: i64) -> Run {
        Run::new(workflow_id, Timestamp::from_unix_micros(started))
    }

    #[test]
    fn a_run_covers_itself_and_the_earlier_ones_of_its_workflow() {
        assert!(run("a", 2).covers(&run("a", 2)));
        assert!(run("a", 2).covers(&run("a", 1)));
        assert!(!run("a", 2).covers(&run("a", 3)));
        assert!(!run("a", 2).covers(&run("b", 1)));
    }

    #[test]
    fn what_names_no_run_is_refused() {
        for bad in ["", "a", "a@", "a@x", "5"] {
            assert!(bad.parse::<Run>().is_err(), "{bad:?} was accepted");
        }
    }
}
