//! A saga as data: its steps, what takes them back, and how often each is tried.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::agent::{ActorId, ActorType, Command, ProjectCommand, Run, TaskCommand};
use crate::ports::Notification;

/// How often a step is tried, and how far apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attempts {
    /// Most attempts, the first included.
    pub most: u32,
    /// The pause after the first attempt.
    pub first_pause: Duration,
    /// By what each pause is longer than the one before.
    pub factor: f64,
    /// Longest pause.
    pub longest_pause: Duration,
}

impl Attempts {
    /// Of a step that tells somebody something.
    pub const NOTIFY: Self = Self {
        most: 3,
        first_pause: Duration::from_secs(1),
        factor: 2.0,
        longest_pause: Duration::from_secs(60),
    };

    /// Of a step of an actor: it outlives a restart of the scheduler or of the store.
    pub const ACTOR: Self = Self {
        most: 8,
        first_pause: Duration::from_secs(1),
        factor: 2.0,
        longest_pause: Duration::from_secs(30),
    };

    /// Of a compensation, which is never given up: after these attempts the saga is stuck, and
    /// [says so](super::Saga::stuck) while it goes on trying.
    pub const COMPENSATION: Self = Self {
        most: 10,
        first_pause: Duration::from_secs(1),
        factor: 2.0,
        longest_pause: Duration::from_secs(60),
    };

    /// The pause after so many attempts.
    #[must_use]
    pub fn pause_after(&self, made: u32) -> Duration {
        let growth = self.factor.powf(f64::from(made.saturating_sub(1)));
        let pause = self.first_pause.as_secs_f64() * growth;
        let longest = self.longest_pause.as_secs_f64();
        Duration::from_secs_f64(pause.clamp(0.0, longest))
    }
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Its name, unlike any other of the plan.
    pub name: Cow<'static, str>,
    /// Steps of one stage run side by side, and a stage begins when the one before is done.
    pub stage: usize,
    /// What it does.
    pub work: Work,
    /// What takes it back; `None` where there is nothing to take back.
    pub compensation: Option<ActorCall>,
    /// How often it is tried.
    pub attempts: Attempts,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// Refuses the workflow's input for these reasons, or passes it if there are none. The coordinator decides it.
    Check {
        /// What is wrong with the input.
        issues: Vec<String>,
    },
    /// Asks the world. A driver runs it as an activity.
    Call(Call),
}

/// What a driver does for a step; serializable, because it may travel to where it is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Gives an actor a command.
    Actor(ActorCall),
    /// Tells an assignee of a task.
    Notify(Assigned),
}

/// A command and the actor that gets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorCall {
    /// Which actor of its type.
    pub id: ActorId,
    /// What it is told.
    #[serde(flatten)]
    pub command: Command,
}

impl ActorCall {
    /// Tells the same actor that a run is over.
    pub(super) fn forget(&self, run: &Run) -> Self {
        let run = run.clone();
        let command = match self.command.actor() {
            ActorType::Project => Command::Project(ProjectCommand::ForgetRun { run }),
            // No saga gives a conversation a command.
            ActorType::Task | ActorType::Chat => Command::Task(TaskCommand::ForgetRun { run }),
        };
        let id = self.id.clone();
        Self { id, command }
    }
}

/// The news that somebody has a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assigned {
    /// The same at every attempt of one run.
    pub idempotency_key: Box<str>,
    /// The task.
    pub task_id: ActorId,
    /// Who has it.
    pub assignee: String,
    /// What it is called.
    pub title: String,
}

impl Assigned {
    /// What the receiver gets.
    #[must_use]
    pub fn notification(&self) -> Notification {
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: &'static str,
            task_id: &'a str,
            assignee: &'a str,
            title: &'a str,
            message: String,
        }
        let body = Body {
            r#type: "task_assigned",
            task_id: self.task_id.as_str(),
            assignee: &self.assignee,
            title: &self.title,
            message: format!(
                "Task {} has been assigned to {}",
                self.task_id, self.assignee
            ),
        };
        let json = serde_json::to_vec(&body).expect("texts are JSON");
        Notification {
            idempotency_key: self.idempotency_key.clone(),
            body: Bytes::from(json),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_by_their_factor_up_to_the_longest() {
        let seconds = |made| Attempts::NOTIFY.pause_after(made).as_secs();
        assert_eq!([seconds(1), seconds(2), seconds(6)], [1, 2, 32]);
        assert_eq!([seconds(7), seconds(u32::MAX)], [60, 60]);
    }

    #[test]
    fn the_notification_is_pinned_byte_for_byte() {
        let assigned = Assigned {
            idempotency_key: "k".into(),
            task_id: ActorId::parse("task_id", "t-1").expect("a valid id"),
            assignee: "ann".to_owned(),
            title: "say \"hi\"".to_owned(),
        };
        let sent = assigned.notification();
        assert_eq!(
            sent.body,
            concat!(
                r#"{"type":"task_assigned","task_id":"t-1","assignee":"ann","title":"say \"hi\"","#,
                r#""message":"Task t-1 has been assigned to ann"}"#
            )
        );
        assert_eq!(&*sent.idempotency_key, "k");
    }
}
