//! The task's actor: reminders that come late, twice or for another deadline, steps that come again, commands in any order.

use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::agent::turn::DEADLINE_REMINDER;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_unix_micros(0).saturating_add(Duration::from_secs(seconds))
}

fn run(started: u64) -> Run {
    Run::new("task-workflow-7", at(started))
}

fn actor() -> TaskActor {
    TaskActor::load(ActorId::parse("task_id", "7").unwrap(), None).unwrap()
}

fn create(run: Option<Run>) -> TaskCommand {
    TaskCommand::CreateTask(CreateTask {
        title: "write the report".to_owned(),
        description: "the one for March".to_owned(),
        deadline_seconds: Some(Deadline::parse(60).unwrap()),
        assignment: None,
        run,
    })
}

fn assign(assignee: &str, run: Option<Run>) -> TaskCommand {
    let assignee = assignee.to_owned();
    TaskCommand::AssignTask { assignee, run }
}

fn set_deadline(seconds: u64, from: u64, run: Option<Run>) -> TaskCommand {
    TaskCommand::SetDeadlineReminder(SetDeadline {
        deadline_seconds: Deadline::parse(seconds).unwrap(),
        from: Some(Moment(at(from))),
        run,
    })
}

fn status(status: TaskStatus) -> TaskCommand {
    TaskCommand::UpdateStatus { status }
}

/// An actor after these commands, all of which are carried out at the second 1.
#[track_caller]
fn after(commands: impl IntoIterator<Item = TaskCommand>) -> TaskActor {
    let mut actor = actor();
    for command in commands {
        actor.turn(command, at(1)).reply.unwrap();
    }
    actor
}

/// A task of a saga, due at the second 60.
fn reminded() -> TaskActor {
    let run = || Some(run(0));
    after([
        create(run()),
        assign("ann", run()),
        set_deadline(60, 0, run()),
    ])
}

fn cancel() -> Effect {
    Effect::CancelReminder {
        name: DEADLINE_REMINDER.into(),
    }
}

fn is_overdue(actor: &TaskActor) -> bool {
    actor.view().unwrap().status == TaskStatus::Overdue
}

#[test]
fn the_record_is_pinned_and_reads_back() {
    let actor = reminded();
    let record = actor.store().unwrap();
    assert_eq!(
        record,
        concat!(
            r#"{"v":1,"task":{"title":"write the report","description":"the one for March","status":"assigned","#,
            r#""assignee":"ann","deadline":60,"created_at":"1970-01-01T00:00:01.000000Z","#,
            r#""updated_at":"1970-01-01T00:00:01.000000Z","created_by":"task-workflow-7@0","#,
            r#""assigned_by":"task-workflow-7@0","reminder":{"due":"1970-01-01T00:01:00.000000Z","#,
            r#""by":"task-workflow-7@0","armed":true}}}"#
        )
    );
    assert_eq!(
        TaskActor::load(actor.id.clone(), Some(&record)).unwrap(),
        actor
    );
}

#[test]
fn fields_of_a_later_version_survive_and_a_later_record_is_refused() {
    let record = String::from_utf8(reminded().store().unwrap().to_vec()).unwrap();
    let later = record.replace(r#""status":"#, r#""colour":{"a":[1.5]},"status":"#);
    let later = later.replace(r#"{"v":1,"#, r#"{"v":1,"shape":"2026-01-01","#);
    let id = ActorId::parse("task_id", "7").unwrap();
    let mut actor = TaskActor::load(id.clone(), Some(later.as_bytes())).unwrap();
    assert!(actor.turn(status(TaskStatus::InProgress), at(2)).changed);
    let written = String::from_utf8(actor.store().unwrap().to_vec()).unwrap();
    for kept in [r#""colour":{"a":[1.5]}"#, r#""shape":"2026-01-01""#] {
        assert!(written.contains(kept), "{kept} is not in {written}");
    }
    let later = record.replace(r#"{"v":1,"#, r#"{"v":2,"#);
    let error = TaskActor::load(id.clone(), Some(later.as_bytes())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "an actor's record has version 2, only 1 is known"
    );
    for garbage in [&b""[..], b"null", b"{}", b"[1]", br#"{"v":1,"task":{}}"#] {
        assert!(TaskActor::load(id.clone(), Some(garbage)).is_err());
    }
}

#[test]
fn texts_that_look_like_times_stay_texts() {
    let mut actor = actor();
    for text in ["2026-01-01T00:00:00Z", "PT5S", "5s"] {
        let task = CreateTask {
            title: text.to_owned(),
            description: text.to_owned(),
            deadline_seconds: None,
            assignment: None,
            run: Some(run(1)),
        };
        actor = TaskActor {
            task: None,
            ..actor
        };
        let made = actor.turn(TaskCommand::CreateTask(task), at(1));
        let record = actor.store().unwrap();
        actor = TaskActor::load(actor.id.clone(), Some(&record)).unwrap();
        assert_eq!(actor.view(), made.reply.unwrap());
        assert_eq!(actor.view().unwrap().description, text);
    }
}

#[test]
fn an_unknown_task_is_not_found_and_leaves_nothing_behind() {
    for command in [
        TaskCommand::GetTask {},
        status(TaskStatus::Completed),
        assign("ann", None),
        set_deadline(60, 0, None),
    ] {
        let mut actor = actor();
        let turn = actor.turn(command, at(1));
        assert_eq!(turn, Turn::unchanged(Err(not_found())));
        assert_eq!(actor.store(), None);
    }
    let mut actor = actor();
    let stray = actor.remind(DEADLINE_REMINDER, b"{}", at(1));
    assert_eq!(stray.effects, [cancel()]);
    assert!(!stray.changed);
}

#[test]
fn a_reminder_that_is_due_makes_an_open_task_overdue_once() {
    for open in [
        None,
        Some(TaskStatus::InProgress),
        Some(TaskStatus::Pending),
    ] {
        let mut actor = reminded();
        let data = actor.armed().unwrap().data();
        if let Some(open) = open {
            actor.turn(status(open), at(2)).reply.unwrap();
        }
        let fired = actor.remind(DEADLINE_REMINDER, &data, at(60));
        assert_eq!((fired.changed, &fired.effects[..]), (true, &[cancel()][..]));
        assert!(is_overdue(&actor));
        actor
            .turn(status(TaskStatus::InProgress), at(61))
            .reply
            .unwrap();
        let again = actor.remind(DEADLINE_REMINDER, &data, at(62));
        assert_eq!(
            (again.changed, &again.effects[..]),
            (false, &[cancel()][..])
        );
        assert!(!is_overdue(&actor));
    }
}

#[test]
fn a_reminder_that_comes_too_early_is_set_again() {
    let mut actor = reminded();
    let armed = actor.armed().unwrap().clone();
    let early = actor.remind(DEADLINE_REMINDER, &armed.data(), at(59));
    assert_eq!(
        (early.changed, early.effects),
        (false, vec![Effect::SetReminder(armed)])
    );
    assert!(!is_overdue(&actor));
}

#[test]
fn a_completed_task_has_no_reminder_and_a_late_one_does_no_harm() {
    let mut actor = reminded();
    let data = actor.armed().unwrap().data();
    let completed = actor.turn(status(TaskStatus::Completed), at(2));
    assert_eq!(completed.effects, [cancel()]);
    let late = actor.remind(DEADLINE_REMINDER, &data, at(90));
    assert_eq!((late.changed, &late.effects[..]), (false, &[cancel()][..]));
    assert_eq!(actor.view().unwrap().status, TaskStatus::Completed);
}

#[test]
fn a_reassigned_task_is_not_overdue_by_the_deadline_of_the_one_before() {
    let mut actor = reminded();
    let data = actor.armed().unwrap().data();
    let reassigned = actor.turn(assign("bob", None), at(2));
    assert_eq!(reassigned.effects, [cancel()]);
    let late = actor.remind(DEADLINE_REMINDER, &data, at(90));
    assert_eq!(late.effects, [cancel()]);
    assert!(!is_overdue(&actor));

    // Bob has a deadline of his own, and the old reminder still comes.
    let set = actor.turn(set_deadline(100, 2, None), at(3));
    let armed = actor.armed().unwrap().clone();
    assert_eq!(set.effects, [Effect::SetReminder(armed.clone())]);
    let stale = actor.remind(DEADLINE_REMINDER, &data, at(200));
    assert_eq!(stale.effects, [Effect::SetReminder(armed.clone())]);
    assert!(!is_overdue(&actor));
    let _ = actor.remind(DEADLINE_REMINDER, &armed.data(), at(201));
    assert!(is_overdue(&actor));
}

#[test]
fn reminders_of_other_names_are_cancelled() {
    let mut actor = reminded();
    let data = actor.armed().unwrap().data();
    let other = actor.remind("cleanup", &data, at(90));
    let name = "cleanup".into();
    assert_eq!(other.effects, [Effect::CancelReminder { name }]);
    assert!(!is_overdue(&actor));
}

#[test]
fn a_step_that_comes_again_changes_nothing_whatever_happened_since() {
    let run = || Some(run(0));
    let steps = [
        create(run()),
        assign("ann", run()),
        set_deadline(60, 0, run()),
    ];
    let fire = |actor: &mut TaskActor| {
        let data = actor.armed().unwrap().data();
        let _ = actor.remind(DEADLINE_REMINDER, &data, at(60));
    };
    let complete = |actor: &mut TaskActor| {
        let _ = actor.turn(status(TaskStatus::Completed), at(60));
    };
    let leave: fn(&mut TaskActor) = |_| {};
    for since in [leave, fire, complete] {
        let mut actor = reminded();
        since(&mut actor);
        let before = actor.clone();
        for step in steps.clone() {
            let again = actor.turn(step, at(61));
            assert!(again.reply.is_ok());
            assert_eq!((again.changed, again.effects), (false, vec![]));
        }
        assert_eq!(actor, before);
    }
}

#[test]
fn a_saga_takes_a_task_from_nobody() {
    let mut actor = after([create(None), assign("bob", None)]);
    let refused = actor.turn(assign("ann", Some(run(0))), at(2));
    assert_eq!(refused, Turn::unchanged(Err(Refusal::AssignedElsewhere)));
    let refused = actor.turn(set_deadline(60, 0, Some(run(0))), at(2));
    assert_eq!(refused.reply, Err(Refusal::AssignedElsewhere));
    assert!(actor.turn(create(Some(run(0))), at(2)).reply.is_err());
}

#[test]
fn a_completed_task_is_not_assigned_and_has_no_deadline_any_more() {
    let mut actor = after([create(None), status(TaskStatus::Completed)]);
    for command in [assign("ann", None), set_deadline(60, 0, None)] {
        let refused = actor.turn(command, at(2));
        assert_eq!(refused, Turn::unchanged(Err(Refusal::Completed)));
    }
}

#[test]
fn a_compensated_run_is_over_and_a_later_one_of_its_workflow_takes_the_task_up() {
    let mut actor = reminded();
    let untouched = after([create(Some(run(0)))]).view().unwrap();
    let unassigned = actor.turn(TaskCommand::UnassignTask { run: run(0) }, at(2));
    assert_eq!(unassigned.effects, [cancel()]);
    let view = actor.view().unwrap();
    let updated_at = view.updated_at;
    assert_eq!(
        view,
        TaskView {
            updated_at,
            ..untouched
        }
    );
    for late in [
        create(Some(run(0))),
        assign("ann", Some(run(0))),
        set_deadline(60, 0, Some(run(0))),
    ] {
        let refused = actor.turn(late, at(3)).reply;
        assert_eq!(refused, Err(Refusal::Undone { run: run(0) }));
    }
    let next = || Some(run(5));
    for step in [
        create(next()),
        assign("bob", next()),
        set_deadline(60, 5, next()),
    ] {
        actor.turn(step, at(6)).reply.unwrap();
    }
    // A compensation of the first run that comes twice does not touch the second one.
    for again in [
        TaskCommand::CancelDeadlineReminder { run: run(0) },
        TaskCommand::UnassignTask { run: run(0) },
        TaskCommand::WithdrawTask { run: run(0) },
    ] {
        let turn = actor.turn(again, at(7));
        assert_eq!((turn.changed, turn.effects), (false, vec![]));
    }
    assert_eq!(actor.view().unwrap().assignee.as_deref(), Some("bob"));
    assert_eq!(actor.armed().unwrap().due, at(65));
}

#[test]
fn a_withdrawal_that_comes_before_its_creation_prevents_it() {
    let mut actor = actor();
    assert!(
        actor
            .turn(TaskCommand::WithdrawTask { run: run(0) }, at(1))
            .changed
    );
    assert_eq!(
        actor.store().unwrap(),
        r#"{"v":1,"undone":"task-workflow-7@0"}"#
    );
    assert!(actor.turn(create(Some(run(0))), at(2)).reply.is_err());
    assert_eq!(
        actor.turn(TaskCommand::GetTask {}, at(3)).reply,
        Err(not_found())
    );
}

#[test]
fn a_mark_goes_with_its_own_run_alone_and_with_it_the_last_of_the_record() {
    let mut actor = actor();
    let _ = actor.turn(TaskCommand::WithdrawTask { run: run(1) }, at(1));
    assert!(
        !actor
            .turn(TaskCommand::ForgetRun { run: run(0) }, at(2))
            .changed
    );
    assert!(
        actor
            .turn(TaskCommand::ForgetRun { run: run(1) }, at(3))
            .changed
    );
    assert_eq!(actor.store(), None);
}

#[test]
fn a_foreign_task_is_not_withdrawn() {
    let mut actor = after([create(None)]);
    let _ = actor.turn(TaskCommand::WithdrawTask { run: run(0) }, at(2));
    assert!(actor.view().is_some());
}

fn runs() -> impl Strategy<Value = Option<Run>> {
    option::of((0..3_u64).prop_map(run))
}

fn commands() -> impl Strategy<Value = TaskCommand> {
    let some_run = || (0..3_u64).prop_map(run);
    let who = prop_oneof![Just("ann"), Just("bob")];
    let any_status = proptest::sample::select(&TaskStatus::ALL[..]);
    prop_oneof![
        runs().prop_map(create),
        any_status.prop_map(status),
        (who, runs()).prop_map(|(who, run)| assign(who, run)),
        (1..50_u64, 0..50_u64, runs()).prop_map(|(s, from, run)| set_deadline(s, from, run)),
        some_run().prop_map(|run| TaskCommand::CancelDeadlineReminder { run }),
        some_run().prop_map(|run| TaskCommand::UnassignTask { run }),
        some_run().prop_map(|run| TaskCommand::WithdrawTask { run }),
        some_run().prop_map(|run| TaskCommand::ForgetRun { run }),
    ]
}

proptest! {
    #[test]
    fn the_registered_reminder_is_always_the_armed_one(commands in vec((commands(), any::<bool>()), 0..30)) {
        let mut actor = actor();
        let mut registered: Option<Reminder> = None;
        let mut old: Vec<Reminder> = Vec::new();
        for (seconds, (command, is_reminded)) in (0..).step_by(7).zip(commands) {
            let is_known = actor.view().is_some();
            let before = actor.view();
            let turn = match old.last() {
                Some(reminder) if is_reminded => {
                    let turn = actor.remind(DEADLINE_REMINDER, &reminder.data(), at(seconds));
                    let status = |view: Option<TaskView>| view.map(|view| view.status);
                    let (before, now) = (status(before), status(actor.view()));
                    if before != now {
                        // Only an open task, and only by its own deadline, and only when it is over.
                        prop_assert_eq!(now, Some(TaskStatus::Overdue));
                        prop_assert_ne!(before, Some(TaskStatus::Completed));
                        prop_assert_eq!(registered.as_ref(), Some(reminder));
                        prop_assert!(reminder.due <= at(seconds));
                    }
                    turn
                }
                Some(_) | None => {
                    let command = command.clone();
                    let first = actor.turn(command.clone(), at(seconds));
                    // Steps are safe to repeat, and everything else of the same time is as well.
                    let mut again = actor.clone();
                    let second = again.turn(command, at(seconds));
                    if first.reply.is_ok() && is_known {
                        prop_assert_eq!(second.reply.as_ref().ok(), first.reply.as_ref().ok());
                        prop_assert!(!second.changed);
                    }
                    first
                }
            };
            prop_assert!(turn.reply.is_ok() || !turn.changed && turn.effects.is_empty());
            for effect in turn.effects {
                match effect {
                    Effect::SetReminder(reminder) => {
                        old.push(reminder.clone());
                        registered = Some(reminder);
                    }
                    Effect::CancelReminder { .. } => registered = None,
                    Effect::Publish(event) => prop_assert!(false, "{event:?}"),
                }
            }
            prop_assert_eq!(registered.as_ref(), actor.armed());
            let is_completed = actor.view().is_some_and(|task| task.status == TaskStatus::Completed);
            prop_assert!(!is_completed || actor.armed().is_none());
            let record = actor.store();
            let again = TaskActor::load(actor.id.clone(), record.as_deref()).unwrap();
            prop_assert_eq!(&again, &actor);
        }
    }

    #[test]
    fn no_record_makes_the_reader_panic(bytes in vec(any::<u8>(), 0..80)) {
        drop(TaskActor::load(ActorId::parse("task_id", "7").unwrap(), Some(&bytes)));
    }
}
