//! The numbers of a move: both sides by stage, what comparisons found, marks, backfill.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use task_core::migration::{
    Calls, Finding, JobState, JobStatus, MarkCount, Migration, MovedCall, PortStage, Recorder,
    ShadowComparison, ShadowReport, Side, Stage, Status,
};
use tokio::time::timeout;

/// Longest wait for what lies in the old side's store.
const STATUS_LIMIT: Duration = Duration::from_secs(1);

static SECONDS: Unit = Unit::Seconds;

/// The buckets of times: powers of two of microseconds, from 64 µs to 8.4 s.
const POWERS: std::ops::RangeInclusive<u32> = 6..=23;

/// Where the numbers of a move come from.
#[derive(Debug)]
pub(crate) struct Moving {
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) migration: Arc<Migration>,
    pub(crate) comparison: Option<Arc<ShadowComparison>>,
}

impl Moving {
    /// All numbers as they are now.
    pub(super) async fn numbers(&self) -> Numbers {
        let status = timeout(STATUS_LIMIT, self.migration.status()).await;
        let status = match status {
            Ok(Ok(status)) => Some(status),
            Ok(Err(error)) => {
                tracing::debug!(%error, "metrics without the status of the move");
                None
            }
            Err(_) => None,
        };
        Numbers {
            called: self.recorder.called(),
            findings: findings(&self.recorder),
            events: self.comparison.as_ref().map(|both| both.status().report),
            status,
        }
    }
}

/// Comparisons that were made, with their stages and what they found.
fn findings(recorder: &Recorder) -> Vec<(Stage, Finding, u64)> {
    let each = Stage::ALL.into_iter();
    let each = each.flat_map(|stage| Finding::ALL.map(|finding| (stage, finding)));
    let counted = each.map(|(stage, finding)| (stage, finding, recorder.findings(stage, finding)));
    counted.filter(|(_, _, count)| *count > 0).collect()
}

/// The numbers of one moment.
#[derive(Debug)]
pub(super) struct Numbers {
    called: Vec<(MovedCall, Side, PortStage, Calls)>,
    findings: Vec<(Stage, Finding, u64)>,
    events: Option<ShadowReport>,
    /// `None` if the old side did not tell in time.
    status: Option<Status>,
}

impl Collector for Numbers {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.calls(&mut out)?;
        self.comparisons(&mut out)?;
        let up = u8::from(self.status.is_some());
        out.gauge(UP, None, [(NO_LABELS, f64::from(up))])?;
        match &self.status {
            Some(status) if status.begun => told(status, &mut out),
            Some(_) | None => Ok(()),
        }
    }
}

/// A name and what it means.
type Named = (&'static str, &'static str);

const CALLS: Named = (
    "migration_calls",
    "Calls of a side, by the stage of what was asked for",
);
const FAILURES: Named = (
    "migration_call_failures",
    "Calls that failed because a side did not work",
);
const SKIPPED: Named = (
    "migration_calls_skipped",
    "Calls beside requests that were not made: too many at once",
);
const TIMES: Named = ("migration_call_duration", "How long calls of a side took");
const COMPARED: Named = (
    "migration_comparisons",
    "Reads that were compared on both sides, by what was found",
);
const EVENTS: Named = (
    "migration_event_comparisons",
    "Events that were compared on both buses, by what was found",
);
const UP: Named = (
    "migration_status_up",
    "1 if the old side told where the move is",
);
const EPOCH: Named = ("migration_epoch", "Rises with every change of a stage");
const TERM: Named = ("migration_term", "Rises when the right to write moves");
const GENERATION: Named = ("migration_generation", "The backfill that counts");
const SHARE: Named = (
    "migration_stage_ratio",
    "The part of all records that is in a stage",
);
const SAFE: Named = (
    "migration_safe_to_advance",
    "1 if no condition of the next stage fails",
);
const REPLICAS: Named = ("migration_replicas", "Replicas that take part");
const MARKS: Named = (
    "migration_marks",
    "Records that a side may lack: dirty the new one, reverse the old one",
);
const OLDEST: Named = ("migration_oldest_mark_age", "Age of the oldest mark");
const JOB_DONE: Named = (
    "migration_job_done_records",
    "Records that the last job of a kind has looked at",
);
const JOB_TOTAL: Named = (
    "migration_job_total_records",
    "Records that it has to look at",
);
const JOB_RATE: Named = (
    "migration_job_rate",
    "Records a second in its last ten seconds",
);
const JOB_RUNNING: Named = ("migration_job_running", "1 while it is worked on");

type Label = (&'static str, String);

const NO_LABELS: [Label; 0] = [];

impl Numbers {
    fn calls(&self, out: &mut Out<'_>) -> fmt::Result {
        let each = |value: fn(&Calls) -> u64| {
            let called = self.called.iter();
            called
                .map(move |(call, side, stage, calls)| (labels(*call, *side, *stage), value(calls)))
        };
        out.counter(CALLS, each(Calls::count))?;
        out.counter(FAILURES, each(|calls| calls.failures))?;
        out.counter(SKIPPED, each(|calls| calls.skipped))?;
        let mut times = out.metric(TIMES, Some(&SECONDS), MetricType::Histogram)?;
        for (call, side, stage, calls) in &self.called {
            let labels = labels(*call, *side, *stage);
            let (sum, buckets) = histogram(calls);
            times
                .encode_family(&labels)?
                .encode_histogram::<NoLabelSet>(sum, calls.count(), &buckets, None)?;
        }
        Ok(())
    }

    fn comparisons(&self, out: &mut Out<'_>) -> fmt::Result {
        let found = self.findings.iter().map(|(stage, finding, count)| {
            let labels = [("stage", stage.to_string()), ("finding", word(finding))];
            (labels, *count)
        });
        out.counter(COMPARED, found)?;
        let Some(events) = &self.events else {
            return Ok(());
        };
        let found = [
            ("equal", events.equal),
            ("missing", events.missing),
            ("extra", events.extra),
            ("different", events.different),
            ("order", events.order),
        ];
        let found = found.map(|(finding, count)| ([("finding", finding.to_owned())], count));
        out.counter(EVENTS, found)
    }
}

fn told(status: &Status, out: &mut Out<'_>) -> fmt::Result {
    out.gauge(EPOCH, None, [(NO_LABELS, status.epoch as f64)])?;
    out.gauge(TERM, None, [(NO_LABELS, f64::from(status.term))])?;
    out.gauge(
        GENERATION,
        None,
        [(NO_LABELS, f64::from(status.generation))],
    )?;
    out.gauge(REPLICAS, None, [(NO_LABELS, status.replicas.len() as f64)])?;
    let stages = status.ports.iter().flat_map(|port| {
        let port_word = port.port.to_string();
        port.stages.iter().map(move |share| {
            let labels = [("port", port_word.clone()), ("stage", share.stage.clone())];
            (labels, share.percent.percent() / 100.0)
        })
    });
    out.gauge(SHARE, None, stages)?;
    let safe = status.ports.iter().filter_map(|port| {
        let next = port.next.as_ref()?;
        let labels = [("port", port.port.to_string()), ("to", next.to.clone())];
        Some((labels, f64::from(u8::from(next.safe))))
    });
    out.gauge(SAFE, None, safe)?;
    let marks = [
        ("dirty", &status.marks.dirty),
        ("reverse", &status.marks.reverse),
    ];
    let of = |value: fn(&MarkCount) -> f64| {
        marks.map(|(kind, marks)| ([("kind", kind.to_owned())], value(marks)))
    };
    out.gauge(MARKS, None, of(|marks| marks.count as f64))?;
    let age_s = |marks: &MarkCount| marks.oldest_ms.unwrap_or(0) as f64 / 1e3;
    out.gauge(OLDEST, Some(&SECONDS), of(age_s))?;
    jobs(status, out)
}

fn jobs(status: &Status, out: &mut Out<'_>) -> fmt::Result {
    let each = |value: fn(&JobStatus) -> f64| {
        let jobs = [&status.backfill, &status.verify].into_iter().flatten();
        jobs.map(move |job| ([("job", job.kind.as_str().to_owned())], value(job)))
    };
    out.gauge(JOB_DONE, None, each(|job| job.done as f64))?;
    out.gauge(JOB_TOTAL, None, each(|job| job.total as f64))?;
    out.gauge(JOB_RATE, None, each(|job| job.keys_per_s))?;
    let running = |job: &JobStatus| f64::from(u8::from(job.state == JobState::Running));
    out.gauge(JOB_RUNNING, None, each(running))
}

fn labels(call: MovedCall, side: Side, stage: PortStage) -> [Label; 4] {
    [
        ("port", stage.port().to_string()),
        ("call", call.to_string()),
        ("side", side.to_string()),
        ("stage", stage.as_str().to_owned()),
    ]
}

/// Its word in reports.
fn word(finding: &Finding) -> String {
    let word = serde_json::to_value(finding);
    word.ok()
        .and_then(|word| word.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// The sum in seconds, and how many calls took less than each bound, one after the other.
fn histogram(calls: &Calls) -> (f64, Vec<(f64, u64)>) {
    let mut below = 0;
    let mut buckets: Vec<(f64, u64)> = POWERS
        .map(|power| {
            let all = calls.latencies.below_power(power);
            let here = all - below;
            below = all;
            (f64::from(1_u32 << power) / 1e6, here)
        })
        .collect();
    buckets.push((f64::INFINITY, calls.count() - below));
    (calls.latencies.sum_us() as f64 / 1e6, buckets)
}

/// Writes metrics one after the other.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn metric(
        &mut self,
        (name, help): Named,
        unit: Option<&'static Unit>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'_>, fmt::Error> {
        self.0.encode_descriptor(name, help, unit, kind)
    }

    fn counter<L: EncodeLabelSet>(
        &mut self,
        named: Named,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut metric = self.metric(named, None, MetricType::Counter)?;
        for (labels, value) in values {
            metric
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    fn gauge<L: EncodeLabelSet>(
        &mut self,
        named: Named,
        unit: Option<&'static Unit>,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut metric = self.metric(named, unit, MetricType::Gauge)?;
        for (labels, value) in values {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}
