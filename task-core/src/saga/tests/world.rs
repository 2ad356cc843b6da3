//! A world that does what sagas ask of it, and fails as it is told.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::agent::{
    Actor, ActorId, ActorType, Command, Effect, ProjectActor, ProjectView, Refusal, Reply,
    TaskActor, TaskStatus, TaskView, Turn,
};
use crate::domain::Timestamp;
use crate::saga::{
    Action, ActorCall, Call, Chain, Direction, Entry, Next, Outcome, Saga, StepResult, Workflow,
    read,
};

/// What goes wrong with one action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// It takes no effect and says so.
    Refused,
    /// It takes no effect, and says so in a way that no other attempt can help.
    RefusedForGood,
    /// It takes effect, and the answer gets lost.
    Unanswered,
    /// It takes effect twice.
    Twice,
    /// It is not even tried.
    NotMade,
    /// The process dies before it takes effect.
    DeadBefore,
    /// The process dies after it took effect, before that is written down.
    DeadAfter,
}

/// Actors with their records, reminders, and what was notified.
#[derive(Debug, Clone, Default)]
pub(super) struct World {
    records: BTreeMap<(ActorType, String), Bytes>,
    reminders: BTreeMap<(ActorType, String, String), (Timestamp, Bytes)>,
    /// The idempotency keys of all notifications.
    pub(super) notified: Vec<String>,
    /// Every call of a step, in order.
    pub(super) sent: Vec<Call>,
    /// A driver that forgets to cancel reminders.
    pub(super) keeps_reminders: bool,
}

impl World {
    /// Gives one actor a turn, as a driver does.
    fn turn(
        &mut self,
        actor: ActorType,
        id: &ActorId,
        turn: impl FnOnce(&mut Actor) -> Turn<Reply>,
    ) -> Result<Reply, Refusal> {
        let key = (actor, id.to_string());
        let stored = self.records.get(&key).cloned();
        let mut loaded = load(actor, id, stored.as_deref());
        let turn = turn(&mut loaded);
        match turn.changed {
            true => {
                self.records.remove(&key);
                let record = loaded.store().map(|record| (key.clone(), record));
                self.records.extend(record);
            }
            false => assert_eq!(stored, loaded.store(), "an unchanged state differs"),
        }
        for effect in turn.effects {
            match effect {
                Effect::SetReminder(reminder) => {
                    let name = (key.0, key.1.clone(), reminder.name.to_owned());
                    self.reminders.insert(name, (reminder.due, reminder.data()));
                }
                Effect::CancelReminder { name } if !self.keeps_reminders => {
                    let name = (key.0, key.1.clone(), name.into());
                    self.reminders.remove(&name);
                }
                Effect::CancelReminder { .. } | Effect::Publish(_) => {}
            }
        }
        turn.reply
    }

    pub(super) fn command(&mut self, call: &ActorCall, now: Timestamp) -> Result<Reply, Refusal> {
        self.turn(call.command.actor(), &call.id, |actor| {
            match (actor, call.command.clone()) {
                (Actor::Task(actor), Command::Task(command)) => {
                    let turn = actor.turn(command, now);
                    of(turn, Reply::Task)
                }
                (Actor::Project(actor), Command::Project(command)) => {
                    let turn = actor.turn(command, now);
                    of(turn, Reply::Project)
                }
                (actor, command) => panic!("{command:?} for {actor:?}"),
            }
        })
    }

    pub(super) fn call(&mut self, call: &Call, now: Timestamp) -> StepResult {
        match call {
            Call::Actor(call) => StepResult::from(&self.command(call, now)),
            Call::Notify(assigned) => {
                let key = assigned.notification().idempotency_key;
                self.notified.push(key.into());
                StepResult::Done
            }
        }
    }

    /// Fires what is due. A reminder comes again until it is cancelled.
    pub(super) fn fire(&mut self, now: Timestamp) {
        let due = self.reminders.iter().filter(|(_, (due, _))| *due <= now);
        let due: Vec<_> = due
            .map(|(key, (_, data))| (key.clone(), data.clone()))
            .collect();
        for ((actor, id, name), data) in due {
            let id: ActorId = id.parse().unwrap();
            let reply = self.turn(actor, &id, |actor| actor.remind(&name, &data, now));
            assert!(reply.is_ok(), "a reminder is never refused");
        }
    }

    /// How many records there are.
    pub(super) fn records(&self) -> usize {
        self.records.len()
    }

    pub(super) fn has_reminders(&self) -> bool {
        !self.reminders.is_empty()
    }

    fn record(&self, actor: ActorType, id: &str) -> Option<&[u8]> {
        self.records
            .get(&(actor, id.to_owned()))
            .map(|bytes| &bytes[..])
    }

    pub(super) fn task(&self, id: &str) -> Option<TaskView> {
        let record = self.record(ActorType::Task, id);
        let actor = TaskActor::load(id.parse().unwrap(), record).unwrap();
        assert!(
            actor.armed().is_none() || self.has_reminders(),
            "an armed deadline is lost"
        );
        actor.view()
    }

    pub(super) fn project(&self, id: &str) -> Option<ProjectView> {
        let record = self.record(ActorType::Project, id);
        ProjectActor::load(id.parse().unwrap(), record)
            .unwrap()
            .view()
    }

    /// Forgets which runs were compensated.
    pub(super) fn forget_undone(&mut self) {
        for record in self.records.values_mut() {
            let text = std::str::from_utf8(record).unwrap();
            if let Some(at) = text.find(r#","undone":""#) {
                *record = Bytes::from(format!("{}}}", &text[..at]));
            }
        }
    }
}

fn load(actor: ActorType, id: &ActorId, stored: Option<&[u8]>) -> Actor {
    Actor::load(actor, id.clone(), stored).unwrap()
}

fn of<R>(turn: Turn<R>, into: impl FnOnce(R) -> Reply) -> Turn<Reply> {
    Turn {
        reply: turn.reply.map(into),
        changed: turn.changed,
        effects: turn.effects,
    }
}

/// A driver of one saga over a world, whose actions fail as a script says.
pub(super) struct Harness<'a> {
    pub(super) world: World,
    pub(super) saga: Saga,
    pub(super) log: Vec<Bytes>,
    pub(super) entries: Vec<Entry>,
    pub(super) now: Timestamp,
    chain: Chain,
    script: Box<dyn FnMut(&Action) -> Fault + 'a>,
    /// Changes the plan after it was made.
    plan: fn(&mut Saga),
}

impl<'a> Harness<'a> {
    pub(super) fn new(workflow: Workflow, script: impl FnMut(&Action) -> Fault + 'a) -> Self {
        Self::broken(workflow, |_| {}, script)
    }

    pub(super) fn broken(
        workflow: Workflow,
        plan: fn(&mut Saga),
        script: impl FnMut(&Action) -> Fault + 'a,
    ) -> Self {
        let now = super::noon();
        let mut saga = Saga::begin(workflow, now);
        plan(&mut saga);
        let (chain, first) = Chain::begin(&saga);
        Self {
            world: World::default(),
            saga,
            log: vec![first],
            entries: Vec::new(),
            now,
            chain,
            script: Box::new(script),
            plan,
        }
    }

    /// Goes on with a log of another run, in its world.
    pub(super) fn resumed(
        log: &[Bytes],
        world: World,
        now: Timestamp,
        script: impl FnMut(&Action) -> Fault + 'a,
    ) -> Self {
        let entry: serde_json::Value = serde_json::from_slice(&log[0]).unwrap();
        let id = entry["saga"].as_str().unwrap();
        let (saga, chain) = read(id, log.iter().map(|record| &record[..]), None).unwrap();
        Self {
            world,
            saga,
            log: log.to_vec(),
            entries: Vec::new(),
            now,
            chain,
            script: Box::new(script),
            plan: |_| {},
        }
    }

    pub(super) fn append(&mut self, entry: Entry) {
        self.saga.apply(&entry, self.now).unwrap();
        self.log.push(self.chain.seal(&entry, self.now));
        self.entries.push(entry);
    }

    /// Runs the saga to its end.
    pub(super) fn run(&mut self) -> Outcome {
        for _ in 0..10_000 {
            if let Some(outcome) = self.step() {
                return outcome;
            }
        }
        panic!("no end, the last entry is {:?}", self.entries.last());
    }

    /// Does what the saga says next; the outcome when that is nothing.
    pub(super) fn step(&mut self) -> Option<Outcome> {
        match self.saga.next(self.now) {
            Next::Record(entry) => self.append(entry),
            Next::Run(actions) => {
                assert!(!actions.is_empty(), "nothing to do and no end");
                for action in actions {
                    if !self.act(&action) {
                        self.restart();
                        break;
                    }
                }
            }
            Next::Wait(until) => {
                assert!(until > self.now, "waits for the past");
                self.now = until;
                self.world.fire(self.now);
            }
            Next::End(outcome) => return Some(outcome),
        }
        self.now = self.now.saturating_add(Duration::from_millis(3));
        None
    }

    /// Does one thing; `false` when the process dies of it.
    fn act(&mut self, action: &Action) -> bool {
        let fault = (self.script)(action);
        if action.direction == Direction::Do {
            self.world.sent.push(action.call.clone());
        }
        let failed = |is_final| StepResult::Failed {
            reason: "the world is unjust".to_owned(),
            is_final,
        };
        let result = match fault {
            Fault::None => self.world.call(&action.call, self.now),
            Fault::Refused => failed(false),
            Fault::RefusedForGood => failed(true),
            Fault::NotMade => StepResult::Postponed {
                reason: "the circuit is open".to_owned(),
                pause_ms: 1000,
            },
            Fault::Unanswered => {
                let _ = self.world.call(&action.call, self.now);
                failed(false)
            }
            Fault::Twice => {
                let first = self.world.call(&action.call, self.now);
                assert_eq!(self.world.call(&action.call, self.now), first);
                first
            }
            Fault::DeadBefore => return false,
            Fault::DeadAfter => {
                let _ = self.world.call(&action.call, self.now);
                return false;
            }
        };
        let entry = self.saga.record(action, result, self.now);
        self.append(entry);
        true
    }

    /// A new process reads the log, which says all that the old one knew.
    fn restart(&mut self) {
        let records = self.log.iter().map(|record| &record[..]);
        let id = self.saga.run().workflow_id().to_owned();
        let (mut saga, chain) = read(&id, records, Some(self.chain.head())).unwrap();
        (self.plan)(&mut saga);
        assert_eq!((&saga, &chain), (&self.saga, &self.chain));
        self.saga = saga;
    }

    /// What is wrong with the world after the saga was compensated.
    ///
    /// Everything that was ever sent arrives once more, and every reminder fires years later.
    pub(super) fn dirt(&mut self) -> Result<(), String> {
        if self.world.has_reminders() {
            return Err("a reminder is registered".to_owned());
        }
        self.untouched()?;
        for call in self.world.sent.clone() {
            if let Call::Actor(call) = call {
                let _ = self.world.command(&call, self.now);
            }
        }
        self.now = self
            .now
            .saturating_add(Duration::from_secs(10 * 365 * 86_400));
        self.world.fire(self.now);
        self.untouched()
            .map_err(|dirt| format!("after late copies: {dirt}"))
    }

    fn untouched(&self) -> Result<(), String> {
        match self.saga.workflow() {
            Workflow::TaskProcessing(input) => match self.world.task(input.task_id.as_str()) {
                None => Ok(()),
                Some(task) if task.status == TaskStatus::Pending && task.assignee.is_none() => {
                    Ok(())
                }
                Some(task) => Err(format!("a task is {} of {:?}", task.status, task.assignee)),
            },
            Workflow::Project(input) => {
                let tasks = (1..=input.tasks.len()).map(|place| input.task_id(place));
                let left = tasks.filter(|id| self.world.task(id.as_str()).is_some());
                let left: Vec<_> = left.collect();
                if !left.is_empty() {
                    return Err(format!("{left:?} are left"));
                }
                match self.world.project(input.project_id.as_str()) {
                    Some(_) => Err("the project is left".to_owned()),
                    None => Ok(()),
                }
            }
        }
    }
}
