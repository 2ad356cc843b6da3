//! P3: the whole Task API on a real Redis and a real Kafka, relay and consumer running.

use std::time::{Duration, Instant};

use serde_json::json;
use task_tests::process::{KafkaBroker, NotificationService, RedisServer};

use crate::BenchResult;
use crate::figures::{is_steady, median, ms, per_second, rate};
use crate::load::{Amount, Answered, Load, Script};
use crate::options::Options;
use crate::proc;
use crate::report::{Row, Verdict};
use crate::server::Server;

/// Clients at once.
const CLIENTS: u32 = 64;

/// Longest time that events may be behind once the load ends.
const MOST_BEHIND: Duration = Duration::from_secs(1);

/// Longest wait for the last of them.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// One round, in answers a second.
struct Rates {
    get: f64,
    create: f64,
    bare_get: f64,
    bare_create: f64,
    /// Processor time of one create with its event, in microseconds: server, Redis, Kafka, and the load itself.
    cpu_us: [f64; 4],
    /// How long the server went on publishing and consuming after the creates.
    behind: Duration,
}

/// P3: gets and creates a second, against a server that does nothing.
pub(crate) fn request_rate(options: &Options) -> BenchResult<Row> {
    let runtime = tokio::runtime::Runtime::new()?;
    let redis = runtime.block_on(RedisServer::start());
    let kafka = runtime.block_on(KafkaBroker::start());
    let receiver = NotificationService::start("127.0.0.1:0");
    let workers = options.workers;
    let server = Server::direct(
        &redis.url(),
        &kafka.bootstrap(),
        receiver.address(),
        workers,
    )?;
    let bare = Server::bare(workers)?;
    let mut outbox = redis::Client::open(redis.url())?.get_connection()?;
    let processor_times = || -> BenchResult<[Duration; 4]> {
        Ok([
            server.processor_time()?,
            proc::processor_time(redis.id())?,
            proc::processor_time(kafka.id())?,
            proc::processor_time(std::process::id())?,
        ])
    };
    let mut rounds = Vec::new();
    for _ in 0..=options.rounds() {
        let bare_get = load(&bare, Script::Get, options)?;
        let get = load(&server, Script::Get, options)?;
        let bare_create = load(&bare, Script::Create, options)?;
        let used = processor_times()?;
        let created = answered(&server, Script::Create, options)?;
        let behind = until_published(&mut outbox)? + server.settle()?;
        proc::settle(kafka.id())?;
        let now = processor_times()?;
        let cpu_us = |at: usize| 1e6 / per_second(created.count, now[at] - used[at]);
        rounds.push(Rates {
            get,
            create: created.rate(),
            cpu_us: [0, 1, 2, 3].map(cpu_us),
            bare_get,
            bare_create,
            behind,
        });
    }
    rounds.remove(0);
    Ok(row(&rounds))
}

/// Waits until no event is pending; answers how long that took. A server that waits for a slow Kafka seems quiet.
fn until_published(outbox: &mut redis::Connection) -> BenchResult<Duration> {
    let begin = Instant::now();
    loop {
        let pending: u64 = redis::cmd("XLEN").arg("task-api:outbox").query(outbox)?;
        if pending == 0 {
            return Ok(begin.elapsed());
        }
        if begin.elapsed() > LONGEST_WAIT {
            return Err(format!("{pending} events are still pending").into());
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn load(server: &Server, script: Script, options: &Options) -> BenchResult<f64> {
    Ok(answered(server, script, options)?.rate())
}

fn answered(server: &Server, script: Script, options: &Options) -> BenchResult<Answered> {
    let load = Load {
        address: server.address(),
        clients: CLIENTS,
        script,
        amount: Amount::For(options.load_time()),
    };
    load.run()
}

/// What the processors would do at this cost if none of them ever waited.
fn most_per_second(cpu_us: [f64; 4]) -> f64 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    1e6 * processors as f64 / cpu_us.iter().sum::<f64>()
}

fn row(rounds: &[Rates]) -> Row {
    let all = |value: fn(&Rates) -> f64| -> Vec<f64> { rounds.iter().map(value).collect() };
    let of = |value: fn(&Rates) -> f64| median(rounds.iter().map(value));
    let get_ratio = of(|r| r.get / r.bare_get);
    let create_ratio = of(|r| r.create / r.bare_create);
    let (get, create) = (of(|r| r.get), of(|r| r.create));
    let behind = rounds.iter().map(|r| r.behind).max().unwrap_or_default();
    let in_time = behind <= MOST_BEHIND;
    let (bare_gets, bare_creates) = (all(|r| r.bare_get), all(|r| r.bare_create));
    let steady = is_steady(bare_gets.iter().copied()) && is_steady(bare_creates.iter().copied());
    let cpu_us = [0, 1, 2, 3].map(|at| median(rounds.iter().map(|round| round.cpu_us[at])));
    let [server, redis, kafka, load] = cpu_us;
    let most = most_per_second(cpu_us);
    let most_ratio = most / of(|r| r.bare_create);
    Row {
        number: "P3",
        what: format!("HTTP get and create on Redis and Kafka, {CLIENTS} clients"),
        target: "get ≥ 0.40 × no-op, create ≥ 0.20 ×, events ≤ 1 s behind (0.60, 0.35)".to_owned(),
        measured: format!("{}, {}", rate(get), rate(create)),
        ratio: format!("get {get_ratio:.2}, create {create_ratio:.2} × no-op"),
        verdict: Verdict::of(
            get_ratio >= 0.40 && create_ratio >= 0.20 && in_time,
            get_ratio >= 0.60 && create_ratio >= 0.35 && in_time,
        )
        .if_steady(steady),
        notes: vec![
            format!(
                "events at most {:.0} ms behind the load; Redis, Kafka, server and load share the machine",
                ms(behind)
            ),
            format!(
                "processor time of a create with its event: server {server:.0} µs, Redis {redis:.0} µs, \
                 Kafka {kafka:.0} µs, load {load:.0} µs"
            ),
            format!(
                "with that cost, fully used processors would give {} = {most_ratio:.2} × no-op",
                rate(most)
            ),
        ],
        values: json!({
            "get_per_s": get,
            "create_per_s": create,
            "get_to_noop": get_ratio,
            "create_to_noop": create_ratio,
            "behind_ms": ms(behind),
            "server_redis_kafka_load_cpu_us": cpu_us,
            "most_create_to_noop": most_ratio,
            "rounds": {"get_per_s": all(|r| r.get), "create_per_s": all(|r| r.create)},
        }),
    }
}
