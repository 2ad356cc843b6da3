//! The Kafka event bus on real brokers: foreign clients, members that come and go, and brokers that fail.

mod burials;
mod faults;
mod flood;
mod foreign;
mod members;
mod network;
mod outages;
mod positions;
mod recreated;
mod secured;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use adapters_direct::kafka::{KafkaConfig, KafkaEventBus, MissingTopics};
use async_trait::async_trait;
use bytes::Bytes;
use task_core::ports::{
    Answer, Delivery, Event, EventHandler, Group, Redelivery, StartAt, Subscription, Topic,
};
use task_tests::process::KafkaBroker;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Longest wait for a delivery.
const PATIENCE: Duration = Duration::from_secs(30);

/// A bus that makes its topics and notices a lost member soon.
fn config(broker: &KafkaBroker) -> KafkaConfig {
    let mut config = KafkaConfig::new(broker.bootstrap());
    config.missing_topics = MissingTopics::Create {
        partitions: 3,
        replication: 1,
    };
    config.session_timeout = Duration::from_secs(6);
    config
}

fn bus(broker: &KafkaBroker) -> KafkaEventBus {
    KafkaEventBus::open(config(broker)).unwrap()
}

fn event(topic: &str, key: &str, payload: impl Into<Bytes>) -> Event {
    Event {
        topic: Topic::new(topic),
        key: key.into(),
        payload: payload.into(),
    }
}

/// A subscription from the beginning, which tries again at once and for long. A group that other cases
/// join as well, even for other topics, would have its partitions moved with theirs.
fn subscription(topic: &str, group: &str) -> Subscription {
    Subscription {
        start: StartAt::Beginning,
        redelivery: Redelivery {
            max_deliveries: 1_000,
            first_pause: Duration::from_millis(10),
            longest_pause: Duration::from_millis(100),
        },
        ..Subscription::new(Topic::new(topic), Group::new(format!("{topic}.{group}")))
    }
}

/// Answers as told, and tells what it was given.
struct Tells<F> {
    heard: mpsc::UnboundedSender<Delivery>,
    answer: F,
}

impl<F> fmt::Debug for Tells<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tells").finish_non_exhaustive()
    }
}

#[async_trait]
impl<F: Fn(&Delivery) -> Answer + Send + Sync + 'static> EventHandler for Tells<F> {
    async fn handle(&self, delivery: &Delivery) -> Answer {
        // A test that has seen enough listens no more.
        let _ = self.heard.send(delivery.clone());
        (self.answer)(delivery)
    }
}

/// What a handler was given.
struct Heard(mpsc::UnboundedReceiver<Delivery>);

impl Heard {
    async fn next(&mut self) -> Delivery {
        let next = timeout(PATIENCE, self.0.recv()).await;
        next.expect("a delivery in time").unwrap()
    }

    /// The payloads of so many deliveries, as texts.
    async fn texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        while texts.len() < count {
            let payload = self.next().await.payload;
            texts.push(String::from_utf8(payload.to_vec()).unwrap());
        }
        texts
    }
}

fn telling(
    answer: impl Fn(&Delivery) -> Answer + Send + Sync + 'static,
) -> (Arc<dyn EventHandler>, Heard) {
    let (sender, heard) = mpsc::unbounded_channel();
    let handler = Tells {
        heard: sender,
        answer,
    };
    (Arc::new(handler), Heard(heard))
}
