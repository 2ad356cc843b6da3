//! P7: the whole Task API on a sidecar, against the same API as a Python service has it.
//!
//! Each service stands beside a sidecar of its own with the self-hosted resources of this repository and a Redis of
//! its own, so that both are asked in turns and each hears its own events. While one works, the other is idle.
//! Rates are compared at the number of clients that suits each best, latencies at the one that suits Python.

use std::time::Duration;

use serde_json::{Value, json};
use task_tests::process::dapr::{Readiness, self_hosted};
use task_tests::process::{Python, RedisServer, Sidecar, SidecarOptions, free_port};
use tokio::runtime::Runtime;

use crate::BenchResult;
use crate::figures::{is_steady, median, per_second, rate};
use crate::load::{Amount, Load, Script};
use crate::options::{Length, Options};
use crate::proc;
use crate::report::{Row, Verdict};
use crate::server::{Beside, Server};

/// Clients at once, of which each service gets the number that suits it best.
const CLIENTS: [u32; 4] = [4, 16, 64, 128];

/// A service, and what stands beside it.
struct Stack {
    server: Server,
    /// Clients at once, for creates and for gets.
    clients: [u32; 2],
    created: u64,
    sidecar: Sidecar,
    redis: RedisServer,
}

/// One load of a round.
#[derive(Debug, Clone, Copy)]
struct Answers {
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Processor time of one request with all that it entails, in microseconds: service, sidecar, Redis.
    cpu_us: [f64; 3],
}

impl Stack {
    fn open(
        runtime: &Runtime,
        start: impl FnOnce(Beside) -> BenchResult<Server>,
    ) -> BenchResult<Self> {
        let port = free_port();
        let (redis, sidecar) = runtime.block_on(async {
            let redis = RedisServer::start().await;
            let options = SidecarOptions {
                readiness: Readiness::Outbound,
                ..SidecarOptions::of("task-api", self_hosted(redis.port()))
            };
            let sidecar = Sidecar::start(options.beside(port)).await;
            (redis, sidecar)
        });
        let server = start(Beside {
            port,
            http: sidecar.http_port(),
            grpc: sidecar.grpc_port(),
        })?;
        Ok(Self {
            server,
            clients: [CLIENTS[0]; 2],
            created: 0,
            sidecar,
            redis,
        })
    }

    /// Puts a load on the service and waits until both it and its sidecar are quiet again.
    fn load(&mut self, script: Script, clients: u32, time: Duration) -> BenchResult<Answers> {
        let load = Load {
            address: self.server.address(),
            clients,
            script,
            amount: Amount::For(time),
        };
        let used = self.processor_times()?;
        let answered = load.run()?;
        self.created += match script {
            Script::Create => answered.count,
            Script::Get | Script::Mix => u64::from(clients),
        };
        self.server.settle()?;
        proc::settle(self.sidecar.id())?;
        let now = self.processor_times()?;
        let cpu_us = |at: usize| 1e6 / per_second(answered.count, now[at] - used[at]);
        Ok(Answers {
            cpu_us: [0, 1, 2].map(cpu_us),
            rate: answered.rate(),
            p50_ms: answered.percentile_ms(50),
            p99_ms: answered.percentile_ms(99),
        })
    }

    /// Processor time so far: service, sidecar, Redis.
    fn processor_times(&self) -> BenchResult<[Duration; 3]> {
        Ok([
            self.server.processor_time()?,
            proc::processor_time(self.sidecar.id())?,
            proc::processor_time(self.redis.id())?,
        ])
    }

    /// Finds how many clients at once get the most answers.
    fn find_best(&mut self, time: Duration) -> BenchResult<()> {
        for script in [Script::Create, Script::Get] {
            let mut best = 0.0;
            for clients in CLIENTS {
                let rate = self.load(script, clients, time)?.rate;
                if rate > best {
                    (best, self.clients[script as usize]) = (rate, clients);
                }
            }
        }
        Ok(())
    }

    /// Refuses to judge a service that did not publish what it was asked for, or did not take it back.
    fn must_have_handled_events(&self) -> BenchResult<()> {
        let mut redis = redis::Client::open(self.redis.url())?.get_connection()?;
        let published: u64 = redis::cmd("XLEN").arg("task-events").query(&mut redis)?;
        let (waiting, ..): (u64, redis::Value, redis::Value, redis::Value) = redis::cmd("XPENDING")
            .arg(&["task-events", "task-api"])
            .query(&mut redis)?;
        if published >= self.created && waiting == 0 {
            return Ok(());
        }
        let created = self.created;
        Err(
            format!("of {created} creates {published} events were published, {waiting} wait")
                .into(),
        )
    }
}

/// One round.
#[derive(Debug)]
struct Round {
    /// Each at its own best, creates and gets.
    ours: [Answers; 2],
    theirs: [Answers; 2],
    /// Ours with as many clients at once as the other one.
    as_many: [Answers; 2],
}

/// Rounds of ours against one other service, and its memory.
struct Measured {
    rounds: Vec<Round>,
    clients: [[u32; 2]; 2],
    memory_mb: f64,
}

/// P7: creates and gets a second, their 99th percentiles, and memory.
pub(crate) fn task_api(options: &Options) -> BenchResult<Row> {
    let runtime = Runtime::new()?;
    let mut ours = Stack::open(&runtime, |beside| Server::dapr(beside, options.workers))?;
    ours.find_best(options.load_time() / 2)?;
    let usual = against(&runtime, &mut ours, "request", options)?;
    let shared = match options.length {
        Length::Short => None,
        Length::Full => Some(against(&runtime, &mut ours, "shared", options)?),
    };
    ours.must_have_handled_events()?;
    let memory_mb = ours.server.memory()?.resident_mb;
    Ok(row(&usual, shared.as_ref(), memory_mb))
}

/// Starts the Python service, whose clients of the sidecar live as said, and lets both work in turns.
fn against(
    runtime: &Runtime,
    ours: &mut Stack,
    lifetime: &str,
    options: &Options,
) -> BenchResult<Measured> {
    let python = runtime.block_on(Python::with_dapr());
    let mut theirs = Stack::open(runtime, |beside| {
        Server::python(python.interpreter(), beside, lifetime)
    })?;
    theirs.find_best(options.load_time() / 2)?;
    let time = options.load_time();
    let mut rounds = Vec::new();
    for _ in 0..options.rounds() {
        let mut turn = |script: Script| {
            let at = script as usize;
            let by_them = theirs.load(script, theirs.clients[at], time)?;
            let as_many = ours.load(script, theirs.clients[at], time)?;
            let by_us = ours.load(script, ours.clients[at], time)?;
            Ok::<_, Box<dyn std::error::Error>>((by_us, by_them, as_many))
        };
        let (create, get) = (turn(Script::Create)?, turn(Script::Get)?);
        rounds.push(Round {
            ours: [create.0, get.0],
            theirs: [create.1, get.1],
            as_many: [create.2, get.2],
        });
    }
    theirs.must_have_handled_events()?;
    Ok(Measured {
        rounds,
        clients: [ours.clients, theirs.clients],
        memory_mb: theirs.server.memory()?.resident_mb,
    })
}

impl Measured {
    /// The median over the rounds, of creates and of gets.
    fn of(&self, value: impl Fn(&Round, usize) -> f64) -> [f64; 2] {
        [0, 1].map(|at| median(self.rounds.iter().map(|round| value(round, at))))
    }

    fn ratios(&self) -> [f64; 2] {
        self.of(|round, at| round.ours[at].rate / round.theirs[at].rate)
    }

    /// How our 99th percentile stands to the other one, with as many clients.
    fn slowest(&self) -> [f64; 2] {
        self.of(|round, at| round.as_many[at].p99_ms / round.theirs[at].p99_ms)
    }

    fn is_steady(&self) -> bool {
        [0, 1]
            .iter()
            .all(|&at| is_steady(self.rounds.iter().map(|round| round.theirs[at].rate)))
    }

    fn note(&self, name: &str) -> String {
        let [creates, gets] = self.of(|round, at| round.theirs[at].rate);
        let [create_p99, get_p99] = self.of(|round, at| round.theirs[at].p99_ms);
        let [as_many, as_many_gets] = self.of(|round, at| round.as_many[at].rate);
        let [our_create_p99, our_get_p99] = self.of(|round, at| round.as_many[at].p99_ms);
        let [[our_create, our_get], [create, get]] = self.clients;
        format!(
            "{name}: create {} at {create} clients (p99 {create_p99:.0} ms), get {} at {get} (p99 {get_p99:.0} ms), \
             {:.0} MB; ours with as many {} (p99 {our_create_p99:.1} ms) and {} (p99 {our_get_p99:.1} ms), \
             at best with {our_create} and {our_get}",
            rate(creates),
            rate(gets),
            self.memory_mb,
            rate(as_many),
            rate(as_many_gets),
        )
    }

    /// Processor time of a create with its event, and of a get.
    fn cost(&self, side: fn(&Round) -> &[Answers; 2]) -> String {
        let [service, sidecar, redis] =
            [0, 1, 2].map(|process| self.of(|round, at| side(round)[at].cpu_us[process]));
        let of = |at: usize| format!("{:.0} + {:.0} + {:.0}", service[at], sidecar[at], redis[at]);
        format!("create {} µs, get {} µs", of(0), of(1))
    }

    fn values(&self) -> Value {
        let cpu_us = |side: fn(&Round) -> &[Answers; 2]| {
            [0, 1, 2].map(|process| self.of(|round, at| side(round)[at].cpu_us[process]))
        };
        let both = |value: fn(&Answers) -> f64| {
            json!({
                "ours": self.of(|round, at| value(&round.ours[at])),
                "ours_with_as_many": self.of(|round, at| value(&round.as_many[at])),
                "theirs": self.of(|round, at| value(&round.theirs[at])),
            })
        };
        json!({
            "create_and_get_ratio": self.ratios(),
            "create_and_get_p99_ratio": self.slowest(),
            "per_s": both(|answers| answers.rate),
            "p50_ms": both(|answers| answers.p50_ms),
            "p99_ms": both(|answers| answers.p99_ms),
            "service_sidecar_redis_cpu_us": {
                "ours": cpu_us(|round| &round.ours),
                "theirs": cpu_us(|round| &round.theirs),
            },
            "clients": self.clients,
            "their_mb": self.memory_mb,
        })
    }
}

fn row(usual: &Measured, shared: Option<&Measured>, memory_mb: f64) -> Row {
    let [creates, gets] = usual.of(|round, at| round.ours[at].rate);
    let [create, get] = usual.ratios();
    let slowest = usual.slowest().into_iter().fold(0.0, f64::max);
    let memory = memory_mb / usual.memory_mb;
    let small = slowest <= 0.2 && memory <= 0.25;
    let mut notes = vec![
        usual.note("Python with a DaprClient for each request"),
        format!(
            "processor time by service, sidecar and Redis: {}; Python {}, most of it in one process, so that \
             what else runs on the machine slows ours alone",
            usual.cost(|round| &round.ours),
            usual.cost(|round| &round.theirs)
        ),
    ];
    match shared {
        Some(shared) => {
            let [create, get] = shared.ratios();
            notes.push(shared.note("Python with one DaprClient"));
            notes.push(format!(
                "against that one: create {create:.1} ×, get {get:.1} ×"
            ));
        }
        None => notes
            .push("the full form also compares with one DaprClient for all requests".to_owned()),
    }
    Row {
        number: "P7",
        what: "the Task API on a sidecar with Redis, each at its best number of clients".to_owned(),
        target: "create ≥ 12 × Python, get ≥ 25 ×, p99 ≤ 0.20 ×, memory ≤ 0.25 × (20, 40)"
            .to_owned(),
        measured: format!(
            "create {}, get {}, {memory_mb:.1} MB",
            rate(creates),
            rate(gets)
        ),
        ratio: format!(
            "create {create:.1} ×, get {get:.1} ×, p99 {slowest:.2} ×, memory {memory:.2} ×"
        ),
        verdict: Verdict::of(
            create >= 12.0 && get >= 25.0 && small,
            create >= 20.0 && get >= 40.0 && small,
        )
        .if_steady(usual.is_steady()),
        notes,
        values: json!({
            "our_mb": memory_mb,
            "client_for_each_request": usual.values(),
            "one_client": shared.map(Measured::values),
        }),
    }
}
