//! The project's actor: made once, taken back by its own run alone.

use super::*;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_unix_micros(micros)
}

fn run(started: i64) -> Run {
    Run::new("project-workflow-p", at(started))
}

fn actor() -> ProjectActor {
    ProjectActor::load(ActorId::parse("project_id", "p").unwrap(), None).unwrap()
}

fn create(run: Run) -> ProjectCommand {
    ProjectCommand::CreateProject {
        title: "spring".to_owned(),
        assignee: "ann".to_owned(),
        tasks: vec![ProjectTask {
            task_id: ActorId::parse("task_id", "p-1").unwrap(),
            title: "first of all".to_owned(),
        }],
        run,
    }
}

#[test]
fn an_unknown_project_is_not_found_and_leaves_nothing_behind() {
    let mut actor = actor();
    let turn = actor.turn(ProjectCommand::GetProject {}, at(1));
    assert_eq!(turn.reply.unwrap_err().to_string(), "Project not found");
    assert_eq!((turn.changed, actor.store()), (false, None));
}

#[test]
fn a_project_is_made_once_and_taken_back_by_its_own_run_alone() {
    let mut actor = actor();
    assert!(actor.turn(create(run(1)), at(2)).changed);
    assert!(!actor.turn(create(run(1)), at(3)).changed);
    let exists = actor.turn(create(run(2)), at(3)).reply.unwrap_err();
    assert_eq!(exists.to_string(), "Project exists already");
    let _ = actor.turn(ProjectCommand::WithdrawProject { run: run(0) }, at(4));
    assert_eq!(actor.view().unwrap().tasks.len(), 1);
    let _ = actor.turn(ProjectCommand::WithdrawProject { run: run(1) }, at(5));
    assert_eq!(actor.view(), None);
    let late = actor.turn(create(run(1)), at(6)).reply.unwrap_err();
    assert_eq!(late, Refusal::Undone { run: run(1) });
    assert!(actor.turn(create(run(7)), at(7)).reply.is_ok());
}

#[test]
fn the_record_is_pinned_and_keeps_what_it_does_not_know() {
    let mut actor = actor();
    let _ = actor.turn(create(run(1)), at(2));
    let record = String::from_utf8(actor.store().unwrap().to_vec()).unwrap();
    assert_eq!(
        record,
        concat!(
            r#"{"v":1,"project":{"title":"spring","assignee":"ann","tasks":[{"task_id":"p-1","#,
            r#""title":"first of all"}],"created_at":"1970-01-01T00:00:00.000002Z","#,
            r#""created_by":"project-workflow-p@1"}}"#
        )
    );
    let later = record.replace(r#"{"title""#, r#"{"colour":7,"title""#);
    let again = ProjectActor::load(actor.id.clone(), Some(later.as_bytes())).unwrap();
    assert_eq!(again.view(), actor.view());
    let written = String::from_utf8(again.store().unwrap().to_vec()).unwrap();
    assert!(written.contains(r#""colour":7"#), "{written}");
}
