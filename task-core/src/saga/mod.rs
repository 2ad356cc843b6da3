//! Sagas: plans whose steps can be taken back, a log that survives anything, and who decides what comes next.
//!
//! ```text
//!  Workflow ──plan──► steps ─┐
//!                            ├─► Saga ──next(now)──► Record(entry) │ Run(actions) │ Wait(until) │ End(outcome)
//!  log ───────────read───────┘     ▲                                     │
//!   ▲                              └──apply── entry ◄──record── result ◄─┘
//!   └───────────────────seal───────────────────┘
//! ```
//!
//! A [`Workflow`] is data: an input, from which its [steps](Step) follow. A [`Saga`] is what a log tells of one run. From it and the
//! time follows what to do [next](Saga::next), the same on every replica and after every restart; so the loop around it may be
//! replayed, as Dapr's workflows are.
//!
//! # What holds
//!
//! - Every step runs at least once, and is safe to repeat: its command carries the [run](crate::agent::Run).
//! - A step that fails for good, or is cancelled, turns the saga round. Then every step that may have begun is taken back, the
//!   last one first, also one of which nobody knows what came of it.
//! - A compensation that fails is tried again, for ever; after ten attempts the saga says that it is [stuck](Saga::stuck).
//! - After compensation a task is as it was before it was assigned: pending, nobody's, with no reminder that still
//!   fires. A copy of a step that arrives later is refused by the task's actor.
//! - A log that was torn or tampered with is refused by a named [`LogError`].
//!
//! # What a driver does
//!
//! 1. [`Saga::start`] decides whether a workflow may begin. [`Chain::begin`] makes the first record.
//! 2. It goes round: [`Saga::next`], then what that says. An entry is durable before it is applied, and before anything is done
//!    that follows from it. Entries of [`Next::Record`] may share the write of the entry before them. An actor's
//!    turn and its entry may share one as well.
//! 3. It asks again when every action of the last answer has its entry, so that nothing is taken back that still runs.
//!    [`Saga::cancel`] and [`Saga::terminate`] may come in between.
//! 4. An action that ran into its time limit, or whose process died, is a [failure](StepResult::failed), or is simply done again.
//! 5. [`Head`] is kept beside the records, in the same write. What [`read`] refuses is not driven, and shown as it is.
//! 6. At [`Saga::purge_at`] the actors get the [farewell](Saga::farewell), and then the records go.
//!
//! # Why is there no trait of steps?
//!
//! A step is a command of an actor or a notification. Both drivers can do both, and a plan that is data can be compared, stored and
//! shown before anything has run.

mod coordinator;
mod entry;
mod log;
mod outcome;
mod plan;
mod project;
mod result;
mod task_processing;
mod transition;
mod workflow;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use coordinator::{Action, Direction, IllegalEntry, Next, Saga, StartedBefore};
pub use entry::Entry;
pub use log::{Chain, Head, LogError, read};
pub use outcome::{Outcome, StepStatus, StepView, WorkflowStatus, WorkflowView};
pub use plan::{ActorCall, Assigned, Attempts, Call, Step, Work};
pub use result::StepResult;
pub use workflow::{NewProject, NewTask, ProcessTask, Workflow};

/// How long the log of a saga is kept after its end, unless an operator says otherwise.
pub const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
