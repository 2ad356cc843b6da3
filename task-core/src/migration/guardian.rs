//! Moves buckets one stage back when the new side costs more than its budget.

mod dirty;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use self::dirty::DirtyAge;
use super::budget::{Reading, Verdict, Watch};
use super::sides::Sides;
use super::{
    Budget, Budgets, Cause, Control, Coordinator, CoordinatorOptions, Excess, MoveError,
    ParallelStateStore, PortStage, Side, Stage,
};
use crate::background::{Background, Stop};
use crate::memory::lock;

/// Most steps back that are remembered.
const MOST_KEPT: usize = 20;

/// Most often that the pause after a failed step back doubles.
const MOST_DOUBLINGS: u32 = 5;

/// A step back that the guardian has made, or could not make.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepBack {
    /// The stage that its buckets were to leave.
    pub stage: PortStage,
    /// The epoch by which it was judged.
    pub epoch: u64,
    /// The epoch after it; `None` if it could not be made.
    pub done_by_epoch: Option<u64>,
    /// What was beyond the budget.
    pub excess: Excess,
    /// The same for people and for the audit, and what stood in the way.
    pub reason: String,
}

/// Watches what both sides take, and moves buckets back when that is too much.
///
/// Each replica has one and judges by its own calls alone. That of several one moves first is enough: the others
/// find the control record changed, and begin to count anew. It never moves buckets forward.
#[derive(Debug)]
pub struct Guardian {
    sides: Arc<Sides>,
    budgets: Budgets,
    coordinator: Coordinator,
    /// Each with the number of buckets that it has watched.
    watches: HashMap<PortStage, (u16, Watch)>,
    dirty: DirtyAge,
    holding: Option<Holding>,
    history: Arc<StepsBack>,
}

/// The steps back of a guardian, the latest last.
#[derive(Debug, Default)]
pub struct StepsBack(Mutex<VecDeque<StepBack>>);

impl StepsBack {
    /// What is remembered, at most 20.
    #[must_use]
    pub fn all(&self) -> Vec<StepBack> {
        lock(&self.0).iter().cloned().collect()
    }

    fn push(&self, step: StepBack) {
        let mut steps = lock(&self.0);
        if steps.len() >= MOST_KEPT {
            steps.pop_front();
        }
        steps.push_back(step);
    }
}

/// A pause after a step back that could not be made.
#[derive(Debug, Clone, Copy)]
struct Holding {
    until: Instant,
    failures: u32,
}

impl Guardian {
    /// A guardian of the move that a store takes part in, with what its recorder counts.
    #[must_use]
    pub fn new(store: &ParallelStateStore, budgets: Budgets, options: CoordinatorOptions) -> Self {
        Self {
            sides: Arc::clone(store.sides()),
            budgets,
            coordinator: Coordinator::new(store, options),
            watches: HashMap::new(),
            dirty: DirtyAge::default(),
            holding: None,
            history: Arc::default(),
        }
    }

    /// What it has done, for reports.
    #[must_use]
    pub fn history(&self) -> &Arc<StepsBack> {
        &self.history
    }

    /// Watches until it is stopped.
    pub fn start(self) -> Background {
        Background::spawn("migration guardian", |stop| self.run(stop))
    }

    async fn run(mut self, mut stop: Stop) {
        while !stop.is_raised() {
            // A step back that has begun is finished: it may be one without writes.
            self.look().await;
            stop.or(tokio::time::sleep(self.budgets.look_every)).await;
        }
    }

    /// Judges every stage that has buckets, and moves those of at most one.
    async fn look(&mut self) {
        let Ok(pin) = self.sides.member.pin() else {
            return;
        };
        let control = pin.control().clone();
        // A request's pin would keep the replicas from following.
        drop(pin);
        let age = self.dirty_age(&control).await;
        let Some((stage, excess)) = self.judge(&control, age) else {
            return;
        };
        let is_held = |holding: Holding| Instant::now() < holding.until;
        if !self.holding.is_some_and(is_held) {
            self.step_back(stage, &control, excess).await;
        }
    }

    /// The furthest stage that is beyond its budget.
    fn judge(&mut self, control: &Control, dirty_age: Duration) -> Option<(PortStage, Excess)> {
        let recorder = &self.sides.recorder;
        let mut found = None;
        for (stage, budget) in &self.budgets.of {
            let buckets = control.within(*stage);
            let (watched, watch) = self.watches.entry(*stage).or_default();
            if *watched != buckets {
                // What was counted before was of other buckets.
                (*watched, *watch) = (buckets, Watch::default());
            }
            if buckets == 0 {
                continue;
            }
            let reading = Reading::of(recorder, *stage);
            let usual = |call| recorder.calls_of_all_stages(call, Side::Old);
            let verdict = watch.judge(&self.budgets, budget, reading, usual, dirty_age);
            match verdict {
                Verdict::Within => {}
                Verdict::Doubtful(excess) => tracing::info!(%stage, %excess, "beyond the budget"),
                Verdict::Exceeded(excess) => {
                    let further = |(known, _): &(PortStage, Excess)| known.place() > stage.place();
                    if !found.as_ref().is_some_and(further) {
                        found = Some((*stage, excess));
                    }
                }
            }
        }
        found
    }

    async fn step_back(&mut self, stage: PortStage, control: &Control, excess: Excess) {
        let reason = format!("budget of {stage} exceeded: {excess}");
        self.coordinator.because(Cause::new("guardian", &reason));
        let moved = self.coordinator.step_back(stage, control.epoch).await;
        let (done_by_epoch, reason) = match &moved {
            // Somebody else was faster.
            Ok(None) => return,
            Ok(Some(after)) => {
                tracing::warn!(%stage, reason, epoch = after.epoch, "buckets went one stage back");
                self.holding = None;
                (Some(after.epoch), reason)
            }
            Err(error) => {
                tracing::error!(%stage, reason, %error, "buckets could not go back");
                self.hold(error);
                (None, format!("{reason}; not done: {error}"))
            }
        };
        self.history.push(StepBack {
            stage,
            epoch: control.epoch,
            done_by_epoch,
            excess,
            reason,
        });
    }

    /// A way back from where nobody else can write is a time without writes, which must not be all the time.
    fn hold(&mut self, error: &MoveError) {
        let failures = self.holding.map_or(0, |holding| holding.failures + 1);
        let is_taken = matches!(error, MoveError::Overtaken | MoveError::Busy { .. });
        let pause = match is_taken {
            true => self.budgets.look_every,
            false => self.budgets.again * (1_u32 << failures.min(MOST_DOUBLINGS)),
        };
        self.holding = Some(Holding {
            until: Instant::now() + pause,
            failures,
        });
    }

    async fn dirty_age(&mut self, control: &Control) -> Duration {
        let limits = |(_, budget): &(PortStage, Budget)| budget.dirty_age.is_some();
        let has_live = control.state.within(Stage::Live) > 0;
        if !has_live || !self.budgets.of.iter().any(limits) {
            return Duration::ZERO;
        }
        self.dirty.look(&self.sides).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "the age of marks is not known");
            Duration::ZERO
        })
    }
}
