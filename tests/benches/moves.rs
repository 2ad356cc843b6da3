//! P9, P10 and P11: what a move costs on top of the sides that it is between, two Redis servers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adapters_direct::redis::{Redis, RedisConfig, RedisLayout};
use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, Pipeline};
use serde_json::json;
use task_core::background::Background;
use task_core::migration::{
    Bucket, Cause, Coordinator, CoordinatorOptions, JobKind, JobState, Member, MemberOptions,
    Migration, MigrationOptions, Pacing, ParallelStateStore, Stage,
};
use task_core::ports::{Clock, Key, Kind, PutOptions, StateStore, SystemClock, SystemEntropy};
use task_tests::process::RedisServer;
use tokio::runtime::Runtime;

use crate::BenchResult;
use crate::calls::{Called, Compared, compare, keep_up};
use crate::figures::{is_steady, median, per_second, rate};
use crate::options::Options;
use crate::redis::DAPR_COMMIT;
use crate::report::{Row, Verdict};

/// Keys that calls go to in turn.
const KEYS: usize = 1_000;

/// Bytes of a value, about a task's.
const VALUE_BYTES: usize = 300;

/// Records in one page of a bare copy.
const PAGE: usize = 256;

/// Records that a backfill works on at once.
const AT_ONCE: u16 = 128;

type Store = Arc<dyn StateStore>;

/// A move under way, in this process alone.
struct Move {
    runtime: Runtime,
    old: Store,
    new: Store,
    parallel: Arc<ParallelStateStore>,
    coordinator: Coordinator,
    migration: Migration,
    running: Vec<Background>,
    old_server: RedisServer,
    new_server: RedisServer,
}

impl Move {
    fn open(options: &Options) -> BenchResult<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.workers)
            .enable_all()
            .build()?;
        let entered = runtime.enter();
        let (old_server, new_server) =
            runtime.block_on(async { (RedisServer::start().await, RedisServer::start().await) });
        let store = async |server: &RedisServer, layout| {
            let redis = Redis::open(&RedisConfig::new(&server.url(), layout)).await?;
            Ok::<Store, Box<dyn std::error::Error>>(Arc::new(redis.state_store()))
        };
        let old = runtime.block_on(store(&old_server, RedisLayout::Legacy))?;
        let new = runtime.block_on(store(&new_server, RedisLayout::Dapr))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let member = Member::new(
            Arc::clone(&old),
            MemberOptions::default(),
            Arc::clone(&clock),
            &SystemEntropy,
        );
        let member = Arc::new(member);
        let sides = (Arc::clone(&old), Arc::clone(&new));
        let parallel = ParallelStateStore::new(sides.0, sides.1, Arc::clone(&member), clock)?;
        let parallel = Arc::new(parallel);
        let options = MigrationOptions::default();
        let migration = Migration::new(&parallel, Arc::new(SystemEntropy), options);
        runtime.block_on(migration.init(Cause::default()))?;
        runtime.block_on(member.beat())?;
        let running = vec![migration.start(), parallel.start(), member.start()];
        drop(entered);
        let coordinator = Coordinator::new(&parallel, CoordinatorOptions::default());
        Ok(Self {
            runtime,
            old,
            new,
            parallel,
            coordinator,
            migration,
            running,
            old_server,
            new_server,
        })
    }

    fn advance(&mut self, stage: Stage) -> BenchResult<()> {
        let advancing = self.coordinator.advance(stage, Bucket::COUNT);
        self.runtime.block_on(advancing)?;
        Ok(())
    }

    /// Writes every key, so that whatever is measured finds it.
    fn fill(&self, store: &Store) -> BenchResult<()> {
        self.runtime.block_on(async {
            for number in 0..KEYS {
                let key = key(number);
                let put = store.put(&key, value(), PutOptions::default());
                put.await?;
            }
            Ok(())
        })
    }

    fn put(&self, store: &Store, time: Duration) -> BenchResult<Called> {
        let store = Arc::clone(store);
        self.runtime.block_on(keep_up(time, 1, move |number| {
            let store = Arc::clone(&store);
            async move {
                let key = key(number % KEYS);
                let put = store.put(&key, value(), PutOptions::default());
                put.await.is_ok()
            }
        }))
    }

    fn get(&self, store: &Store, time: Duration) -> BenchResult<Called> {
        let store = Arc::clone(store);
        self.runtime.block_on(keep_up(time, 1, move |number| {
            let store = Arc::clone(&store);
            async move {
                let key = key(number % KEYS);
                let found = store.get(&key).await;
                found.is_ok_and(|found| found.is_some())
            }
        }))
    }

    /// Puts by the move, and by a side alone.
    fn compare_puts(&self, options: &Options, side: &Store) -> BenchResult<Compared> {
        let parallel: Store = Arc::<ParallelStateStore>::clone(&self.parallel);
        compare(
            options,
            options.load_time(),
            |time| self.put(&parallel, time),
            |time| self.put(side, time),
        )
    }

    /// Gets by the move, and by a side alone.
    fn compare_gets(&self, options: &Options, side: &Store) -> BenchResult<Compared> {
        let parallel: Store = Arc::<ParallelStateStore>::clone(&self.parallel);
        compare(
            options,
            options.load_time(),
            |time| self.get(&parallel, time),
            |time| self.get(side, time),
        )
    }

    fn end(self) {
        self.runtime.block_on(async {
            for running in self.running {
                running.stop().await;
            }
        });
    }
}

fn key(number: usize) -> Key {
    Key::new(Kind::TASK, format!("bench-{number}"))
}

fn value() -> Bytes {
    Bytes::from_static(&[b'v'; VALUE_BYTES])
}

/// How much longer the median call takes.
fn longer(compared: &Compared) -> f64 {
    compared.subject.p50_us / compared.bare.p50_us
}

/// The comparison with the slower side.
fn slower(old: Compared, new: Compared) -> Compared {
    match old.bare.p50_us >= new.bare.p50_us {
        true => old,
        false => new,
    }
}

/// P9: everything is off.
pub(crate) fn off(options: &Options) -> BenchResult<Row> {
    let moving = Move::open(options)?;
    moving.fill(&moving.old)?;
    let put = moving.compare_puts(options, &moving.old)?;
    let get = moving.compare_gets(options, &moving.old)?;
    moving.end();
    let worst = longer(&put).max(longer(&get));
    Ok(Row {
        number: "P9",
        what: "put and get by a move that is off, alone".to_owned(),
        target: "p50 ≤ 1.02 × the old side alone".to_owned(),
        measured: format!("put {:+.1} µs, get {:+.1} µs", put.added_us, get.added_us),
        ratio: format!("{:.2} and {:.2} ×", longer(&put), longer(&get)),
        verdict: Verdict::of(worst <= 1.02, false).if_steady(put.steady && get.steady),
        notes: vec![format!("put {}; get {}", put.cost(), get.cost())],
        values: json!({"put": put.values(), "get": get.values()}),
    })
}

/// P10: writes in `dualwrite`, and reads in `shadow`.
pub(crate) fn dual(options: &Options) -> BenchResult<Row> {
    let mut moving = Move::open(options)?;
    moving.advance(Stage::DualWrite)?;
    for side in [&moving.old, &moving.new] {
        moving.fill(side)?;
    }
    let put = slower(
        moving.compare_puts(options, &moving.old)?,
        moving.compare_puts(options, &moving.new)?,
    );
    moving.advance(Stage::Shadow)?;
    let get = slower(
        moving.compare_gets(options, &moving.old)?,
        moving.compare_gets(options, &moving.new)?,
    );
    moving.end();
    let worst = longer(&put).max(longer(&get));
    Ok(Row {
        number: "P10",
        what: "put in dualwrite, get in shadow".to_owned(),
        target: "p50 ≤ 1.15 × the slower side alone (1.05)".to_owned(),
        measured: format!("put {:+.1} µs, get {:+.1} µs", put.added_us, get.added_us),
        ratio: format!("{:.2} and {:.2} ×", longer(&put), longer(&get)),
        verdict: Verdict::of(worst <= 1.15, worst <= 1.05).if_steady(put.steady && get.steady),
        notes: vec![
            format!("put {}; get {}", put.cost(), get.cost()),
            "what follows beside the answer shares the processors with the next call".to_owned(),
        ],
        values: json!({"put": put.values(), "get": get.values()}),
    })
}

/// P11: a backfill.
pub(crate) fn backfill(options: &Options) -> BenchResult<Row> {
    let records = options.either(4_000, 40_000);
    let mut moving = Move::open(options)?;
    moving.advance(Stage::DualWrite)?;
    let (mut from, mut to) = moving.runtime.block_on(async {
        let connect = async |server: &RedisServer| {
            let client = Client::open(server.url())?;
            client.get_multiplexed_async_connection().await
        };
        Ok::<_, redis::RedisError>((
            connect(&moving.old_server).await?,
            connect(&moving.new_server).await?,
        ))
    })?;
    let script: String = moving.runtime.block_on(async {
        let mut write = Pipeline::new();
        for number in 0..records {
            let name = format!("task:bench-{number}");
            write
                .cmd("SET")
                .arg(name)
                .arg(&[b'v'; VALUE_BYTES])
                .ignore();
        }
        write.exec_async(&mut from).await?;
        let mut load = Cmd::new();
        load.arg("SCRIPT").arg("LOAD").arg(DAPR_COMMIT);
        load.query_async(&mut to).await
    })?;
    let (mut by_move, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..=options.rounds() {
        let copying = copy(&mut from, &mut to, &script, records);
        bare.push(moving.runtime.block_on(copying)?);
        by_move.push(
            moving
                .runtime
                .block_on(by_backfill(&moving, &mut to, records))?,
        );
    }
    let (by_move, bare) = (&by_move[1..], &bare[1..]);
    moving.end();
    let ratio = median(by_move.iter().zip(bare).map(|(moved, bare)| moved / bare));
    let (moved, bared) = (
        median(by_move.iter().copied()),
        median(bare.iter().copied()),
    );
    Ok(Row {
        number: "P11",
        what: format!("backfill of {records} records from Redis to Redis"),
        target: "≥ 0.60 × a bare pipeline of the same commands (0.85)".to_owned(),
        measured: rate(moved),
        ratio: format!("{ratio:.2} × bare"),
        verdict: Verdict::of(ratio >= 0.60, ratio >= 0.85)
            .if_steady(is_steady(bare.iter().copied())),
        notes: vec![format!(
            "bare: {}, {PAGE} records in a pipeline; the backfill has {AT_ONCE} under way, each write by the version that it read",
            rate(bared)
        )],
        values: json!({"per_s": moved, "bare_per_s": bared, "ratio": ratio}),
    })
}

/// Removes what was copied, and nothing else: a new side without what the move keeps there was restored.
async fn empty(to: &mut MultiplexedConnection, records: usize) -> BenchResult<()> {
    let names: Vec<String> = (0..records)
        .map(|number| format!("task-api||task-bench-{number}"))
        .collect();
    for page in names.chunks(PAGE) {
        redis::cmd("DEL").arg(page).exec_async(to).await?;
    }
    Ok(())
}

/// Records a second by the backfill.
async fn by_backfill(
    moving: &Move,
    to: &mut MultiplexedConnection,
    records: usize,
) -> BenchResult<f64> {
    empty(to, records).await?;
    let pacing = Pacing {
        keys_per_s: None,
        concurrency: AT_ONCE,
    };
    let begin = Instant::now();
    moving.migration.backfill_start(pacing).await?;
    loop {
        let job = moving.migration.job(JobKind::Backfill).await?;
        let job = job.ok_or("there is no backfill")?;
        match job.state {
            JobState::Done => return Ok(per_second(job.done, begin.elapsed())),
            JobState::Running => tokio::time::sleep(Duration::from_millis(5)).await,
            JobState::Paused | JobState::Aborted | JobState::Failed => {
                return Err(format!("the backfill is {}", job.state.as_str()).into());
            }
        }
    }
}

/// Records a second by the same commands, so many of each in one pipeline, and nothing else.
async fn copy(
    from: &mut MultiplexedConnection,
    to: &mut MultiplexedConnection,
    script: &str,
    records: usize,
) -> BenchResult<f64> {
    empty(to, records).await?;
    let begin = Instant::now();
    let numbers: Vec<usize> = (0..records).collect();
    for page in numbers.chunks(PAGE) {
        let (mut marks, mut targets, mut sources) =
            (Pipeline::new(), Pipeline::new(), Pipeline::new());
        for number in page {
            marks
                .cmd("GET")
                .arg(format!("task-api:state:dirty:{number}"))
                .ignore();
            let hash = format!("task-api||task-bench-{number}");
            targets
                .cmd("HMGET")
                .arg(hash)
                .arg("data")
                .arg("version")
                .ignore();
            sources
                .cmd("GET")
                .arg(format!("task:bench-{number}"))
                .ignore();
        }
        marks.exec_async(from).await?;
        targets.exec_async(to).await?;
        sources.exec_async(from).await?;
        let mut writes = Pipeline::new();
        for number in page {
            let write = writes.cmd("EVALSHA").arg(script).arg(1);
            let write = write.arg(format!("task-api||task-bench-{number}"));
            // No guard, one write, no known record; without a condition, limit, known events and list.
            let write = write.arg(&[0, 1, 0]).arg("create").arg("");
            let write = write.arg(&[b'v'; VALUE_BYTES]).arg("");
            write.arg("").arg("").ignore();
        }
        writes.exec_async(to).await?;
    }
    Ok(per_second(u64::try_from(records)?, begin.elapsed()))
}
