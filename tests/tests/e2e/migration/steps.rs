//! The steps of the protocol at which a replica can die, as a Redis sees them.

use task_tests::process::trap::{Command, Moment, Recognise};

/// A command that the protocol makes a step of.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) is_it: Recognise,
}

const fn step(name: &'static str, is_it: Recognise) -> Step {
    Step { name, is_it }
}

/// Marks of tasks, and tasks, on the old side and on the new one.
const DIRTY: &str = "task-api:state:dirty:task/";
const REVERSE: &str = "task-api:state:reverse:task/";
const OLD_TASK: &str = "task:";
const NEW_TASK: &str = "task-api||task-";
const OUTBOX: &str = "task-api:outbox";

/// Whether it is a write to something of this name.
fn writes(command: &Command<'_>, name: &str) -> bool {
    command.is("EVALSHA") && command.has(name)
}

/// What a write costs while the old side accepts it: the write with its mark, and the copy that takes the mark away.
pub(super) const FORWARDS: [Step; 6] = [
    step("write on the old side, with its mark", |command| {
        writes(command, DIRTY) && command.has(OLD_TASK)
    }),
    step("read of the mark", |command| {
        command.is("GET") && command.has(DIRTY)
    }),
    step("read of the new side", |command| {
        command.is("HMGET") && command.has(NEW_TASK)
    }),
    step("copy to the new side", |command| {
        writes(command, NEW_TASK) && !command.has(OUTBOX)
    }),
    step("clearing of the mark", |command| {
        writes(command, DIRTY) && !command.has(OLD_TASK)
    }),
    step("sign of life", |command| {
        writes(command, "task-api:state:replica:")
    }),
];

/// What a write costs while the new side accepts it.
pub(super) const BACKWARDS: [Step; 3] = [
    step("intent on the old side", |command| {
        writes(command, REVERSE) && !command.has("delete_match")
    }),
    step("write on the new side", |command| {
        writes(command, NEW_TASK) && command.has(OUTBOX)
    }),
    step("write that follows on the old side", |command| {
        writes(command, REVERSE) && command.has("delete_match") && command.has(OLD_TASK)
    }),
];

/// What works through all tasks.
pub(super) const BACKFILL: [Step; 2] = [
    step("checkpoint of the backfill", |command| {
        writes(command, "task-api:state:migration:job/backfill")
    }),
    step("right to work on the backfill", |command| {
        writes(command, "task-api:state:lease:migration-backfill")
    }),
];

/// What brings events to their bus.
pub(super) const RELAY: [Step; 2] = [
    step("publishing of an event", |command| {
        command.is("XADD") && command.has("task-events")
    }),
    step("removal of a published event", |command| {
        command.is("XDEL") && command.has(OUTBOX)
    }),
];

const CONTROL: &str = "task-api:state:migration:control";

/// Whether a control record is written by which nobody writes for a while.
fn lets_wait(command: &Command<'_>) -> bool {
    command.holds("{\"format\":", "\"waiting_from\":")
}

/// What moves the stages.
pub(super) const MOVE: [Step; 5] = [
    step("turn of a coordinator", |command| {
        writes(command, "task-api:state:lease:migration-coordinator")
    }),
    step("fence", |command| {
        writes(command, "task-api:state:migration:fence")
    }),
    step("control record", |command| {
        writes(command, CONTROL) && !lets_wait(command)
    }),
    step("control record into handoff", |command| {
        writes(command, CONTROL) && lets_wait(command)
    }),
    step("copy of the control record", |command| {
        writes(command, "task-api||migration-copy")
    }),
];

/// Each step with each moment; a read changes nothing, so one moment of it is enough.
pub(super) fn points(steps: &[&[Step]]) -> Vec<(Step, Moment)> {
    let steps = steps.iter().copied().flatten();
    let points = steps.flat_map(|step| {
        let moments = [Moment::Before, Moment::Unanswered];
        let count = if step.name.starts_with("read") { 1 } else { 2 };
        moments
            .into_iter()
            .take(count)
            .map(|moment| (*step, moment))
    });
    points.collect()
}
