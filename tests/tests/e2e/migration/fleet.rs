//! Replicas of one service under way, of which any may die at any time.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use task_core::memory::SeededEntropy;
use task_core::ports::Entropy;
use task_tests::process::TaskServer;
use task_tests::process::migration::migration;
use tokio::time::sleep;

use super::replicas::{World, is_ready};

pub(super) const REPLICAS: usize = 3;

/// Where a replica finds the old side, and where the new one.
pub(super) type Ways = [String; 2];

/// The replicas of a move that has begun, and what is around them.
pub(super) struct Fleet {
    pub(super) world: World,
    ways: [Ways; REPLICAS],
    replicas: [Mutex<Arc<TaskServer>>; REPLICAS],
    random: SeededEntropy,
}

impl Fleet {
    pub(super) async fn start(world: World, seed: u64, ways: [Ways; REPLICAS]) -> Self {
        let first = world.serve_by(&ways[0]).await;
        migration(&first, "init").await.with(0);
        let (second, third) = (
            world.serve_by(&ways[1]).await,
            world.serve_by(&ways[2]).await,
        );
        let fleet = Self {
            world,
            ways,
            replicas: [first, second, third].map(|one| Mutex::new(Arc::new(one))),
            random: SeededEntropy::new(seed),
        };
        for place in 0..REPLICAS {
            is_ready(&fleet.replica(place)).await;
        }
        fleet
    }

    pub(super) fn random(&self, below: usize) -> usize {
        let mut random = [0; 8];
        self.random.fill(&mut random);
        usize::try_from(u64::from_le_bytes(random) % below as u64).unwrap()
    }

    pub(super) fn replica(&self, place: usize) -> Arc<TaskServer> {
        Arc::clone(&self.replicas[place].lock().unwrap())
    }

    pub(super) fn any(&self) -> Arc<TaskServer> {
        self.replica(self.random(REPLICAS))
    }

    /// Kills a replica and puts another one in its place.
    pub(super) async fn kill(&self, place: usize) {
        signal("-9", &self.replica(place));
        let fresh = Arc::new(self.world.serve_by(&self.ways[place]).await);
        *self.replicas[place].lock().unwrap() = fresh;
    }

    /// Carries out a command that may have to wait for replicas that have died, as long as nobody knows that.
    pub(super) async fn at_last(&self, command: &str) {
        const MOST: usize = 12;
        let mut last = None;
        for _ in 0..MOST {
            let said = migration(&self.any(), command).await;
            if said.code == 0 {
                return;
            }
            sleep(Duration::from_secs(1)).await;
            last = Some(said);
        }
        panic!("{command}: {last:?}");
    }
}

pub(super) fn signal(signal: &str, server: &TaskServer) {
    let id = server.id().to_string();
    let sent = Command::new("kill").args([signal, &id]).status();
    assert!(sent.unwrap().success(), "{signal} {id}");
}
