//! Which entries may follow on what a log says, and what they change.

use super::coordinator::{
    Action, Course, Direction, IllegalEntry, PATIENCE, STUCK_PAUSE, Saga, State,
};
use super::entry::Entry;
use super::plan::{Attempts, Work};
use super::result::StepResult;
use crate::domain::Timestamp;

impl Saga {
    /// The entry that says what came of an action.
    #[must_use]
    pub fn record(&self, action: &Action, result: StepResult, now: Timestamp) -> Entry {
        let step = action.step.clone();
        let attempt = action.attempt;
        match (action.direction, result) {
            (Direction::Do, StepResult::Done) => Entry::Done { step },
            (Direction::Undo, StepResult::Done) => Entry::Undone { step },
            (Direction::Do, StepResult::Failed { reason, is_final }) => {
                let is_last = attempt >= self.attempts_of(&step).most;
                let is_final = is_final || is_last;
                Entry::Failed {
                    step,
                    attempt,
                    reason,
                    is_final,
                }
            }
            (Direction::Do, StepResult::Postponed { reason, pause_ms }) => {
                let until = now.saturating_add(std::time::Duration::from_millis(pause_ms));
                match until > self.stage_since.saturating_add(PATIENCE) {
                    true => Entry::Failed {
                        step,
                        attempt,
                        reason: format!("postponed for {} s: {reason}", PATIENCE.as_secs()),
                        is_final: true,
                    },
                    false => Entry::Postponed {
                        step,
                        until,
                        reason,
                    },
                }
            }
            (
                Direction::Undo,
                StepResult::Failed { reason, .. } | StepResult::Postponed { reason, .. },
            ) => Entry::UndoFailed {
                step,
                attempt,
                reason,
            },
        }
    }

    /// The entry that turns the saga round; `None` if it has ended or has turned round already.
    ///
    /// What runs meanwhile may still be recorded; it is taken back as well.
    #[must_use]
    pub fn cancel(&self, by: &str) -> Option<Entry> {
        let is_running = self.course == Course::Forward && self.outcome().is_none();
        is_running.then(|| Entry::Cancelled { by: by.to_owned() })
    }

    /// The entry that stops the saga where it is; `None` if it has ended.
    ///
    /// Nothing is taken back, and the result of what runs meanwhile is nobody's business any more.
    #[must_use]
    pub fn terminate(&self, by: &str) -> Option<Entry> {
        let is_running = self.outcome().is_none();
        is_running.then(|| Entry::Terminated { by: by.to_owned() })
    }

    /// Takes an entry over, written at a time.
    ///
    /// # Errors
    /// The entry cannot follow here; the saga is as before. A driver stops the saga then: its log is not the one that it
    /// was made from.
    pub fn apply(&mut self, entry: &Entry, at: Timestamp) -> Result<(), IllegalEntry> {
        let (what, is_legal) = match entry {
            Entry::Begun { .. } => ("a second beginning".to_owned(), false),
            Entry::Done { step } => (format!("done {step}"), self.done(step, at)),
            Entry::Failed {
                step,
                attempt,
                reason,
                is_final,
            } => {
                let is_legal = self.failed(step, (*attempt, *is_final), reason, at);
                (format!("failure {attempt} of {step}"), is_legal)
            }
            Entry::Postponed {
                step,
                until,
                reason,
            } => {
                let is_legal = self.postponed(step, *until, reason, at);
                (format!("postponed {step}"), is_legal)
            }
            Entry::Undone { step } => (format!("undone {step}"), self.undone(step, at)),
            Entry::UndoFailed {
                step,
                attempt,
                reason,
            } => {
                let is_legal = self.undo_failed(step, *attempt, reason, at);
                let what = format!("failure {attempt} to take {step} back");
                (what, is_legal)
            }
            Entry::Cancelled { by } => ("cancelled".to_owned(), self.cancelled(by)),
            Entry::Terminated { by } => ("terminated".to_owned(), self.terminated(by)),
        };
        if !is_legal {
            return Err(IllegalEntry { what });
        }
        self.last_at = self.last_at.max(at);
        Ok(())
    }

    fn attempts_of(&self, step: &str) -> Attempts {
        let step = self.steps.iter().find(|one| one.name == step);
        step.map_or(Attempts::ACTOR, |step| step.attempts)
    }

    /// The step of a name whose result may come now.
    fn running(&self, step: &str) -> Option<usize> {
        let at = self.steps.iter().position(|one| one.name == step)?;
        let stage = match self.course {
            Course::Forward => self.steps[*self.at_work().first()?].stage,
            Course::Back {
                stage,
                has_undone: false,
                ..
            } => stage,
            Course::Back { .. } | Course::Terminated { .. } => return None,
        };
        let is_open = self.progress[at].state == State::Open;
        (is_open && self.steps[at].stage == stage).then_some(at)
    }

    fn done(&mut self, step: &str, at: Timestamp) -> bool {
        let Some(index) = self.running(step) else {
            return false;
        };
        let progress = &mut self.progress[index];
        progress.state = State::Done;
        progress.at = Some(at);
        let stage = self.steps[index].stage;
        let has_more = self
            .at_work()
            .first()
            .is_some_and(|next| self.steps[*next].stage == stage);
        if !has_more {
            self.stage_since = at;
        }
        true
    }

    fn failed(
        &mut self,
        step: &str,
        (attempt, is_final): (u32, bool),
        reason: &str,
        at: Timestamp,
    ) -> bool {
        let Some(index) = self.running(step) else {
            return false;
        };
        let progress = &mut self.progress[index];
        if attempt != progress.forward.made + 1 {
            return false;
        }
        let step = &self.steps[index];
        progress.forward.made = attempt;
        progress
            .forward
            .wait(at, step.attempts.pause_after(attempt));
        progress.at = Some(at);
        progress.reason = Some(reason.to_owned());
        if is_final && self.course == Course::Forward {
            self.course = Course::Back {
                reason: reason.to_owned(),
                is_rejected: matches!(step.work, Work::Check { .. }),
                stage: step.stage,
                has_undone: false,
            };
        }
        true
    }

    fn postponed(&mut self, step: &str, until: Timestamp, reason: &str, at: Timestamp) -> bool {
        let Some(index) = self.running(step) else {
            return false;
        };
        let progress = &mut self.progress[index];
        progress.forward.pause = Some((at, until));
        progress.at = Some(at);
        progress.reason = Some(reason.to_owned());
        true
    }

    /// The step of a name whose compensation may run now.
    fn unwinding(&mut self, step: &str) -> Option<usize> {
        let at_work = self.at_work();
        let Course::Back { has_undone, .. } = &mut self.course else {
            return None;
        };
        let is_it = |at: &usize| self.steps[*at].name == step;
        let index = at_work.into_iter().find(is_it)?;
        *has_undone = true;
        Some(index)
    }

    fn undone(&mut self, step: &str, at: Timestamp) -> bool {
        let Some(index) = self.unwinding(step) else {
            return false;
        };
        let progress = &mut self.progress[index];
        progress.state = State::Undone;
        progress.at = Some(at);
        true
    }

    fn undo_failed(&mut self, step: &str, attempt: u32, reason: &str, at: Timestamp) -> bool {
        const OFTEN: Attempts = Attempts::COMPENSATION;
        let index = self.steps.iter().position(|one| one.name == step);
        let made = index.map(|index| self.progress[index].back.made);
        if made.is_none_or(|made| made + 1 != attempt) {
            return false;
        }
        let Some(index) = self.unwinding(step) else {
            return false;
        };
        let progress = &mut self.progress[index];
        progress.back.made = attempt;
        let pause = match attempt >= OFTEN.most {
            true => STUCK_PAUSE,
            false => OFTEN.pause_after(attempt),
        };
        progress.back.wait(at, pause);
        progress.at = Some(at);
        progress.reason = Some(reason.to_owned());
        true
    }

    fn cancelled(&mut self, by: &str) -> bool {
        let stage = self.at_work().first().map(|at| self.steps[*at].stage);
        match (&self.course, stage) {
            (Course::Forward, Some(stage)) => {
                self.course = Course::Back {
                    reason: format!("cancelled by {by}"),
                    is_rejected: false,
                    stage,
                    has_undone: false,
                };
                true
            }
            (Course::Forward | Course::Back { .. } | Course::Terminated { .. }, _) => false,
        }
    }

    fn terminated(&mut self, by: &str) -> bool {
        let is_running = self.outcome().is_none();
        if is_running {
            self.course = Course::Terminated { by: by.to_owned() };
        }
        is_running
    }
}
