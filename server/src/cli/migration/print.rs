//! What the service answered, for people: aligned, short, with the next step.

use std::fmt::Write as _;

use task_core::migration::{
    AuditEntry, Condition, Confirmation, Control, Counts, Differences, Drained, JobKind, JobState,
    JobStatus, Marks, Moved, Plan, PortStatus, Readiness, Run, Scope, StageShare, Status,
    Unanswered,
};

use super::command::CONFIRMATIONS;
use super::progress;
use super::words::{count, millis, plural};

/// What a person types.
const PROGRAM: &str = "task-server migration";

/// What is left to do when everything has arrived.
const LAST: &str = "start replicas with the new backend alone, then stop these: nothing needs the old side any more";

/// Width of the first column.
const WIDTH: usize = 10;

/// Where every port is, and what is next.
pub(super) fn status(status: &Status) -> String {
    if !status.begun {
        return format!(
            "There is no move yet: reads and writes are refused.\nnext      {PROGRAM} init\n"
        );
    }
    let mut text = String::new();
    for port in &status.ports {
        row(&mut text, port.port.as_str(), &shares(&port.stages));
    }
    row(&mut text, "replicas", &replicas(status));
    row(&mut text, "marks", &marks(&status.marks));
    let jobs = [&status.backfill, &status.verify, &status.full_verify];
    for (place, job) in jobs.into_iter().enumerate() {
        let Some(job) = job else { continue };
        let is_shown_before =
            place == 2 && status.verify.as_ref().is_some_and(|last| last.id == job.id);
        if !is_shown_before {
            row(&mut text, job.kind.as_str(), &job_in_short(job));
        }
    }
    let numbers = format!(
        "epoch {}, term {}, generation {}",
        status.epoch, status.term, status.generation
    );
    row(&mut text, "record", &numbers);
    text.push('\n');
    match status.ports.iter().all(|port| port.next.is_none()) {
        true => row(&mut text, "next", LAST),
        false => {
            for port in &status.ports {
                next_of_port(&mut text, port);
            }
        }
    }
    text
}

fn row(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "{name:<WIDTH$}{value}");
}

fn shares(stages: &[StageShare]) -> String {
    let parts = stages
        .iter()
        .map(|share| format!("{} {}", share.stage, share.percent));
    parts.collect::<Vec<_>>().join(", ")
}

fn replicas(status: &Status) -> String {
    let behind = status.replicas.iter();
    let behind = behind
        .filter(|replica| replica.oldest < status.epoch)
        .count();
    let all = plural(as_u64(status.replicas.len()), "replica", "replicas");
    match behind {
        0 => format!("{all}, all at epoch {}", status.epoch),
        behind => format!("{all}, {behind} not yet at epoch {}", status.epoch),
    }
}

fn as_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// How many records one side may lack.
pub(super) fn marks(marks: &Marks) -> String {
    let mut text = match marks.total() {
        0 => return "none: both sides have every write".to_owned(),
        _ => format!("{} behind on the new side", count(marks.dirty.count)),
    };
    if marks.reverse.count > 0 {
        let _ = write!(text, ", {} on the old one", count(marks.reverse.count));
    }
    if let Some(oldest) = marks.oldest_ms() {
        let _ = write!(text, ", the oldest for {}", millis(oldest));
    }
    text
}

fn job_in_short(job: &JobStatus) -> String {
    let line = progress::line(job);
    let line = line.strip_prefix(job.kind.as_str()).unwrap_or(&line);
    let scope = match (job.kind, job.scope) {
        (JobKind::Backfill, _) => String::new(),
        (JobKind::Verify, Scope::Full) => "full  ".to_owned(),
        (JobKind::Verify, Scope::Sample(share)) => format!("sample of {share}  "),
    };
    let verdict = match job.clean {
        Some(true) => "  clean",
        Some(false) => "  not clean",
        None => "",
    };
    format!("{scope}{}{verdict}", line.trim_start())
}

fn next_of_port(text: &mut String, port: &PortStatus) {
    let Some(next) = &port.next else {
        row(text, port.port.as_str(), "is where it was to go");
        return;
    };
    if next.safe {
        let _ = writeln!(
            text,
            "next      {PROGRAM} advance --port {} --to {}{}",
            port.port,
            next.to,
            confirm(&next.to_confirm)
        );
        return;
    }
    let _ = writeln!(
        text,
        "{:<WIDTH$}not safe to advance to {}:",
        port.port.as_str(),
        next.to
    );
    conditions(text, failing(next));
    let helps = failing(next).find_map(|condition| remedy(&condition.name));
    if let Some(command) = helps {
        let _ = writeln!(text, "next      {PROGRAM} {command}");
    }
}

/// The command that makes a condition hold, where there is one.
fn remedy(condition: &str) -> Option<&'static str> {
    match condition {
        "backfill_complete" => Some("backfill start"),
        "verify_clean" | "verify_recent" => Some("verify --full"),
        "no_old_mark" => Some("repair drain"),
        "replicas_adopted" | "leases_live" => Some("status --watch"),
        _ => None,
    }
}

fn failing(next: &Readiness) -> impl Iterator<Item = &Condition> {
    next.conditions.iter().filter(|condition| !condition.holds)
}

fn conditions<'a>(text: &mut String, conditions: impl Iterator<Item = &'a Condition>) {
    for condition in conditions {
        let sign = if condition.holds { "ok" } else { "no" };
        let _ = writeln!(
            text,
            "  {sign}  {:<20}  {}",
            condition.name, condition.detail
        );
    }
}

/// The flags by which these are confirmed.
fn confirm(wanted: &[Confirmation]) -> String {
    let words = CONFIRMATIONS
        .iter()
        .filter(|(_, known)| wanted.contains(known));
    words
        .map(|(word, _)| format!(" --confirm {word}"))
        .collect()
}

/// The record of a move that has just begun.
pub(super) fn begun(control: &Control) -> String {
    format!(
        "begun     everything is off, epoch {}\n\
         next      {PROGRAM} advance --port state --to dualwrite\n",
        control.epoch
    )
}

/// The steps to a stage.
pub(super) fn plan(plan: &Plan) -> String {
    let mut text = String::new();
    row(&mut text, plan.port.as_str(), &shares(&plan.from));
    row(&mut text, "to", &plan.to);
    if plan.steps.is_empty() {
        text.push_str("Everything is there.\n");
    }
    for (number, step) in (1..).zip(&plan.steps) {
        let (command, confirmed) = (&step.command, confirm(&step.to_confirm));
        let _ = writeln!(
            text,
            "\n{number}. {PROGRAM} {command}{confirmed}\n   {}",
            step.effect
        );
        conditions(&mut text, step.conditions.iter());
    }
    text
}

/// A step that was made, or would be.
pub(super) fn moved(moved: &Moved) -> String {
    let verb = match moved.run {
        Run::Real => "moved",
        Run::Dry => "would move",
    };
    let mut text = format!(
        "{} {verb}: {} → {}\n",
        moved.port,
        shares(&moved.from),
        shares(&moved.to)
    );
    if moved.rehearsed {
        text.push_str("One bucket went first, came back, and went again.\n");
    }
    if moved.run == Run::Dry {
        conditions(&mut text, moved.conditions.iter());
    }
    unanswered(&mut text, &moved.unanswered);
    let _ = writeln!(text, "next      {PROGRAM} status");
    text
}

/// The writes of which only this tells what became of them.
fn unanswered(text: &mut String, writes: &[Unanswered]) {
    for write in writes {
        let what = match write.deletes {
            true => "deletion",
            false => "write",
        };
        let made = match write.made {
            true => "it was made",
            false => "it was not made",
        };
        let Unanswered { key, at, .. } = write;
        row(
            text,
            "unknown",
            &format!("{what} of {key} at {at} was not answered: {made}"),
        );
    }
}

/// How a job ended, or is.
pub(super) fn job(job: &JobStatus) -> String {
    let mut text = String::new();
    row(&mut text, job.kind.as_str(), &job_in_short(job));
    let found = counts(&job.counts);
    if !found.is_empty() {
        row(&mut text, "found", &found);
    }
    if let Some(reason) = &job.reason {
        row(&mut text, "reason", reason);
    }
    for unseen in &job.not_checked {
        row(&mut text, "unseen", unseen);
    }
    for left in job.left.iter().take(5) {
        row(
            &mut text,
            "failed",
            &format!("{}: {}", left.key, left.error),
        );
    }
    if let Some(next) = after(job) {
        row(&mut text, "next", &next);
    }
    text
}

fn counts(counts: &Counts) -> String {
    let named = [
        (counts.equal, "equal"),
        (counts.copied, "copied"),
        (counts.behind, "behind, with a mark"),
        (counts.missing, "missing"),
        (counts.extra, "extra"),
        (counts.different, "different"),
        (counts.stale, "stale"),
        (counts.ahead, "ahead"),
        (counts.repaired, "repaired"),
        (counts.skipped, "not in a stage that copies"),
        (counts.failed, "failed"),
    ];
    let some = named.into_iter().filter(|(number, _)| *number > 0);
    let parts = some.map(|(number, word)| format!("{} {word}", count(number)));
    parts.collect::<Vec<_>>().join(", ")
}

fn after(job: &JobStatus) -> Option<String> {
    let kind = job.kind.as_str();
    let next = match (job.kind, job.state) {
        (_, JobState::Running) => format!("{kind} status --follow"),
        (JobKind::Backfill, JobState::Paused | JobState::Failed) => "backfill resume".to_owned(),
        (JobKind::Backfill, JobState::Done) => "verify --full".to_owned(),
        (JobKind::Verify, JobState::Done) if job.clean == Some(true) => "status".to_owned(),
        (JobKind::Verify, JobState::Done) => "diffs".to_owned(),
        (JobKind::Backfill | JobKind::Verify, _) => return None,
    };
    Some(format!("{PROGRAM} {next}"))
}

/// How a drain ended.
pub(super) fn drained(drained: &Drained) -> String {
    let took = millis(drained.took_ms);
    let mut text = match drained.drained {
        true => format!(
            "drained   {} in {took}\n",
            plural(drained.before, "mark", "marks")
        ),
        false => format!(
            "drained   {} of {} are left after {took}\n",
            count(drained.left),
            plural(drained.before, "mark", "marks")
        ),
    };
    row(&mut text, "marks", &marks(&drained.marks));
    text
}

/// Records of which the sides disagree, field by field.
pub(super) fn differences(found: &Differences) -> String {
    let Some(verify) = &found.verify else {
        return format!("Nothing was compared yet.\nnext      {PROGRAM} verify --full\n");
    };
    let mut text = String::new();
    row(&mut text, "verify", &job_in_short(verify));
    if found.found > found.kept {
        let text_of_both = format!("{} of {} are kept", count(found.kept), count(found.found));
        row(&mut text, "found", &text_of_both);
    }
    for one in &found.differences {
        let _ = write!(text, "{}  {}", one.key, one.disagreement.as_str());
        for side in &one.foreign {
            let _ = write!(text, ", last written by somebody else on the {side} side");
        }
        text.push_str(if one.repaired { ", repaired\n" } else { "\n" });
        let width = one.fields.iter().map(|field| field.field.len()).max();
        let width = width.unwrap_or(0).max("(all)".len());
        for field in &one.fields {
            let name = if field.field.is_empty() {
                "(all)"
            } else {
                &field.field
            };
            let side =
                |value: &Option<String>| value.clone().unwrap_or_else(|| "absent".to_owned());
            let _ = writeln!(text, "  {name:<width$}  old  {}", side(&field.old));
            let _ = writeln!(text, "  {:<width$}  new  {}", "", side(&field.new));
        }
        if one.more_fields > 0 {
            let _ = writeln!(
                text,
                "  and {} more",
                plural(one.more_fields, "field", "fields")
            );
        }
    }
    if found.differences.iter().any(|one| !one.repaired) {
        let _ = writeln!(text, "next      {PROGRAM} verify --full --fix");
    }
    text
}

/// Who changed what.
pub(super) fn audit(entries: &[AuditEntry]) -> String {
    let mut text = String::new();
    for entry in entries {
        let why = match entry.cause.why.as_str() {
            "" => String::new(),
            why => format!(" ({why})"),
        };
        let _ = writeln!(
            text,
            "{}  epoch {:<5} {}  {}{why}",
            entry.at,
            entry.epoch,
            entry.cause.who,
            entry.change()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::progress::tests::job as a_job;
    use super::*;

    fn a_status(changed: &Value) -> Status {
        let mut status = json!({
            "begun": true, "epoch": 7, "term": 1, "generation": 1,
            "ports": [{
                "port": "state",
                "stages": [{"stage": "live", "percent": 25.0}, {"stage": "shadow", "percent": 75.0}],
                "next": {"to": "live", "safe": true, "failing": [], "conditions": [],
                         "to_confirm": ["no-foreign-writers"]},
            }],
            "replicas": [
                {"id": "a", "adopted": 7, "oldest": 7, "silent_ms": 10},
                {"id": "b", "adopted": 7, "oldest": 6, "silent_ms": 20},
            ],
            "marks": {
                "dirty": {"count": 12, "oldest_ms": 1_250, "of": []},
                "reverse": {"count": 0, "oldest_ms": null, "of": []},
            },
            "backfill": null, "verify": null, "full_verify": null,
        });
        let changed = changed.as_object().expect("an object").clone();
        status.as_object_mut().expect("an object").extend(changed);
        serde_json::from_value(status).expect("a status")
    }

    #[test]
    fn the_status_is_aligned_and_names_the_next_step() {
        let text = status(&a_status(&json!({})));
        let expected = "\
state     live 25.00 %, shadow 75.00 %
replicas  2 replicas, 1 not yet at epoch 7
marks     12 behind on the new side, the oldest for 1.2 s
record    epoch 7, term 1, generation 1

next      task-server migration advance --port state --to live --confirm no-foreign-writers
";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_in_the_way_is_named_with_what_helps() {
        let next = json!([{
            "port": "state", "stages": [{"stage": "shadow", "percent": 100.0}],
            "next": {"to": "live", "safe": false, "failing": ["backfill_complete"], "to_confirm": [],
                     "conditions": [
                {"name": "replicas_adopted", "holds": true, "detail": "all"},
                {"name": "backfill_complete", "holds": false, "detail": "there was no backfill"},
            ]},
        }]);
        let text = status(&a_status(&json!({ "ports": next })));
        let expected = "\
state     not safe to advance to live:
  no  backfill_complete     there was no backfill
next      task-server migration backfill start
";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn without_a_move_there_is_one_thing_to_do() {
        let text = status(&a_status(&json!({"begun": false})));
        assert!(
            text.ends_with("next      task-server migration init\n"),
            "{text}"
        );
    }

    #[test]
    fn the_end_of_a_job_says_what_it_found_and_what_comes_then() {
        let done = json!({"kind": "verify", "state": "done", "clean": false, "percent": 100.0,
                          "done": 9, "total": 9, "counts": {"equal": 7, "missing": 2}});
        let expected = "\
verify    full  9/9  100.0 %  done  2 mismatches  not clean
found     7 equal, 2 missing
next      task-server migration diffs
";
        assert_eq!(job(&a_job(&done)), expected);
    }

    #[test]
    fn a_difference_is_shown_field_by_field() {
        let found = json!({
            "verify": a_job(&json!({"kind": "verify", "state": "done"})), "found": 1, "kept": 1,
            "differences": [{
                "key": "task/1", "disagreement": "different", "foreign": ["new"], "more_fields": 2,
                "repaired": false,
                "fields": [{"field": "/status", "old": "\"pending\"", "new": null}],
            }],
        });
        let text = differences(&serde_json::from_value(found).expect("differences"));
        let expected = "\
task/1  different, last written by somebody else on the new side
  /status  old  \"pending\"
           new  absent
  and 2 fields more
next      task-server migration verify --full --fix
";
        assert!(text.ends_with(expected), "{text}");
    }
}
