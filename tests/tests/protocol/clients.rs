//! The judge: what the clients were told, and which orders of their calls explain it.
//!
//! It holds every state that one register could be in after what was told so far, with the answers that calls
//! without an answer have been given there. When none is left, no order explains the history: it is not linearizable.

use crate::state::{Content, Value};

/// Most calls of a history.
pub(crate) const CALLS: usize = 4;

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Ask {
    Read,
    /// The content becomes another one, if it is the first one.
    Write {
        base: Content,
        value: Content,
        forbids: bool,
    },
}

/// What one register answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Answer {
    Saw(Content),
    Done,
    Refused,
}

/// One register, and the answers that it has given and nobody has been told yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Register {
    content: Content,
    /// It was deleted in a way that forbids another birth.
    is_over: bool,
    given: [Option<Answer>; CALLS],
}

impl Register {
    fn answer(mut self, call: usize, ask: Ask) -> Self {
        let answer = match ask {
            Ask::Read => Answer::Saw(self.content),
            Ask::Write {
                base,
                value,
                forbids,
            } => {
                if self.content == base && !(base.is_none() && self.is_over) {
                    self.content = value;
                    self.is_over |= forbids;
                    Answer::Done
                } else {
                    Answer::Refused
                }
            }
        };
        self.given[call] = Some(answer);
        self
    }
}

/// What the clients know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Clients {
    open: [Option<Ask>; CALLS],
    registers: Vec<Register>,
    /// Changes that were answered as done, and as refused, a bit for each process.
    pub(crate) done: u8,
    pub(crate) refused: u8,
    /// A call was refused, and no order explains why.
    pub(crate) is_wronged: bool,
}

impl Clients {
    pub(crate) fn new(content: Content) -> Self {
        let register = Register {
            content,
            is_over: false,
            given: [None; CALLS],
        };
        Self {
            open: [None; CALLS],
            registers: vec![register],
            done: 0,
            refused: 0,
            is_wronged: false,
        }
    }

    /// A call begins. From now on it may take effect.
    pub(crate) fn ask(&mut self, call: usize, ask: Ask) {
        self.open[call] = Some(ask);
        self.close();
    }

    /// A read is answered, or a change as done.
    pub(crate) fn tell(&mut self, call: usize, answer: Answer) {
        self.done |= u8::from(answer == Answer::Done) << call;
        self.open[call] = None;
        self.registers
            .retain(|register| register.given[call] == Some(answer));
        self.forget(call);
    }

    /// A change is answered as one that the record forbids. It has no effect.
    ///
    /// What it is refused for may be a write that is not answered and may still be undone, so nothing else follows.
    pub(crate) fn refuse(&mut self, call: usize) {
        let reason = Some(Answer::Refused);
        self.is_wronged |= !self
            .registers
            .iter()
            .any(|register| register.given[call] == reason);
        self.tell_not_made(call);
    }

    /// A call is answered as one that was not made.
    pub(crate) fn tell_not_made(&mut self, call: usize) {
        self.refused |= 1 << call;
        self.open[call] = None;
        self.registers
            .retain(|register| register.given[call] != Some(Answer::Done));
        self.forget(call);
    }

    fn forget(&mut self, call: usize) {
        for register in &mut self.registers {
            register.given[call] = None;
        }
        self.registers.sort_unstable();
        self.registers.dedup();
    }

    /// Adds what open calls lead to, in any order.
    fn close(&mut self) {
        let mut next = 0;
        while let Some(register) = self.registers.get(next).copied() {
            for (call, ask) in self.open.iter().enumerate() {
                if let Some(ask) = ask
                    && register.given[call].is_none()
                {
                    let after = register.answer(call, *ask);
                    if !self.registers.contains(&after) {
                        self.registers.push(after);
                    }
                }
            }
            next += 1;
        }
        self.registers.sort_unstable();
    }

    /// Whether an order of the calls explains every answer.
    pub(crate) fn are_explained(&self) -> bool {
        !self.registers.is_empty()
    }

    /// Whether a client that reads now may be told this.
    pub(crate) fn may_see(&self, content: Content) -> bool {
        let mut registers = self.registers.iter();
        registers.any(|register| register.content == content)
    }
}

/// The content of a change that is made over another one, in a term.
pub(crate) fn next(by: usize, base: Content, term: u8) -> Value {
    Value {
        by: u8::try_from(by).expect("few"),
        term,
        rev: base.map_or(1, |base| base.rev + 1),
    }
}
