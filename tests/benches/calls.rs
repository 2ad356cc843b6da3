//! Calls made in this process, so many under way at once, by a subject and bare in turns.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::BenchResult;
use crate::figures::{is_steady, median, ms, per_second};
use crate::options::Options;
use crate::proc::processor_time;

/// What came of calls.
#[derive(Debug)]
pub(crate) struct Called {
    count: u64,
    elapsed: Duration,
    /// Processor time of this process.
    processor: Duration,
    p50_us: f64,
}

impl Called {
    /// Answers a second.
    pub(crate) fn rate(&self) -> f64 {
        per_second(self.count, self.elapsed)
    }
}

/// Keeps so many calls under way for a time; `call` gets a number of its own each time.
///
/// It is an error if one of them answers `false`.
pub(crate) async fn keep_up<F>(
    time: Duration,
    at_once: usize,
    call: impl Fn(usize) -> F + Clone + Send + 'static,
) -> BenchResult<Called>
where
    F: Future<Output = bool> + Send + 'static,
{
    let used = processor_time(std::process::id())?;
    let begin = Instant::now();
    let mut running = JoinSet::new();
    for task in 0..at_once {
        let call = call.clone();
        running.spawn(async move {
            let mut times = Vec::new();
            let mut start = Instant::now();
            while start - begin < time {
                if !call(task + at_once * times.len()).await {
                    return None;
                }
                let now = Instant::now();
                times.push(now - start);
                start = now;
            }
            Some(times)
        });
    }
    let mut times = Vec::new();
    while let Some(ended) = running.join_next().await {
        times.append(&mut ended?.ok_or("a call failed")?);
    }
    Ok(Called {
        count: u64::try_from(times.len())?,
        elapsed: begin.elapsed(),
        processor: processor_time(std::process::id())? - used,
        p50_us: 1e3 * median(times.into_iter().map(ms)),
    })
}

/// One side over the turns of a round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Side {
    /// Calls a second, the median of the turns.
    pub(crate) rate: f64,
    /// The median time of one call, in microseconds.
    pub(crate) p50_us: f64,
    /// Processor time of this process for one call, in microseconds.
    pub(crate) cpu_us: f64,
}

impl Side {
    fn of_turns(turns: &[Called]) -> Self {
        let processor: Duration = turns.iter().map(|turn| turn.processor).sum();
        let count = turns.iter().map(|turn| turn.count).sum();
        Self {
            rate: median(turns.iter().map(Called::rate)),
            p50_us: median(turns.iter().map(|turn| turn.p50_us)),
            cpu_us: 1e6 / per_second(count, processor),
        }
    }

    fn of_rounds(rounds: &[Self]) -> Self {
        let of = |value: fn(&Self) -> f64| median(rounds.iter().map(value));
        Self {
            rate: of(|side| side.rate),
            p50_us: of(|side| side.p50_us),
            cpu_us: of(|side| side.cpu_us),
        }
    }
}

/// A subject beside the same without it; medians of the rounds.
#[derive(Debug)]
pub(crate) struct Compared {
    pub(crate) subject: Side,
    pub(crate) bare: Side,
    /// The subject's rate to the bare one.
    pub(crate) ratio: f64,
    /// What the subject adds to the median time of one call, in microseconds.
    pub(crate) added_us: f64,
    /// Whether the bare side came out alike in every round.
    pub(crate) steady: bool,
}

/// Lets both take many short turns, so that what disturbs one disturbs the other.
///
/// `time` is one side's in a round.
pub(crate) fn compare(
    options: &Options,
    time: Duration,
    subject: impl Fn(Duration) -> BenchResult<Called>,
    bare: impl Fn(Duration) -> BenchResult<Called>,
) -> BenchResult<Compared> {
    const TURNS: u32 = 12;
    let time = time / TURNS;
    let (mut subjects, mut bares) = (Vec::new(), Vec::new());
    for _ in 0..=options.rounds() {
        let (mut by_subject, mut by_bare) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            by_bare.push(bare(time)?);
            by_subject.push(subject(time)?);
        }
        subjects.push(Side::of_turns(&by_subject));
        bares.push(Side::of_turns(&by_bare));
    }
    subjects.remove(0);
    bares.remove(0);
    let pairs = || subjects.iter().zip(&bares);
    Ok(Compared {
        subject: Side::of_rounds(&subjects),
        bare: Side::of_rounds(&bares),
        ratio: median(pairs().map(|(subject, bare)| subject.rate / bare.rate)),
        added_us: median(pairs().map(|(subject, bare)| subject.p50_us - bare.p50_us)),
        steady: is_steady(bares.iter().map(|bare| bare.rate)),
    })
}

impl Compared {
    /// What the calls cost this process, as a note.
    pub(crate) fn cost(&self) -> String {
        format!(
            "{:.1} µs of processor time a call, bare {:.1} µs",
            self.subject.cpu_us, self.bare.cpu_us
        )
    }

    /// All numbers, for programs.
    pub(crate) fn values(&self) -> Value {
        let Self { subject, bare, .. } = self;
        json!({
            "per_s": subject.rate, "bare_per_s": bare.rate, "ratio": self.ratio,
            "p50_us": subject.p50_us, "bare_p50_us": bare.p50_us, "added_us": self.added_us,
            "cpu_us": subject.cpu_us, "bare_cpu_us": bare.cpu_us,
        })
    }
}
