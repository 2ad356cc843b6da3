//! What configurations have in common, and how one is refused: everything at once, each by its field.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// What a server that asks for certificates is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM file of the certificate and what signed it.
    pub certificate: PathBuf,
    /// PEM file of its private key, which is not encrypted.
    pub key: PathBuf,
}

/// One setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The field of the configuration, as Rust names it: `sasl.password`.
    pub field: &'static str,
    /// What the field has to be and what it is, to stand behind its name; it never shows a secret.
    pub problem: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.problem)
    }
}

/// Every setting that cannot be used, never only the first.
///
/// ```
/// use adapters_direct::{ConfigProblem, ConfigProblems};
/// let problem = |field, problem: &str| ConfigProblem { field, problem: problem.to_owned() };
/// let problems = vec![problem("linger", "must be short"), problem("sasl.user", "must be named")];
/// let refused = ConfigProblems::refuse(problems).unwrap_err();
/// assert_eq!(refused.to_string(), "linger must be short; sasl.user must be named");
/// assert!(ConfigProblems::refuse(Vec::new()).is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblems(pub(crate) Vec<ConfigProblem>);

impl ConfigProblems {
    /// Makes an error of problems, if there are any.
    ///
    /// # Errors
    /// All of them.
    pub fn refuse(problems: Vec<ConfigProblem>) -> Result<(), Self> {
        match problems.is_empty() {
            true => Ok(()),
            false => Err(Self(problems)),
        }
    }

    /// Each of them, at least one.
    #[must_use]
    pub fn all(&self) -> &[ConfigProblem] {
        &self.0
    }
}

impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigProblems {}

/// Problems as they are found.
#[derive(Debug, Default)]
pub(crate) struct Found(pub(crate) Vec<ConfigProblem>);

impl Found {
    pub(crate) fn add(&mut self, field: &'static str, problem: impl Into<String>) {
        let problem = problem.into();
        self.0.push(ConfigProblem { field, problem });
    }

    /// Expects a time within a range of whole milliseconds.
    pub(crate) fn time(
        &mut self,
        field: &'static str,
        value: Duration,
        range: &RangeInclusive<Duration>,
    ) {
        if !range.contains(&value) {
            let [least, most, value] = [*range.start(), *range.end(), value].map(|t| t.as_millis());
            let problem = format!("must be {least} to {most} ms, it is {value} ms");
            self.add(field, problem);
        }
    }

    /// Expects a number within a range.
    pub(crate) fn count<N: Copy + PartialOrd + fmt::Display>(
        &mut self,
        field: &'static str,
        value: N,
        range: &RangeInclusive<N>,
    ) {
        if !range.contains(&value) {
            let (least, most) = (range.start(), range.end());
            self.add(field, format!("must be {least} to {most}, it is {value}"));
        }
    }
}
