//! What the model asks of the code itself, so that the two cannot come apart: thresholds, the way back from a time
//! without writes, and the guard of the fence.

use task_core::migration::{Bucket, Control as RealControl, Stage, Thresholds, WaitingFrom};
use task_core::ports::Expect;

use crate::state::Control;

/// Most epochs of a history.
const EPOCHS: u64 = 64;

/// The thresholds with every bucket in a stage.
fn thresholds(stage: Stage) -> Thresholds {
    let mut all = Thresholds::default();
    for stage in Stage::ALL.into_iter().skip(1).take(stage.place()) {
        all = all.with(stage, Bucket::COUNT).expect("in order");
    }
    all
}

fn stage_of(thresholds: &Thresholds) -> Stage {
    thresholds.stage_of(Bucket::of("salt", "task"))
}

/// Whether the code lets every bucket go from one stage to another in one step, or through `handoff`.
pub(crate) fn may_step(from: Stage, to: Stage) -> bool {
    let now = thresholds(from);
    let (stage, buckets) = match to > from {
        true => (to, Bucket::COUNT),
        false => (from, 0),
    };
    let passes = from.authority() != to.authority();
    let next = match (passes, to > from) {
        // As `hand_over` and `hand_back`.
        (true, true) => now
            .with(Stage::Handoff, buckets)
            .and_then(|waiting| waiting.with(Stage::RampDown, buckets)),
        (true, false) => now
            .with(Stage::RampDown, buckets)
            .and_then(|waiting| waiting.with(Stage::Handoff, buckets)),
        (false, _) => now.with(stage, buckets),
    };
    from != to && from != Stage::Complete && next.is_ok_and(|next| stage_of(&next) == to)
}

/// The record after a step, with the epoch and the generation as `Coordinator::change` makes them.
pub(crate) fn stepped(from: Control, to: Stage) -> Control {
    let leaves = from.stage >= Stage::DualWrite && to < Stage::DualWrite;
    Control {
        epoch: from.epoch + 1,
        generation: from.generation + u8::from(leaves),
        stage: to,
        ..from
    }
}

/// The record after a time without writes that has failed.
pub(crate) fn taken_back(from: Control) -> Control {
    let mut real = RealControl::begin("salt");
    real.state = thresholds(from.stage);
    real.waiting_from = match from.waiting_from {
        Some(Stage::RampDown) => Some(WaitingFrom::RampDown),
        Some(_) => Some(WaitingFrom::Live),
        None => None,
    };
    Control {
        waiting_from: None,
        ..stepped(from, stage_of(&real.taken_back()))
    }
}

/// What the real guard of each epoch says to each fence.
#[derive(Debug)]
pub(crate) struct Guards(Vec<bool>);

impl Guards {
    pub(crate) fn new() -> Self {
        let expects: Vec<Expect> = (0..EPOCHS)
            .map(|epoch| {
                let mut control = RealControl::begin("salt");
                control.epoch = epoch;
                control.guard().expect
            })
            .collect();
        let fence_of = |expect: &Expect| match expect {
            Expect::AtMost(bytes) => bytes.clone(),
            Expect::Absent => unreachable!("an epoch is demanded"),
        };
        let fences: Vec<_> = expects.iter().map(fence_of).collect();
        let pairs = expects.iter().flat_map(|expect| {
            let fences = fences.iter();
            fences.map(|fence| expect.accepts(Some(fence)))
        });
        Self(pairs.collect())
    }

    pub(crate) fn accepts(&self, epoch: u8, fence: u8) -> bool {
        let epochs = usize::try_from(EPOCHS).expect("few");
        self.0[usize::from(epoch) * epochs + usize::from(fence)]
    }
}
