//! Sidecars that are killed and paused under a bus, and a Redis that is away.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adapters_dapr::DaprEventBus;
use task_core::ports::{Answer, Delivery, ErrorKind, EventBus, Outcome};
use task_tests::process::{RedisServer, Sidecar, SidecarOptions};
use task_tests::wait::until;
use tokio::sync::mpsc;

use super::{APP, adapter, bus, ear, event, next, redis_pubsub, subscription};

/// Events that have to be accepted between two faults.
const SOME: usize = 20;

/// A publisher in the background and what it has achieved.
#[derive(Debug, Default)]
struct Publishing {
    accepted: Mutex<BTreeSet<String>>,
    refused: AtomicUsize,
    stop: AtomicBool,
}

impl Publishing {
    fn accepted(&self) -> BTreeSet<String> {
        self.accepted.lock().unwrap().clone()
    }

    /// Publishes one event after the other; none is tried again.
    async fn run(self: Arc<Self>, bus: DaprEventBus) {
        for n in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let id = format!("t-{n:06}");
            match bus.publish(&event(&id)).await {
                Ok(()) => drop(self.accepted.lock().unwrap().insert(id)),
                Err(_) => drop(self.refused.fetch_add(1, Ordering::Relaxed)),
            }
            tokio::task::yield_now().await;
        }
    }

    async fn is_refused(&self) {
        let before = self.refused.load(Ordering::Relaxed);
        let refused = || self.refused.load(Ordering::Relaxed);
        until("an event is refused", async || {
            (refused() > before).then_some(())
        })
        .await;
    }

    async fn goes_on(&self) {
        let enough = self.accepted().len() + SOME;
        until("events are accepted", async || {
            (self.accepted().len() >= enough).then_some(())
        })
        .await;
    }
}

/// Hears until everything was heard.
async fn hears_all(hear: &mut mpsc::UnboundedReceiver<Delivery>, mut missing: BTreeSet<String>) {
    while !missing.is_empty() {
        let heard = next(hear).await;
        missing.remove(&*heard.key);
    }
}

async fn nothing_is_lost_while(
    fault: impl AsyncFn(&mut Sidecar, &mut RedisServer),
    recovery: impl AsyncFn(&mut Sidecar, &mut RedisServer),
) {
    let mut server = RedisServer::start().await;
    let options = SidecarOptions::of(APP, [redis_pubsub(&server.url())]);
    let mut sidecar = Sidecar::start(options).await;
    let bus = bus(&adapter(&sidecar)).await;
    let (handler, mut hear) = ear(|_| Answer::Ack);
    let running = bus.subscribe(subscription(), handler).await.unwrap();
    let publishing = Arc::<Publishing>::default();
    let publisher = tokio::spawn(Arc::clone(&publishing).run(bus));
    for _ in 0..3 {
        publishing.goes_on().await;
        fault(&mut sidecar, &mut server).await;
        publishing.is_refused().await;
        recovery(&mut sidecar, &mut server).await;
    }
    publishing.goes_on().await;
    publishing.stop.store(true, Ordering::Relaxed);
    publisher.await.unwrap();
    hears_all(&mut hear, publishing.accepted()).await;
    running.stop().await;
}

#[tokio::test]
async fn no_accepted_event_is_lost_when_the_sidecar_is_killed() {
    nothing_is_lost_while(
        async |sidecar, _| sidecar.kill(),
        async |sidecar, _| sidecar.restart().await,
    )
    .await;
}

#[tokio::test]
async fn no_accepted_event_is_lost_when_redis_is_killed() {
    nothing_is_lost_while(
        async |_, server| server.kill(),
        async |_, server| server.restart().await,
    )
    .await;
}

#[tokio::test]
async fn an_event_in_hand_when_the_sidecar_is_killed_comes_again() {
    let server = RedisServer::shared().await;
    let options = SidecarOptions::of(APP, [redis_pubsub(&server.next_database_url())]);
    let mut sidecar = Sidecar::start(options).await;
    let bus = bus(&adapter(&sidecar)).await;
    let open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&open);
    let (handler, mut hear) = ear(move |_| match gate.load(Ordering::SeqCst) {
        true => Answer::Ack,
        false => Answer::Retry,
    });
    let running = bus.subscribe(subscription(), handler).await.unwrap();
    bus.publish(&event("t-1")).await.unwrap();
    next(&mut hear).await;
    sidecar.kill();
    running.stop().await;

    sidecar.restart().await;
    open.store(true, Ordering::SeqCst);
    let (handler, mut hear) = ear(|_| Answer::Ack);
    let running = bus.subscribe(subscription(), handler).await.unwrap();
    assert_eq!(next(&mut hear).await.payload, event("t-1").payload);
    running.stop().await;
}

#[tokio::test]
async fn a_paused_sidecar_leaves_a_publication_open_and_goes_on_later() {
    let server = RedisServer::shared().await;
    let options = SidecarOptions::of(APP, [redis_pubsub(&server.next_database_url())]);
    let sidecar = Sidecar::start(options).await;
    let bus = bus(&adapter(&sidecar)).await;
    let (handler, mut hear) = ear(|_| Answer::Ack);
    let running = bus.subscribe(subscription(), handler).await.unwrap();
    bus.publish(&event("before")).await.unwrap();
    assert_eq!(&*next(&mut hear).await.key, "before");

    sidecar.pause();
    // A process does not stop at once.
    let error = until("the pause is felt", async || {
        bus.publish(&event("open")).await.err()
    })
    .await;
    let meaning = (error.kind(), error.outcome());
    assert_eq!(meaning, (ErrorKind::Timeout, Outcome::Unknown), "{error}");
    bus.check().await.unwrap_err();
    sidecar.resume();

    until("events are accepted again", async || {
        bus.publish(&event("after")).await.ok()
    })
    .await;
    while &*next(&mut hear).await.key != "after" {}
    running.stop().await;
}

#[tokio::test]
async fn retries_outlast_the_components_own_time_limit_and_are_not_doubled() {
    let server = RedisServer::shared().await;
    let options = SidecarOptions::of(APP, [redis_pubsub(&server.next_database_url())]);
    let sidecar = Sidecar::start(options).await;
    let bus = bus(&adapter(&sidecar)).await;
    let (handler, mut hear) = ear(|delivery| match delivery.attempt {
        // Longer than processingTimeout: the component delivers it once more meanwhile.
        1 => Answer::Retry,
        _ => Answer::Ack,
    });
    let mut patient = subscription();
    patient.redelivery.first_pause = Duration::from_secs(3);
    patient.redelivery.longest_pause = Duration::from_secs(3);
    let running = bus.subscribe(patient, handler).await.unwrap();
    bus.publish(&event("t-1")).await.unwrap();
    let mut attempts = Vec::new();
    while attempts.len() < 2 {
        attempts.push(next(&mut hear).await.attempt);
    }
    assert_eq!(attempts, [1, 2]);
    bus.publish(&event("mark")).await.unwrap();
    assert_eq!(&*next(&mut hear).await.key, "mark");
    running.stop().await;
}
