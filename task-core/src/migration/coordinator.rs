//! Moves buckets from stage to stage, one step at a time, and only when every replica can follow.

mod lost;

mod options;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

pub use options::CoordinatorOptions;

use super::control::{WaitingFrom, fence_key, fence_of, running_key, with_state};
use super::marker::{DIRTY, REVERSE};
use super::member::REPLICAS;
use super::sides::Sides;
use super::subscriber::first_deaf;
use super::turn::Turn;
use super::{
    AuditEntry, Beat, BusStage, Cause, Control, MoveError, NotifierStage, ParallelStateStore,
    PortStage, ReplicaStatus, Stage,
};
use crate::ports::{
    Commit, DeleteMode, DeleteOptions, ETag, Key, Kind, PortError, PutOptions, StateStore, Stored,
    Write, WriteMode,
};

/// Pause between two looks at the replicas.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Replicas in one page of a look.
const PAGE: usize = 256;

/// The one who changes the control record.
///
/// Of several, one works at a time, and the others wait for their turn.
///
/// Whatever it does, every replica that may work is in the present epoch or in the one before, and the
/// old side refuses writes of all others.
#[derive(Debug)]
pub struct Coordinator {
    sides: Arc<Sides>,
    options: CoordinatorOptions,
    cause: Cause,
    /// What was last heard of each replica, and at what uptime that was new.
    heard: HashMap<Key, (ETag, Duration)>,
    turn: Turn,
    /// The epoch by which the next step was judged.
    judged: Option<u64>,
}

impl Coordinator {
    /// A coordinator of the move that a store takes part in.
    #[must_use]
    pub fn new(store: &ParallelStateStore, options: CoordinatorOptions) -> Self {
        Self::of(Arc::clone(store.sides()), options)
    }

    pub(super) fn of(sides: Arc<Sides>, options: CoordinatorOptions) -> Self {
        Self {
            turn: Turn::new(&sides, options.lease),
            sides,
            options,
            cause: Cause::default(),
            heard: HashMap::new(),
            judged: None,
        }
    }

    /// Names who causes what follows, and why, for the audit.
    pub fn because(&mut self, cause: Cause) {
        self.cause = cause;
    }

    fn old(&self) -> &dyn StateStore {
        &*self.sides.old
    }

    /// Begins a migration in which everything is `off`.
    ///
    /// # Errors
    /// `Begun`; as the old side.
    pub async fn init(&self, salt: &str) -> Result<Control, MoveError> {
        let control = Control::begin(salt);
        self.raise_fence(control.epoch).await?;
        let create = PutOptions {
            mode: WriteMode::Create,
            ttl: None,
        };
        match self.put(None, &control, create).await {
            Ok(()) => Ok(control),
            Err(error) if error.is_conflict() => Err(MoveError::Begun),
            Err(error) => Err(error.into()),
        }
    }

    /// The control record as it is.
    ///
    /// # Errors
    /// `NotBegun`, `Control`; as the old side.
    pub async fn control(&self) -> Result<Control, MoveError> {
        Ok(self.read().await?.0)
    }

    /// Lets so many buckets reach a stage of the state store, which may be more or fewer than have reached it.
    ///
    /// # Errors
    /// What stands in the way; nothing has moved then, or it has been moved back.
    pub async fn advance(&mut self, stage: Stage, buckets: u16) -> Result<Control, MoveError> {
        self.advance_port(PortStage::State(stage), buckets).await
    }

    /// Lets so many buckets reach a stage of the event bus, as [`advance`](Self::advance).
    ///
    /// # Errors
    /// What stands in the way; nothing has moved then.
    pub async fn advance_bus(
        &mut self,
        stage: BusStage,
        buckets: u16,
    ) -> Result<Control, MoveError> {
        self.advance_port(PortStage::Bus(stage), buckets).await
    }

    /// Lets so many buckets reach a stage of the notifier, as [`advance`](Self::advance).
    ///
    /// # Errors
    /// What stands in the way; nothing has moved then.
    pub async fn advance_notifier(
        &mut self,
        stage: NotifierStage,
        buckets: u16,
    ) -> Result<Control, MoveError> {
        self.advance_port(PortStage::Notifier(stage), buckets).await
    }

    /// Lets so many buckets reach a stage of its port, as [`advance`](Self::advance).
    ///
    /// # Errors
    /// As the method of that port.
    pub async fn advance_port(
        &mut self,
        stage: PortStage,
        buckets: u16,
    ) -> Result<Control, MoveError> {
        self.turn.take(self.options.adoption).await?;
        let moved = self.move_port(stage, buckets).await;
        self.turn.end().await;
        moved
    }

    /// Moves the buckets of a stage to the one before it, and leaves those beyond it where they are.
    ///
    /// Whoever has judged the stage by one epoch must not move what somebody else has moved since: then, and where no
    /// bucket is in the stage, it answers `None`.
    ///
    /// # Errors
    /// What stands in the way; nothing has moved then, or it has been moved back.
    pub async fn step_back(
        &mut self,
        stage: PortStage,
        epoch: u64,
    ) -> Result<Option<Control>, MoveError> {
        self.turn.take(self.options.adoption).await?;
        let moved = self.move_back(stage, epoch).await;
        self.turn.end().await;
        moved
    }

    /// Has the turn for several steps, until [`give_up`](Self::give_up).
    ///
    /// # Errors
    /// `Busy`; as the old side.
    pub(super) async fn lead(&mut self) -> Result<(), MoveError> {
        self.turn.lead(self.options.adoption).await
    }

    /// Makes the next step from this epoch alone, by which somebody has judged it.
    pub(super) fn judge_by(&mut self, epoch: u64) {
        self.judged = Some(epoch);
    }

    /// Lets the next coordinator have the turn.
    pub(super) async fn give_up(&mut self) {
        self.turn.give_up().await;
    }

    /// Ends a time without writes that a coordinator has left behind.
    ///
    /// # Errors
    /// `NotBegun`, `Control`, `Busy`, `Overtaken`; as the old side.
    pub async fn recover(&mut self) -> Result<Control, MoveError> {
        self.turn.take(self.options.adoption).await?;
        let recovered = self.recovered().await;
        self.turn.end().await;
        recovered
    }

    async fn recovered(&mut self) -> Result<Control, MoveError> {
        let (control, _) = self.read().await?;
        let judged = self.judged.take();
        if judged.is_some_and(|epoch| epoch != control.epoch) {
            return Err(MoveError::Overtaken);
        }
        match control.waiting_from {
            None => Ok(control),
            Some(_) => self.take_back(&control).await,
        }
    }

    async fn move_port(&mut self, stage: PortStage, buckets: u16) -> Result<Control, MoveError> {
        match stage {
            PortStage::State(stage) => self.move_state(stage, buckets).await,
            PortStage::Bus(stage) => self.move_bus(stage, buckets).await,
            PortStage::Notifier(stage) => self.move_notifier(stage, buckets).await,
        }
    }

    async fn move_state(&mut self, stage: Stage, buckets: u16) -> Result<Control, MoveError> {
        let control = self.recovered().await?;
        if control.state.are_off() {
            self.end_running(&control).await?;
        }
        if stage == Stage::Handoff {
            return Err(MoveError::Passing(stage));
        }
        let reached = control.state.reached(stage);
        if stage == Stage::Complete && buckets < reached {
            return Err(MoveError::Final(PortStage::State(stage)));
        }
        match stage {
            Stage::RampDown if buckets > reached => self.hand_over(&control, buckets).await,
            Stage::RampDown if buckets < reached => self.hand_back(&control, buckets).await,
            Stage::RampDown => Ok(control),
            Stage::Off
            | Stage::DualWrite
            | Stage::Shadow
            | Stage::Live
            | Stage::Handoff
            | Stage::Complete => {
                let state = control.state.with(stage, buckets)?;
                self.step(&control, with_state(&control, state, None)).await
            }
        }
    }

    async fn move_bus(&mut self, stage: BusStage, buckets: u16) -> Result<Control, MoveError> {
        let control = self.recovered().await?;
        let reached = control.bus.reached(stage);
        if stage == BusStage::Complete && buckets < reached {
            return Err(MoveError::Final(PortStage::Bus(stage)));
        }
        let bus = control.bus.with(stage, buckets)?;
        if stage == BusStage::Live
            && buckets > reached
            && let Some((topic, group)) = first_deaf(self.old()).await?
        {
            return Err(MoveError::NotHeard { topic, group });
        }
        let mut next = control.next();
        next.bus = bus;
        self.step(&control, next).await
    }

    async fn move_notifier(
        &mut self,
        stage: NotifierStage,
        buckets: u16,
    ) -> Result<Control, MoveError> {
        let control = self.recovered().await?;
        let mut next = control.next();
        next.notifier = control.notifier.with(stage, buckets)?;
        self.step(&control, next).await
    }

    async fn move_back(
        &mut self,
        stage: PortStage,
        epoch: u64,
    ) -> Result<Option<Control>, MoveError> {
        let control = self.recovered().await?;
        if control.epoch != epoch || control.within(stage) == 0 {
            return Ok(None);
        }
        let buckets = control.beyond(stage);
        self.move_port(stage, buckets).await.map(Some)
    }

    /// Buckets go through `handoff` to `rampdown`.
    async fn hand_over(&mut self, before: &Control, buckets: u16) -> Result<Control, MoveError> {
        let waiting = before.state.with(Stage::Handoff, buckets)?;
        let arrived = waiting.with(Stage::RampDown, buckets)?;
        // What is behind already need not be waited for while nobody writes.
        self.sides.repair(DIRTY, None).await?;
        let waiting = with_state(before, waiting, Some(WaitingFrom::Live));
        let control = self.step(before, waiting).await?;
        match self.settle(&control, DIRTY).await {
            Ok(()) => {
                let arrived = with_state(&control, arrived, None);
                self.step(&control, arrived).await
            }
            Err(reason) => {
                self.take_back(&control).await?;
                Err(reason)
            }
        }
    }

    /// Buckets go through `handoff` back to `live`.
    async fn hand_back(&mut self, before: &Control, buckets: u16) -> Result<Control, MoveError> {
        let waiting = before.state.with(Stage::RampDown, buckets)?;
        let arrived = waiting.with(Stage::Handoff, buckets)?;
        let waiting = with_state(before, waiting, Some(WaitingFrom::RampDown));
        let control = self.step(before, waiting).await?;
        match self.settle(&control, REVERSE).await {
            Ok(()) => {
                let arrived = with_state(&control, arrived, None);
                self.step(&control, arrived).await
            }
            Err(reason) => {
                self.take_back(&control).await?;
                Err(reason)
            }
        }
    }

    /// Nobody writes any more, and nothing is behind.
    async fn settle(&mut self, control: &Control, marks: Kind) -> Result<(), MoveError> {
        let began = Instant::now();
        self.await_adoption(control.epoch, self.options.handoff)
            .await?;
        self.raise_fence(control.epoch).await?;
        loop {
            let found = self.sides.repair(marks, Some(control)).await?;
            let waited = began.elapsed();
            if found == 0 {
                return Ok(());
            }
            if waited >= self.options.handoff {
                return Err(MoveError::Behind { found, waited });
            }
            self.turn.keep().await?;
            sleep(LOOK_EVERY).await;
        }
    }

    /// Ends a time without writes. Both stages around it have the same side that accepts writes, so no
    /// replica has to be waited for.
    async fn take_back(&self, control: &Control) -> Result<Control, MoveError> {
        let next = with_state(control, control.taken_back(), None);
        self.change(control, next).await
    }

    /// Changes the thresholds as soon as every replica has adopted what they were changed from.
    async fn step(&mut self, from: &Control, next: Control) -> Result<Control, MoveError> {
        self.await_adoption(from.epoch, self.options.adoption)
            .await?;
        self.raise_fence(from.epoch).await?;
        if from.state.are_off() && !next.state.are_off() {
            let running = Bytes::from_static(b"1");
            let options = PutOptions::default();
            self.old().put(&running_key(), running, options).await?;
        }
        let next = self.change(from, next).await?;
        if next.state.are_off() {
            self.end_running(&next).await?;
        }
        Ok(next)
    }

    /// Lets a service on the old side alone write again, once no replica sets marks any more.
    async fn end_running(&mut self, control: &Control) -> Result<(), MoveError> {
        if self.old().get(&running_key()).await?.is_some() {
            self.await_adoption(control.epoch, self.options.adoption)
                .await?;
            let (now, etag) = self.read().await?;
            if now != *control {
                return Err(MoveError::Overtaken);
            }
            // Together with the record: another coordinator may have begun a move while this one slept.
            let same = Commit::of(Write::Put {
                key: Control::key(),
                value: control.encode(),
                options: PutOptions {
                    mode: WriteMode::Match(etag),
                    ttl: None,
                },
            });
            let ended = same.write(Write::Delete {
                key: running_key(),
                options: DeleteOptions::default(),
            });
            match self.old().commit(ended).await {
                Err(error) if error.is_conflict() => return Err(MoveError::Overtaken),
                ended => ended.map(drop)?,
            }
        }
        Ok(())
    }

    async fn change(&self, from: &Control, mut next: Control) -> Result<Control, MoveError> {
        let (now, etag) = self.read().await?;
        if now != *from {
            return Err(MoveError::Overtaken);
        }
        // What is written while a bucket is `off` is not followed, so what was copied before does not count.
        let mirrored = Stage::DualWrite;
        let leaves = next.state.reached(mirrored) < now.state.reached(mirrored);
        next.generation += u32::from(leaves);
        // Whatever is written after a time without writes is of a term of its own.
        next.term += u32::from(now.waiting_from.is_some());
        let options = PutOptions {
            mode: WriteMode::Match(etag),
            ttl: None,
        };
        match self.put(Some(&now), &next, options).await {
            Ok(()) => Ok(next),
            Err(error) if error.is_conflict() => Err(MoveError::Overtaken),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the record and the audit's entry in one step.
    async fn put(
        &self,
        from: Option<&Control>,
        to: &Control,
        options: PutOptions,
    ) -> Result<(), PortError> {
        let entry = AuditEntry::write(from, to, &self.cause, self.sides.clock.now());
        let commit = Commit::of(Write::Put {
            key: Control::key(),
            value: to.encode(),
            options,
        });
        let is_needed = from.is_some_and(|from| needs_copy(from, to));
        if is_needed {
            self.sides.copy_control(to).await?;
        }
        self.old().commit(commit.write(entry)).await?;
        if !is_needed {
            self.sides.copy_quietly(to).await;
        }
        Ok(())
    }

    /// Waits until every replica works by the present epoch alone, and forbids earlier ones to write.
    ///
    /// # Errors
    /// `NotBegun`, `NotAdopted`, `Overtaken`, `Control`; as the old side.
    pub(super) async fn settle_epoch(&mut self) -> Result<Control, MoveError> {
        let control = self.control().await?;
        self.await_adoption(control.epoch, self.options.adoption)
            .await?;
        self.raise_fence(control.epoch).await?;
        match self.control().await? == control {
            true => Ok(control),
            false => Err(MoveError::Overtaken),
        }
    }

    /// Every replica that is known, and for how long nothing new was heard of it here.
    ///
    /// # Errors
    /// As the old side.
    pub(super) async fn replicas(&mut self) -> Result<Vec<ReplicaStatus>, PortError> {
        let now = self.sides.clock.uptime();
        let mut replicas = Vec::new();
        let mut from = None;
        loop {
            let page = self.old().scan(REPLICAS, from, PAGE).await?;
            for (key, stored) in &page.entries {
                let since = self.hear(key, stored, now);
                let beat = Beat::decode(&stored.value);
                replicas.push(ReplicaStatus {
                    id: key.id.to_string(),
                    adopted: beat.as_ref().map_or(0, |beat| beat.adopted),
                    oldest: beat.as_ref().map_or(0, |beat| beat.oldest),
                    silent_ms: u64::try_from(now.saturating_sub(since).as_millis())
                        .unwrap_or(u64::MAX),
                });
            }
            from = page.next;
            if from.is_none() {
                return Ok(replicas);
            }
        }
    }

    /// Since when a replica has said nothing new.
    fn hear(&mut self, key: &Key, stored: &Stored, now: Duration) -> Duration {
        let heard = self.heard.entry(key.clone());
        let (etag, since) = heard.or_insert_with(|| (stored.etag.clone(), now));
        if *etag != stored.etag {
            (*etag, *since) = (stored.etag.clone(), now);
        }
        *since
    }

    async fn read(&self) -> Result<(Control, ETag), MoveError> {
        let found = self.old().get(&Control::key()).await?;
        let Stored { value, etag } = found.ok_or(MoveError::NotBegun)?;
        Ok((Control::decode(&value)?, etag))
    }

    async fn raise_fence(&self, epoch: u64) -> Result<(), PortError> {
        let raise = PutOptions {
            mode: WriteMode::Raise,
            ttl: None,
        };
        let fence = fence_of(epoch);
        self.old().put(&fence_key(), fence, raise).await.map(drop)
    }

    /// Waits until every replica works by this epoch alone, or is gone.
    async fn await_adoption(&mut self, epoch: u64, limit: Duration) -> Result<(), MoveError> {
        let mut missing = None;
        let looking = async {
            loop {
                missing = self.first_behind(epoch).await?;
                if missing.is_none() {
                    return Ok(());
                }
                self.turn.keep().await?;
                sleep(LOOK_EVERY).await;
            }
        };
        match timeout(limit, looking).await {
            Ok(result) => result,
            Err(_) => Err(MoveError::NotAdopted {
                replica: missing.unwrap_or_default(),
                epoch,
                waited: limit,
            }),
        }
    }

    async fn first_behind(&mut self, epoch: u64) -> Result<Option<Box<str>>, MoveError> {
        let (mut behind, mut from) = (None, None);
        loop {
            let page = self.old().scan(REPLICAS, from, PAGE).await?;
            for (key, stored) in &page.entries {
                let beat = Beat::decode(&stored.value);
                let follows =
                    beat.is_some_and(|beat| beat.adopted >= epoch && beat.oldest >= epoch);
                // Each of them is heard, so that all that have died are waited for at once
                // (`many_that_have_died_are_waited_for_at_once`).
                if !follows && !self.is_gone(key, stored).await? {
                    behind.get_or_insert_with(|| key.id.clone());
                }
            }
            from = page.next;
            if from.is_none() {
                return Ok(behind);
            }
        }
    }

    /// Says whether a replica has been silent for two leases, and forgets it then.
    async fn is_gone(&mut self, key: &Key, stored: &Stored) -> Result<bool, PortError> {
        let now = self.sides.clock.uptime();
        let since = self.hear(key, stored, now);
        if now.saturating_sub(since) < 2 * self.options.lease {
            return Ok(false);
        }
        let options = DeleteOptions {
            mode: DeleteMode::Match(stored.etag.clone()),
            tombstone: None,
        };
        match self.old().delete(key, options).await {
            Err(error) if error.is_conflict() => Ok(false),
            deleted => deleted.map(|()| {
                self.heard.remove(key);
                true
            }),
        }
    }
}

/// Whether the new side has to know of a change before it is made: from here on it decides, and the old one may be lost.
///
/// On the way back it may be away, and is told as soon as it answers.
fn needs_copy(from: &Control, to: &Control) -> bool {
    let decides = |control: &Control| control.state.reached(Stage::RampDown);
    from.waiting_from == Some(WaitingFrom::Live) && decides(to) > decides(from)
}
