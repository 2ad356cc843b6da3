//! How a saga ends, and what clients see of it.

use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use super::coordinator::{Course, Saga, State};
use super::plan::{ActorCall, Attempts};
use super::workflow::Workflow;
use crate::domain::Timestamp;

/// How a saga has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Completed {
        /// What was done.
        message: String,
    },
    /// The input was refused, and nothing was done.
    Rejected {
        /// Why.
        message: String,
    },
    /// A step failed, or somebody cancelled, and what was done is taken back.
    Failed {
        /// Why.
        message: String,
    },
    /// Somebody stopped it where it was.
    Terminated {
        /// Who.
        by: String,
    },
}

impl Outcome {
    /// What is said of it.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Completed { message } | Self::Rejected { message } | Self::Failed { message } => {
                message
            }
            Self::Terminated { by } => by,
        }
    }

    /// The output of a workflow that ends like this: a JSON object; `None` of a terminated one.
    ///
    /// ```
    /// use task_core::domain::Timestamp;
    /// use task_core::saga::{Outcome, ProcessTask, Workflow};
    ///
    /// let text = str::to_owned;
    /// let input = ProcessTask::new("7", text("a"), text("b"), text("ann"), None).unwrap();
    /// let outcome = Outcome::Rejected { message: text("Validation failed: …") };
    /// assert_eq!(
    ///     outcome.output(&Workflow::TaskProcessing(input)).unwrap(),
    ///     r#"{"task_id":"7","status":"rejected","message":"Validation failed: …"}"#
    /// );
    /// ```
    #[must_use]
    pub fn output(&self, workflow: &Workflow) -> Option<String> {
        let (status, message) = match self {
            Self::Completed { message } => ("completed", message),
            Self::Rejected { message } => ("rejected", message),
            Self::Failed { message } => ("failed", message),
            Self::Terminated { .. } => return None,
        };
        let output = Output {
            subject: workflow.subject(),
            status,
            message,
        };
        Some(serde_json::to_string(&output).expect("texts are JSON"))
    }

    /// How clients see a workflow that ends like this.
    #[must_use]
    pub fn status(&self) -> WorkflowStatus {
        match self {
            Self::Completed { .. } | Self::Rejected { .. } => WorkflowStatus::Completed,
            Self::Failed { .. } => WorkflowStatus::Failed,
            Self::Terminated { .. } => WorkflowStatus::Terminated,
        }
    }

    /// Whether nothing of it is left but its log, so that its id may be started again.
    #[must_use]
    pub fn leaves_nothing(&self) -> bool {
        match self {
            Self::Rejected { .. } | Self::Failed { .. } => true,
            Self::Completed { .. } | Self::Terminated { .. } => false,
        }
    }
}

struct Output<'a> {
    subject: (&'static str, &'a crate::agent::ActorId),
    status: &'static str,
    message: &'a str,
}

impl Serialize for Output<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (name, id) = self.subject;
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry(name, id)?;
        map.serialize_entry("status", self.status)?;
        map.serialize_entry("message", self.message)?;
        map.end()
    }
}

/// Where a workflow stands, in the words of Dapr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum WorkflowStatus {
    /// Accepted, and not begun.
    Pending,
    /// On its way, also where it is stuck.
    Running,
    /// Held by an operator; only where a driver can do that.
    Suspended,
    /// Ended: done, or its input was refused.
    Completed,
    /// Ended: taken back.
    Failed,
    /// Stopped where it was.
    Terminated,
}

/// A workflow as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowView {
    /// Its id.
    pub workflow_id: String,
    /// Where it stands.
    pub status: WorkflowStatus,
    /// A JSON object as text, once it has ended and was not terminated.
    pub output: Option<String>,
    /// What is wrong with one that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Where one step of a workflow stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// Its turn has not come.
    Planned,
    /// It is being tried.
    Running,
    /// It is tried again at a time.
    Waiting,
    /// It is done.
    Done,
    /// It failed for good, or nobody knows, and it has nothing to be taken back.
    Failed,
    /// It has to be taken back.
    Undoing,
    /// It is taken back.
    Undone,
    /// It cannot be taken back so far.
    Stuck,
    /// Its turn does not come any more.
    Skipped,
}

/// One step of a workflow as people see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepView {
    /// Its name.
    pub name: String,
    /// Steps of one stage run side by side.
    pub stage: usize,
    /// Where it stands.
    pub status: StepStatus,
    /// Attempts that failed.
    pub failures: u32,
    /// Attempts to take it back that failed.
    pub undo_failures: u32,
    /// When its last entry was written.
    pub at: Option<Timestamp>,
    /// When it is tried again.
    pub next_at: Option<Timestamp>,
    /// Why it last failed.
    pub reason: Option<String>,
}

impl Saga {
    /// The saga as clients see it.
    #[must_use]
    pub fn view(&self) -> WorkflowView {
        let outcome = self.outcome();
        let status = outcome.as_ref().map(Outcome::status);
        WorkflowView {
            workflow_id: self.run().workflow_id().to_owned(),
            status: status.unwrap_or(WorkflowStatus::Running),
            output: outcome.and_then(|outcome| outcome.output(self.workflow())),
            detail: self.stuck(),
        }
    }

    /// What cannot be taken back, how often that was tried and why it failed; `None` unless the saga is stuck.
    #[must_use]
    pub fn stuck(&self) -> Option<String> {
        let stuck = |at: &usize| self.is_stuck(*at);
        let at = self.at_work().into_iter().find(stuck)?;
        let (step, progress) = (&self.steps[at], &self.progress[at]);
        let reason = progress.reason.as_deref().unwrap_or_default();
        Some(format!(
            "stuck: the compensation of {} failed {} times: {reason}",
            step.name, progress.back.made
        ))
    }

    /// From when on nobody needs its log any more, if it is kept for a time after the end; `None` while it runs.
    #[must_use]
    pub fn purge_at(&self, kept: std::time::Duration) -> Option<Timestamp> {
        let end = self.outcome().map(|_| self.last_at)?;
        Some(end.saturating_add(kept))
    }

    /// What to tell the actors before the log is purged: that no step of this run will come any more.
    ///
    /// Without it the marks of compensated runs would stay for ever where nothing else is left.
    #[must_use]
    pub fn farewell(&self) -> Vec<ActorCall> {
        let mut calls: Vec<ActorCall> = Vec::new();
        if matches!(self.outcome(), Some(Outcome::Failed { .. })) {
            for back in self
                .steps
                .iter()
                .filter_map(|step| step.compensation.as_ref())
            {
                let call = back.forget(self.run());
                if !calls.contains(&call) {
                    calls.push(call);
                }
            }
        }
        calls
    }

    /// All steps of the plan, in their order.
    #[must_use]
    pub fn timeline(&self, now: Timestamp) -> Vec<StepView> {
        let at_work = self.at_work();
        let all = (0..self.steps.len()).map(|at| {
            let (step, progress) = (&self.steps[at], &self.progress[at]);
            let status = self.step_status(at, at_work.contains(&at), now);
            let tries = match self.course {
                Course::Forward => &progress.forward,
                Course::Back { .. } | Course::Terminated { .. } => &progress.back,
            };
            let next_at = tries.until(now).filter(|_| at_work.contains(&at));
            StepView {
                name: step.name.clone().into_owned(),
                stage: step.stage,
                status,
                failures: progress.forward.made,
                undo_failures: progress.back.made,
                at: progress.at,
                next_at,
                reason: progress.reason.clone(),
            }
        });
        all.collect()
    }

    fn is_stuck(&self, at: usize) -> bool {
        let is_back = matches!(self.course, Course::Back { .. });
        is_back && self.progress[at].back.made >= Attempts::COMPENSATION.most
    }

    fn step_status(&self, at: usize, is_at_work: bool, now: Timestamp) -> StepStatus {
        let (step, progress) = (&self.steps[at], &self.progress[at]);
        let is_left = |stage: usize| step.stage <= stage && step.compensation.is_some();
        match (&self.course, progress.state) {
            (_, State::Undone) => StepStatus::Undone,
            (Course::Back { stage, .. }, State::Open | State::Done) if is_left(*stage) => {
                match self.is_stuck(at) {
                    true => StepStatus::Stuck,
                    false => StepStatus::Undoing,
                }
            }
            (_, State::Done) => StepStatus::Done,
            (Course::Forward, State::Open) if !is_at_work => StepStatus::Planned,
            (Course::Forward, State::Open) => match progress.forward.until(now) {
                Some(_) => StepStatus::Waiting,
                None => StepStatus::Running,
            },
            (Course::Back { stage, .. }, State::Open) if step.stage <= *stage => StepStatus::Failed,
            (Course::Back { .. } | Course::Terminated { .. }, State::Open) => StepStatus::Skipped,
        }
    }
}
