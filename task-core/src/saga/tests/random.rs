//! Any run of bad luck ends, and ends clean.

use std::cell::RefCell;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::agent::TaskStatus;
use crate::saga::Outcome;

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let fault = prop_oneof![
        6 => Just(Fault::None),
        2 => Just(Fault::Refused),
        1 => Just(Fault::RefusedForGood),
        2 => Just(Fault::Unanswered),
        1 => Just(Fault::Twice),
        1 => Just(Fault::NotMade),
        1 => Just(Fault::DeadBefore),
        1 => Just(Fault::DeadAfter),
    ];
    vec(fault, 0..40)
}

proptest! {
    #[test]
    fn a_saga_ends_done_or_clean_whatever_goes_wrong(
        faults in faults(), is_project in any::<bool>(), deadline in 1..60_u64, cancel_at in proptest::option::of(0..30_usize),
    ) {
        let faults = RefCell::new(faults.into_iter());
        let workflow = if is_project { project() } else { task_due_in(deadline) };
        let mut harness = Harness::new(workflow, |_| {
            faults.borrow_mut().next().unwrap_or(Fault::None)
        });
        let mut steps = 0;
        let outcome = loop {
            if Some(steps) == cancel_at && let Some(cancel) = harness.saga.cancel("ann") {
                harness.append(cancel);
            }
            steps += 1;
            prop_assert!(steps < 5000, "no end, the last entry is {:?}", harness.entries.last());
            if let Some(outcome) = harness.step() {
                break outcome;
            }
        };
        match outcome {
            Outcome::Completed { .. } if is_project => {
                prop_assert!(harness.world.task("p-3").is_some());
            }
            Outcome::Completed { .. } => {
                let task = harness.world.task("7").unwrap();
                prop_assert_eq!(task.assignee.as_deref(), Some("ann"));
                // Overdue or still reminded of: the deadline is never lost.
                let is_overdue = task.status == TaskStatus::Overdue;
                prop_assert_ne!(is_overdue, harness.world.has_reminders());
                prop_assert!(!harness.world.notified.is_empty());
            }
            Outcome::Failed { .. } => prop_assert_eq!(harness.dirt(), Ok(())),
            Outcome::Rejected { .. } | Outcome::Terminated { .. } => {
                prop_assert!(false, "{outcome:?}");
            }
        }
    }
}
