//! Follows a job to its end.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::time::Duration;

use task_core::migration::{JobKind, JobState, JobStatus};
use tokio::time::sleep;

use super::Failure;
use super::client::{AskError, Client};
use super::progress::Progress;
use super::words::plural;

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Looks in a row that may stay without an answer: a replica that restarts is back by then.
const MOST_UNANSWERED: u32 = 100;

/// A job at its end.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) job: JobStatus,
}

/// Where a kind of job is looked at.
pub(super) fn route(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Backfill => "/migration/backfill",
        JobKind::Verify => "/migration/verify",
    }
}

/// Shows how far a job is until it is not worked on any more.
///
/// A service that does not answer for a while is asked again: the job goes on with another replica.
pub(super) async fn to_the_end(
    client: &Client,
    kind: JobKind,
    begun: &JobStatus,
) -> Result<Ended, AskError> {
    let mut progress = Progress::new();
    let mut job = begun.clone();
    let mut unanswered = 0;
    while job.state == JobState::Running {
        progress.show(&job);
        sleep(LOOK_EVERY).await;
        match client.get::<Option<JobStatus>>(route(kind)).await {
            Ok(Some(found)) => (job, unanswered) = (found, 0),
            Ok(None) => break,
            Err(AskError::Unreachable { .. }) if unanswered < MOST_UNANSWERED => unanswered += 1,
            Err(AskError::Refused(problem))
                if problem.status == 503 && unanswered < MOST_UNANSWERED =>
            {
                unanswered += 1;
            }
            Err(error) => {
                progress.end();
                return Err(error);
            }
        }
    }
    progress.show(&job);
    progress.end();
    Ok(Ended { job })
}

/// What the end of a job means for the exit code.
pub(super) fn verdict(job: &JobStatus) -> Result<(), Failure> {
    let mismatches = job.counts.mismatches();
    let repaired = job.counts.repaired;
    match (job.state, job.kind) {
        (JobState::Failed, _) => {
            let reason = job.reason.as_deref().unwrap_or("it says no reason");
            Err(Failure::Unfinished(format!(
                "the {} failed: {reason}",
                job.kind.as_str()
            )))
        }
        (JobState::Done, JobKind::Verify) if mismatches > repaired => {
            let left = mismatches - repaired;
            Err(Failure::Diverged(plural(left, "record", "records")))
        }
        (JobState::Done, _) if job.counts.failed > 0 => {
            let failed = plural(job.counts.failed, "record", "records");
            Err(Failure::Unfinished(format!(
                "{failed} could not be read or written"
            )))
        }
        (JobState::Running | JobState::Paused | JobState::Done | JobState::Aborted, _) => Ok(()),
    }
}

/// So many records.
pub(super) fn records(count: usize) -> String {
    plural(
        u64::try_from(count).unwrap_or(u64::MAX),
        "record",
        "records",
    )
}

/// Ends a line of progress that is cut off.
pub(super) fn new_line() {
    if stderr().is_terminal() {
        let _ = writeln!(stderr());
    }
}

/// A text in place of the one before: on a terminal over it, elsewhere under it.
pub(super) fn redrawn(text: &str) -> String {
    match stdout().is_terminal() {
        true => format!("\x1b[H\x1b[2J{text}"),
        false => format!("{text}\n"),
    }
}
