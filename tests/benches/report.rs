//! The table, and the same as JSON.
#![expect(clippy::print_stdout, reason = "the table is what the run is for")]

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::options::Options;

/// How a measurement stands to its targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Better than hoped for.
    Stretch,
    /// As it must be.
    Pass,
    /// Not yet.
    Miss,
    /// The probes moved too much for a verdict: something else used the machine.
    Unsteady,
    /// There is no target.
    Shown,
}

impl Verdict {
    /// Judges by whether each target is reached.
    pub(crate) fn of(target: bool, stretch: bool) -> Self {
        match (target, stretch) {
            (true, true) => Self::Stretch,
            (true, false) => Self::Pass,
            (false, _) => Self::Miss,
        }
    }

    /// The same if the probes were steady.
    pub(crate) fn if_steady(self, is_steady: bool) -> Self {
        if is_steady { self } else { Self::Unsteady }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Stretch => "stretch",
            Self::Pass => "pass",
            Self::Miss => "MISS",
            Self::Unsteady => "unsteady",
            Self::Shown => "–",
        }
    }
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    /// The number in the table of targets.
    pub(crate) number: &'static str,
    /// What is measured.
    pub(crate) what: String,
    /// The target and its stretch.
    pub(crate) target: String,
    /// What came out.
    pub(crate) measured: String,
    /// How that stands to the probes.
    pub(crate) ratio: String,
    /// What that means.
    pub(crate) verdict: Verdict,
    /// What one should know besides.
    pub(crate) notes: Vec<String>,
    /// All numbers, for programs.
    pub(crate) values: Value,
}

/// What has been measured so far.
#[derive(Debug)]
pub(crate) struct Report {
    machine: Machine,
    rows: Vec<Row>,
    not_run: Vec<(String, String)>,
    failed: Vec<(String, String)>,
}

impl Report {
    /// An empty report, which shows the machine.
    pub(crate) fn begin(options: &Options) -> Self {
        let machine = Machine::here(options);
        println!("{}", machine.line());
        for warning in machine.warnings() {
            println!("warning: {warning}");
        }
        Self {
            machine,
            rows: Vec::new(),
            not_run: Vec::new(),
            failed: Vec::new(),
        }
    }

    /// Says what runs now.
    pub(crate) fn running(&self, number: &str) {
        println!("running {number}");
    }

    /// Adds a measurement.
    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Notes what was not run.
    pub(crate) fn not_run(&mut self, number: &str, why: &str) {
        self.not_run.push((number.to_owned(), why.to_owned()));
    }

    /// Notes what could not be measured.
    pub(crate) fn failed(&mut self, number: &str, error: &dyn Error) {
        self.failed.push((number.to_owned(), error.to_string()));
    }

    /// Prints the table and writes the JSON; fails if anything could not be measured.
    pub(crate) fn finish(self) -> ExitCode {
        self.print_table();
        for row in &self.rows {
            for note in &row.notes {
                println!("{}: {note}", row.number);
            }
        }
        for (number, why) in &self.not_run {
            println!("not run: {number} ({why})");
        }
        for (number, why) in &self.failed {
            println!("FAILED: {number}: {why}");
        }
        match self.write_json() {
            Ok(path) => println!("written to {}", path.display()),
            Err(error) => {
                println!("FAILED: the JSON cannot be written: {error}");
                return ExitCode::FAILURE;
            }
        }
        if self.failed.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    /// Prints the table as Markdown that reads as plain text, too.
    fn print_table(&self) {
        let head = ["#", "what", "target (stretch)", "measured", "ratio", ""].map(str::to_owned);
        let rows = self.rows.iter().map(|row| {
            [
                row.number.to_owned(),
                row.what.clone(),
                row.target.clone(),
                row.measured.clone(),
                row.ratio.clone(),
                row.verdict.as_str().to_owned(),
            ]
        });
        let mut lines: Vec<[String; 6]> = std::iter::once(head).chain(rows).collect();
        let widths: [usize; 6] = std::array::from_fn(|column| {
            let width = |line: &[String; 6]| line[column].chars().count();
            lines.iter().map(width).max().unwrap_or(0).max(3)
        });
        lines.insert(1, widths.map(|width| "-".repeat(width)));
        println!();
        for line in lines {
            let cells = line.iter().zip(widths);
            let cells: Vec<String> = cells
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            println!("| {} |", cells.join(" | "));
        }
        println!("\n{}", self.machine.line());
    }

    fn write_json(&self) -> io::Result<PathBuf> {
        let rows: Vec<Value> = self.rows.iter().map(Row::to_json).collect();
        let pairs = |pairs: &[(String, String)]| -> Vec<Value> {
            let pairs = pairs.iter();
            pairs
                .map(|(number, why)| json!({"number": number, "why": why}))
                .collect()
        };
        let report = json!({
            "machine": self.machine.to_json(),
            "warnings": self.machine.warnings(),
            "rows": rows,
            "not_run": pairs(&self.not_run),
            "failed": pairs(&self.failed),
        });
        // <target>/<profile>/deps/<bench>
        let program = std::env::current_exe()?;
        let target = program.ancestors().nth(3);
        let folder = target.ok_or(io::ErrorKind::NotFound)?.join("bench");
        std::fs::create_dir_all(&folder)?;
        let path = folder.join("ports.json");
        std::fs::write(&path, format!("{report:#}\n"))?;
        Ok(path)
    }
}

impl Row {
    fn to_json(&self) -> Value {
        json!({
            "number": self.number,
            "what": self.what,
            "target": self.target,
            "measured": self.measured,
            "ratio": self.ratio,
            "verdict": match self.verdict {
                Verdict::Stretch => "stretch",
                Verdict::Pass => "pass",
                Verdict::Miss => "miss",
                Verdict::Unsteady => "unsteady",
                Verdict::Shown => "shown",
            },
            "notes": self.notes,
            "values": self.values,
        })
    }
}
