//! Many events, random answers, and everything that can go wrong at once.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use task_tests::process::redis::{AppendOnly, RedisOptions};

use super::*;

const EVENTS: usize = 20_000;
const KEYS: usize = 500;
const PUBLISHERS: usize = 16;

/// Pause of a publisher before it tries again.
const PAUSE: Duration = Duration::from_millis(20);

/// What all subscribers together have acknowledged.
#[derive(Default)]
struct Acknowledged {
    calls: AtomicU64,
    payloads: Mutex<HashSet<String>>,
}

impl Acknowledged {
    /// Acknowledges most, and asks again for or drops the rest, whatever it is.
    fn answer(&self, delivery: &Delivery) -> Answer {
        let mut hasher = DefaultHasher::new();
        self.calls.fetch_add(1, Ordering::Relaxed).hash(&mut hasher);
        match hasher.finish() % 100 {
            0..10 => Answer::Retry,
            10..15 => Answer::Postpone(Duration::from_millis(10)),
            15 => Answer::dropped("bad"),
            _ => {
                let payload = String::from_utf8(delivery.payload.to_vec()).unwrap();
                let payloads = self.payloads.lock();
                let mut payloads = payloads.unwrap_or_else(PoisonError::into_inner);
                payloads.insert(payload);
                Answer::Ack
            }
        }
    }

    fn count(&self) -> usize {
        let payloads = self.payloads.lock();
        payloads.unwrap_or_else(PoisonError::into_inner).len()
    }

    fn subscriber(self: &Arc<Self>, url: &str) -> Process {
        let acknowledged = Arc::clone(self);
        Process::start(url, subscription("g"), move |delivery| {
            acknowledged.answer(delivery)
        })
    }
}

async fn publish_all(url: String) {
    let bus = bus(&url).await;
    let publishers = (0..PUBLISHERS).map(|publisher| {
        let bus = Arc::clone(&bus);
        tokio::spawn(async move {
            for n in (publisher..EVENTS).step_by(PUBLISHERS) {
                let event = event(&format!("k-{}", n % KEYS), &n.to_string());
                // What is published twice is heard twice, which the handler has to expect anyway.
                while bus.publish(&event).await.is_err() {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        })
    });
    for publisher in publishers.collect::<Vec<_>>() {
        publisher.await.unwrap();
    }
}

async fn dead_letters(url: &str) -> HashSet<String> {
    let words = ["XRANGE", "task-events.dead", "-", "+"];
    let dead: Vec<(String, Vec<String>)> = ask(url, &words).await;
    dead.into_iter()
        .map(|(_, mut fields)| fields.swap_remove(1))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_is_acknowledged_or_a_dead_letter_whatever_is_killed() {
    let options = RedisOptions {
        append_only: AppendOnly::Always,
        ..RedisOptions::default()
    };
    let mut server = RedisServer::start_with(options).await;
    let url = server.url();
    let acknowledged = Arc::new(Acknowledged::default());
    let mut subscribers = vec![acknowledged.subscriber(&url), acknowledged.subscriber(&url)];
    let publishing = tokio::spawn(publish_all(url.clone()));
    let reached = async |share: usize| {
        until("events are handled", async || {
            (acknowledged.count() >= EVENTS * share / 100).then_some(())
        })
        .await;
    };
    for (share, fault) in [(10, 0), (20, 1), (30, 2), (45, 0), (60, 1), (70, 2)] {
        reached(share).await;
        match fault {
            0 => subscribers.remove(0).crash(),
            1 => {
                server.kill();
                server.restart().await;
            }
            _ => {
                server.pause();
                let silence = Duration::from_millis(900);
                let _ = timeout(silence, std::future::pending::<()>()).await;
                server.resume();
            }
        }
        if subscribers.len() < 2 {
            subscribers.push(acknowledged.subscriber(&url));
        }
    }
    publishing.await.unwrap();
    let published: HashSet<String> = (0..EVENTS).map(|n| n.to_string()).collect();
    let mut missing = published.clone();
    until("every event is acknowledged or a dead letter", async || {
        missing = published.clone();
        let dead = dead_letters(&url).await;
        missing.retain(|payload| !dead.contains(payload));
        let payloads = acknowledged.payloads.lock();
        let payloads = payloads.unwrap_or_else(PoisonError::into_inner);
        missing.retain(|payload| !payloads.contains(payload));
        missing.is_empty().then_some(())
    })
    .await;
    is_finished(&url, "g").await;
    let dead = dead_letters(&url).await;
    let payloads = acknowledged.payloads.lock();
    let payloads = payloads.unwrap_or_else(PoisonError::into_inner);
    let heard: HashSet<String> = payloads.union(&dead).cloned().collect();
    assert_eq!(heard.len(), EVENTS, "events that nobody published");
    assert!(!dead.is_empty(), "nothing was dropped");
    drop(payloads);
    for subscriber in subscribers {
        subscriber.crash();
    }
}
