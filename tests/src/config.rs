//! What the environment says about a test run. Nothing else in this package reads it.
//!
//! `servers/install` heeds one variable, `TASK_TESTS_DAPR_BIN`: the folder with Dapr's programs.

/// How many random sequences a property is tried with.
pub const SEQUENCES: &str = "TASK_TESTS_SEQUENCES";

/// The seed of the random sequences, as it is printed on failure.
pub const SEED: &str = "TASK_TESTS_SEED";

/// A number from the environment; what is no number counts as absent.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the environment"
)]
pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
