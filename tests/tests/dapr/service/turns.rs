//! Two replicas of the service, each beside its own sidecar, die in turns.

use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use task_tests::history::Writer;
use task_tests::process::{Sidecar, TaskServer, free_port};
use tokio::time::sleep;

use super::{World, ours};

impl World {
    async fn serve_beside(&self, sidecar: &Sidecar, port: u16) -> TaskServer {
        let started = self.begin_beside(sidecar, port).ready().await;
        started.unwrap_or_else(|log| panic!("{log}\n{}", sidecar.log()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_are_killed_in_turns_lose_nothing_and_invent_nothing() {
    const WRITERS: usize = 8;
    const ROUNDS: usize = 6;
    const WORK: Duration = Duration::from_secs(2);
    const MIDDLE: Duration = Duration::from_millis(700);
    let world = World::start().await;
    let port = free_port();
    let sidecar = Sidecar::start(ours(&world.redis, &world.names).beside(port)).await;
    let places = [(&world.sidecar, world.port), (&sidecar, port)];
    let serve = async |place: usize| {
        let (sidecar, port) = places[place];
        world.serve_beside(sidecar, port).await
    };
    let mut servers = [serve(0).await, serve(1).await];
    let mut writers: Vec<Writer> = (0..WRITERS).map(Writer::new).collect();
    for round in 0..ROUNDS {
        let rests_at = Some(Instant::now() + WORK);
        for writer in &mut writers {
            writer.rests_at = rests_at;
        }
        // Each task is changed by both of them.
        let at_work = writers.iter_mut().enumerate();
        let at_work = at_work.map(|(number, writer)| writer.work(&servers[(number + round) % 2]));
        let dying = round % 2;
        let kill = async {
            sleep(MIDDLE).await;
            let id = servers[dying].id().to_string();
            let sent = Command::new("kill").args(["-9", &id]).status();
            assert!(sent.unwrap().success());
        };
        tokio::join!(join_all(at_work), kill);
        let reborn = serve(dying);
        std::mem::replace(&mut servers[dying], reborn.await).kill();
    }
    for writer in &mut writers {
        writer.finish(&servers[0]).await;
    }
    world.judge(&writers).await;
}
