//! The numbers of a move, as a scraper of Prometheus reads them.

use serde_json::Value;
use task_tests::process::migration::migration;
use task_tests::process::{Python, TaskServer};
use task_tests::wait::until;

use super::super::create;
use super::replicas::{World, is_ready};

/// What a scraper has read.
struct Scraped(Vec<Value>);

impl Scraped {
    async fn of(server: &TaskServer) -> Self {
        let url = format!("http://{}/metrics", server.address());
        let python = Python::shared().await;
        let lines = python.run("openmetrics.py", &[&url]).await;
        Self(
            lines
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect(),
        )
    }

    /// The sum of a metric over all series that have these labels.
    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let series = self.0.iter().filter(|one| one["name"] == name);
        let has = |one: &&Value| {
            labels
                .iter()
                .all(|(label, value)| one["labels"][label] == *value)
        };
        series
            .filter(has)
            .map(|one| one["value"].as_f64().unwrap())
            .sum()
    }
}

#[tokio::test]
async fn the_numbers_of_a_move_are_those_of_its_status_and_of_its_calls_by_stage() {
    let mut world = World::start().await;
    let server = world.serve().await;
    let before = Scraped::of(&server).await;
    assert!((before.sum("task_migration_status_up", &[]) - 1.0).abs() < f64::EPSILON);
    migration(&server, "init").await.with(0);
    is_ready(&server).await;
    migration(&server, "advance --port state --to dualwrite")
        .await
        .with(0);
    create(&server, "before the backfill").await;
    migration(&server, "backfill start").await.with(0);
    migration(&server, "verify --full").await.with(0);
    migration(&server, "advance --port state --to shadow --percent 50")
        .await
        .with(0);
    until("reads are compared in shadow", async || {
        let (id, _) = create(&server, "one of half of them").await;
        assert_eq!(server.get(&format!("/tasks/{id}")).await.status, 200);
        let equal = [("stage", "shadow"), ("finding", "equal")];
        let scraped = Scraped::of(&server).await;
        (scraped.sum("task_migration_comparisons_total", &equal) > 0.0).then_some(())
    })
    .await;
    let scraped = Scraped::of(&server).await;
    for (side, stage) in [
        ("old", "dualwrite"),
        ("new", "dualwrite"),
        ("new", "shadow"),
    ] {
        let labels = [("port", "state"), ("side", side), ("stage", stage)];
        let calls = scraped.sum("task_migration_calls_total", &labels);
        let timed = scraped.sum("task_migration_call_duration_seconds_count", &labels);
        assert!(
            calls > 0.0 && (calls - timed).abs() < f64::EPSILON,
            "{side} {stage}: {calls}, {timed}"
        );
        let everything = [&labels[..], &[("le", "+Inf")]].concat();
        let below = scraped.sum("task_migration_call_duration_seconds_bucket", &everything);
        assert!(
            (calls - below).abs() < f64::EPSILON,
            "{side} {stage}: {calls}, {below}"
        );
        let failed = scraped.sum("task_migration_call_failures_total", &labels);
        assert!(failed.abs() < f64::EPSILON, "{side} {stage}: {failed}");
    }
    let shadow = [("port", "state"), ("stage", "shadow")];
    let half = scraped.sum("task_migration_stage_ratio", &shadow);
    assert!((half - 0.5).abs() < 1e-9, "{half}");
    let status = migration(&server, "status --json").await.json();
    let backfill = scraped.sum("task_migration_job_done_records", &[("job", "backfill")]);
    assert_eq!(Some(backfill), status["backfill"]["done"].as_f64());

    // The new side goes: marks stay, its failures are counted, and the old side still tells.
    world.new.kill();
    create(&server, "without the new side").await;
    until("a write has failed on the new side", async || {
        let scraped = Scraped::of(&server).await;
        let failed = scraped.sum("task_migration_call_failures_total", &[("side", "new")]);
        let marks = scraped.sum("task_migration_marks", &[("kind", "dirty")]);
        (failed > 0.0 && marks >= 1.0).then_some(())
    })
    .await;
    // The old one goes: what lies there is not told, and the rest is.
    world.old.kill();
    let alone = Scraped::of(&server).await;
    assert!(alone.sum("task_migration_status_up", &[]).abs() < f64::EPSILON);
    assert!(alone.sum("task_migration_calls_total", &[("side", "old")]) > 0.0);
}
