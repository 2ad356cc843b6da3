//! Events while buckets of the bus move back and forth, calls fail, and replicas follow at their own pace.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep, timeout};

use super::bus::subscription;
use super::fakes::{Mood, SomeBus};
use super::scene::{ALL, Replica, Scene, coordinator, event};
use crate::application::IncomingEvent;
use crate::memory::lock;
use crate::migration::BusStage;
use crate::ports::{Answer, Clock, Delivery, Entropy, EventBus, EventHandler};

/// Counts each id.
#[derive(Debug, Default)]
struct Ids {
    heard: Mutex<BTreeMap<String, usize>>,
}

#[async_trait]
impl EventHandler for Ids {
    async fn handle(&self, delivery: &Delivery) -> Answer {
        let event = IncomingEvent::parse(&delivery.payload).expect("ours");
        *lock(&self.heard).entry(event.id).or_default() += 1;
        Answer::Ack
    }
}

fn below(scene: &Scene, most: u64) -> u64 {
    let mut bytes = [0; 8];
    scene.entropy.fill(&mut bytes);
    u64::from_le_bytes(bytes) % most
}

/// Publishes until each event is accepted, as the relay does; answers the ids.
async fn publish(scene: &Scene, replica: &Replica, worker: u64, until: Instant) -> Vec<String> {
    let mut accepted = Vec::new();
    for n in 0.. {
        if Instant::now() >= until {
            break;
        }
        let id = format!("t-{}", below(scene, 50));
        let event = event(&id, worker * 1_000_000 + n, scene.clock.now());
        // A layer around the port limits each attempt, and the relay tries again.
        let limit = Duration::from_secs(3);
        while !matches!(
            timeout(limit, replica.bus.publish(&event)).await,
            Ok(Ok(()))
        ) {
            sleep(Duration::from_millis(50)).await;
        }
        accepted.push(IncomingEvent::parse(&event.payload).expect("ours").id);
        sleep(Duration::from_millis(below(scene, 40))).await;
    }
    accepted
}

async fn disturb(scene: &Scene, bus: &SomeBus, until: Instant) {
    let moods = [
        Mood::Refuses,
        Mood::Forgets,
        Mood::Hangs,
        Mood::Slow(Duration::from_millis(900)),
    ];
    while Instant::now() < until {
        sleep(Duration::from_millis(below(scene, 1_500))).await;
        bus.publishing.set(moods[below(scene, 4) as usize]);
        sleep(Duration::from_millis(below(scene, 1_500))).await;
        bus.publishing.set(Mood::Works);
    }
}

async fn wander(scene: &Scene, replica: &Replica, until: Instant) -> [u32; 4] {
    let mut coordinator = coordinator(replica);
    let mut been = [0; 4];
    while Instant::now() < until {
        sleep(Duration::from_millis(below(scene, 500))).await;
        let stage = [BusStage::Shadow, BusStage::Live][below(scene, 2) as usize];
        let buckets = [0, 3_000, 7_000, ALL][below(scene, 4) as usize];
        if coordinator.advance_bus(stage, buckets).await.is_ok() {
            been[stage as usize] += 1;
        }
    }
    been
}

async fn moves(seed: u64) {
    let (mut scene, first) = Scene::begun().await;
    scene.entropy = crate::memory::SeededEntropy::new(seed);
    let replicas = [first, scene.replica(), scene.replica()];
    for replica in &replicas {
        replica.follows().await;
    }
    let ids = Arc::new(Ids::default());
    let subscribed = replicas[0]
        .bus
        .subscribe(subscription(), Arc::clone(&ids) as _)
        .await;
    let subscribed = subscribed.expect("both are there");
    let until = Instant::now() + Duration::from_secs(120);
    let publishing = (0..6).map(|worker| {
        let replica = &replicas[worker as usize % 3];
        publish(&scene, replica, worker, until)
    });
    let (accepted, been, (), ()) = tokio::join!(
        futures_util::future::join_all(publishing),
        wander(&scene, &replicas[1], until),
        disturb(&scene, &scene.new_bus, until),
        disturb(&scene, &scene.old_bus, until),
    );
    assert!(been[1] > 5 && been[2] > 5, "hardly moved: {been:?}");
    sleep(Duration::from_secs(30)).await;
    subscribed.stop().await;
    let heard = std::mem::take(&mut *lock(&ids.heard));
    let accepted: Vec<String> = accepted.into_iter().flatten().collect();
    assert!(accepted.len() > 1_000, "only {}", accepted.len());
    let lost = accepted.iter().filter(|id| !heard.contains_key(*id));
    assert_eq!(lost.count(), 0, "of {}", accepted.len());
    assert_eq!(heard.len(), accepted.len(), "events of nothing");
    for replica in replicas {
        replica.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_event_is_lost_while_the_bus_moves_and_both_sides_fail_now_and_then() {
    for seed in 0..4 {
        moves(seed).await;
    }
}
