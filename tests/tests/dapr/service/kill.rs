//! The service or its sidecar dies in the middle of the work.

use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use task_tests::history::Writer;
use task_tests::wait::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::World;

impl World {
    /// Plays a service that tells the sidecar its configuration, and dies when it is asked for its subscriptions.
    async fn die_while_asked(&self) {
        let app = TcpListener::bind(("127.0.0.1", self.neighbours.port))
            .await
            .unwrap();
        loop {
            let (mut connection, _) = app.accept().await.unwrap();
            let mut request = vec![0; 4096];
            // The sidecar opens a connection and says nothing to see whether the service listens.
            while let Ok(length @ 1..) = connection.read(&mut request).await {
                if request[..length].starts_with(b"GET /dapr/subscribe") {
                    return;
                }
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                connection.write_all(answer).await.unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_starts_while_its_sidecar_asks_the_one_before_for_its_subscriptions() {
    let world = World::start().await;
    world.die_while_asked().await;
    // From here until it has an answer the sidecar opens no stream of events.
    let server = world.neighbours.serve().await;
    let created = server.post("/tasks", r#"{"title":"at once"}"#).await;
    assert_eq!(created.status, 201, "{}", created.text());
    let id = created.json()["id"].as_str().unwrap().to_owned();
    let target = format!("/tasks/{id}/status?status=completed");
    assert_eq!(server.send("PUT", &target, &[], "").await.status, 200);
    until("the completion is notified", async || {
        (world.neighbours.notified(&id).await == 1).then_some(())
    })
    .await;
    let ready = server.get("/ready").await.json();
    assert_eq!(
        ready["dependencies"]["event_bus"],
        json!({"status": "up"}),
        "{}",
        server.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_service_and_a_killed_sidecar_lose_nothing_and_invent_nothing() {
    const WRITERS: usize = 8;
    const ROUNDS: u32 = 6;
    const WORK: Duration = Duration::from_secs(2);
    const MIDDLE: Duration = Duration::from_millis(700);
    let mut world = World::start().await;
    let mut writers: Vec<Writer> = (0..WRITERS).map(Writer::new).collect();
    for round in 0..ROUNDS {
        let server = world.neighbours.serve().await;
        let rests_at = Some(Instant::now() + WORK);
        for writer in &mut writers {
            writer.rests_at = rests_at;
        }
        let work = join_all(writers.iter_mut().map(|writer| writer.work(&server)));
        match round % 3 {
            0 => drop(work.await),
            1 => {
                let kill = async {
                    sleep(MIDDLE).await;
                    let mut kill = Command::new("kill");
                    let sent = kill.args(["-9", &server.id().to_string()]).status();
                    assert!(sent.unwrap().success());
                };
                tokio::join!(work, kill);
            }
            _ => {
                let kill = async {
                    sleep(MIDDLE).await;
                    world.neighbours.ours.kill();
                };
                tokio::join!(work, kill);
                world.neighbours.ours.restart().await;
            }
        }
        server.kill();
    }
    let server = world.neighbours.serve().await;
    world.judge(&mut writers, &server).await;
}
