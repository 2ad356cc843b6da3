//! P16: from the start of the process to its first `200` of `/ready`, with many tasks in the file.

use std::io;
use std::path::Path;
use std::sync::Arc;

use adapters_direct::embedded::{Embedded, EmbeddedConfig};
use serde_json::json;
use task_core::application::TaskRecord;
use task_core::domain::{Draft, Priority, Revision, Task, TaskId, Title};
use task_core::ports::{
    Clock, Commit, Key, Kind, PutOptions, StateStore, SystemClock, Write, WriteMode,
};
use task_tests::process::{Connection, TestDirectory};
use tokio::task::JoinSet;

use crate::BenchResult;
use crate::figures::{grouped, median, ms};
use crate::options::Options;
use crate::report::{Row, Verdict};
use crate::server::Server;

/// Tasks in the file.
const TASKS: u64 = 100_000;

/// Commits under way while the file is filled.
const COMMITS: usize = 32;

/// P16: start to ready over a file with many tasks, against a server that does nothing.
pub(crate) fn start_to_ready(options: &Options) -> BenchResult<Row> {
    const TARGET_MS: f64 = 50.0;
    const STRETCH_MS: f64 = 15.0;
    let place = TestDirectory::new("bench-start");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let last = runtime.block_on(fill(place.path()))?;
    let (mut starts, mut bare_starts) = (Vec::new(), Vec::new());
    for round in 0..=options.either(5, 20) {
        let server = Server::task_server(place.path(), options.workers)?;
        if round == 0 {
            runtime.block_on(must_answer(&server, &last))?;
        }
        starts.push(ms(server.time_to_ready()));
        server.stop()?;
        bare_starts.push(ms(Server::bare(options.workers)?.time_to_ready()));
    }
    // The first start reads program and file into memory, and may have to finish their writing.
    let (first, bare_first) = (starts.remove(0), bare_starts.remove(0));
    let slowest = starts.iter().copied().fold(0.0, f64::max);
    let (start, bare) = (median(starts), median(bare_starts));
    Ok(Row {
        number: "P16",
        what: format!(
            "start to ready, embedded, {} tasks",
            grouped(f64::from(u32::try_from(TASKS)?))
        ),
        target: "≤ 50 ms (15 ms)".to_owned(),
        measured: format!("{start:.2} ms"),
        ratio: format!(
            "{:.2} of the limit: {:.1} × bare axum",
            start / TARGET_MS,
            start / bare
        ),
        verdict: Verdict::of(start <= TARGET_MS, start <= STRETCH_MS),
        notes: vec![format!(
            "bare axum {bare:.2} ms; slowest start {slowest:.2} ms; \
             first starts {first:.2} ms and {bare_first:.2} ms"
        )],
        values: json!({
            "start_ms": start,
            "slowest_ms": slowest,
            "first_ms": first,
            "bare_ms": bare,
            "bare_first_ms": bare_first,
            "tasks": TASKS,
        }),
    })
}

/// Fills a data directory; answers the id of one of its tasks.
async fn fill(directory: &Path) -> BenchResult<TaskId> {
    let embedded = Embedded::open(&EmbeddedConfig::new(directory), Arc::new(SystemClock))?;
    let store = embedded.state_store();
    let mut running = JoinSet::new();
    let mut last = None;
    let mut writes = Vec::new();
    for number in 0..TASKS {
        let (id, write) = task(number)?;
        last = Some(id);
        writes.push(write);
        if writes.len() < Commit::MAX_ITEMS && number + 1 < TASKS {
            continue;
        }
        let mut commit = Commit::default();
        commit.writes.append(&mut writes);
        let store = store.clone();
        running.spawn(async move { store.commit(commit).await });
        if running.len() >= COMMITS
            && let Some(done) = running.join_next().await
        {
            done??;
        }
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    last.ok_or_else(|| "there is no task".into())
}

/// The task of this number, as the server would have stored it.
fn task(number: u64) -> BenchResult<(TaskId, Write)> {
    let now = SystemClock.now();
    let mut random = [0; 10];
    random[2..].copy_from_slice(&number.to_be_bytes());
    let id = TaskId::from_time(now.unix_millis(), &random);
    let draft = Draft {
        title: Title::parse("write the quarterly report".to_owned())?,
        description: Some("two pages, figures included".to_owned()),
        priority: Priority::default(),
    };
    let record = TaskRecord::new(
        Task::create(id.clone(), draft, now),
        Revision::first(0),
        None,
    );
    let put = Write::Put {
        key: Key::new(Kind::TASK, id.as_str()),
        value: record.encode(),
        options: PutOptions {
            mode: WriteMode::Create,
            ttl: None,
        },
    };
    Ok((id, put))
}

/// Refuses to judge a server that does not see the tasks.
async fn must_answer(server: &Server, id: &TaskId) -> io::Result<()> {
    let mut connection = Connection::open(server.address()).await?;
    let answer = connection
        .send("GET", &format!("/tasks/{id}"), &[], "")
        .await?;
    if answer.status == 200 {
        return Ok(());
    }
    let status = answer.status;
    Err(io::Error::other(format!(
        "the server does not see the prepared tasks: {status}"
    )))
}
