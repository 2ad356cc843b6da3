//! What a saga does next, and what an entry of its log means: a pure function over the log.

use std::time::Duration;

use super::entry::Entry;
use super::outcome::Outcome;
use super::plan::{Call, Step, Work};
use super::workflow::Workflow;
use crate::agent::Run;
use crate::domain::Timestamp;

/// How long a step may be postponed, counted from when its stage began.
pub(super) const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Pause between two attempts of a compensation that is stuck.
pub(super) const STUCK_PAUSE: Duration = Duration::from_secs(30 * 60);

/// A saga, as far as its log tells.
///
/// A driver [starts](Self::start) one, or [reads](super::read) it from its log, and then goes round: it asks what is [next](Self::next), does
/// that, turns each result into [an entry](Self::record), makes the entry durable, and [applies](Self::apply) it. It asks again when
/// every action of the answer before has its entry.
///
/// ```
/// use task_core::domain::Timestamp;
/// use task_core::saga::{Entry, Next, ProcessTask, Saga, StepResult, Workflow};
///
/// let text = str::to_owned;
/// let input = ProcessTask::new("7", text("write it"), text("the whole report"), text("ann"), None).unwrap();
/// let now = Timestamp::from_unix_micros(0);
/// let mut saga = Saga::begin(Workflow::TaskProcessing(input), now);
/// let mut steps = Vec::new();
/// let outcome = loop {
///     match saga.next(now) {
///         Next::Record(entry) => saga.apply(&entry, now).unwrap(),
///         Next::Run(actions) => {
///             for action in actions {
///                 let result = StepResult::Done;
///                 let entry = saga.record(&action, result, now);
///                 saga.apply(&entry, now).unwrap();
///                 steps.push(action.step);
///             }
///         }
///         Next::Wait(_) => unreachable!("nothing failed"),
///         Next::End(outcome) => break outcome,
///     }
/// };
/// assert_eq!(steps, ["create", "assign", "set_reminder", "notify"]);
/// assert_eq!(outcome.message(), "Task assigned to ann with deadline reminder");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Saga {
    run: Run,
    workflow: Workflow,
    pub(super) steps: Vec<Step>,
    pub(super) progress: Vec<Progress>,
    pub(super) course: Course,
    /// When the stage began that the saga has reached.
    pub(super) stage_since: Timestamp,
    pub(super) last_at: Timestamp,
}

/// How far one step has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Progress {
    pub(super) state: State,
    pub(super) forward: Tries,
    pub(super) back: Tries,
    /// When the last entry of it was written.
    pub(super) at: Option<Timestamp>,
    /// Why it last failed.
    pub(super) reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum State {
    /// Not done, as far as is known.
    #[default]
    Open,
    Done,
    Undone,
}

/// The attempts in one direction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tries {
    pub(super) made: u32,
    /// When the last one was written down, and when the next one is due.
    pub(super) pause: Option<(Timestamp, Timestamp)>,
}

impl Tries {
    pub(super) fn wait(&mut self, at: Timestamp, pause: Duration) {
        self.pause = Some((at, at.saturating_add(pause)));
    }

    /// Until when to wait. A clock that has stepped back ends a pause rather than prolong it.
    pub(super) fn until(&self, now: Timestamp) -> Option<Timestamp> {
        let (since, until) = self.pause?;
        (since <= now && now < until).then_some(until)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Course {
    Forward,
    /// The steps up to this stage are taken back.
    Back {
        reason: String,
        /// The input was refused, which is no failure.
        is_rejected: bool,
        stage: usize,
        /// No result of a step that ran when the saga turned round can come any more.
        has_undone: bool,
    },
    Terminated {
        by: String,
    },
}

/// Which way an action goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// It does the step.
    Do,
    /// It takes the step back.
    Undo,
}

/// One thing to do for a saga.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// The step's name.
    pub step: String,
    /// Whether it does the step or takes it back.
    pub direction: Direction,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// What to do.
    pub call: Call,
}

/// What a saga does next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Write this entry: nobody has to be asked. It may share the write of the entry before it.
    Record(Entry),
    /// Do these, side by side, and write what came of each.
    Run(Vec<Action>),
    /// Ask again at this time. It may be rounded up, and asking earlier does no harm.
    Wait(Timestamp),
    /// Nothing: the saga has ended.
    End(Outcome),
}

/// An entry that cannot follow on what the log says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} cannot follow here")]
pub struct IllegalEntry {
    pub(super) what: String,
}

/// There is a saga of this id that does not give way to another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("workflow {workflow_id} was started before")]
pub struct StartedBefore {
    /// The id.
    pub workflow_id: String,
}

impl Saga {
    /// A saga that is accepted at a time, unless the one of that id is still needed.
    ///
    /// One that was rejected, or failed and was compensated, has left nothing behind but its log, and gives way: the new log
    /// takes the place of the old one. Any other stays as long as its log is kept, running or not.
    ///
    /// # Errors
    /// The existing saga stays.
    pub fn start(
        workflow: Workflow,
        existing: Option<&Self>,
        now: Timestamp,
    ) -> Result<Self, StartedBefore> {
        let Some(existing) = existing else {
            return Ok(Self::begin(workflow, now));
        };
        if !existing.outcome().is_some_and(|end| end.leaves_nothing()) {
            let workflow_id = existing.run.workflow_id().to_owned();
            return Err(StartedBefore { workflow_id });
        }
        // Actors tell runs by their start: a clock that has stepped back must not make the later run the earlier one.
        let after = existing
            .run
            .started()
            .saturating_add(Duration::from_micros(1));
        Ok(Self::begin(workflow, now.max(after)))
    }

    /// A saga that is accepted at a time, whatever was before.
    #[must_use]
    pub fn begin(workflow: Workflow, now: Timestamp) -> Self {
        let run = Run::new(workflow.id(), now);
        let steps = workflow.plan(&run);
        Self {
            run,
            workflow,
            progress: vec![Progress::default(); steps.len()],
            steps,
            course: Course::Forward,
            stage_since: now,
            last_at: now,
        }
    }

    /// The entry that begins the log.
    pub(super) fn begun(&self) -> Entry {
        Entry::Begun {
            version: Workflow::VERSION,
            workflow: self.workflow.clone(),
        }
    }

    /// The run.
    #[must_use]
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// What is to be done.
    #[must_use]
    pub fn workflow(&self) -> &Workflow {
        &self.workflow
    }

    /// When the last entry was written.
    #[must_use]
    pub fn last_at(&self) -> Timestamp {
        self.last_at
    }

    /// What to do now.
    #[must_use]
    pub fn next(&self, now: Timestamp) -> Next {
        if let Some(outcome) = self.outcome() {
            return Next::End(outcome);
        }
        let mut actions = Vec::new();
        let mut wait: Option<Timestamp> = None;
        for at in self.at_work() {
            let (step, progress) = (&self.steps[at], &self.progress[at]);
            if let (Course::Forward, Work::Check { issues }) = (&self.course, &step.work) {
                return Next::Record(check(step, issues));
            }
            let (tries, action) = match self.course {
                Course::Forward => (&progress.forward, forward(step, progress)),
                Course::Back { .. } | Course::Terminated { .. } => {
                    (&progress.back, back(step, progress))
                }
            };
            match tries.until(now) {
                Some(until) => wait = Some(wait.map_or(until, |wait| wait.min(until))),
                None => actions.extend(action),
            }
        }
        match wait {
            Some(until) if actions.is_empty() => Next::Wait(until),
            Some(_) | None => Next::Run(actions),
        }
    }

    /// What became of it; `None` while it runs.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match &self.course {
            Course::Terminated { by } => Some(Outcome::Terminated { by: by.clone() }),
            Course::Forward | Course::Back { .. } if !self.at_work().is_empty() => None,
            Course::Forward => Some(Outcome::Completed {
                message: self.workflow.success(),
            }),
            Course::Back {
                reason,
                is_rejected: true,
                ..
            } => Some(Outcome::Rejected {
                message: format!("Validation failed: {reason}"),
            }),
            Course::Back { reason, .. } => Some(Outcome::Failed {
                message: format!("Processing failed, compensation applied: {reason}"),
            }),
        }
    }

    /// The steps that have to be done, or taken back, before any other.
    pub(super) fn at_work(&self) -> Vec<usize> {
        let mut left: Vec<usize> = (0..self.steps.len())
            .filter(|at| self.is_left(*at))
            .collect();
        let stages = left.iter().map(|at| self.steps[*at].stage);
        let stage = match self.course {
            Course::Forward => stages.min(),
            Course::Back { .. } | Course::Terminated { .. } => stages.max(),
        };
        left.retain(|at| Some(self.steps[*at].stage) == stage);
        left
    }

    fn is_left(&self, at: usize) -> bool {
        let (step, progress) = (&self.steps[at], &self.progress[at]);
        match self.course {
            Course::Forward => progress.state == State::Open,
            // A step that may have begun is taken back like one that is done.
            Course::Back { stage, .. } => {
                let has_begun = step.stage <= stage;
                has_begun && step.compensation.is_some() && progress.state != State::Undone
            }
            Course::Terminated { .. } => false,
        }
    }
}

fn check(step: &Step, issues: &[String]) -> Entry {
    let name = step.name.clone().into_owned();
    match issues.is_empty() {
        true => Entry::Done { step: name },
        false => Entry::Failed {
            step: name,
            attempt: 1,
            reason: issues.join(", "),
            is_final: true,
        },
    }
}

fn forward(step: &Step, progress: &Progress) -> Option<Action> {
    let Work::Call(call) = &step.work else {
        return None;
    };
    Some(Action {
        step: step.name.clone().into_owned(),
        direction: Direction::Do,
        attempt: progress.forward.made + 1,
        call: call.clone(),
    })
}

fn back(step: &Step, progress: &Progress) -> Option<Action> {
    let compensation = step.compensation.clone()?;
    Some(Action {
        step: step.name.clone().into_owned(),
        direction: Direction::Undo,
        attempt: progress.back.made + 1,
        call: Call::Actor(compensation),
    })
}
