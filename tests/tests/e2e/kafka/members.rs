//! Members of a group that stop, crash, join and leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adapters_direct::kafka::KafkaEventBus;
use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use task_core::ports::{Answer, Delivery, ErrorKind, EventBus, EventHandler};
use task_tests::process::KafkaBroker;
use task_tests::wait::until;
use tokio::sync::{Semaphore, mpsc};

use super::{bus, config, event, subscription, telling};

#[tokio::test]
async fn what_is_finished_behind_a_failing_event_does_not_come_again() {
    let broker = KafkaBroker::shared().await;
    broker.create_topic("behind", 1).await;
    broker.create_topic("behind.dead", 1).await;
    let first = bus(broker);
    let (handler, mut heard) = telling(|delivery| match &*delivery.payload {
        b"bad" => Answer::Retry,
        _ => Answer::Ack,
    });
    let running = first
        .subscribe(subscription("behind", "g"), handler)
        .await
        .unwrap();
    first.publish(&event("behind", "bad", "bad")).await.unwrap();
    for n in 0..500 {
        let event = event("behind", &format!("k-{n}"), n.to_string());
        first.publish(&event).await.unwrap();
    }
    let mut good = 0;
    let mut tries = 0;
    while good < 500 || tries < 3 {
        match &*heard.next().await.payload {
            b"bad" => tries += 1,
            _ => good += 1,
        }
    }
    running.stop().await;
    drop(first);

    let second = bus(broker);
    let (handler, mut heard) = telling(|_| Answer::Ack);
    let running = second
        .subscribe(subscription("behind", "g"), handler)
        .await
        .unwrap();
    let mark = event("behind", "mark", "mark");
    second.publish(&mark).await.unwrap();
    let again = heard.next().await;
    assert_eq!(&*again.payload, b"bad");
    assert!(again.attempt > 3, "attempt {}", again.attempt);
    assert_eq!(heard.texts(1).await, ["mark"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_events_than_a_member_takes_in_hand_are_all_handled_once() {
    const EVENTS: usize = 15_000;
    let broker = KafkaBroker::shared().await;
    broker.create_topic("much", 3).await;
    broker.create_topic("much.dead", 1).await;
    let bus = bus(broker);
    let (slow, mut calls) = Slow::new();
    let handler = Arc::<Slow>::clone(&slow);
    let running = bus.subscribe(subscription("much", "g"), handler).await;
    let mut publishing = tokio::task::JoinSet::new();
    for n in 0..EVENTS {
        let bus = bus.clone();
        publishing.spawn(async move { bus.publish(&event("much", &format!("k-{n}"), "{}")).await });
        // As many as the producer's queue takes.
        if publishing.len() >= 5_000 {
            publishing.join_next().await.unwrap().unwrap().unwrap();
        }
    }
    for published in publishing.join_all().await {
        published.unwrap();
    }
    // All of them are in the log and none is answered: the member has stopped reading by now, or
    // will at its limit.
    slow.may_end.add_permits(2 * EVENTS);
    let mut handled = std::collections::BTreeSet::new();
    while handled.len() < EVENTS {
        let call = tokio::time::timeout(super::PATIENCE, calls.recv()).await;
        let key = call
            .unwrap_or_else(|_| panic!("only {} calls", handled.len()))
            .unwrap();
        assert!(handled.insert(key), "one event came twice");
    }
    running.unwrap().stop().await;
    assert!(calls.try_recv().is_err(), "one event came twice");
}

/// Calls wait for permission.
#[derive(Debug)]
struct Slow {
    entered: mpsc::UnboundedSender<String>,
    may_end: Semaphore,
    running: AtomicBool,
}

impl Slow {
    fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<String>) {
        let (entered, calls) = mpsc::unbounded_channel();
        let slow = Self {
            entered,
            may_end: Semaphore::new(0),
            running: AtomicBool::new(false),
        };
        (Arc::new(slow), calls)
    }
}

#[async_trait]
impl EventHandler for Slow {
    async fn handle(&self, delivery: &Delivery) -> Answer {
        self.running.store(true, Ordering::SeqCst);
        let _ = self.entered.send(delivery.key.to_string());
        let permit = self.may_end.acquire().await;
        permit.unwrap().forget();
        self.running.store(false, Ordering::SeqCst);
        Answer::Ack
    }
}

#[tokio::test]
async fn what_is_in_hand_when_a_member_stops_comes_to_the_next_one() {
    const EVENTS: usize = 50;
    let broker = KafkaBroker::shared().await;
    broker.create_topic("in-hand", 1).await;
    broker.create_topic("in-hand.dead", 1).await;
    let bus = bus(broker);
    for n in 0..EVENTS {
        let event = event("in-hand", &format!("k-{n}"), n.to_string());
        bus.publish(&event).await.unwrap();
    }
    let (slow, mut calls) = Slow::new();
    let handler = Arc::<Slow>::clone(&slow);
    let members = subscription("in-hand", "g");
    let one = bus.subscribe(members.clone(), handler).await.unwrap();
    let mut begun = Vec::new();
    while begun.len() < members.concurrency {
        begun.push(calls.recv().await.unwrap());
    }
    // The calls that run end well; what waits behind them was read and not handled.
    slow.may_end.add_permits(EVENTS);
    one.stop().await;
    while let Ok(key) = calls.try_recv() {
        begun.push(key);
    }
    let (handler, mut heard) = telling(|_| Answer::Ack);
    let two = bus.subscribe(members, handler).await.unwrap();
    bus.publish(&event("in-hand", "mark", "mark"))
        .await
        .unwrap();
    while begun.len() < EVENTS {
        begun.push(heard.next().await.key.to_string());
    }
    begun.sort();
    let mut all: Vec<String> = (0..EVENTS).map(|n| format!("k-{n}")).collect();
    all.sort();
    assert_eq!(begun, all);
    two.stop().await;
}

/// A member in the middle of a call, and one that takes its partition over.
struct Handover {
    slow: Arc<Slow>,
    first: KafkaEventBus,
    second: super::Heard,
    running: [task_core::background::Background; 2],
}

async fn handover(broker: &KafkaBroker, topic: &str, release_timeout: Duration) -> Handover {
    // The range strategy gives partition 0 to whoever comes first by name, so all are used.
    broker.create_topic(topic, 2).await;
    broker.create_topic(&format!("{topic}.dead"), 1).await;
    let mut config = config(broker);
    config.release_timeout = release_timeout;
    let first = KafkaEventBus::open(config).unwrap();
    let (slow, mut calls) = Slow::new();
    let handler = Arc::<Slow>::clone(&slow);
    let members = subscription(topic, "g");
    let one = first.subscribe(members.clone(), handler).await.unwrap();
    // One key a partition: FNV-1a of "a" is even, of "b" odd.
    for key in ["a", "b"] {
        first.publish(&event(topic, key, key)).await.unwrap();
        calls.recv().await.unwrap();
    }
    let (handler, second) = telling(|_| Answer::Ack);
    let two = bus(broker).subscribe(members, handler).await.unwrap();
    Handover {
        slow,
        first,
        second,
        running: [one, two],
    }
}

#[tokio::test]
async fn partitions_move_when_running_calls_have_ended() {
    let broker = KafkaBroker::shared().await;
    let Handover {
        slow,
        first,
        mut second,
        running,
    } = handover(broker, "handover", Duration::from_secs(20)).await;
    // Longer than any heartbeat: the group waits, and the second member hears nothing.
    let early = tokio::time::timeout(Duration::from_secs(3), second.0.recv()).await;
    assert!(early.is_err(), "{early:?} beside a running call");
    slow.may_end.add_permits(1_000);
    for n in 0..20 {
        let event = event("handover", &format!("k-{n}"), format!("after {n}"));
        first.publish(&event).await.unwrap();
    }
    // What had been handled does not come again.
    let heard = second.texts(1).await;
    assert!(heard[0].starts_with("after"), "{heard:?}");
    for member in running {
        member.stop().await;
    }
}

#[tokio::test]
async fn a_call_that_does_not_end_holds_up_its_group_no_longer_than_the_limit() {
    let broker = KafkaBroker::shared().await;
    let Handover {
        slow,
        mut second,
        running,
        ..
    } = handover(broker, "stuck", Duration::from_millis(500)).await;
    let again = second.next().await;
    assert!(["a", "b"].contains(&&*again.key), "{again:?}");
    assert!(slow.running.load(Ordering::SeqCst), "the call still runs");
    slow.may_end.add_permits(1_000);
    for member in running {
        member.stop().await;
    }
}

#[tokio::test]
async fn a_member_that_crashes_is_replaced_and_nothing_is_lost() {
    let broker = KafkaBroker::shared().await;
    broker.create_topic("crash", 2).await;
    broker.create_topic("crash.dead", 1).await;
    // A runtime that ends takes its member along, in the middle of a call.
    let crashing = tokio::runtime::Runtime::new().unwrap();
    let (slow, mut calls) = Slow::new();
    let (bootstrap, handler) = (config(broker), Arc::<Slow>::clone(&slow));
    let running = crashing
        .spawn(async move {
            let bus = KafkaEventBus::open(bootstrap).unwrap();
            bus.subscribe(subscription("crash", "g"), handler).await
        })
        .await;
    let running = running.unwrap().unwrap();
    let bus = bus(broker);
    for n in 0..10 {
        let event = event("crash", &format!("k-{n}"), n.to_string());
        bus.publish(&event).await.unwrap();
    }
    calls.recv().await.unwrap();
    crashing.shutdown_background();
    until("the member is gone", async || {
        running.is_finished().then_some(())
    })
    .await;
    let (handler, mut heard) = telling(|_| Answer::Ack);
    let next = bus.subscribe(subscription("crash", "g"), handler).await;
    let mut all = heard.texts(10).await;
    all.sort();
    let expected: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    assert_eq!(all, expected);
    next.unwrap().stop().await;
}

#[tokio::test]
async fn a_group_that_somebody_shares_by_another_strategy_is_refused_with_advice() {
    let broker = KafkaBroker::shared().await;
    for topic in ["minds", "minds.dead"] {
        broker.create_topic(topic, 3).await;
    }
    let ours = subscription("minds", "g");
    let theirs: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .set("group.id", ours.group.as_str())
        .set("partition.assignment.strategy", "cooperative-sticky")
        .create()
        .unwrap();
    theirs.subscribe(&["minds"]).unwrap();
    let reading = async {
        loop {
            theirs.recv().await.unwrap();
        }
    };
    let refused = async {
        until("the other one has joined", async || {
            (theirs.assignment().ok()?.count() == 3).then_some(())
        })
        .await;
        let (handler, _heard) = telling(|_| Answer::Ack);
        let refused = bus(broker).subscribe(ours, handler).await;
        refused.map(drop).expect_err("they share otherwise")
    };
    let error = tokio::select! {
        error = refused => error,
        () = reading => unreachable!("it reads for ever"),
    };
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let message = error.to_string();
    let advice = "set its partition.assignment.strategy to range";
    assert!(
        message.contains("InconsistentGroupProtocol: ") && message.contains(advice),
        "{message}"
    );
}
