//! What the environment says about a test run. Nothing else in this package reads it.
//!
//! `servers/install` heeds one variable, `TASK_TESTS_DAPR_BIN`: the folder with Dapr's programs.

use std::time::Duration;

/// Every variable; the service takes its own from the same prefix, and refuses those that it does not know.
pub(crate) const VARIABLES: [&str; 9] = [
    SEQUENCES,
    SEED,
    STORM_SECONDS,
    KILLS,
    OUTAGE_SECONDS,
    BACKFILL_RECORDS,
    PROTOCOL,
    PAIRS,
    "TASK_TESTS_DAPR_BIN",
];

/// How many random sequences a property is tried with.
pub const SEQUENCES: &str = "TASK_TESTS_SEQUENCES";

/// The seed of the random sequences, as it is printed on failure.
pub const SEED: &str = "TASK_TESTS_SEED";

/// How long replicas of a move are killed and paused at random, in seconds.
pub const STORM_SECONDS: &str = "TASK_TESTS_STORM_SECONDS";

/// How long the storm of a move lasts: 60 s unless the environment says otherwise.
#[must_use]
pub fn storm() -> Duration {
    Duration::from_secs(number(STORM_SECONDS).unwrap_or(60))
}

/// How often replicas of a move are killed at a step.
pub const KILLS: &str = "TASK_TESTS_KILLS";

/// How often replicas of a move are killed at a step: 12 times unless the environment says otherwise.
#[must_use]
pub fn kills() -> usize {
    let wanted = number(KILLS).and_then(|wanted| usize::try_from(wanted).ok());
    wanted.unwrap_or(12)
}

/// How long the new side of a move is away, in seconds.
pub const OUTAGE_SECONDS: &str = "TASK_TESTS_OUTAGE_SECONDS";

/// How long the new side of a move hangs, and then is gone: 4 s each unless the environment says otherwise.
#[must_use]
pub fn outage() -> Duration {
    Duration::from_secs(number(OUTAGE_SECONDS).unwrap_or(4))
}

/// How many records are copied by the backfill that is killed on its way.
pub const BACKFILL_RECORDS: &str = "TASK_TESTS_BACKFILL_RECORDS";

/// How many records there are to copy: 20,000 unless the environment says otherwise.
#[must_use]
pub fn backfill() -> u64 {
    number(BACKFILL_RECORDS).unwrap_or(20_000)
}

/// Whether the protocol is checked in its full form as well, if it is more than 0.
pub const PROTOCOL: &str = "TASK_TESTS_PROTOCOL";

/// Whether the model of the protocol is checked in its full form, which takes minutes.
#[must_use]
pub fn protocol_in_full() -> bool {
    number(PROTOCOL).is_some_and(|wanted| wanted > 0)
}

/// Whether the suite runs in every stage of every pair of a move, if it is more than 0.
pub const PAIRS: &str = "TASK_TESTS_PAIRS";

/// Whether slow pairs of a move are tried in every stage as well, which takes an hour.
#[must_use]
pub fn every_stage_of_every_pair() -> bool {
    number(PAIRS).is_some_and(|wanted| wanted > 0)
}

/// A number from the environment; what is no number counts as absent.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the environment"
)]
pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
