//! What the two sides of a move take and how often they fail, by port, side and stage.
//!
//! It is written by every call and read by budgets, reports and metrics. Numbers only grow; whoever wants those
//! of a time subtracts two readings.

mod histogram;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use self::histogram::Histogram;
pub use self::histogram::Latencies;
use super::{BusStage, NotifierStage, Port, PortStage, Side, Stage, Way};
use crate::ports::{ErrorKind, Outcome, PortError};

/// What is called on a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MovedCall {
    /// A record is read.
    Read,
    /// A record is written, also to follow the other side.
    Write,
    /// An event is published; in the stage `shadow` on the new side, its copy.
    Publish,
    /// A notification is sent; in the stage `old` on the new side, it is asked whether it could be.
    Notify,
}

impl MovedCall {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Publish, Self::Notify];

    /// The calls of a port.
    #[must_use]
    pub fn of(port: Port) -> &'static [Self] {
        match port {
            Port::State => &[Self::Read, Self::Write],
            Port::Bus => &[Self::Publish],
            Port::Notifier => &[Self::Notify],
        }
    }

    /// The word of reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Publish => "publish",
            Self::Notify => "notify",
        }
    }

    fn stage_at(self, place: usize) -> PortStage {
        match self {
            Self::Read | Self::Write => PortStage::State(Stage::at(place)),
            Self::Publish => PortStage::Bus(BusStage::at(place)),
            Self::Notify => PortStage::Notifier(NotifierStage::at(place)),
        }
    }

    fn stages(self) -> usize {
        match self {
            Self::Read | Self::Write => Stage::ALL.len(),
            Self::Publish => BusStage::ALL.len(),
            Self::Notify => NotifierStage::ALL.len(),
        }
    }
}

impl fmt::Display for MovedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a comparison of both sides found, once it could not be the way of a copy that is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finding {
    /// Both hold the same.
    Equal,
    /// The new side is behind and says so, or the record changed at each look.
    Unsettled,
    /// Same version, other content.
    Different,
    /// An older version than the old side's, and no mark says so.
    Stale,
    /// Only the old side has it, and no mark says so.
    Missing,
    /// Only the new side has it, and no mark says so.
    Extra,
    /// A later version than the old side's, which has lost something.
    Ahead,
    /// A side could not be read.
    Failed,
    /// More was to be compared than is compared at once.
    Skipped,
}

impl Finding {
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::Equal,
        Self::Unsettled,
        Self::Different,
        Self::Stale,
        Self::Missing,
        Self::Extra,
        Self::Ahead,
        Self::Failed,
        Self::Skipped,
    ];

    /// Whether the new side would give a wrong answer.
    #[must_use]
    pub fn is_wrong(self) -> bool {
        matches!(
            self,
            Self::Different | Self::Stale | Self::Missing | Self::Extra
        )
    }
}

/// Counts the calls of both sides.
///
/// One serves all parallel adapters of a process.
#[derive(Debug)]
pub struct Recorder {
    cells: Box<[Cell]>,
    /// By stage of the state store and finding.
    findings: [[AtomicU64; Finding::ALL.len()]; Stage::ALL.len()],
}

#[derive(Debug, Default)]
struct Cell {
    failures: AtomicU64,
    skipped: AtomicU64,
    latencies: Histogram,
}

impl Default for Recorder {
    fn default() -> Self {
        let cells = MovedCall::ALL.len() * 2 * Stage::ALL.len();
        Self {
            cells: (0..cells).map(|_| Cell::default()).collect(),
            findings: Default::default(),
        }
    }
}

impl Recorder {
    /// Runs a call and counts it.
    ///
    /// # Errors
    /// As the call.
    ///
    /// # Cancel safety
    /// A call that is dropped before its end is not counted.
    pub(super) async fn time<T: Send>(
        &self,
        call: MovedCall,
        side: Side,
        stage: impl Into<PortStage> + Send,
        running: impl Future<Output = Result<T, PortError>> + Send,
    ) -> Result<T, PortError> {
        let began = Instant::now();
        let result = running.await;
        let failed = result.as_ref().is_err_and(is_failure);
        let was_made = !matches!(&result, Err(error) if error.outcome() == Outcome::NotMade);
        if was_made || failed {
            self.count(call, side, stage, began.elapsed(), failed);
        }
        result
    }

    /// Counts a call that has ended.
    pub(super) fn count(
        &self,
        call: MovedCall,
        side: Side,
        stage: impl Into<PortStage>,
        elapsed: Duration,
        failed: bool,
    ) {
        let cell = self.cell(call, side, stage.into().place());
        cell.latencies.add(elapsed);
        cell.failures
            .fetch_add(u64::from(failed), Ordering::Relaxed);
    }

    /// Counts a call beside the requests that was not made, because there were too many.
    pub(super) fn skip(&self, call: MovedCall, side: Side, stage: impl Into<PortStage>) {
        let cell = self.cell(call, side, stage.into().place());
        cell.skipped.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn found(&self, stage: Stage, finding: Finding) {
        self.findings[stage.place()][finding as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn cell(&self, call: MovedCall, side: Side, place: usize) -> &Cell {
        let sides = call as usize * 2 + usize::from(side == Side::New);
        &self.cells[sides * Stage::ALL.len() + place]
    }

    /// The calls of one kind so far.
    #[must_use]
    pub fn calls(&self, call: MovedCall, side: Side, stage: PortStage) -> Calls {
        self.read(call, side, stage.place())
    }

    /// The calls of one kind so far, in all stages.
    #[must_use]
    pub fn calls_of_all_stages(&self, call: MovedCall, side: Side) -> Calls {
        let stages = (0..call.stages()).map(|place| self.read(call, side, place));
        stages.fold(Calls::default(), |sum, one| sum.and(&one))
    }

    fn read(&self, call: MovedCall, side: Side, place: usize) -> Calls {
        let cell = self.cell(call, side, place);
        Calls {
            failures: cell.failures.load(Ordering::Relaxed),
            skipped: cell.skipped.load(Ordering::Relaxed),
            latencies: cell.latencies.read(),
        }
    }

    /// How often the comparison of reads found something in a stage.
    #[must_use]
    pub fn findings(&self, stage: Stage, finding: Finding) -> u64 {
        self.findings[stage.place()][finding as usize].load(Ordering::Relaxed)
    }

    /// How often the new side would have given a wrong answer in a stage.
    #[must_use]
    pub fn wrong(&self, stage: Stage) -> u64 {
        let wrong = Finding::ALL.into_iter().filter(|found| found.is_wrong());
        wrong.map(|found| self.findings(stage, found)).sum()
    }

    /// Everything that has been called, for reports.
    #[must_use]
    pub fn measurements(&self) -> Vec<Measurement> {
        let called = self.called().into_iter();
        let told =
            called.map(|(call, side, stage, calls)| Measurement::of(call, side, stage, &calls));
        told.collect()
    }

    /// Everything that has been called, for metrics.
    #[must_use]
    pub fn called(&self) -> Vec<(MovedCall, Side, PortStage, Calls)> {
        let mut all = Vec::new();
        for call in MovedCall::ALL {
            for side in [Side::Old, Side::New] {
                for place in 0..call.stages() {
                    let calls = self.read(call, side, place);
                    if calls.count() + calls.skipped > 0 {
                        all.push((call, side, call.stage_at(place), calls));
                    }
                }
            }
        }
        all
    }
}

/// An error that says that a side does not work, rather than what it holds.
fn is_failure(error: &PortError) -> bool {
    match error.kind() {
        ErrorKind::Unavailable
        | ErrorKind::Timeout
        | ErrorKind::Throttled
        | ErrorKind::Denied
        | ErrorKind::Unexpected
        | ErrorKind::Corrupt => true,
        ErrorKind::NotFound
        | ErrorKind::Conflict
        | ErrorKind::Fenced
        | ErrorKind::Invalid
        | ErrorKind::Unsupported => false,
    }
}

/// Calls of one kind, on one side, in one stage.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Calls {
    /// How many of them failed because the side did not work.
    pub failures: u64,
    /// How many more were not made, because there were too many beside the requests.
    pub skipped: u64,
    /// How long they took, also those that failed.
    pub latencies: Latencies,
}

impl Calls {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.latencies.count()
    }

    /// The share that failed, from 0 to 1; 0 if there were none.
    #[must_use]
    pub fn error_rate(&self) -> f64 {
        match self.count() {
            0 => 0.0,
            count => self.failures as f64 / count as f64,
        }
    }

    /// What came after an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            failures: self.failures.saturating_sub(earlier.failures),
            skipped: self.skipped.saturating_sub(earlier.skipped),
            latencies: self.latencies.since(&earlier.latencies),
        }
    }

    fn and(&self, other: &Self) -> Self {
        Self {
            failures: self.failures + other.failures,
            skipped: self.skipped + other.skipped,
            latencies: self.latencies.and(&other.latencies),
        }
    }
}

/// [`Calls`] in numbers for people and programs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measurement {
    /// The port.
    pub port: Port,
    /// What was called.
    pub call: MovedCall,
    /// The side.
    pub side: Side,
    /// The stage that the call was made by.
    pub stage: &'static str,
    /// How many calls.
    pub calls: u64,
    /// How many of them failed.
    pub failures: u64,
    /// How many more were not made.
    pub skipped: u64,
    /// The sum of their times, in microseconds.
    pub elapsed_us: u64,
    /// The median, in microseconds, at most an eighth too high.
    pub p50_us: u64,
    /// The time that 99 of 100 stay below, in microseconds, at most an eighth too high.
    pub p99_us: u64,
}

impl Measurement {
    fn of(call: MovedCall, side: Side, stage: PortStage, calls: &Calls) -> Self {
        Self {
            port: stage.port(),
            call,
            side,
            stage: stage.as_str(),
            calls: calls.count(),
            failures: calls.failures,
            skipped: calls.skipped,
            elapsed_us: calls.latencies.sum_us(),
            p50_us: calls.latencies.quantile_us(0.5),
            p99_us: calls.latencies.quantile_us(0.99),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_is_counted_by_port_side_and_stage() {
        let recorder = Recorder::default();
        let slow = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(())
        };
        let (call, side, stage) = (MovedCall::Read, Side::New, Stage::Live);
        recorder.time(call, side, stage, slow).await.expect("slow");
        let error = |kind| async move { Err::<(), _>(PortError::new(kind, "test", "get")) };
        for kind in [ErrorKind::Conflict, ErrorKind::Timeout] {
            let told = recorder.time(call, side, stage, error(kind)).await;
            assert_eq!(told.expect_err("it failed").kind(), kind);
        }
        let not_made =
            async { Err::<(), _>(PortError::new(ErrorKind::Fenced, "test", "get").not_made()) };
        let told = recorder.time(call, side, stage, not_made).await;
        told.expect_err("not counted");
        let all = recorder.measurements();
        assert_eq!(all.len(), 1, "{all:?}");
        let json = serde_json::to_value(&all[0]).expect("numbers");
        assert_eq!(json["port"], "state");
        assert_eq!(json["stage"], "live");
        assert_eq!((all[0].calls, all[0].failures), (3, 1));
        assert!((100_000..112_501).contains(&all[0].p99_us), "{all:?}");
    }

    #[test]
    fn no_two_calls_share_a_count() {
        let recorder = Recorder::default();
        for call in MovedCall::ALL {
            for side in [Side::Old, Side::New] {
                for place in 0..call.stages() {
                    recorder.count(call, side, call.stage_at(place), Duration::ZERO, false);
                }
            }
        }
        let all = recorder.measurements();
        assert_eq!(all.len(), 2 * (7 + 7 + 4 + 2));
        assert!(all.iter().all(|one| one.calls == 1), "{all:?}");
    }

    #[test]
    fn a_reading_less_an_earlier_one_is_what_came_between() {
        let recorder = Recorder::default();
        let stage = PortStage::State(Stage::Live);
        let count = |ms, failed| {
            let elapsed = Duration::from_millis(ms);
            recorder.count(MovedCall::Read, Side::New, stage, elapsed, failed);
        };
        count(500, true);
        let read = || recorder.calls(MovedCall::Read, Side::New, stage);
        let earlier = read();
        for _ in 0..9 {
            count(1, false);
        }
        let between = read().since(&earlier);
        assert_eq!((between.count(), between.failures), (9, 0));
        assert!(between.latencies.quantile_us(0.99) < 1_126);
        assert!((read().error_rate() - 0.1).abs() < 1e-9);
        let all = recorder.calls_of_all_stages(MovedCall::Read, Side::New);
        assert_eq!(all, read());
    }
}
