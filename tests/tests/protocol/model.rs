//! The protocol as a model: who is there, what may happen next, and what must hold.

use stateright::{Model, Property};
use task_core::migration::Stage;

use crate::clients::Clients;
use crate::copies::Ended;
use crate::moves::{Lead, LeadAt};
use crate::properties;
use crate::real::Guards;
use crate::rules::Rule;
use crate::state::{
    At, Content, Control, Copying, Dirty, Job, New, Old, OnNew, Process, REPLICAS, Replica, State,
    Value, Way,
};

/// What a process is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Create,
    Update,
    Delete {
        forbids: bool,
    },
    Read,
    /// Follows marks, and is the backfill.
    Copy,
    /// Writes to the old side as a service without a move.
    Plain,
}

/// A move, and who takes part in it.
#[derive(Debug)]
pub(crate) struct Protocol {
    /// What each process does, and on which replica.
    pub(crate) roles: Vec<(Role, usize)>,
    pub(crate) from: Stage,
    /// The stages between which it moves.
    pub(crate) range: (Stage, Stage),
    pub(crate) moves: u8,
    pub(crate) coordinators: usize,
    pub(crate) lost: u8,
    pub(crate) pauses: u8,
    pub(crate) deaths: u8,
    /// Whether the record is there at the beginning.
    pub(crate) exists: bool,
    /// Whether the new side has it as well.
    pub(crate) is_copied: bool,
    /// Whether contents tell which one is later, as those of tasks do.
    pub(crate) has_revisions: bool,
    /// Whether coordinators may be interrupted.
    pub(crate) are_leads_lost: bool,
    /// Whether copies are begun without a mark as well.
    pub(crate) copies_anything: bool,
    pub(crate) without: Option<Rule>,
    pub(crate) guards: Guards,
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// A request of a client comes in.
    Receive(usize, Content),
    /// Somebody begins to copy.
    Copy(usize, Way),
    /// A process makes its next step.
    Step(usize),
    /// A process gives up; what it has sent may take effect later.
    GiveUp(usize),
    /// The new side does not answer a reader.
    Miss(usize),
    Send(usize),
    Look(usize),
    /// A replica's lease runs out.
    Expire(usize),
    /// A replica is taken for gone.
    Forget(usize),
    /// A replica dies; another one takes its place.
    Die(usize),
    Decide(usize, Stage),
    Fill(usize),
    /// The backfill comes by where the record would be.
    PassBy,
    Lead(usize),
    TakeBack(usize),
    /// A coordinator is never heard of again.
    Abandon(usize),
}

impl Protocol {
    /// Nobody yet, in a stage that everybody has adopted.
    pub(crate) fn at(from: Stage) -> Self {
        Self {
            roles: Vec::new(),
            from,
            range: (from, from),
            moves: 0,
            coordinators: 0,
            lost: 0,
            pauses: 0,
            deaths: 0,
            exists: true,
            is_copied: from > Stage::Off,
            has_revisions: true,
            are_leads_lost: true,
            copies_anything: false,
            without: None,
            guards: Guards::new(),
        }
    }

    /// The same with nothing on the new side, and no backfill.
    pub(crate) fn uncopied(self) -> Self {
        Self {
            is_copied: false,
            ..self
        }
    }

    /// The same with a way back to an earlier stage.
    pub(crate) fn down_to(self, least: Stage) -> Self {
        Self {
            range: (least, self.range.1),
            ..self
        }
    }

    pub(crate) fn keeps(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    pub(crate) fn replica_of(&self, process: usize) -> usize {
        self.roles[process].1
    }

    pub(crate) fn is_write(&self, process: usize) -> bool {
        !matches!(self.roles[process].0, Role::Read | Role::Copy)
    }

    pub(crate) fn makes_event(&self, process: usize) -> bool {
        matches!(
            self.roles[process].0,
            Role::Create | Role::Update | Role::Plain
        )
    }

    fn receive_actions(&self, state: &State, process: usize, actions: &mut Vec<Action>) {
        let found = [state.old.record, state.new.found.content()];
        match self.roles[process].0 {
            Role::Create | Role::Read => actions.push(Action::Receive(process, None)),
            Role::Plain => actions.push(Action::Receive(process, state.old.record)),
            Role::Update | Role::Delete { .. } => {
                let bases = found.iter().filter(|base| base.is_some());
                actions.extend(bases.map(|base| Action::Receive(process, *base)));
                if found[0] == found[1] && found[0].is_some() {
                    actions.pop();
                }
            }
            Role::Copy => {
                let fills = state.is_filling() && state.old.record.is_some();
                if state.old.dirty.is_some() || fills || self.copies_anything {
                    actions.push(Action::Copy(process, Way::Forward));
                }
                if state.old.reverse.is_some() {
                    actions.push(Action::Copy(process, Way::Backward));
                }
            }
        }
    }

    fn process_actions(&self, state: &State, number: usize, actions: &mut Vec<Action>) {
        let process = &state.processes[number];
        if process.at == At::Done {
            return;
        }
        if process.at == At::Idle && process.copy.is_none() {
            return self.receive_actions(state, number, actions);
        }
        actions.push(Action::Step(number));
        let role = self.roles[number].0;
        if state.lost > 0 && !process.is_late {
            if self.may_be_late(process, role) {
                actions.push(Action::GiveUp(number));
            }
            if process.at == At::ReadNew && process.copy.is_none() {
                actions.push(Action::Miss(number));
            }
        }
    }

    fn replica_actions(&self, state: &State, number: usize, actions: &mut Vec<Action>) {
        let replica = &state.replicas[number];
        let is_behind = replica
            .adopted
            .is_none_or(|known| known.epoch < state.control.epoch);
        let is_told = replica.beat == Some(self.beat_of(state, number));
        let has_reason = is_behind || !is_told || !replica.has_lease;
        if has_reason || replica.is_beating {
            actions.extend([Action::Send(number), Action::Look(number)]);
        }
        if replica.has_lease && state.pauses > 0 {
            actions.push(Action::Expire(number));
        }
        if replica.beat.is_some() {
            actions.push(Action::Forget(number));
        }
        if replica.adopted.is_some() && state.deaths > 0 {
            actions.push(Action::Die(number));
        }
    }

    fn lead_actions(&self, state: &State, number: usize, actions: &mut Vec<Action>) {
        let lead = &state.leads[number];
        if lead.at != LeadAt::Idle {
            actions.push(Action::Lead(number));
            if !self.are_leads_lost {
                return;
            }
            actions.push(Action::Abandon(number));
            if matches!(
                lead.at,
                LeadAt::AwaitAll
                    | LeadAt::FenceAll
                    | LeadAt::Look
                    | LeadAt::AwaitAgain
                    | LeadAt::Arrive
            ) {
                actions.push(Action::TakeBack(number));
            }
            return;
        }
        let (least, most) = self.range;
        for to in Stage::ALL {
            let is_other = to != state.control.stage && to != Stage::Handoff;
            if to >= least && to <= most && is_other && state.moves > 0 {
                actions.push(Action::Decide(number, to));
            }
        }
        actions.push(Action::Fill(number));
    }

    /// A copy goes on; whoever waits for it goes on when it has ended.
    fn go_on(&self, state: &mut State, process: usize) {
        if state.processes[process].copy.is_none() {
            return self.step_request(state, process);
        }
        let fills = state.processes[process].copy.is_some_and(|copy| copy.fills);
        let ended = self.step_copy(state, process);
        if state.processes[process].is_late {
            return self.end(state, process);
        }
        let Some(ended) = ended else { return };
        let is_filled = matches!(ended, Ended::Equal | Ended::Copied | Ended::Ahead);
        if fills && is_filled {
            state.end_job();
        }
        match self.roles[process].0 {
            Role::Copy => self.end(state, process),
            Role::Create | Role::Update | Role::Delete { .. } | Role::Read | Role::Plain => {
                self.resume(state, process, ended);
            }
        }
    }

    fn give_up(&self, state: &mut State, process: usize) {
        state.lost -= 1;
        let late = &mut state.processes[process];
        late.is_late = true;
        let copy = late.copy.as_mut().and_then(|copy| copy.pin.as_mut());
        for pin in late.pin.as_mut().into_iter().chain(copy) {
            pin.counts = false;
        }
    }

    fn die(&self, state: &mut State, replica: usize) {
        state.deaths -= 1;
        state.replicas[replica] = Replica::default();
        for process in 0..self.roles.len() {
            let is_there = self.replica_of(process) == replica;
            let Process { at, copy, .. } = state.processes[process];
            let works = copy.is_some() || !matches!(at, At::Idle | At::Done);
            if is_there && works && !state.processes[process].is_late {
                self.end(state, process);
            }
        }
    }

    fn apply(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Receive(process, base) => return self.receive(state, process, base),
            Action::Copy(process, way) => {
                state.processes[process].copy = Some(Copying::begin(way));
            }
            Action::Step(process) => self.go_on(state, process),
            Action::GiveUp(process) => self.give_up(state, process),
            Action::Miss(process) => {
                state.lost -= 1;
                self.miss(state, process);
            }
            Action::Send(replica) => return self.send(state, replica),
            Action::Look(replica) => return self.look(state, replica),
            Action::Expire(replica) => {
                state.pauses -= 1;
                state.replicas[replica].has_lease = false;
            }
            Action::Forget(replica) => return self.forget(state, replica),
            Action::Die(replica) => self.die(state, replica),
            Action::Decide(lead, to) => return self.decide_step(state, lead, to),
            Action::Fill(lead) => return self.decide_fill(state, lead),
            Action::PassBy => state.end_job(),
            Action::Lead(lead) => return self.carry_on(state, lead),
            Action::TakeBack(lead) => return self.take_back(state, lead),
            Action::Abandon(lead) => state.leads[lead] = Lead::default(),
        }
        Some(())
    }

    fn replica_at_start(&self, control: Control) -> Replica {
        Replica {
            adopted: Some(control),
            has_lease: true,
            beat: Some(crate::state::Beat {
                adopted: control.epoch,
                oldest: control.epoch,
            }),
            is_beating: false,
        }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let control = Control {
            epoch: 1,
            term: 1,
            generation: 1,
            stage: self.from,
            waiting_from: None,
        };
        let content = self.exists.then_some(Value::FIRST);
        let found = content.filter(|_| self.is_copied);
        vec![State {
            old: Old {
                record: content,
                forbids: false,
                dirty: None::<Dirty>,
                reverse: None,
                fence: 1,
                is_running: self.from > Stage::Off,
                events: 0,
            },
            new: New {
                found: found.map_or(OnNew::Nothing, OnNew::Record),
                events: 0,
            },
            control,
            job: (self.from > Stage::Off && self.is_copied).then_some(Job {
                generation: 1,
                is_done: true,
            }),
            replicas: std::array::from_fn::<_, REPLICAS, _>(|_| self.replica_at_start(control)),
            processes: vec![Process::default(); self.roles.len()],
            leads: vec![Lead::default(); self.coordinators],
            clients: Clients::new(content),
            moves: self.moves,
            lost: self.lost,
            pauses: self.pauses,
            deaths: self.deaths,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for process in 0..self.roles.len() {
            self.process_actions(state, process, actions);
        }
        for replica in 0..REPLICAS {
            self.replica_actions(state, replica, actions);
        }
        for lead in 0..self.coordinators {
            self.lead_actions(state, lead, actions);
        }
        if state.is_filling() && state.old.record.is_none() {
            actions.push(Action::PassBy);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        self.apply(&mut next, action)?;
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
