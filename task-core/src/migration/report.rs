//! The report of a move, for people and for machines.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{AuditEntry, Differences, JobStatus, Status};
use crate::domain::Timestamp;

/// Differences and changes that the text shows; the rest is in the JSON.
const SHOWN: usize = 20;

/// Everything that there is to say of a move. `Display` is its text, serde its JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// When it was made, RFC 3339.
    pub at: String,
    /// Whether everything is on the new side, and the last full verify was clean.
    pub complete: bool,
    /// Where everything is, with the last backfill and the last verifies.
    pub status: Status,
    /// What the last verify found.
    pub differences: Differences,
    /// Every change, newest first.
    pub audit: Vec<AuditEntry>,
}

impl Report {
    pub(super) fn of(
        status: Status,
        differences: Differences,
        audit: Vec<AuditEntry>,
        now: Timestamp,
    ) -> Self {
        let at_the_end = |next: &Option<_>| next.is_none();
        let verified = status.full_verify.as_ref().and_then(|verify| verify.clean);
        Self {
            at: now.to_string(),
            complete: !status.ports.is_empty()
                && status.ports.iter().all(|port| at_the_end(&port.next))
                && verified == Some(true),
            status,
            differences,
            audit,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Status {
            epoch,
            term,
            generation,
            ports,
            marks,
            ..
        } = &self.status;
        let complete = if self.complete {
            "complete"
        } else {
            "not complete"
        };
        writeln!(f, "migration report of {}: {complete}", self.at)?;
        writeln!(f, "epoch {epoch}, term {term}, generation {generation}")?;
        for port in ports {
            write!(f, "{}:", port.port)?;
            for share in &port.stages {
                write!(f, " {} {}", share.stage, share.percent)?;
            }
            writeln!(f)?;
        }
        job(f, "backfill", self.status.backfill.as_ref())?;
        job(f, "verify", self.status.verify.as_ref())?;
        job(f, "full verify", self.status.full_verify.as_ref())?;
        let (dirty, reverse) = (&marks.dirty, &marks.reverse);
        write!(f, "marks: {} dirty, {} reverse", dirty.count, reverse.count)?;
        match marks.oldest_ms() {
            Some(oldest) => writeln!(f, ", the oldest for {oldest} ms")?,
            None => writeln!(f)?,
        }
        self.fmt_differences(f)?;
        writeln!(f, "changes: {}", self.audit.len())?;
        for entry in self.audit.iter().take(SHOWN) {
            let AuditEntry {
                at, epoch, cause, ..
            } = entry;
            writeln!(f, "  {at} epoch {epoch} {} ({cause})", entry.change())?;
        }
        Ok(())
    }
}

impl Report {
    fn fmt_differences(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Differences {
            found,
            kept,
            differences,
            ..
        } = &self.differences;
        writeln!(
            f,
            "differences of the last verify: {found} found, {kept} kept"
        )?;
        for one in differences.iter().take(SHOWN) {
            let repaired = if one.repaired { ", repaired" } else { "" };
            writeln!(f, "  {} {}{repaired}", one.key, one.disagreement.as_str())?;
            let absent = || "absent".to_owned();
            for field in &one.fields {
                let old = field.old.clone().unwrap_or_else(absent);
                let new = field.new.clone().unwrap_or_else(absent);
                writeln!(f, "    {} old {old} new {new}", field.field)?;
            }
        }
        Ok(())
    }
}

fn job(f: &mut fmt::Formatter<'_>, name: &str, job: Option<&JobStatus>) -> fmt::Result {
    let Some(job) = job else {
        return writeln!(f, "{name}: none");
    };
    let JobStatus {
        state,
        generation,
        done,
        total,
        counts,
        clean,
        ..
    } = job;
    let state = state.as_str();
    write!(
        f,
        "{name}: {state}, generation {generation}, {done} of {total} records"
    )?;
    for (word, count) in [
        ("equal", counts.equal),
        ("copied", counts.copied),
        ("behind", counts.behind),
        ("missing", counts.missing),
        ("extra", counts.extra),
        ("different", counts.different),
        ("stale", counts.stale),
        ("ahead", counts.ahead),
        ("repaired", counts.repaired),
        ("skipped", counts.skipped),
        ("failed", counts.failed),
    ] {
        if count > 0 {
            write!(f, ", {count} {word}")?;
        }
    }
    match clean {
        Some(true) => write!(f, "; clean")?,
        Some(false) => write!(f, "; not clean")?,
        None => {}
    }
    for missing in &job.not_checked {
        write!(f, "; not checked: {missing}")?;
    }
    writeln!(f)
}
