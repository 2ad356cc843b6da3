//! `task-server migration`: asks the admin routes of a running service, and prints what they answer.

mod client;
mod command;
mod convert;
mod follow;
mod print;
mod progress;
mod session;
mod words;

use clap::ArgMatches;
use tokio::runtime::Builder;

use self::client::AskError;
use self::session::Session;
use crate::shutdown;

pub(super) use command::command;

/// Exit code when the sides differ.
const EXIT_DIVERGED: u8 = 1;
/// Exit code when a guard has refused.
const EXIT_REFUSED: u8 = 2;
/// Exit code when nobody answers, or a side cannot be used.
const EXIT_UNREACHABLE: u8 = 3;

/// How a command ends other than well.
#[derive(Debug, thiserror::Error)]
#[cfg_attr(
    not(all(feature = "redis", feature = "http")),
    expect(dead_code, reason = "only a redis can be converted")
)]
pub(super) enum Failure {
    /// There is no answer, or a refusal.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// Everything was compared, and the sides differ.
    #[error("the sides differ: {0}")]
    Diverged(String),
    /// Not everything could be converted.
    #[error("{0} were not converted")]
    Kept(String),
    /// A job has ended before its work was done.
    #[error("{0}")]
    Unfinished(String),
    /// Something is on this Redis that a conversion would disturb.
    #[error("{0}")]
    InTheWay(String),
    /// Nobody waits any more for what goes on.
    #[error("stopped watching; the {0} goes on in the service")]
    Left(&'static str),
    /// Nobody watches any more.
    #[error("stopped watching")]
    Watched,
}

impl Failure {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Ask(AskError::Address(_) | AskError::Token) => super::EXIT_USAGE,
            Self::Ask(AskError::Unreachable { .. } | AskError::Foreign { .. }) => EXIT_UNREACHABLE,
            Self::Ask(AskError::Refused(problem)) => match problem.status {
                400 | 422 => super::EXIT_USAGE,
                500.. => EXIT_UNREACHABLE,
                _ => EXIT_REFUSED,
            },
            Self::Diverged(_) | Self::Kept(_) => EXIT_DIVERGED,
            Self::InTheWay(_) => EXIT_REFUSED,
            Self::Unfinished(_) => EXIT_UNREACHABLE,
            Self::Left(_) | Self::Watched => shutdown::EXIT_INTERRUPTED,
        }
    }

    pub(super) fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Ask(AskError::Unreachable { .. }) => Some(
                "start the service with --backend parallel, or say with --admin where its admin routes are",
            ),
            Self::Ask(AskError::Refused(problem)) if problem.guard.is_some() => {
                Some("`task-server migration status` says what is in the way")
            }
            Self::Kept(_) => None,
            Self::Diverged(_) => Some("`task-server migration diffs` shows the records"),
            Self::Left("backfill") => Some(
                "`task-server migration backfill status --follow` watches it again, `backfill abort` ends it",
            ),
            Self::Left(_) => Some(
                "`task-server migration verify status --follow` watches it again, `verify abort` ends it",
            ),
            Self::Ask(_) | Self::InTheWay(_) | Self::Unfinished(_) | Self::Watched => None,
        }
    }
}

/// Runs one command to its end.
pub(super) fn run(matches: &ArgMatches) -> Result<(), super::Failure> {
    let mut builder = Builder::new_current_thread();
    let runtime = builder
        .enable_all()
        .build()
        .map_err(super::Failure::Runtime)?;
    if let Some((name @ ("convert" | "convert-back"), own)) = matches.subcommand() {
        return runtime.block_on(convert::run(name, own));
    }
    let session = Session::new(matches).map_err(super::Failure::Migration)?;
    runtime.block_on(session.run(matches))
}

impl From<Failure> for super::Failure {
    fn from(failure: Failure) -> Self {
        Self::Migration(failure)
    }
}

impl From<AskError> for super::Failure {
    fn from(error: AskError) -> Self {
        Self::Migration(error.into())
    }
}
