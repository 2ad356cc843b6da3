//! Many events of many tasks, through everything at once.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use task_core::ports::{Answer, Delivery, EventBus, EventHandler};
use task_tests::process::KafkaBroker;
use task_tests::wait::until;
use tokio::task::JoinSet;

use super::{bus, event, subscription};

/// Publishers at once; each has the tasks of its own.
const PUBLISHERS: u32 = 64;

/// Tasks of one publisher.
const TASKS: u32 = 10;

/// Events of one task: 100,480 in all.
const EVENTS: u32 = 157;

/// What the handlers of all members have seen of each task.
#[derive(Debug, Default)]
struct Seen {
    /// The number of the next event, by task.
    next: HashMap<Box<str>, u32>,
    busy: HashMap<Box<str>, u32>,
    handled: u64,
    again: u64,
    failures: u64,
    wrong: Vec<String>,
}

/// Fails now and then, and checks order and overlap.
#[derive(Debug, Clone, Default)]
struct Checking {
    seen: Arc<Mutex<Seen>>,
}

impl Checking {
    fn handled(&self) -> u64 {
        self.seen.lock().unwrap().handled
    }

    fn enter(&self, key: &str) {
        let mut seen = self.seen.lock().unwrap();
        let busy = seen.busy.entry(key.into()).or_default();
        *busy += 1;
        if *busy > 1 {
            seen.wrong.push(format!("two calls at once for {key}"));
        }
    }

    fn leave(&self, key: &str) {
        if let Some(busy) = self.seen.lock().unwrap().busy.get_mut(key) {
            *busy -= 1;
        }
    }

    fn finish(&self, key: &str, number: u32) {
        let mut seen = self.seen.lock().unwrap();
        let next = *seen.next.entry(key.into()).or_default();
        match number {
            _ if number == next => {
                seen.next.insert(key.into(), next + 1);
                seen.handled += 1;
            }
            _ if number < next => seen.again += 1,
            _ => seen.wrong.push(format!("{key}: {number} before {next}")),
        }
    }
}

#[async_trait]
impl EventHandler for Checking {
    async fn handle(&self, delivery: &Delivery) -> Answer {
        let number: u32 = std::str::from_utf8(&delivery.payload)
            .unwrap()
            .parse()
            .unwrap();
        self.enter(&delivery.key);
        tokio::task::yield_now().await;
        // By chance, and the same chance in every run.
        let chance = (number.wrapping_mul(2_654_435_761) >> 8) % 100;
        let fails = delivery.attempt == 1 && chance < 5;
        if !fails {
            self.finish(&delivery.key, number);
        }
        self.leave(&delivery.key);
        if fails {
            self.seen.lock().unwrap().failures += 1;
            if chance == 0 {
                // Unlike `panic!`, this prints nothing.
                resume_unwind(Box::new("now and then"));
            }
            return Answer::Retry;
        }
        Answer::Ack
    }
}

/// Publishes in turn to each task of a publisher; what fails is published again.
async fn publish_all(broker: Arc<str>, publisher: u32) -> u64 {
    let mut config = adapters_direct::kafka::KafkaConfig::new(&*broker);
    config.delivery_timeout = Duration::from_secs(5);
    let bus = adapters_direct::kafka::KafkaEventBus::open(config).unwrap();
    let mut failures = 0;
    for number in 0..EVENTS {
        for task in 0..TASKS {
            let event = event("t", &format!("task-{publisher}-{task}"), number.to_string());
            while bus.publish(&event).await.is_err() {
                failures += 1;
            }
        }
    }
    failures
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_is_handled_in_order_through_errors_a_restart_and_a_rebalance() {
    let all = u64::from(PUBLISHERS * TASKS * EVENTS);
    let mut broker = KafkaBroker::start().await;
    broker.create_topic("t", 6).await;
    broker.create_topic("t.dead", 1).await;
    let begin = Instant::now();
    let checking = Checking::default();
    let handler = || Arc::new(checking.clone());
    let bus = bus(&broker);
    let one = bus.subscribe(subscription("t", "g"), handler()).await;
    let one = one.unwrap();
    let address: Arc<str> = broker.bootstrap().into();
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        publishers.spawn(publish_all(Arc::clone(&address), publisher));
    }
    let reached = async |part: u64| {
        until("so many are handled", async || {
            (checking.handled() >= all * part / 10).then_some(())
        })
        .await;
    };
    reached(2).await;
    let two = bus.subscribe(subscription("t", "g"), handler()).await;
    reached(4).await;
    broker.restart().await;
    reached(6).await;
    two.unwrap().stop().await;
    let failures: u64 = publishers.join_all().await.into_iter().sum();
    reached(10).await;
    one.stop().await;
    let seen = checking.seen.lock().unwrap();
    println!(
        "{all} events in {:?}: {} deliveries failed, {} came again, {failures} publications repeated",
        begin.elapsed(),
        seen.failures,
        seen.again
    );
    assert!(seen.wrong.is_empty(), "{:?}", seen.wrong);
    assert_eq!(seen.handled, all);
    assert!(seen.next.values().all(|&next| next == EVENTS));
    assert!(seen.failures > all / 50, "{} failures", seen.failures);
}
