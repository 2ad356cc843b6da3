//! P4 and P5: creates that are answered only after they are on disk.

use std::path::Path;

use serde_json::json;
use task_tests::process::TestDirectory;

use crate::BenchResult;
use crate::figures::{is_steady, median, ms, per_second, rate};
use crate::load::{Amount, Answered, Load, Script};
use crate::options::Options;
use crate::probe::SyncProbe;
use crate::report::{Row, Verdict};
use crate::server::Server;

/// Clients of P4.
const CLIENTS: u32 = 64;

/// One round of P4.
struct Rates {
    /// Syncs a second: the better turn of the one before and the one after.
    probe: f64,
    create: f64,
    noop: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Processor time of the server for one create, its event and the event's delivery included.
    create_cpu_us: f64,
    noop_cpu_us: f64,
    /// How long the server went on publishing and notifying.
    behind_ms: f64,
}

impl Rates {
    /// How far the creates are above the lower of two multiples.
    fn score(&self, of_probe: f64, of_noop: f64) -> f64 {
        self.create / (of_probe * self.probe).min(of_noop * self.noop)
    }
}

/// P4: creates a second, against the disk's syncs and a server that does nothing.
pub(crate) fn create_rate(options: &Options) -> BenchResult<Row> {
    let place = TestDirectory::new("bench-create-rate");
    let data = place.path().join("data");
    let mut probe = SyncProbe::new(place.path())?;
    let server = Server::task_server(&data, options.workers)?;
    let bare = Server::bare(options.workers)?;
    let mut rounds = Vec::new();
    for _ in 0..=options.rounds() {
        let before = probe.rate(options.probe_time())?;
        let creates = Loaded::put_on(&server, options)?;
        let after = probe.rate(options.probe_time())?;
        let nothing = Loaded::put_on(&bare, options)?;
        rounds.push(Rates {
            probe: before.max(after),
            create: creates.answered.rate(),
            noop: nothing.answered.rate(),
            p50_ms: creates.answered.percentile_ms(50),
            p99_ms: creates.answered.percentile_ms(99),
            create_cpu_us: creates.cpu_us,
            noop_cpu_us: nothing.cpu_us,
            behind_ms: creates.behind_ms,
        });
    }
    must_hold_tasks(&data)?;
    rounds.remove(0);
    Ok(create_rate_row(&rounds))
}

/// What the load of P4 did to a server.
struct Loaded {
    answered: Answered,
    cpu_us: f64,
    behind_ms: f64,
}

impl Loaded {
    /// Puts the load on a server and waits until it is quiet again.
    fn put_on(server: &Server, options: &Options) -> BenchResult<Self> {
        let load = Load {
            address: server.address(),
            clients: CLIENTS,
            script: Script::Create,
            amount: Amount::For(options.load_time()),
        };
        let begin = server.processor_time()?;
        let answered = load.run()?;
        let behind = server.settle()?;
        let used = server.processor_time()? - begin;
        Ok(Self {
            cpu_us: 1e6 / per_second(answered.count, used),
            answered,
            behind_ms: ms(behind),
        })
    }
}

fn create_rate_row(rounds: &[Rates]) -> Row {
    let all = |value: fn(&Rates) -> f64| -> Vec<f64> { rounds.iter().map(value).collect() };
    let of = |value: fn(&Rates) -> f64| median(rounds.iter().map(value));
    let target = of(|round| round.score(5.0, 0.35));
    let stretch = of(|round| round.score(20.0, 0.55));
    let (of_probe, of_noop) = (of(|r| r.create / r.probe), of(|r| r.create / r.noop));
    let (probe, noop, behind_ms) = (of(|r| r.probe), of(|r| r.noop), of(|r| r.behind_ms));
    let (create, p50_ms, p99_ms) = (of(|r| r.create), of(|r| r.p50_ms), of(|r| r.p99_ms));
    let (create_cpu_us, noop_cpu_us) = (of(|r| r.create_cpu_us), of(|r| r.noop_cpu_us));
    let (probes, noops) = (all(|r| r.probe), all(|r| r.noop));
    let is_steady = is_steady(probes.iter().copied()) && is_steady(noops.iter().copied());
    Row {
        number: "P4",
        what: format!("durable HTTP creates, embedded, {CLIENTS} clients"),
        target: "≥ min(5 × probe, 0.35 × no-op) (min(20 ×, 0.55 ×))".to_owned(),
        measured: rate(create),
        ratio: format!("{target:.2} of target: {of_probe:.1} × probe, {of_noop:.2} × no-op"),
        verdict: Verdict::of(target >= 1.0, stretch >= 1.0).if_steady(is_steady),
        notes: vec![
            format!(
                "p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms; probe {}, no-op {}; {stretch:.2} of the stretch",
                rate(probe),
                rate(noop)
            ),
            format!(
                "the server's processor time: {create_cpu_us:.1} µs a create with its event, \
                 {noop_cpu_us:.1} µs without doing anything; busy {behind_ms:.0} ms after the load"
            ),
        ],
        values: json!({
            "create_per_s": create,
            "probe_per_s": probe,
            "noop_per_s": noop,
            "create_to_probe": of_probe,
            "create_to_noop": of_noop,
            "of_target": target,
            "of_stretch": stretch,
            "p50_ms": p50_ms,
            "p99_ms": p99_ms,
            "create_cpu_us": create_cpu_us,
            "noop_cpu_us": noop_cpu_us,
            "behind_ms": behind_ms,
            "rounds": {"create_per_s": all(|r| r.create), "probe_per_s": probes, "noop_per_s": noops},
        }),
    }
}

/// One round of P5, in milliseconds.
struct Waits {
    /// One sync: the better turn of the one before and the one after.
    probe: f64,
    p50: f64,
    p99: f64,
}

/// P5: how long one client waits for a create, against one sync of the disk.
pub(crate) fn create_latency(options: &Options) -> BenchResult<Row> {
    let place = TestDirectory::new("bench-create-latency");
    let data = place.path().join("data");
    let mut probe = SyncProbe::new(place.path())?;
    let server = Server::task_server(&data, options.workers)?;
    let count = options.either(100, 500);
    let load = Load {
        address: server.address(),
        clients: 1,
        script: Script::Create,
        amount: Amount::Requests(count),
    };
    let samples = usize::try_from(count / 2)?;
    let mut rounds = Vec::new();
    for _ in 0..=options.rounds() {
        let before = probe.p50_ms(samples)?;
        let creates = load.run()?;
        server.settle()?;
        let after = probe.p50_ms(samples)?;
        rounds.push(Waits {
            probe: before.min(after),
            p50: creates.percentile_ms(50),
            p99: creates.percentile_ms(99),
        });
    }
    must_hold_tasks(&data)?;
    rounds.remove(0);
    Ok(create_latency_row(&rounds))
}

fn create_latency_row(rounds: &[Waits]) -> Row {
    let all = |value: fn(&Waits) -> f64| -> Vec<f64> { rounds.iter().map(value).collect() };
    let of = |value: fn(&Waits) -> f64| median(rounds.iter().map(value));
    let (probe, p50, p99) = (of(|r| r.probe), of(|r| r.p50), of(|r| r.p99));
    let to_limit = of(|r| r.p50 / (2.5 * r.probe + 0.2));
    let to_probe = of(|r| r.p50 / r.probe);
    let probes = all(|r| r.probe);
    // A create waits for a sync: one that is faster than the probe only shows a disturbed probe.
    let is_steady = is_steady(probes.iter().copied()) && to_probe >= 1.0;
    Row {
        number: "P5",
        what: "durable create, one client, p50".to_owned(),
        target: "≤ 2.5 × probe + 0.2 ms (1.5 × probe)".to_owned(),
        measured: format!("{p50:.3} ms"),
        ratio: format!("{to_limit:.2} of the limit: {to_probe:.2} × probe"),
        verdict: Verdict::of(to_limit <= 1.0, to_probe <= 1.5).if_steady(is_steady),
        notes: vec![format!("probe p50 {probe:.3} ms; create p99 {p99:.3} ms")],
        values: json!({
            "create_p50_ms": p50,
            "create_p99_ms": p99,
            "probe_p50_ms": probe,
            "of_limit": to_limit,
            "create_to_probe": to_probe,
            "rounds": {"create_p50_ms": all(|r| r.p50), "probe_p50_ms": probes},
        }),
    }
}

/// Refuses to judge a server that did not write where it was told to.
pub(crate) fn must_hold_tasks(data: &Path) -> BenchResult<()> {
    let file = adapters_direct::embedded::EmbeddedConfig::new(data).database_file();
    let is_filled = file.metadata().is_ok_and(|metadata| metadata.len() > 0);
    if is_filled {
        return Ok(());
    }
    Err("the server keeps no tasks in its data directory: nothing here would be durable".into())
}
