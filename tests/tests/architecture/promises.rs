//! Promises of the ports against the cases of the suite, in both directions.

use crate::rules::Violations;

/// A numbered promise of a port's documentation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Promise {
    /// Its number, for example `S7`.
    pub(crate) number: String,
    /// Its text in one line.
    pub(crate) text: String,
}

impl Promise {
    /// What it names in parentheses and backticks.
    fn cases(&self) -> Vec<&str> {
        let cited = self.text.rsplit_once('(').map_or("", |(_, cited)| cited);
        cited.split('`').skip(1).step_by(2).collect()
    }
}

/// The lines of a file's contracts: from `# Contract` to the next heading or the end of the doc.
fn contract_lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line.trim_start().strip_prefix("///") {
            Some(doc) if doc.trim_start().starts_with("# ") => {
                inside = doc.trim() == "# Contract";
            }
            Some(doc) if inside => lines.push(doc.trim()),
            Some(_) => {}
            None => inside = false,
        }
    }
    lines
}

/// The promises of a file.
pub(crate) fn promises(text: &str) -> Vec<Promise> {
    let mut promises: Vec<Promise> = Vec::new();
    let mut open = false;
    for line in contract_lines(text) {
        if let Some((number, text)) = line.strip_prefix("- **").and_then(|l| l.split_once("**")) {
            promises.push(Promise {
                number: number.to_owned(),
                text: text.trim().to_owned(),
            });
            open = true;
        } else if line.is_empty() {
            open = false;
        } else if open && let Some(last) = promises.last_mut() {
            last.text.push(' ');
            last.text.push_str(line);
        }
    }
    promises
}

/// A MUST that stands in no promise, and a promise without a MUST or without a case that exists.
pub(crate) fn every_must_names_a_case(path: &str, text: &str, cases: &[&str]) -> Violations {
    let mut violations = Vec::new();
    let promises = promises(text);
    let in_promises: usize = promises.iter().map(|one| musts(&one.text)).sum();
    let in_contract: usize = contract_lines(text).into_iter().map(musts).sum();
    if in_promises != in_contract {
        violations.push(format!("{path} has a MUST outside its numbered promises"));
    }
    for promise in &promises {
        let number = &promise.number;
        if musts(&promise.text) == 0 {
            violations.push(format!("{path}: {number} says nothing that MUST be"));
        }
        if promise.cases().is_empty() {
            violations.push(format!("{path}: {number} names no case"));
        }
        for case in promise.cases() {
            if !cases.contains(&case) {
                violations.push(format!("{path}: {number} names {case}, which is no case"));
            }
        }
    }
    violations
}

fn musts(text: &str) -> usize {
    text.split(|character: char| !character.is_alphabetic())
        .filter(|word| *word == "MUST")
        .count()
}

/// A case that its promise does not name; `cases` are names with the numbers of their promises.
pub(crate) fn every_case_is_promised(promises: &[Promise], cases: &[(&str, &str)]) -> Violations {
    let promised = |name: &str, number: &str| {
        let mut same = promises.iter().filter(|promise| promise.number == number);
        same.any(|promise| promise.cases().contains(&name))
    };
    let stray = cases
        .iter()
        .filter(|(name, number)| !promised(name, number));
    stray
        .map(|(name, number)| format!("{number} does not name {name}"))
        .collect()
}
