//! What lies between a client and the broker: connections cut inside a frame, and slow ones.

use std::time::Duration;

use adapters_direct::kafka::{KafkaConfig, KafkaEventBus};
use task_core::ports::{Answer, EventBus};
use task_tests::process::kafka::KafkaOptions;
use task_tests::process::{KafkaBroker, Proxy, Way};
use task_tests::wait::until;

use super::faults::Publishers;
use super::{subscription, telling};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_slow_or_cut_inside_a_frame_lose_nothing() {
    let proxy = Proxy::to(0).await;
    let address = format!("127.0.0.1:{}", proxy.port());
    let advertised = (
        "advertised.listeners".to_owned(),
        format!("PLAINTEXT://{address}"),
    );
    let broker = KafkaBroker::start_with(KafkaOptions {
        properties: vec![advertised],
        ..KafkaOptions::default()
    })
    .await;
    proxy.lead_to(broker.port());
    for topic in ["t", "t.dead"] {
        broker.create_topic(topic, 3).await;
    }
    let bus = KafkaEventBus::open(KafkaConfig::new(&address)).unwrap();
    let (handler, mut heard) = telling(|_| Answer::Ack);
    let listening = bus.subscribe(subscription("t", "early"), handler).await;
    let publishers = Publishers::start(&bus, "t", 4);
    publishers.go_on().await;
    for way in [Way::There, Way::Back] {
        let before = proxy.cuts();
        proxy.cut_every(way, 29);
        until("connections are cut", async || {
            (proxy.cuts() >= before + 5).then_some(())
        })
        .await;
        proxy.cut_every(way, 0);
        publishers.go_on().await;
    }
    proxy.delay(Duration::from_millis(300));
    publishers.go_on().await;
    proxy.delay(Duration::ZERO);
    let published = publishers.stop().await;
    assert!(!published.acknowledged.is_empty());
    let mut missing = published.acknowledged.clone();
    while !missing.is_empty() {
        missing.remove(&heard.texts(1).await[0]);
    }
    listening.unwrap().stop().await;
    published.are_heard_by(&bus, "t", "late").await;
}
