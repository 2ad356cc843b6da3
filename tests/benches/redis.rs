//! P1, P2 and P18: what the adapter costs on top of the same commands sent bare.

use std::sync::Arc;
use std::time::Duration;

use adapters_direct::redis::{Redis, RedisConfig, RedisLayout, RedisStateStore};
use futures_util::StreamExt;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{Client, Cmd, IntoConnectionInfo};
use serde_json::json;
use task_core::ports::{Commit, Event, Key, Kind, PutOptions, StateStore, Topic, Write, WriteMode};
use task_tests::process::RedisServer;
use tokio::runtime::Runtime;

use crate::BenchResult;
use crate::calls::{Called, Compared, compare, keep_up};
use crate::figures::{grouped, rate};
use crate::options::Options;
use crate::report::{Row, Verdict};

/// Calls at once, on one connection.
const TASKS: usize = 64;

/// Keys that they go to in turn.
const KEYS: usize = 1_000;

/// Bytes of a value, about a task's.
const VALUE_BYTES: usize = 300;

/// The scripts as the adapter gives them to a server.
const LEGACY_COMMIT: &str = concat!(
    include_str!("../../adapters-direct/src/redis/scripts/legacy.lua"),
    "local layout = legacy\n",
    include_str!("../../adapters-direct/src/redis/scripts/commit.lua"),
);
pub(crate) const DAPR_COMMIT: &str = concat!(
    include_str!("../../adapters-direct/src/redis/scripts/dapr.lua"),
    "local layout = dapr\n",
    include_str!("../../adapters-direct/src/redis/scripts/commit.lua"),
);

/// The least that a versioned write to a hash can do.
const LEAST: &str = "redis.call('HSET', KEYS[1], 'data', ARGV[1]) return redis.call('HINCRBY', KEYS[1], 'version', 1)";

/// What is asked for, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Get,
    Put,
}

/// The same calls by the adapter and bare, on one connection each.
struct Pair {
    runtime: Runtime,
    store: RedisStateStore,
    bare: MultiplexedConnection,
    layout: RedisLayout,
    /// The script of a put, by its hash, and the least one.
    script: String,
    least: String,
    // Dropped last: the connections end first.
    server: RedisServer,
}

impl Pair {
    fn open(options: &Options, layout: RedisLayout) -> BenchResult<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.workers)
            .enable_all()
            .build()?;
        let server = runtime.block_on(RedisServer::start());
        let config = RedisConfig::new(&server.url(), layout);
        let (store, mut bare) = runtime.block_on(async {
            let store = Redis::open(&config).await?.state_store();
            // As the adapter's, and most clients': a command does not wait for the answer to the one before it.
            let at_once = TcpSettings::default().set_nodelay(true);
            let address = server.url().into_connection_info()?;
            let client = Client::open(address.set_tcp_settings(at_once))?;
            let bare = client.get_multiplexed_async_connection().await?;
            Ok::<_, Box<dyn std::error::Error>>((store, bare))
        })?;
        let text = match layout {
            RedisLayout::Legacy => LEGACY_COMMIT,
            RedisLayout::Dapr => DAPR_COMMIT,
        };
        let mut load = |text: &str| {
            let mut load = Cmd::new();
            load.arg("SCRIPT").arg("LOAD").arg(text);
            runtime.block_on(load.query_async::<String>(&mut bare))
        };
        let (script, least) = (load(text)?, load(LEAST)?);
        let pair = Self {
            runtime,
            store,
            bare,
            layout,
            script,
            least,
            server,
        };
        // Every key is there before anything is measured.
        pair.runtime.block_on(async {
            for number in 0..KEYS {
                put(&pair.store, number).await?;
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        })?;
        Ok(pair)
    }

    /// Calls by the adapter.
    fn adapter(&self, call: Call, time: Duration) -> BenchResult<Called> {
        let store = Arc::new(self.store.clone());
        self.runtime.block_on(keep_up(time, TASKS, move |number| {
            let store = Arc::clone(&store);
            async move {
                match call {
                    Call::Get => store
                        .get(&key(number))
                        .await
                        .is_ok_and(|found| found.is_some()),
                    Call::Put => put(&store, number).await.is_ok(),
                }
            }
        }))
    }

    /// The same commands without the adapter.
    fn bare(&self, call: Call, time: Duration) -> BenchResult<Called> {
        let (bare, layout, script) = (self.bare.clone(), self.layout, self.script.clone());
        self.runtime.block_on(keep_up(time, TASKS, move |number| {
            let mut bare = bare.clone();
            let command = match call {
                Call::Get => get_command(layout, number),
                Call::Put => put_command(layout, &script, number),
            };
            async move { bare.send_packed_command(&command).await.is_ok() }
        }))
    }

    /// The least that a write can be a second: `SET`, or the shortest script.
    fn least(&self, time: Duration) -> BenchResult<f64> {
        let (bare, layout, least) = (self.bare.clone(), self.layout, self.least.clone());
        let called = self.runtime.block_on(keep_up(time, TASKS, move |number| {
            let mut bare = bare.clone();
            let mut command = Cmd::new();
            match layout {
                RedisLayout::Legacy => command.arg("SET").arg(name(layout, number)),
                RedisLayout::Dapr => command
                    .arg("EVALSHA")
                    .arg(&least)
                    .arg(1)
                    .arg(name(layout, number)),
            };
            command.arg(&[b'v'; VALUE_BYTES]);
            async move { bare.send_packed_command(&command).await.is_ok() }
        }))?;
        Ok(called.rate())
    }

    /// Adapter and bare in turns.
    fn compare(&self, options: &Options, call: Call) -> BenchResult<Compared> {
        compare(
            options,
            options.load_time(),
            |time| self.adapter(call, time),
            |time| self.bare(call, time),
        )
    }
}

fn key(number: usize) -> Key {
    Key::new(Kind::TASK, format!("bench-{}", number % KEYS))
}

fn name(layout: RedisLayout, number: usize) -> String {
    let number = number % KEYS;
    match layout {
        RedisLayout::Legacy => format!("task:bench-{number}"),
        RedisLayout::Dapr => format!("task-api||task-bench-{number}"),
    }
}

async fn put(store: &RedisStateStore, number: usize) -> BenchResult<()> {
    let value = vec![b'v'; VALUE_BYTES].into();
    store
        .put(&key(number), value, PutOptions::default())
        .await?;
    Ok(())
}

fn get_command(layout: RedisLayout, number: usize) -> Cmd {
    let mut command = Cmd::new();
    match layout {
        RedisLayout::Legacy => command.arg("GET").arg(name(layout, number)),
        RedisLayout::Dapr => {
            command.arg("HMGET").arg(name(layout, number));
            command.arg("data").arg("version")
        }
    };
    command
}

fn put_command(layout: RedisLayout, script: &str, number: usize) -> Cmd {
    let mut command = Cmd::new();
    command.arg("EVALSHA").arg(script);
    match layout {
        RedisLayout::Legacy => command
            .arg(2)
            .arg(name(layout, number))
            .arg(format!("task-api:tombstone:task:bench-{}", number % KEYS)),
        RedisLayout::Dapr => command.arg(1).arg(name(layout, number)),
    };
    // No guard, one write, no known record; without a condition, limit, known events and list.
    command.arg(&[0, 1, 0]).arg("overwrite").arg("");
    command.arg(&[b'v'; VALUE_BYTES]).arg("").arg("").arg("");
    command
}

/// P1: get and put in the layout of the replaced service.
pub(crate) fn get_and_put(options: &Options) -> BenchResult<Row> {
    let pair = Pair::open(options, RedisLayout::Legacy)?;
    let get = pair.compare(options, Call::Get)?;
    let put = pair.compare(options, Call::Put)?;
    let least = pair.least(options.load_time())?;
    let worst = get.ratio.min(put.ratio);
    Ok(Row {
        number: "P1",
        what: format!("Redis get and put, {TASKS} at once on one connection"),
        target: "≥ 0.90 × the same command bare (0.97)".to_owned(),
        measured: format!(
            "get {}, put {}",
            rate(get.subject.rate),
            rate(put.subject.rate)
        ),
        ratio: format!("{:.2} and {:.2} × bare", get.ratio, put.ratio),
        verdict: Verdict::of(worst >= 0.90, worst >= 0.97).if_steady(get.steady && put.steady),
        notes: vec![
            format!(
                "bare: get {}/s, put {}/s by the same script, {}/s by SET, which neither asks for tombstones nor removes them",
                grouped(get.bare.rate),
                grouped(put.bare.rate),
                grouped(least)
            ),
            // The steady part: how many commands share a system call comes in phases, and moves the rates.
            format!("get {}; put {}", get.cost(), put.cost()),
        ],
        values: json!({"get": get.values(), "put": put.values(), "bare_set_per_s": least}),
    })
}

/// P2: writes in Dapr's layout.
pub(crate) fn put_as_dapr(options: &Options) -> BenchResult<Row> {
    let pair = Pair::open(options, RedisLayout::Dapr)?;
    let get = pair.compare(options, Call::Get)?;
    let put = pair.compare(options, Call::Put)?;
    let least = pair.least(options.load_time())?;
    Ok(Row {
        number: "P2",
        what: format!("Redis write in Dapr's layout, {TASKS} at once on one connection"),
        target: "≥ 0.90 × the same EVALSHA bare (0.97)".to_owned(),
        measured: rate(put.subject.rate),
        ratio: format!("{:.2} × bare", put.ratio),
        verdict: Verdict::of(put.ratio >= 0.90, put.ratio >= 0.97).if_steady(put.steady),
        notes: vec![
            format!(
                "bare: put {}/s, {}/s by the shortest script that counts a version; get {}/s, which is {:.2} × bare",
                grouped(put.bare.rate),
                grouped(least),
                grouped(get.subject.rate),
                get.ratio
            ),
            format!("put {}; get {}", put.cost(), get.cost()),
        ],
        values: json!({"get": get.values(), "put": put.values(), "least_put_per_s": least}),
    })
}

/// P18: commands that come over the connection for each operation.
pub(crate) fn round_trips(options: &Options) -> BenchResult<Row> {
    const TURNS: u32 = 100;
    let mut counts = Vec::new();
    for layout in [RedisLayout::Legacy, RedisLayout::Dapr] {
        let pair = Pair::open(options, layout)?;
        let url = pair.server.url();
        let counted = pair.runtime.block_on(async {
            let store = &pair.store;
            let get = async |_: u32| store.get(&key(0)).await.map(drop);
            let conditional = async |_: u32| {
                let found = store.get(&key(1)).await?;
                let mode = found.map_or(WriteMode::Create, |found| WriteMode::Match(found.etag));
                let options = PutOptions { mode, ttl: None };
                store.put(&key(1), "x".into(), options).await.map(drop)
            };
            let create = async |turn: u32| {
                let write = Write::Put {
                    key: Key::new(Kind::TASK, format!("new-{turn}")),
                    value: "x".into(),
                    options: PutOptions {
                        mode: WriteMode::Create,
                        ttl: None,
                    },
                };
                let event = Event {
                    topic: Topic::new("task-events"),
                    key: "k".into(),
                    payload: "x".into(),
                };
                store.commit(Commit::of(write).event(event)).await.map(drop)
            };
            let get = trips(&url, TURNS, get).await?;
            // The read that gives the version is not part of the put.
            let put = trips(&url, TURNS, conditional).await? - get;
            Ok::<_, Box<dyn std::error::Error>>([get, put, trips(&url, TURNS, create).await?])
        })?;
        counts.push(counted);
    }
    let minimal = counts.iter().all(|counts| {
        counts
            .iter()
            .all(|count| (count - 1.0).abs() < f64::EPSILON)
    });
    let shown = |counts: &[f64; 3]| counts.map(|count| count.to_string()).join(" / ");
    Ok(Row {
        number: "P18",
        what: "round trips: get / conditional put / create with event, on Redis".to_owned(),
        target: "1 / 1 / 1".to_owned(),
        measured: format!("{}, as Dapr {}", shown(&counts[0]), shown(&counts[1])),
        ratio: "–".to_owned(),
        verdict: Verdict::of(minimal, minimal),
        notes: Vec::new(),
        values: json!({"legacy": counts[0], "dapr": counts[1]}),
    })
}

/// Commands from outside for each turn, as the server's monitor shows them.
async fn trips(
    url: &str,
    turns: u32,
    operation: impl AsyncFn(u32) -> Result<(), task_core::ports::PortError>,
) -> BenchResult<f64> {
    const END: &str = "the end of the count";
    let client = Client::open(url)?;
    // Before anything is counted, because a connection begins with commands of its own.
    let mut other = client.get_multiplexed_async_connection().await?;
    let mut monitor = client.get_async_monitor().await?;
    let mut seen = monitor.on_message::<String>();
    for turn in 0..turns {
        operation(turn).await?;
    }
    redis::cmd("ECHO").arg(END).exec_async(&mut other).await?;
    let mut count = 0_u32;
    while let Some(line) = seen.next().await {
        if line.contains(END) {
            break;
        }
        // What a script calls is marked so, and costs no round trip.
        if !line.contains(" lua]") {
            count += 1;
        }
    }
    Ok(f64::from(count) / f64::from(turns))
}
