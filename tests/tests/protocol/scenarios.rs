//! Moves that are checked whole, and what each of them has to have shown.

use task_core::migration::Stage;

use crate::model::{Protocol, Role};
use crate::situations as situation;

/// A move that is small enough to be checked whole.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) model: fn() -> Protocol,
    /// The situations that it has to reach.
    pub(crate) reaches: &'static [&'static str],
}

pub(crate) const CREATE: Role = Role::Create;
pub(crate) const UPDATE: Role = Role::Update;
pub(crate) const DELETE: Role = Role::Delete { forbids: true };
pub(crate) const REMOVE: Role = Role::Delete { forbids: false };
pub(crate) const READ: Role = Role::Read;
pub(crate) const COPY: Role = Role::Copy;

/// These, on the replicas 0 and 1.
pub(crate) fn at(from: Stage, roles: &[(Role, usize)]) -> Protocol {
    Protocol {
        roles: roles.to_vec(),
        ..Protocol::at(from)
    }
}

/// The same with a coordinator who makes so many steps.
pub(crate) fn moving(from: Stage, to: Stage, moves: u8, roles: &[(Role, usize)]) -> Protocol {
    Protocol {
        range: (from.min(to), from.max(to)),
        moves,
        coordinators: 1,
        ..at(from, roles)
    }
}

/// What `cargo test` checks.
pub(crate) const SHORT: &[Scenario] = &[
    Scenario {
        name: "two_writes_are_followed_while_answers_are_lost",
        model: || Protocol {
            lost: 1,
            ..at(
                Stage::DualWrite,
                &[(UPDATE, 0), (DELETE, 1), (COPY, 0), (COPY, 1)],
            )
        },
        reaches: &[
            situation::MARK_OUTLIVES_WRITER,
            situation::COPY_CONFLICTS,
            situation::LEFT,
        ],
    },
    Scenario {
        name: "a_record_is_removed_made_and_removed_while_it_is_copied",
        model: || {
            at(
                Stage::DualWrite,
                &[(REMOVE, 0), (CREATE, 1), (REMOVE, 0), (COPY, 0), (COPY, 1)],
            )
        },
        reaches: &[situation::COPY_CONFLICTS, situation::LEFT],
    },
    Scenario {
        name: "a_backfill_begins_behind_its_barrier",
        model: || Protocol {
            lost: 1,
            ..moving(
                Stage::Off,
                Stage::DualWrite,
                1,
                &[(UPDATE, 0), (UPDATE, 1), (COPY, 0)],
            )
        },
        reaches: &[situation::FENCED, situation::FILLED],
    },
    Scenario {
        name: "a_copy_to_off_and_back_does_not_count",
        model: || moving(Stage::Off, Stage::DualWrite, 3, &[(UPDATE, 0), (COPY, 0)]),
        reaches: &[situation::OUTDATED_FILL],
    },
    Scenario {
        name: "what_is_deleted_while_off_does_not_return",
        model: || {
            moving(
                Stage::Off,
                Stage::DualWrite,
                3,
                &[(UPDATE, 1), (DELETE, 0), (COPY, 1)],
            )
        },
        reaches: &[situation::OUTDATED_FILL, situation::LEFT],
    },
    Scenario {
        name: "readers_in_live_see_every_write",
        model: || Protocol {
            lost: 1,
            ..at(
                Stage::Live,
                &[(UPDATE, 0), (DELETE, 1), (READ, 0), (COPY, 1)],
            )
        },
        reaches: &[situation::OVERLAID, situation::MARK_OUTLIVES_WRITER],
    },
    Scenario {
        name: "readers_move_to_the_new_side_and_back",
        model: || {
            moving(
                Stage::Shadow,
                Stage::Live,
                2,
                &[(UPDATE, 0), (READ, 1), (COPY, 1)],
            )
        },
        reaches: &[situation::OVERLAID, situation::TWO_STAGES],
    },
    Scenario {
        name: "the_right_to_write_moves_forward",
        model: || moving(Stage::Live, Stage::RampDown, 1, &[(UPDATE, 0), (COPY, 1)]),
        reaches: &[
            situation::NOBODY_WRITES,
            situation::TAKEN_BACK,
            situation::TWO_STAGES,
            situation::NOT_DRAINED,
        ],
    },
    Scenario {
        name: "the_right_to_write_moves_back",
        model: || moving(Stage::RampDown, Stage::Live, 1, &[(UPDATE, 0), (COPY, 1)]),
        reaches: &[situation::NOBODY_WRITES],
    },
    Scenario {
        name: "readers_watch_the_right_to_write_move",
        model: || moving(Stage::Live, Stage::RampDown, 1, &[(UPDATE, 0), (READ, 1)]),
        reaches: &[situation::READER_MEETS_NOTE, situation::TWO_STAGES],
    },
    Scenario {
        name: "readers_in_rampdown_finish_what_they_meet",
        model: || at(Stage::RampDown, &[(UPDATE, 0), (READ, 1)]),
        reaches: &[situation::READER_MEETS_NOTE],
    },
    Scenario {
        name: "births_in_rampdown_are_finished_by_others",
        model: || Protocol {
            exists: false,
            lost: 1,
            ..at(Stage::RampDown, &[(CREATE, 0), (CREATE, 1), (COPY, 1)])
        },
        reaches: &[situation::OPEN_BIRTH, situation::FINISHED_BY_OTHERS],
    },
    Scenario {
        name: "the_old_side_is_left",
        model: || {
            moving(
                Stage::RampDown,
                Stage::Complete,
                1,
                &[(UPDATE, 0), (READ, 1)],
            )
        },
        reaches: &[situation::COMPLETE],
    },
    Scenario {
        name: "a_replica_sleeps_through_the_way_forward",
        model: || Protocol {
            pauses: 1,
            ..moving(Stage::Live, Stage::RampDown, 1, &[(UPDATE, 0), (READ, 0)])
        },
        reaches: &[situation::FORGOTTEN, situation::FENCED],
    },
    Scenario {
        name: "a_replica_sleeps_through_the_way_back",
        model: || Protocol {
            pauses: 1,
            ..moving(Stage::RampDown, Stage::Live, 1, &[(UPDATE, 0)])
        },
        reaches: &[situation::FORGOTTEN],
    },
    Scenario {
        name: "a_replica_dies_on_the_way",
        model: || Protocol {
            deaths: 1,
            ..moving(Stage::Live, Stage::RampDown, 1, &[(UPDATE, 0), (COPY, 1)])
        },
        reaches: &[situation::NEW_REPLICA, situation::MARK_OUTLIVES_WRITER],
    },
    Scenario {
        name: "two_coordinators_want_different_things",
        model: || Protocol {
            coordinators: 2,
            are_leads_lost: false,
            ..moving(Stage::DualWrite, Stage::Live, 3, &[(UPDATE, 0)]).down_to(Stage::Off)
        },
        reaches: &[situation::OVERTAKEN],
    },
    Scenario {
        name: "a_service_without_a_move_is_left_running",
        model: || Protocol {
            coordinators: 2,
            ..moving(Stage::Off, Stage::DualWrite, 3, &[(Role::Plain, 0)])
        },
        reaches: &[situation::OVERTAKEN],
    },
];

/// What is checked as well where the environment asks for it.
pub(crate) const FULL: &[Scenario] = &[
    Scenario {
        name: "two_coordinators_want_different_things_and_one_is_lost",
        model: || Protocol {
            coordinators: 2,
            ..moving(Stage::DualWrite, Stage::Live, 3, &[(UPDATE, 0)]).down_to(Stage::Off)
        },
        reaches: &[situation::OVERTAKEN],
    },
    Scenario {
        name: "records_without_a_revision_move_back",
        model: || Protocol {
            copies_anything: true,
            has_revisions: false,
            ..moving(Stage::RampDown, Stage::Live, 1, &[(UPDATE, 0), (COPY, 1)])
        },
        reaches: &[situation::NOBODY_WRITES],
    },
    Scenario {
        name: "the_right_to_write_moves_back_and_an_answer_is_lost",
        model: || Protocol {
            lost: 1,
            ..moving(Stage::RampDown, Stage::Live, 1, &[(UPDATE, 0), (COPY, 1)])
        },
        reaches: &[
            situation::NOBODY_WRITES,
            situation::TOO_LATE,
            situation::NOT_DRAINED,
        ],
    },
    Scenario {
        name: "a_deletion_and_a_copy_meet_on_the_way_back",
        model: || Protocol {
            copies_anything: true,
            ..moving(Stage::RampDown, Stage::Live, 1, &[(DELETE, 0), (COPY, 1)])
        },
        reaches: &[situation::LEFT],
    },
    Scenario {
        name: "readers_in_rampdown_finish_what_two_writers_begin",
        model: || at(Stage::RampDown, &[(UPDATE, 0), (UPDATE, 1), (READ, 0)]),
        reaches: &[situation::READER_MEETS_NOTE, situation::FINISHED_BY_OTHERS],
    },
    Scenario {
        name: "a_birth_is_late_on_the_way_back",
        model: || Protocol {
            exists: false,
            lost: 1,
            ..moving(Stage::RampDown, Stage::Live, 1, &[(CREATE, 0), (COPY, 1)])
        },
        reaches: &[situation::OPEN_BIRTH, situation::TOO_LATE],
    },
    Scenario {
        name: "a_replica_sleeps_through_the_way_back_beside_a_reader",
        model: || Protocol {
            pauses: 1,
            ..moving(Stage::RampDown, Stage::Live, 1, &[(UPDATE, 1), (READ, 0)])
        },
        reaches: &[situation::FORGOTTEN],
    },
    Scenario {
        name: "the_whole_way",
        model: || moving(Stage::Off, Stage::Complete, 5, &[(UPDATE, 0), (COPY, 1)]),
        reaches: &[situation::COMPLETE, situation::OUTDATED_FILL],
    },
];
