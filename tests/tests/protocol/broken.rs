//! Each rule taken away, and the promise that is broken then.

use task_core::migration::Stage;

use crate::model::{Protocol, Role};
use crate::properties::promise;
use crate::rules::Rule;
use crate::scenarios::{COPY, CREATE, DELETE, READ, REMOVE, UPDATE, at, moving};

/// A rule, and a move that goes wrong without it.
pub(crate) struct Broken {
    pub(crate) rule: Rule,
    pub(crate) promise: &'static str,
    pub(crate) model: fn() -> Protocol,
}

/// Two writes that are followed by two.
fn two_writes() -> Protocol {
    at(
        Stage::DualWrite,
        &[(UPDATE, 0), (UPDATE, 1), (COPY, 0), (COPY, 1)],
    )
}

/// A record that goes, comes and goes.
fn three_lives() -> Protocol {
    at(
        Stage::DualWrite,
        &[(REMOVE, 0), (CREATE, 1), (REMOVE, 0), (COPY, 0), (COPY, 1)],
    )
}

fn writes_and_read(stage: Stage) -> Protocol {
    at(stage, &[(UPDATE, 0), (UPDATE, 1), (READ, 0), (COPY, 1)])
}

fn forward(roles: &[(Role, usize)]) -> Protocol {
    moving(Stage::Live, Stage::RampDown, 1, roles)
}

fn back(roles: &[(Role, usize)]) -> Protocol {
    moving(Stage::RampDown, Stage::Live, 1, roles)
}

pub(crate) const BROKEN: &[Broken] = &[
    Broken {
        rule: Rule::MarkWithWrite,
        promise: promise::MARKED,
        model: two_writes,
    },
    Broken {
        rule: Rule::DeletionMarked,
        promise: promise::MARKED,
        model: || moving(Stage::Off, Stage::DualWrite, 3, &[(DELETE, 0), (COPY, 1)]),
    },
    Broken {
        rule: Rule::ClearConditionally,
        promise: promise::MARKED,
        model: two_writes,
    },
    Broken {
        rule: Rule::ConditionalCopy,
        promise: promise::MARKED,
        model: two_writes,
    },
    Broken {
        rule: Rule::TargetFirst,
        promise: promise::MARKED,
        model: || {
            at(
                Stage::DualWrite,
                &[(UPDATE, 0), (DELETE, 1), (COPY, 0), (COPY, 1)],
            )
        },
    },
    Broken {
        rule: Rule::CompareAndSet,
        promise: promise::ORDER,
        model: two_writes,
    },
    Broken {
        rule: Rule::EventWithWrite,
        promise: promise::EVENT,
        model: two_writes,
    },
    Broken {
        rule: Rule::Placeholder,
        promise: promise::MARKED,
        model: three_lives,
    },
    Broken {
        rule: Rule::DeletionAnew,
        promise: promise::MARKED,
        model: three_lives,
    },
    Broken {
        rule: Rule::UniqueVersions,
        promise: promise::MARKED,
        model: three_lives,
    },
    Broken {
        rule: Rule::DirectionOfTheStage,
        promise: promise::MARKED,
        model: || Protocol {
            copies_anything: true,
            ..at(Stage::RampDown, &[(DELETE, 0), (COPY, 1)])
        },
    },
    Broken {
        rule: Rule::Barrier,
        promise: promise::MARKED,
        model: || moving(Stage::Off, Stage::DualWrite, 1, &[(UPDATE, 0), (COPY, 1)]),
    },
    Broken {
        rule: Rule::Generation,
        promise: promise::MARKED,
        model: || moving(Stage::DualWrite, Stage::Off, 2, &[(UPDATE, 0)]),
    },
    Broken {
        rule: Rule::Backfill,
        promise: promise::READERS,
        model: || moving(Stage::Shadow, Stage::Live, 1, &[(READ, 0)]).uncopied(),
    },
    Broken {
        rule: Rule::GuardsOfThisEpoch,
        promise: promise::READERS,
        model: || Protocol {
            coordinators: 2,
            are_leads_lost: false,
            ..moving(Stage::DualWrite, Stage::Live, 4, &[(UPDATE, 0)]).down_to(Stage::Off)
        },
    },
    Broken {
        rule: Rule::OneStage,
        promise: promise::ONE_APART,
        model: || moving(Stage::Live, Stage::Off, 1, &[(UPDATE, 0), (READ, 1)]),
    },
    Broken {
        rule: Rule::DirtyOverlay,
        promise: promise::ORDER,
        model: || writes_and_read(Stage::Live),
    },
    Broken {
        rule: Rule::MarkBeforeNew,
        promise: promise::ORDER,
        model: || writes_and_read(Stage::Live),
    },
    Broken {
        rule: Rule::OldFirst,
        promise: promise::ORDER,
        model: || moving(Stage::Shadow, Stage::Live, 1, &[(UPDATE, 0), (UPDATE, 1)]),
    },
    Broken {
        rule: Rule::Handoff,
        promise: promise::ORDER,
        model: || forward(&[(UPDATE, 0), (UPDATE, 1)]),
    },
    Broken {
        rule: Rule::NobodyWritesInHandoff,
        promise: promise::ORDER,
        model: || forward(&[(UPDATE, 0), (UPDATE, 1)]),
    },
    Broken {
        rule: Rule::Drain,
        promise: promise::ORDER,
        model: || forward(&[(UPDATE, 0), (READ, 1)]),
    },
    Broken {
        rule: Rule::Fence,
        promise: promise::ONE_AUTHORITY,
        model: || Protocol {
            pauses: 1,
            ..forward(&[(UPDATE, 0), (UPDATE, 1)])
        },
    },
    Broken {
        rule: Rule::Adoption,
        promise: promise::ORDER,
        model: || back(&[(UPDATE, 0), (READ, 1)]),
    },
    Broken {
        rule: Rule::OldestPin,
        promise: promise::MARKED,
        model: || Protocol {
            copies_anything: true,
            ..forward(&[(DELETE, 0), (COPY, 1)])
        },
    },
    Broken {
        rule: Rule::PinWhileBeating,
        promise: promise::MARKED,
        model: || Protocol {
            copies_anything: true,
            ..forward(&[(DELETE, 0), (COPY, 1)])
        },
    },
    Broken {
        rule: Rule::TwoLeases,
        promise: promise::ORDER,
        model: || back(&[(UPDATE, 0), (READ, 1)]),
    },
    Broken {
        rule: Rule::NoWorkBehindLease,
        promise: promise::ORDER,
        model: || Protocol {
            pauses: 1,
            ..back(&[(UPDATE, 0), (READ, 1)])
        },
    },
    Broken {
        rule: Rule::PinEndsWithLease,
        promise: promise::MARKED,
        model: || Protocol {
            copies_anything: true,
            pauses: 1,
            ..forward(&[(DELETE, 0), (COPY, 1)])
        },
    },
    Broken {
        rule: Rule::SeenBeforeItReads,
        promise: promise::ORDER,
        model: || Protocol {
            pauses: 1,
            ..back(&[(UPDATE, 0), (READ, 1)])
        },
    },
    Broken {
        rule: Rule::IntentFirst,
        promise: promise::MARKED,
        model: || writes_and_read(Stage::RampDown),
    },
    Broken {
        rule: Rule::AnswerAfterBoth,
        promise: promise::OLD_ALONE,
        model: || writes_and_read(Stage::RampDown),
    },
    Broken {
        rule: Rule::ReaderFinishes,
        promise: promise::OLD_ALONE,
        model: || writes_and_read(Stage::RampDown),
    },
    Broken {
        rule: Rule::ReaderLooksAgain,
        promise: promise::OLD_ALONE,
        model: || writes_and_read(Stage::RampDown),
    },
    Broken {
        rule: Rule::UnknownIsNotRefused,
        promise: promise::ORDER,
        model: || Protocol {
            lost: 1,
            ..writes_and_read(Stage::RampDown)
        },
    },
    Broken {
        rule: Rule::ReaderInHandoffFinishes,
        promise: promise::OLD_ALONE,
        model: || forward(&[(UPDATE, 0), (READ, 1)]),
    },
    Broken {
        rule: Rule::BirthOnOldFirst,
        promise: promise::MARKED,
        model: || Protocol {
            exists: false,
            lost: 1,
            ..back(&[(CREATE, 0), (COPY, 1)])
        },
    },
    Broken {
        rule: Rule::NewVersionBeforeCopy,
        promise: promise::MARKED,
        model: || Protocol {
            lost: 1,
            ..back(&[(UPDATE, 0), (COPY, 1)])
        },
    },
    Broken {
        rule: Rule::NoCopyOverUnfinished,
        promise: promise::MARKED,
        model: || Protocol {
            copies_anything: true,
            ..back(&[(DELETE, 0), (COPY, 1)])
        },
    },
    Broken {
        rule: Rule::UnfinishedBehindNew,
        promise: promise::MARKED,
        model: || Protocol {
            copies_anything: true,
            ..back(&[(DELETE, 0), (COPY, 1)])
        },
    },
    Broken {
        rule: Rule::PlainServiceObeys,
        promise: promise::MARKED,
        model: || at(Stage::DualWrite, &[(Role::Plain, 0)]),
    },
    Broken {
        rule: Rule::EndsOnlyItsOwn,
        promise: promise::MARKED,
        model: || Protocol {
            coordinators: 2,
            ..moving(
                Stage::DualWrite,
                Stage::Off,
                2,
                &[(Role::Plain, 0), (COPY, 1)],
            )
        },
    },
];
