//! The success criteria of the specification, as lines that say how each was checked.

use std::fmt;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Pass,
    /// It does not.
    Fail,
    /// This machine cannot tell.
    NotRun,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::NotRun => "NOT RUN",
        })
    }
}

/// The checks of one criterion; each prints a line when it is done: `SC-1 WHAT PASS EVIDENCE`.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use task_tests::criteria::{Criterion, Outcome};
/// let mut criterion = Criterion::new("SC-5");
/// criterion.check("no address", async { Ok("none of 12 sockets".to_owned()) }).await;
/// criterion.not_run("by watching the sockets", "no network here");
/// assert_eq!(criterion.count(Outcome::Pass), 1);
/// # })
/// ```
#[derive(Debug)]
pub struct Criterion {
    name: &'static str,
    outcomes: Vec<Outcome>,
}

impl Criterion {
    /// A criterion without checks, for example `SC-1`.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            outcomes: Vec::new(),
        }
    }

    /// Makes a check, which answers its evidence or what is wrong; a panic is what is wrong, too.
    pub async fn check(&mut self, what: &str, check: impl Future<Output = Result<String, String>>) {
        let result = AssertUnwindSafe(check).catch_unwind().await;
        let result = result.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            Err(text.unwrap_or_else(|| "panics".to_owned()))
        });
        match result {
            Ok(evidence) => self.add(what, Outcome::Pass, &evidence),
            Err(problem) => self.add(what, Outcome::Fail, &problem),
        }
    }

    /// Says what was not checked, and why.
    pub fn not_run(&mut self, what: &str, reason: &str) {
        self.add(what, Outcome::NotRun, reason);
    }

    /// How many checks went so.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> usize {
        let outcomes = self.outcomes.iter();
        outcomes.filter(|&&found| found == outcome).count()
    }

    /// How many checks went how: `10 passed, 0 failed, 1 not run`.
    #[must_use]
    pub fn summary(&self) -> String {
        let counts = [Outcome::Pass, Outcome::Fail, Outcome::NotRun].map(|one| self.count(one));
        let [passed, failed, not_run] = counts;
        format!("{passed} passed, {failed} failed, {not_run} not run")
    }

    fn add(&mut self, what: &str, outcome: Outcome, evidence: &str) {
        self.outcomes.push(outcome);
        #[expect(clippy::print_stdout, reason = "the lines are what it is for")]
        {
            println!("{} {what} {outcome} {evidence}", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_check_that_panics_has_failed() {
        let mut criterion = Criterion::new("SC-0");
        criterion.check("nothing", async { panic!("no") }).await;
        criterion
            .check("something", async { Err("no".to_owned()) })
            .await;
        assert_eq!(criterion.summary(), "0 passed, 2 failed, 0 not run");
    }
}
