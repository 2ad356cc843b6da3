//! The use case over the embedded store alone: what P4 would be without HTTP, relay and notifier.
//!
//! It has no target. The distance to P4 says where the time of a create goes.

use std::sync::Arc;
use std::time::Instant;

use adapters_direct::embedded::{Embedded, EmbeddedConfig};
use serde_json::json;
use task_core::application::{Outbox, TaskService};
use task_core::domain::{Draft, Priority, Title};
use task_core::ports::{SystemClock, SystemEntropy};
use task_tests::process::TestDirectory;
use tokio::task::JoinSet;

use crate::BenchResult;
use crate::figures::{median, per_second, rate};
use crate::options::Options;
use crate::probe::SyncProbe;
use crate::report::{Row, Verdict};

/// Creates at once.
const TASKS: usize = 64;

/// Creates a second by the use case, in this process.
pub(crate) fn create_rate(options: &Options) -> BenchResult<Row> {
    let place = TestDirectory::new("bench-store");
    let mut probe = SyncProbe::new(place.path())?;
    let config = EmbeddedConfig::new(place.path().join("data"));
    let embedded = Embedded::open(&config, Arc::new(SystemClock))?;
    let outbox = Arc::new(Outbox::new(Arc::new(embedded.state_store()))?);
    let service = TaskService::new(outbox, Arc::new(SystemClock), Arc::new(SystemEntropy))?;
    let service = Arc::new(service);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.workers)
        .enable_all()
        .build()?;
    let mut rounds = Vec::new();
    for _ in 0..=options.rounds() {
        let before = probe.rate(options.probe_time())?;
        let created = runtime.block_on(create(&service, Instant::now() + options.load_time()))?;
        let after = probe.rate(options.probe_time())?;
        rounds.push((before.max(after), created));
    }
    rounds.remove(0);
    let created = median(rounds.iter().map(|round| round.1));
    let to_probe = median(rounds.iter().map(|round| round.1 / round.0));
    Ok(Row {
        number: "STORE",
        what: format!("durable creates in process, no HTTP and no relay, {TASKS} at once"),
        target: "–".to_owned(),
        measured: rate(created),
        ratio: format!("{to_probe:.1} × probe"),
        verdict: Verdict::Shown,
        notes: Vec::new(),
        values: json!({"create_per_s": created, "create_to_probe": to_probe}),
    })
}

async fn create(service: &Arc<TaskService>, end: Instant) -> BenchResult<f64> {
    let title = Title::parse("write the quarterly report".to_owned())?;
    let draft = Draft {
        title,
        description: Some("two pages, figures included".to_owned()),
        priority: Priority::default(),
    };
    let begin = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..TASKS {
        let (service, draft) = (Arc::clone(service), draft.clone());
        running.spawn(async move {
            let mut count = 0;
            while Instant::now() < end {
                service.create(draft.clone(), None).await?;
                count += 1;
            }
            Ok::<u64, task_core::application::TaskError>(count)
        });
    }
    let mut count = 0;
    while let Some(ended) = running.join_next().await {
        count += ended??;
    }
    Ok(per_second(count, begin.elapsed()))
}
