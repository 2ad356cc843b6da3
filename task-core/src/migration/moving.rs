//! Steps forwards and backwards, as a person asks for them.

use tokio::sync::MutexGuard;

use super::answers::shares;
use super::facade::Migration;
use super::guards::{Facts, to_confirm};
use super::{
    Advance, Bucket, BusStage, Cause, Condition, Confirmation, Control, Coordinator,
    MigrationError, MoveError, Moved, NotifierStage, Plan, PlannedStep, Port, PortStage, Refusal,
    Rollback, Run, Stage, ThresholdError, Thresholds,
};

/// How much goes there and back before the rest follows.
const REHEARSED: u16 = 1;

/// What a step waits for, and is refused by when that takes too long.
const AWAITED: &[&str] = &["replicas_adopted", "leases_live"];

impl Migration {
    /// The steps from here to a stage, with what each of them depends on now.
    ///
    /// # Errors
    /// `Usage` for a stage that the port does not have; `Refused` by `begun`; as the old side.
    pub async fn plan(&self, port: Port, to: &str) -> Result<Plan, MigrationError> {
        let to = self.stage_of(port, to)?;
        let facts = self.facts().await?;
        let control = &facts.control;
        let mut steps = Vec::new();
        for stage in stays(port) {
            if stage <= to && control.reached(stage) < Bucket::COUNT {
                steps.push(self.planned(stage, &facts));
            }
        }
        for stage in stays(port).rev() {
            if stage > to && control.reached(stage) > 0 {
                steps.push(planned_back(stage));
            }
        }
        Ok(Plan {
            port,
            from: shares(control, port),
            to: to.as_str().to_owned(),
            steps,
        })
    }

    fn planned(&self, stage: PortStage, facts: &Facts) -> PlannedStep {
        let (port, word) = (stage.port(), stage.as_str());
        PlannedStep {
            command: format!("advance --port {port} --to {word}"),
            effect: effect(stage).to_owned(),
            conditions: facts.conditions(stage, &self.options.caution),
            to_confirm: to_confirm(stage),
        }
    }

    /// Lets a share of all records reach a stage: the rest of the way has been gone before.
    ///
    /// The first step to `shadow`, `live` and `rampdown` is rehearsed: one bucket goes there, back and there
    /// again. A smaller share than has reached the stage is a way back, and depends on the replicas alone.
    ///
    /// # Errors
    /// `Usage`; `Refused` by the first guard that does not hold, with all conditions; as the sides.
    pub async fn advance(&self, request: Advance) -> Result<Moved, MigrationError> {
        let stage = self.stage_of(request.port, &request.to)?;
        if stage.place() == 0 {
            let word = stage.as_str();
            let text = format!(
                "everything is {word} before the first step; `rollback --to {word}` goes back there"
            );
            return Err(MigrationError::Usage(text));
        }
        let judged = self.judge(&request, stage).await?;
        if request.run == Run::Dry {
            let target = judged.target.clone();
            return Ok(judged.moved(&request, &target));
        }
        let mut coordinator = self.lead(&request.cause).await?;
        let moved = self
            .advance_in_turn(&mut coordinator, &request, stage)
            .await;
        coordinator.give_up().await;
        moved
    }

    /// Judges once more: another coordinator may have had its turn before.
    async fn advance_in_turn(
        &self,
        coordinator: &mut Coordinator,
        request: &Advance,
        stage: PortStage,
    ) -> Result<Moved, MigrationError> {
        let judged = self.judge(request, stage).await?;
        let mut steps = vec![(stage, request.share.buckets())];
        if judged.rehearsed {
            steps.splice(0..0, [(stage, REHEARSED), (stage, 0)]);
        }
        let control = go(coordinator, judged.before.clone(), &steps).await?;
        Ok(judged.moved(request, &control))
    }

    async fn judge(&self, request: &Advance, stage: PortStage) -> Result<Judged, MigrationError> {
        let buckets = request.share.buckets();
        let facts = self.facts().await?;
        let before = facts.control.clone();
        let reached = before.reached(stage);
        let target = target(&before, stage, buckets)?;
        let mut conditions = Vec::new();
        if buckets > reached {
            conditions = facts.conditions(stage, &self.options.caution);
            refuse(&conditions, stage, &request.confirmed)?;
        }
        let is_first = reached == 0 && buckets > 0;
        Ok(Judged {
            rehearsed: is_first && is_rehearsed(stage),
            before,
            target,
            conditions,
        })
    }

    /// Goes back to a stage, one stage after the other; after a loss, to where the side that is left decides alone.
    ///
    /// # Errors
    /// `Usage`; `Refused` by `no_way_back` from `complete`, and by what keeps replicas from following; as the sides. What has been
    /// gone back until then stays.
    pub async fn rollback(&self, request: Rollback) -> Result<Moved, MigrationError> {
        if let Some(side) = request.lost {
            return self.leave(side, request).await;
        }
        self.check(request.port)?;
        let wanted = request.to.as_deref();
        let wanted = wanted
            .map(|to| self.stage_of(request.port, to))
            .transpose()?;
        let mut coordinator = self.lead(&request.cause).await?;
        let moved = self.go_back(&mut coordinator, request.port, wanted).await;
        coordinator.give_up().await;
        moved
    }

    async fn go_back(
        &self,
        coordinator: &mut Coordinator,
        port: Port,
        wanted: Option<PortStage>,
    ) -> Result<Moved, MigrationError> {
        let before = self.control().await?;
        let mut reached = stays(port).rev();
        let top = reached.find(|stage| before.reached(*stage) > 0);
        let to = wanted.or_else(|| top.map(stage_before));
        let Some(to) = to.or_else(|| PortStage::all(port).first().copied()) else {
            return Err(unknown_port(port));
        };
        if top.is_some_and(|top| top.is_final() && to < top) {
            let detail =
                "what is complete cannot go back; begin a migration in the other direction";
            return Err(Refusal::new("no_way_back", detail).into());
        }
        let back = stays(port).rev().filter(|stage| *stage > to);
        let back = back.filter(|stage| before.reached(*stage) > 0);
        let steps: Vec<(PortStage, u16)> = back.map(|stage| (stage, 0)).collect();
        let control = go(coordinator, before.clone(), &steps).await?;
        Ok(Moved::between(&before, &control, port))
    }

    /// The coordinator, whose turn it is until it gives up.
    async fn lead(&self, cause: &Cause) -> Result<MutexGuard<'_, Coordinator>, MigrationError> {
        let mut coordinator = self.coordinator().lock().await;
        coordinator.lead().await?;
        coordinator.because(cause.clone());
        Ok(coordinator)
    }

    pub(super) fn check(&self, port: Port) -> Result<(), MigrationError> {
        match self.options.moves.contains(&port) {
            true => Ok(()),
            false => Err(unknown_port(port)),
        }
    }

    fn stage_of(&self, port: Port, word: &str) -> Result<PortStage, MigrationError> {
        self.check(port)?;
        let stages = PortStage::all(port);
        if let Some(stage) = stages.iter().find(|stage| stage.as_str() == word) {
            return Ok(*stage);
        }
        let stages: Vec<&str> = stages.into_iter().map(PortStage::as_str).collect();
        let known = stages.join(", ");
        let text = format!("{port} has the stages {known}, not {word:?}");
        Err(MigrationError::Usage(text))
    }
}

/// What a step begins from, and what it may lead to.
struct Judged {
    before: Control,
    target: Control,
    conditions: Vec<Condition>,
    rehearsed: bool,
}

impl Judged {
    fn moved(self, request: &Advance, to: &Control) -> Moved {
        Moved {
            run: request.run,
            rehearsed: self.rehearsed,
            conditions: self.conditions,
            ..Moved::between(&self.before, to, request.port)
        }
    }
}

/// Makes steps, the first one from exactly this record.
async fn go(
    coordinator: &mut Coordinator,
    mut control: Control,
    steps: &[(PortStage, u16)],
) -> Result<Control, MoveError> {
    for (stage, buckets) in steps {
        coordinator.judge_by(control.epoch);
        control = coordinator.advance_port(*stage, *buckets).await?;
    }
    Ok(control)
}

/// Whether one bucket goes there and back before the rest: what may have to go back in a hurry.
fn is_rehearsed(stage: PortStage) -> bool {
    match stage {
        PortStage::State(stage) => {
            matches!(stage, Stage::Shadow | Stage::Live | Stage::RampDown)
        }
        PortStage::Bus(stage) => stage == BusStage::Live,
        PortStage::Notifier(_) => false,
    }
}

/// Where the buckets would be then.
fn target(before: &Control, stage: PortStage, buckets: u16) -> Result<Control, MigrationError> {
    if stage.is_final() && buckets < before.reached(stage) {
        return Err(MoveError::Final(stage).into());
    }
    let mut target = before.clone();
    let jump = match stage {
        PortStage::State(stage) => {
            state_target(&before.state, stage, buckets).map(|state| target.state = state)
        }
        PortStage::Bus(stage) => {
            let bus = before.bus.with(stage, buckets);
            bus.map(|bus| target.bus = bus)
        }
        PortStage::Notifier(stage) => {
            let notifier = before.notifier.with(stage, buckets);
            notifier.map(|notifier| target.notifier = notifier)
        }
    };
    jump.map_err(MoveError::Jump)?;
    Ok(target)
}

fn state_target(
    state: &Thresholds,
    stage: Stage,
    buckets: u16,
) -> Result<Thresholds, ThresholdError> {
    let (first, second) = match stage {
        Stage::RampDown if buckets >= state.reached(stage) => (Stage::Handoff, stage),
        Stage::RampDown => (stage, Stage::Handoff),
        Stage::Off
        | Stage::DualWrite
        | Stage::Shadow
        | Stage::Live
        | Stage::Handoff
        | Stage::Complete => return state.with(stage, buckets),
    };
    state.with(first, buckets)?.with(second, buckets)
}

fn refuse(
    conditions: &[Condition],
    stage: PortStage,
    confirmed: &[Confirmation],
) -> Result<(), Refusal> {
    let mut failing = conditions.iter().filter(|condition| !condition.holds);
    let failing = failing.find(|condition| !AWAITED.contains(&&*condition.name));
    if let Some(failing) = failing {
        return Err(Refusal {
            guard: failing.name.clone(),
            detail: failing.detail.clone(),
            conditions: conditions.to_vec(),
        });
    }
    for needed in to_confirm(stage) {
        if !confirmed.contains(&needed) {
            let (guard, detail) = match needed {
                Confirmation::NoForeignWriters => (
                    "no_foreign_writers",
                    "writes of others to the old side would not be seen from `live` on; take their right to \
                     write, or confirm that there are none",
                ),
                Confirmation::NoWayBack => (
                    "no_way_back",
                    "the old side gets no more writes in `complete`, so there is no way back; confirm that",
                ),
            };
            return Err(Refusal {
                conditions: conditions.to_vec(),
                ..Refusal::new(guard, detail)
            });
        }
    }
    Ok(())
}

/// The stages behind the first one in which somebody stays.
fn stays(port: Port) -> impl DoubleEndedIterator<Item = PortStage> {
    PortStage::all(port).into_iter().skip(1)
}

fn stage_before(stage: PortStage) -> PortStage {
    let mut before = PortStage::all(stage.port()).into_iter().rev();
    before.find(|before| *before < stage).unwrap_or(stage)
}

fn unknown_port(port: Port) -> MigrationError {
    MigrationError::Usage(format!("{port} does not move on these backends"))
}

fn planned_back(stage: PortStage) -> PlannedStep {
    let (port, word) = (stage.port(), stage.as_str());
    let before = stage_before(stage).as_str();
    PlannedStep {
        command: format!("rollback --port {port} --to {before}"),
        effect: format!("everything in {word} goes back to {before}"),
        conditions: Vec::new(),
        to_confirm: Vec::new(),
    }
}

fn effect(stage: PortStage) -> &'static str {
    let stage = match stage {
        PortStage::State(stage) => stage,
        PortStage::Bus(stage) => return effect_on_events(stage),
        PortStage::Notifier(NotifierStage::Old) => return "notifications go by the old side",
        PortStage::Notifier(NotifierStage::New) => {
            return "notifications that were not tried yet go by the new side";
        }
    };
    match stage {
        Stage::Off => "the old side alone",
        Stage::DualWrite => "every write to the old side is followed by the new one",
        Stage::Shadow => "reads are compared, and answered by the old side",
        Stage::Live => "reads are answered by the new side, and by the old one where it is ahead",
        Stage::Handoff => "nobody writes",
        Stage::RampDown => {
            "the new side accepts writes, after at most 2 s without any; the old one follows before \
                            each answer"
        }
        Stage::Complete => "the new side alone; there is no way back",
    }
}

fn effect_on_events(stage: BusStage) -> &'static str {
    match stage {
        BusStage::Off => "events are published on the old bus; subscribers hear both",
        BusStage::Shadow => "events are published on the old bus, and copied to the new one",
        BusStage::Live => {
            "events are published on the new bus, and on the old one where it does not accept them"
        }
        BusStage::Complete => "events are published on the new bus alone; there is no way back",
    }
}
