//! How much worse the new side may be, and whether it is.
//!
//! Plain numbers without I/O: the guardian takes the measurements and moves the buckets.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::{BusStage, Calls, MovedCall, NotifierStage, PortStage, Recorder, Side, Stage};

/// What the new side may take in a stage before its buckets go one stage back.
///
/// `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Budget {
    /// Share of the new side's calls that fail, beyond that of the old one; from 0 to 1.
    pub error_rate: Option<f64>,
    /// How many times as long 99 of 100 of its calls take as those of the old one.
    pub p99_ratio: Option<f64>,
    /// Up to here nothing counts as slow, whatever the old side takes.
    pub fast_enough: Duration,
    /// Comparisons that may find the new side wrong.
    pub wrong: Option<u64>,
    /// How long a record may wait to follow.
    pub dirty_age: Option<Duration>,
}

impl Budget {
    /// No limit at all.
    pub const UNLIMITED: Self = Self {
        error_rate: None,
        p99_ratio: None,
        fast_enough: Duration::from_millis(20),
        wrong: None,
        dirty_age: None,
    };

    /// One call in a hundred, four times the time but never for less than 20 ms; nothing wrong.
    pub const USUAL: Self = Self {
        error_rate: Some(0.01),
        p99_ratio: Some(4.0),
        wrong: Some(0),
        ..Self::UNLIMITED
    };
}

/// The stages that are watched, and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Budgets {
    /// Budgets by stage. What has none is not watched.
    pub of: Vec<(PortStage, Budget)>,
    /// The time over which calls are counted.
    pub window: Duration,
    /// Time between two looks.
    pub look_every: Duration,
    /// Fewest calls of the new side in the window by which it is judged.
    pub least_calls: u64,
    /// Looks in a row that have to find too much before buckets go back. What is wrong goes back at once.
    pub patience: u32,
    /// Pause after a step back that failed; it doubles each time, up to 32 times as long.
    pub again: Duration,
}

impl Default for Budgets {
    /// The stages in which a client notices the new side; and `shadow`, where it must not be found wrong.
    ///
    /// From `dualwrite` nothing goes back by itself: no client notices, and `off` would give up the backfill.
    /// An outage of the new side has no say in `shadow` for the same reason.
    fn default() -> Self {
        let live = Budget {
            dirty_age: Some(Duration::from_secs(60)),
            ..Budget::USUAL
        };
        let never_wrong = Budget {
            wrong: Some(0),
            ..Budget::UNLIMITED
        };
        let no_records = Budget {
            wrong: None,
            ..Budget::USUAL
        };
        Self {
            of: vec![
                (Stage::Shadow.into(), never_wrong),
                (Stage::Live.into(), live),
                (Stage::RampDown.into(), no_records),
                (BusStage::Live.into(), no_records),
                (NotifierStage::New.into(), no_records),
            ],
            window: Duration::from_secs(60),
            look_every: Duration::from_secs(5),
            least_calls: 100,
            patience: 3,
            again: Duration::from_secs(30),
        }
    }
}

/// What is beyond a budget; its text is the reason in the audit.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Excess {
    /// Too many calls fail.
    Errors {
        /// What is called.
        call: MovedCall,
        /// The share of the new side, in percent.
        new_percent: f64,
        /// The share of the old side, in percent.
        old_percent: f64,
        /// How far the first may be above the second, in percent.
        limit_percent: f64,
        /// How many calls of the new side were counted.
        calls: u64,
    },
    /// Calls take too long.
    Slow {
        /// What is called.
        call: MovedCall,
        /// What 99 of 100 calls of the new side stay below, in microseconds.
        new_p99_us: u64,
        /// The same of the old side.
        old_p99_us: u64,
        /// How many times as long it may be.
        limit_ratio: f64,
        /// How many calls of the new side were counted.
        calls: u64,
    },
    /// The new side holds records wrong.
    Wrong {
        /// How many comparisons found that.
        found: u64,
        /// How many may.
        limit: u64,
    },
    /// A record waits too long to follow.
    Dirty {
        /// For how long, in milliseconds.
        age_ms: u64,
        /// How long it may, in milliseconds.
        limit_ms: u64,
    },
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errors {
                call,
                new_percent,
                old_percent,
                limit_percent,
                calls,
            } => write!(
                f,
                "{new_percent:.2} % of {calls} {call} calls of the new side failed, {old_percent:.2} % of the old \
                 one's; at most {limit_percent:.2} % more may"
            ),
            Self::Slow {
                call,
                new_p99_us,
                old_p99_us,
                limit_ratio,
                calls,
            } => write!(
                f,
                "p99 of {calls} {call} calls of the new side is {:.1} ms, of the old one {:.1} ms; at most {limit_ratio} \
                 times that is allowed",
                *new_p99_us as f64 / 1e3,
                *old_p99_us as f64 / 1e3,
            ),
            Self::Wrong { found, limit } => {
                write!(
                    f,
                    "{found} comparisons found the new side wrong; at most {limit} may"
                )
            }
            Self::Dirty { age_ms, limit_ms } => write!(
                f,
                "a record has waited {age_ms} ms for the new side; at most {limit_ms} ms are allowed"
            ),
        }
    }
}

/// A reading of everything that is judged.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    calls: Vec<(MovedCall, Calls, Calls)>,
    wrong: u64,
}

impl Reading {
    /// What the recorder holds of a stage now.
    pub(super) fn of(recorder: &Recorder, stage: PortStage) -> Self {
        let calls = MovedCall::of(stage.port()).iter().map(|call| {
            let read = |side| recorder.calls(*call, side, stage);
            (*call, read(Side::Old), read(Side::New))
        });
        Self {
            calls: calls.collect(),
            wrong: match stage {
                PortStage::State(stage) => recorder.wrong(stage),
                PortStage::Bus(_) | PortStage::Notifier(_) => 0,
            },
        }
    }
}

/// The readings of one stage since its buckets last moved, and how often in a row they were too much.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The oldest one first; it spans the window.
    readings: VecDeque<Reading>,
    exceeded: u32,
}

/// Whether a stage is within its budget.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    Within,
    /// Too much, and not for long enough.
    Doubtful(Excess),
    Exceeded(Excess),
}

impl Watch {
    /// Judges by one more reading.
    ///
    /// `usual` is what the old side takes in all stages, for where it is hardly called in this one.
    pub(super) fn judge(
        &mut self,
        budgets: &Budgets,
        budget: &Budget,
        reading: Reading,
        usual: impl Fn(MovedCall) -> Calls,
        dirty_age: Duration,
    ) -> Verdict {
        let looks = budgets.window.div_duration_f64(budgets.look_every).ceil() as usize;
        let first = self.readings.front().unwrap_or(&reading);
        let wrong = reading.wrong.saturating_sub(first.wrong);
        let beyond = excess_of_records(budget, wrong, dirty_age);
        if let Some(excess @ Excess::Wrong { .. }) = beyond {
            return Verdict::Exceeded(excess);
        }
        let least = budgets.least_calls;
        let of_calls = |budget: &Budget| {
            let pairs = reading.calls.iter().zip(&first.calls);
            let mut pairs = pairs.map(|((call, old, new), (_, old_before, new_before))| {
                (*call, old.since(old_before), new.since(new_before))
            });
            pairs.find_map(|(call, old, new)| {
                let (enough, usual) = (new.count() >= least, || usual(call));
                enough.then(|| excess_of_calls(budget, call, &old, &new, usual))?
            })
        };
        let excess = beyond.or_else(|| of_calls(budget));
        // What lies between half a budget and a whole one neither begins nor ends anything.
        let is_doubtful = excess.is_none() && of_calls(&half_of(budget)).is_some();
        self.readings.push_back(reading);
        if self.readings.len() > looks.max(1) {
            self.readings.pop_front();
        }
        match excess {
            None if is_doubtful => Verdict::Within,
            None => {
                self.exceeded = 0;
                Verdict::Within
            }
            Some(excess) => {
                self.exceeded += 1;
                match self.exceeded >= budgets.patience {
                    true => Verdict::Exceeded(excess),
                    false => Verdict::Doubtful(excess),
                }
            }
        }
    }
}

fn half_of(budget: &Budget) -> Budget {
    Budget {
        error_rate: budget.error_rate.map(|rate| rate / 2.0),
        p99_ratio: budget.p99_ratio.map(|ratio| (ratio / 2.0).max(1.0)),
        ..*budget
    }
}

fn excess_of_records(budget: &Budget, wrong: u64, dirty_age: Duration) -> Option<Excess> {
    if let Some(limit) = budget.wrong
        && wrong > limit
    {
        let found = wrong;
        return Some(Excess::Wrong { found, limit });
    }
    let limit = budget.dirty_age?;
    (dirty_age > limit).then(|| Excess::Dirty {
        age_ms: millis(dirty_age),
        limit_ms: millis(limit),
    })
}

fn excess_of_calls(
    budget: &Budget,
    call: MovedCall,
    old: &Calls,
    new: &Calls,
    usual: impl Fn() -> Calls,
) -> Option<Excess> {
    let calls = new.count();
    let (new_rate, old_rate) = (new.error_rate(), old.error_rate());
    if let Some(limit) = budget.error_rate
        && new_rate - old_rate > limit
    {
        return Some(Excess::Errors {
            call,
            new_percent: 100.0 * new_rate,
            old_percent: 100.0 * old_rate,
            limit_percent: 100.0 * limit,
            calls,
        });
    }
    let limit_ratio = budget.p99_ratio?;
    let new_p99_us = new.latencies.quantile_us(0.99);
    if u128::from(new_p99_us) <= budget.fast_enough.as_micros() {
        return None;
    }
    // Where the old side is hardly called, it is what it always took that counts.
    let old_p99_us = match old.count() * 4 >= calls {
        true => old.latencies.quantile_us(0.99),
        false => usual().latencies.quantile_us(0.99),
    };
    let is_slow = old_p99_us > 0 && new_p99_us as f64 > limit_ratio * old_p99_us as f64;
    is_slow.then_some(Excess::Slow {
        call,
        new_p99_us,
        old_p99_us,
        limit_ratio,
        calls,
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
