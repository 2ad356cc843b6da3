//! What is asked of the long operations; the rest is the core's own words.

use serde::{Deserialize, Serialize};
use task_core::migration::{Cause, Fix, Pacing, Scope};

/// What becomes of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    /// A new one begins.
    Start,
    /// It stops for now.
    Pause,
    /// It goes on where it stopped.
    Resume,
    /// It stops for good.
    Abort,
}

/// An order to the backfill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackfillOrder {
    /// What becomes of it.
    pub(crate) order: Order,
    /// How fast it may go; as it was, or as fast as the stores can.
    #[serde(default)]
    pub(crate) pacing: Option<Pacing>,
    /// For the audit.
    #[serde(default)]
    pub(crate) cause: Cause,
}

/// An order to the verify, which is started or aborted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyOrder {
    /// What becomes of it.
    pub(crate) order: Order,
    /// How much it compares.
    #[serde(default = "everything")]
    pub(crate) scope: Scope,
    /// What it does about what it finds.
    #[serde(default)]
    pub(crate) fix: Fix,
    /// How fast it may go.
    #[serde(default)]
    pub(crate) pacing: Pacing,
    /// For the audit.
    #[serde(default)]
    pub(crate) cause: Cause,
}

fn everything() -> Scope {
    Scope::Full
}

/// What has no more to say than why.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plainly {
    /// For the audit.
    #[serde(default)]
    pub(crate) cause: Cause,
}
