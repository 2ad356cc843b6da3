//! Brokers that die, hang and come back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use adapters_direct::kafka::{KafkaConfig, KafkaEventBus, MissingTopics};
use task_core::ports::{Answer, ErrorKind, EventBus, Outcome, PortError, Topic};
use task_tests::process::KafkaBroker;
use task_tests::process::kafka::{KafkaOptions, TopicCreation};
use task_tests::wait::until;
use tokio::task::JoinSet;

use super::{config, event, subscription, telling};

/// Publishers that go on whatever happens, each with a key of its own.
pub(super) struct Publishers {
    stop: Arc<AtomicBool>,
    /// Publications that have ended.
    ended: Arc<AtomicU64>,
    running: JoinSet<Published>,
}

/// What publishers were told.
#[derive(Debug, Default)]
pub(super) struct Published {
    pub(super) acknowledged: BTreeSet<String>,
    unknown: BTreeSet<String>,
    refused: BTreeSet<String>,
    /// Failures with another meaning than "not now".
    odd: Vec<PortError>,
}

impl Publishers {
    pub(super) fn start(bus: &KafkaEventBus, topic: &'static str, count: usize) -> Self {
        let (stop, ended) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut running = JoinSet::new();
        for publisher in 0..count {
            let (bus, stop, ended) = (bus.clone(), Arc::clone(&stop), Arc::clone(&ended));
            running.spawn(async move {
                let mut published = Published::default();
                let mut n = 0;
                while !stop.load(Ordering::SeqCst) {
                    let name = format!("{publisher} {n}");
                    let event = event(topic, &format!("k-{publisher}"), name.clone());
                    published.note(name, bus.publish(&event).await);
                    ended.fetch_add(1, Ordering::SeqCst);
                    n += 1;
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                published
            });
        }
        Self {
            stop,
            ended,
            running,
        }
    }

    pub(super) async fn go_on(&self) {
        let before = self.ended.load(Ordering::SeqCst);
        until("publications go on", async || {
            (self.ended.load(Ordering::SeqCst) > before + 50).then_some(())
        })
        .await;
    }

    pub(super) async fn stop(self) -> Published {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Published::default();
        for published in self.running.join_all().await {
            all.acknowledged.extend(published.acknowledged);
            all.unknown.extend(published.unknown);
            all.refused.extend(published.refused);
            all.odd.extend(published.odd);
        }
        all
    }
}

impl Published {
    fn note(&mut self, name: String, result: Result<(), PortError>) {
        let Err(error) = result else {
            self.acknowledged.insert(name);
            return;
        };
        match error.outcome() {
            Outcome::Unknown => self.unknown.insert(name),
            Outcome::NotApplied | Outcome::NotMade => self.refused.insert(name),
        };
        if !matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable) {
            self.odd.push(error);
        }
    }

    /// Every acknowledged event is heard, and none that was refused or never published.
    pub(super) async fn are_heard_by(&self, bus: &KafkaEventBus, topic: &str, group: &str) {
        assert!(self.odd.is_empty(), "{:?}", self.odd);
        let (handler, mut heard) = telling(|_| Answer::Ack);
        let running = bus.subscribe(subscription(topic, group), handler).await;
        bus.publish(&event(topic, "mark", "mark")).await.unwrap();
        let mut missing = self.acknowledged.clone();
        let mut has_mark = false;
        while !missing.is_empty() || !has_mark {
            let name = heard.texts(1).await.remove(0);
            has_mark |= name == "mark";
            let known = self.acknowledged.contains(&name) || self.unknown.contains(&name);
            assert!(known || name == "mark", "{name} is a phantom");
            missing.remove(&name);
        }
        running.unwrap().stop().await;
    }
}

/// A bus that gives up soon, on a broker of its own where topics appear when somebody asks.
async fn impatient() -> (KafkaBroker, KafkaEventBus) {
    let broker = KafkaBroker::start_with(KafkaOptions {
        topics: TopicCreation::Automatic,
        ..KafkaOptions::default()
    })
    .await;
    let mut config = config(&broker);
    config.delivery_timeout = Duration::from_secs(2);
    config.request_timeout = Duration::from_secs(2);
    let bus = KafkaEventBus::open(config).unwrap();
    (broker, bus)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_and_hangs_loses_nothing_that_it_acknowledged() {
    let (mut broker, bus) = impatient().await;
    a_missing_topic_is_an_error_and_stays_missing(&broker).await;

    let (handler, mut heard) = telling(|_| Answer::Ack);
    let listening = bus.subscribe(subscription("t", "early"), handler).await;
    let listening = listening.unwrap();
    let publishers = Publishers::start(&bus, "t", 8);
    bus.publish(&event("flood", "k", "first")).await.unwrap();
    publishers.go_on().await;
    broker.kill();
    let error = bus.publish(&event("t", "x", "while dead")).await;
    let error = error.expect_err("nobody is there");
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Timeout, Outcome::Unknown)
    );
    assert!(bus.check().await.is_err(), "a dead broker is checked");
    broker.restart().await;
    publishers.go_on().await;

    broker.pause();
    let error = bus.publish(&event("t", "x", "while hanging")).await;
    let error = error.expect_err("nobody answers");
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Timeout, Outcome::Unknown)
    );
    memory_is_bounded(&bus).await;
    broker.resume();
    publishers.go_on().await;
    let mut published = publishers.stop().await;
    assert!(published.acknowledged.len() > 100, "{published:?}");
    assert!(!published.unknown.is_empty(), "{published:?}");
    for name in ["while dead", "while hanging"] {
        published.unknown.insert(name.to_owned());
    }

    // Whoever listened all the time has heard them, and so has whoever comes now.
    let mut missing = published.acknowledged.clone();
    while !missing.is_empty() {
        missing.remove(&heard.texts(1).await[0]);
    }
    listening.stop().await;
    published.are_heard_by(&bus, "t", "late").await;
    bus.check().await.unwrap();
}

async fn a_missing_topic_is_an_error_and_stays_missing(broker: &KafkaBroker) {
    let mut config = KafkaConfig::new(broker.bootstrap());
    assert_eq!(config.missing_topics, MissingTopics::Refuse);
    config.topics = vec![Topic::new("absent")];
    let bus = KafkaEventBus::open(config).unwrap();
    let (handler, _heard) = telling(|_| Answer::Ack);
    for _ in 0..2 {
        let subscribed = bus.subscribe(subscription("absent", "g"), Arc::clone(&handler));
        for result in [
            bus.publish(&event("absent", "k", "{}")).await,
            bus.check().await,
            subscribed.await.map(drop),
        ] {
            let error = result.expect_err("no topic");
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            assert!(error.to_string().contains("topic absent"), "{error}");
        }
    }
}

/// A queue that is full refuses at once, however many events come.
async fn memory_is_bounded(bus: &KafkaEventBus) {
    const EVENTS: usize = 20_000;
    let payload = bytes::Bytes::from(vec![b'x'; 8 * 1024]);
    let mut running = JoinSet::new();
    for n in 0..EVENTS {
        let (bus, payload) = (bus.clone(), payload.clone());
        running.spawn(async move {
            let event = event("flood", &format!("k-{n}"), payload);
            bus.publish(&event).await
        });
    }
    let mut throttled = 0;
    while let Some(ended) = running.join_next().await {
        match ended.unwrap() {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Throttled => {
                assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
                throttled += 1;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Timeout, "{error}"),
        }
    }
    assert!(throttled > EVENTS / 4, "{throttled} of {EVENTS} throttled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_hangs_for_thirty_seconds_is_survived_with_the_defaults() {
    let broker = KafkaBroker::start().await;
    for topic in ["t", "t.dead"] {
        broker.create_topic(topic, 3).await;
    }
    let bus = KafkaEventBus::open(KafkaConfig::new(broker.bootstrap())).unwrap();
    let (handler, mut heard) = telling(|_| Answer::Ack);
    let listening = bus.subscribe(subscription("t", "early"), handler).await;
    let publishers = Publishers::start(&bus, "t", 4);
    publishers.go_on().await;
    broker.pause();
    let hangs = Instant::now();
    let published = bus.publish(&event("t", "x", "while hanging")).await;
    let error = published.expect_err("nobody answers");
    assert_eq!(
        (error.kind(), error.outcome()),
        (ErrorKind::Timeout, Outcome::Unknown)
    );
    // The pause itself is what is tested.
    tokio::time::sleep_until((hangs + Duration::from_secs(30)).into()).await;
    broker.resume();
    publishers.go_on().await;
    let mut published = publishers.stop().await;
    published.unknown.insert("while hanging".to_owned());
    let mut missing = published.acknowledged.clone();
    while !missing.is_empty() {
        missing.remove(&heard.texts(1).await[0]);
    }
    listening.unwrap().stop().await;
    published.are_heard_by(&bus, "t", "late").await;
}
