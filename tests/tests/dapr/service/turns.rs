//! Two replicas of the service, each beside its own sidecar, and one of the four dies at a time.

use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use task_core::memory::SeededEntropy;
use task_core::ports::{Entropy, SystemEntropy};
use task_tests::history::Writer;
use task_tests::process::dapr::{Neighbours, self_hosted};
use task_tests::process::{Sidecar, TaskServer};
use tokio::time::sleep;

use super::World;

/// Chance that can be repeated.
#[derive(Debug)]
struct Chance(SeededEntropy);

impl Chance {
    #[expect(clippy::print_stdout, reason = "a failure says what it began with")]
    fn new() -> Self {
        let mut seed = [0; 8];
        SystemEntropy.fill(&mut seed);
        let seed = u64::from_le_bytes(seed);
        println!("seed {seed}");
        Self(SeededEntropy::new(seed))
    }

    fn below(&self, end: u8) -> u8 {
        let mut byte = [0];
        self.0.fill(&mut byte);
        byte[0] % end
    }
}

/// A replica, its sidecar, and where that one finds it.
struct Place {
    server: TaskServer,
    sidecar: Sidecar,
    port: u16,
}

impl Place {
    async fn serve(world: &World, sidecar: &Sidecar, port: u16) -> TaskServer {
        let options = Neighbours::options_beside(sidecar, port);
        let started = world.neighbours.begin(&options).ready().await;
        started.unwrap_or_else(|log| panic!("{log}\n{}", sidecar.log()))
    }

    async fn start(world: &World) -> Self {
        let resources = self_hosted(world.redis.port());
        let (sidecar, port) = world.neighbours.another(resources).await;
        let server = Self::serve(world, &sidecar, port).await;
        Self {
            server,
            sidecar,
            port,
        }
    }

    fn kill_server(&self) {
        let id = self.server.id().to_string();
        let sent = Command::new("kill").args(["-9", &id]).status();
        assert!(sent.unwrap().success());
    }
}

/// Who dies in a round.
#[derive(Debug, Clone, Copy)]
enum Dying {
    Server,
    Sidecar,
    Both,
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_and_their_sidecars_are_killed_at_random_and_lose_and_invent_nothing() {
    const WRITERS: usize = 8;
    const ROUNDS: usize = 8;
    const WORK: Duration = Duration::from_secs(2);
    let chance = Chance::new();
    // Its own sidecar stands beside no replica: who judges asks it.
    let world = World::start().await;
    let mut places = [Place::start(&world).await, Place::start(&world).await];
    let mut writers: Vec<Writer> = (0..WRITERS).map(Writer::new).collect();
    for round in 0..ROUNDS {
        let rests_at = Some(Instant::now() + WORK);
        for writer in &mut writers {
            writer.rests_at = rests_at;
        }
        let at = usize::from(chance.below(2));
        let who = [Dying::Server, Dying::Sidecar, Dying::Both][usize::from(chance.below(3))];
        let pid = places[at].sidecar.id().to_string();
        // Each task is changed by both of them.
        let at_work = writers.iter_mut().enumerate();
        let at_work = at_work.map(|(one, writer)| writer.work(&places[(one + round) % 2].server));
        let kill = async {
            sleep(Duration::from_millis(10 * u64::from(chance.below(200)))).await;
            if matches!(who, Dying::Server | Dying::Both) {
                places[at].kill_server();
            }
            if matches!(who, Dying::Sidecar | Dying::Both) {
                let sent = Command::new("kill").args(["-9", &pid]).status();
                assert!(sent.unwrap().success());
            }
        };
        tokio::join!(join_all(at_work), kill);
        let place = &mut places[at];
        if matches!(who, Dying::Sidecar | Dying::Both) {
            place.sidecar.restart().await;
        }
        if matches!(who, Dying::Server | Dying::Both) {
            let reborn = Place::serve(&world, &place.sidecar, place.port).await;
            std::mem::replace(&mut place.server, reborn).kill();
        }
    }
    world.judge(&mut writers, &places[0].server).await;
}
