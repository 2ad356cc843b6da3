//! What [`Migration`](super::Migration) is asked and what it answers: values that a command line prints and an
//! API sends as they are.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Bucket, Control, JobStatus, Marks, PortStage, Side, Stage};

/// One of the three ports that move, each at its own pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Port {
    /// The state store, which moves first.
    State,
    /// The event bus.
    Bus,
    /// The notifier.
    Notifier,
}

impl Port {
    /// Every port, in the order in which reports name them.
    pub const ALL: [Self; 3] = [Self::State, Self::Bus, Self::Notifier];

    /// The word of commands and reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Bus => "bus",
            Self::Notifier => "notifier",
        }
    }

    /// The port of this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|port| port.as_str() == word)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A part of all records, in steps of 0.01 %. It is read and written as a number of percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u16);

/// A text that is no part of a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a share is 0 to 100 percent in steps of 0.01, not {found:?}")]
pub struct ShareError {
    found: String,
}

impl Share {
    /// Nothing.
    pub const NOTHING: Self = Self(0);
    /// Everything.
    pub const ALL: Self = Self(Bucket::COUNT);

    /// So many buckets, at most all.
    #[must_use]
    pub fn of_buckets(buckets: u16) -> Self {
        Self(buckets.min(Bucket::COUNT))
    }

    /// Reads a number of percent, for example `12.5`.
    ///
    /// # Errors
    /// For what is no number from 0 to 100, and for more than two digits after the point.
    pub fn parse(text: &str) -> Result<Self, ShareError> {
        let wrong = || ShareError {
            found: text.chars().take(32).collect(),
        };
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let is_number =
            |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        if !is_number(whole) || !is_number(part) || part.len() > 2 {
            return Err(wrong());
        }
        let part: u16 = format!("{part:0<2}").parse().map_err(|_| wrong())?;
        let whole: u16 = whole.parse().map_err(|_| wrong())?;
        let buckets = whole.checked_mul(100).and_then(|all| all.checked_add(part));
        match buckets {
            Some(buckets) if buckets <= Bucket::COUNT => Ok(Self(buckets)),
            Some(_) | None => Err(wrong()),
        }
    }

    /// How many buckets it is.
    #[must_use]
    pub fn buckets(self) -> u16 {
        self.0
    }

    /// The number of percent.
    #[must_use]
    pub fn percent(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02} %", self.0 / 100, self.0 % 100)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.percent())
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        let percent = number.as_f64().unwrap_or(-1.0);
        Self::parse(&percent.to_string()).map_err(serde::de::Error::custom)
    }
}

/// Who changes something, and why. Both stand in the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// A person or a part of the service, for example `alice` or `guardian`.
    pub who: String,
    /// The reason in a few words; may be empty.
    #[serde(default)]
    pub why: String,
}

impl Cause {
    /// Longest part of either text that is kept, in characters.
    const MOST: usize = 200;

    /// Names who and why; what is too long is cut.
    #[must_use]
    pub fn new(who: &str, why: &str) -> Self {
        let cut = |text: &str| text.chars().take(Self::MOST).collect();
        Self {
            who: cut(who),
            why: cut(why),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.why {
            "" => f.write_str(&self.who),
            why => write!(f, "{}: {why}", self.who),
        }
    }
}

impl Default for Cause {
    /// Nobody who is known.
    fn default() -> Self {
        Self::new("unknown", "")
    }
}

/// What only a person can know, and says aloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confirmation {
    /// Nobody but this service writes to the old side any more; asked for `live`.
    NoForeignWriters,
    /// There is no way back from `complete`.
    NoWayBack,
}

/// Whether a step is made or only examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Run {
    /// It is made.
    #[default]
    Real,
    /// Only what stands in its way is found out.
    Dry,
}

/// A step forwards, or to another share of the same stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advance {
    /// Which port.
    pub port: Port,
    /// The stage's word, for example `shadow`.
    pub to: String,
    /// How much shall have reached the stage then.
    #[serde(default = "all")]
    pub share: Share,
    /// For the audit.
    #[serde(default)]
    pub cause: Cause,
    /// What is confirmed.
    #[serde(default)]
    pub confirmed: Vec<Confirmation>,
    /// Whether it is made.
    #[serde(default)]
    pub run: Run,
}

fn all() -> Share {
    Share::ALL
}

/// A way back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// Which port.
    pub port: Port,
    /// The stage at which everything shall be again; `None` is one stage back.
    #[serde(default)]
    pub to: Option<String>,
    /// For the audit.
    #[serde(default)]
    pub cause: Cause,
    /// The side that is gone for good, or has gone back to an earlier state; then the way back asks the other one alone.
    #[serde(default)]
    pub lost: Option<Side>,
}

/// A stage and how much is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageShare {
    /// The stage's word.
    pub stage: String,
    /// How much is in it and not further, in percent.
    pub percent: Share,
}

/// The stages of a port that have records, the furthest first.
pub(super) fn shares(control: &Control, port: Port) -> Vec<StageShare> {
    let mut stages = PortStage::all(port);
    if port == Port::State {
        // Nobody stays there, and for a moment everybody may be.
        stages.push(PortStage::State(Stage::Handoff));
        stages.sort();
    }
    let shares = stages.into_iter().rev().map(|stage| StageShare {
        stage: stage.as_str().to_owned(),
        percent: Share::of_buckets(control.within(stage)),
    });
    shares
        .filter(|share| share.percent > Share::NOTHING)
        .collect()
}

/// One thing that a step depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Its name, the same in refusals: for example `backfill_complete`.
    pub name: String,
    /// Whether it holds now.
    pub holds: bool,
    /// What was found, with numbers.
    pub detail: String,
}

impl Condition {
    pub(super) fn new(name: &str, holds: bool, detail: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            holds,
            detail: detail.into(),
        }
    }
}

/// Whether a step may be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// The stage's word.
    pub to: String,
    /// Whether every condition holds that needs no confirmation.
    pub safe: bool,
    /// The names of those that do not.
    pub failing: Vec<String>,
    /// All of them.
    pub conditions: Vec<Condition>,
    /// What has to be confirmed besides.
    pub to_confirm: Vec<Confirmation>,
}

/// Where one port is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// Which port.
    pub port: Port,
    /// The stages that have records, the furthest first.
    pub stages: Vec<StageShare>,
    /// "Safe to advance?"; `None` at the end of the way.
    pub next: Option<Readiness>,
}

/// One process of the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// Its name.
    pub id: String,
    /// The epoch by which it starts requests.
    pub adopted: u64,
    /// The oldest epoch by which a request of it still works.
    pub oldest: u64,
    /// For how long nothing new was heard of it here, in milliseconds.
    pub silent_ms: u64,
}

/// The state of the whole move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Whether there is a move; without one the rest is empty.
    pub begun: bool,
    /// Rises with every change.
    pub epoch: u64,
    /// Rises when the right to write moves.
    pub term: u32,
    /// The backfill that counts.
    pub generation: u32,
    /// Each port.
    pub ports: Vec<PortStatus>,
    /// Each process.
    pub replicas: Vec<ReplicaStatus>,
    /// Records that one side may lack.
    pub marks: Marks,
    /// The last backfill.
    pub backfill: Option<JobStatus>,
    /// The last verify.
    pub verify: Option<JobStatus>,
    /// The last verify of everything that ended.
    pub full_verify: Option<JobStatus>,
}

impl Status {
    pub(super) fn not_begun() -> Self {
        Self {
            begun: false,
            epoch: 0,
            term: 0,
            generation: 0,
            ports: Vec::new(),
            replicas: Vec::new(),
            marks: Marks::default(),
            backfill: None,
            verify: None,
            full_verify: None,
        }
    }
}

/// The steps from here to a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Which port.
    pub port: Port,
    /// Where it is.
    pub from: Vec<StageShare>,
    /// The stage's word.
    pub to: String,
    /// The steps, in order; none when everything is there.
    pub steps: Vec<PlannedStep>,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// The command that makes it.
    pub command: String,
    /// What it changes, for people.
    pub effect: String,
    /// What it depends on, as it is now; later steps may depend on earlier ones.
    pub conditions: Vec<Condition>,
    /// What has to be confirmed with it.
    pub to_confirm: Vec<Confirmation>,
}

/// A step that was made, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Which port.
    pub port: Port,
    /// Whether it was made.
    pub run: Run,
    /// Where it was.
    pub from: Vec<StageShare>,
    /// Where it is now, or would be.
    pub to: Vec<StageShare>,
    /// The epoch now.
    pub epoch: u64,
    /// Whether a bucket went there, back and there again before the rest followed.
    pub rehearsed: bool,
    /// What it depended on.
    pub conditions: Vec<Condition>,
    /// After a loss, the writes of which their clients do not know whether they were made.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unanswered: Vec<Unanswered>,
}

impl Moved {
    /// A step of a port that was made, with nothing else to say of it.
    pub(super) fn between(from: &Control, to: &Control, port: Port) -> Self {
        Self {
            port,
            run: Run::Real,
            from: shares(from, port),
            to: shares(to, port),
            epoch: to.epoch,
            rehearsed: false,
            conditions: Vec::new(),
            unanswered: Vec::new(),
        }
    }
}

/// A write that was begun on a side that is lost, and not answered as done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unanswered {
    /// The record, as `kind/id`.
    pub key: String,
    /// Replica and number of the write; empty if its note cannot be read.
    pub write: String,
    /// When it began, by the clock of its replica, RFC 3339.
    pub at: String,
    /// Whether it was to delete the record.
    pub deletes: bool,
    /// Whether the record is as the write wanted it; otherwise it is as before.
    pub made: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_in_steps_of_a_hundredth() {
        for (text, buckets) in [("0", 0), ("0.01", 1), ("12.5", 1_250), ("100", 10_000)] {
            assert_eq!(
                Share::parse(text).map(Share::buckets),
                Ok(buckets),
                "{text}"
            );
        }
        for text in ["", "-1", "1e2", "100.01", "0.001", ".5", "5.", "656"] {
            assert!(Share::parse(text).is_err(), "{text}");
        }
        let request = r#"{"port":"state","to":"live","share":12.5}"#;
        let request: Advance = serde_json::from_str(request).expect("a request");
        assert_eq!((request.share, request.run), (Share(1_250), Run::Real));
        let json = serde_json::to_string(&Share(1_250)).expect("a number");
        assert_eq!(json, "12.5");
    }
}
