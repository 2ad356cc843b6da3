//! How far a long operation is, on stderr.

use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use task_core::migration::{JobKind, JobState, JobStatus, Phase};
use tokio::time::Instant;

use super::words::{count, plural, seconds};

/// Time between two lines where nobody overwrites them.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows one line: on a terminal always the same one, elsewhere a new one every few seconds.
#[derive(Debug)]
pub(super) struct Progress {
    is_terminal: bool,
    width: usize,
    told: Option<Instant>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            is_terminal: stderr().is_terminal(),
            width: 0,
            told: None,
        }
    }

    /// Shows how far a job is.
    pub(super) fn show(&mut self, job: &JobStatus) {
        self.say(&line(job));
    }

    /// Shows a line in place of the last one.
    pub(super) fn say(&mut self, line: &str) {
        let mut stderr = stderr().lock();
        // Nobody is left to tell when even this cannot be written.
        if self.is_terminal {
            let blank = self.width.saturating_sub(line.chars().count());
            let _ = write!(stderr, "\r{line}{:blank$}", "");
            let _ = stderr.flush();
            self.width = line.chars().count();
        } else if self.told.is_none_or(|at| at.elapsed() >= LINE_EVERY) {
            let _ = writeln!(stderr, "{line}");
            self.told = Some(Instant::now());
        }
    }

    /// Ends the line.
    pub(super) fn end(&mut self) {
        if self.is_terminal && self.width > 0 {
            let _ = writeln!(stderr());
            self.width = 0;
        }
    }
}

/// One line of how far a job is: done/total, %, rate, time left, why it is not faster.
pub(super) fn line(job: &JobStatus) -> String {
    let mut parts = vec![format!("{:<8}", job.kind.as_str())];
    match (job.state, job.phase) {
        (JobState::Running, Phase::Counting) => parts.push("counting the old side".to_owned()),
        _ => parts.push(format!(
            "{}/{}  {:.1} %",
            count(job.done),
            // What came after the count is beyond it.
            count(job.total.max(job.done)),
            job.percent
        )),
    }
    if job.state == JobState::Running {
        if job.keys_per_s > 0.0 {
            parts.push(format!("{}/s", count(job.keys_per_s.round() as u64)));
        }
        if let Some(rest) = job.eta_s {
            parts.push(format!("{} left", seconds(rest)));
        }
    } else {
        parts.push(job.state.as_str().to_owned());
    }
    if job.kind == JobKind::Verify && job.counts.mismatches() > 0 {
        parts.push(plural(job.counts.mismatches(), "mismatch", "mismatches"));
    }
    if job.counts.failed > 0 {
        parts.push(format!("{} failed", count(job.counts.failed)));
    }
    if let Some(why) = job
        .throttled
        .as_deref()
        .filter(|why| *why != job.state.as_str())
    {
        parts.push(format!("({why})"));
    }
    parts.join("  ")
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A job with these members in place of the usual ones.
    pub(in crate::cli::migration) fn job(changed: &Value) -> JobStatus {
        let mut job = json!({
            "id": "1", "kind": "backfill", "state": "running", "reason": null, "phase": "old",
            "generation": 1, "scope": "full", "fix": "nothing",
            "pacing": {"keys_per_s": null, "concurrency": 16},
            "done": 12_345, "total": 100_000, "percent": 12.345, "keys_per_s": 1_512.4, "eta_s": 58,
            "throttled": null, "counts": {}, "clean": null, "not_checked": [], "left": [],
            "runner": null, "started_at": "", "ended_at": null,
        });
        let changed = changed.as_object().expect("an object").clone();
        job.as_object_mut().expect("an object").extend(changed);
        serde_json::from_value(job).expect("a job")
    }

    #[test]
    fn a_line_has_done_total_share_rate_rest_and_the_brake() {
        for (changed, expected) in [
            (
                json!({}),
                "backfill  12,345/100,000  12.3 %  1,512/s  58 s left",
            ),
            (
                json!({"throttled": "the rate of 2000 keys/s"}),
                "backfill  12,345/100,000  12.3 %  1,512/s  58 s left  (the rate of 2000 keys/s)",
            ),
            (
                json!({"phase": "counting", "keys_per_s": 0.0, "eta_s": null}),
                "backfill  counting the old side",
            ),
            (
                json!({"state": "paused", "throttled": "paused"}),
                "backfill  12,345/100,000  12.3 %  paused",
            ),
            (
                json!({"kind": "verify", "state": "done", "percent": 100.0, "done": 7, "total": 7,
                       "counts": {"different": 2, "failed": 1}}),
                "verify    7/7  100.0 %  done  2 mismatches  1 failed",
            ),
        ] {
            assert_eq!(line(&job(&changed)), expected);
        }
    }
}
