//! Subscribers of a group that come and go, and what stays in the stream.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use adapters_direct::redis::Trimming;
use task_core::ports::StartAt;
use tokio::sync::Semaphore;

use super::*;

#[tokio::test]
async fn what_a_crashed_subscriber_had_is_taken_over_with_its_count_and_the_subscriber_removed() {
    let url = RedisServer::shared().await.next_database_url();
    let mut crashing = Process::start(&url, subscription("g"), |_| Answer::Retry);
    let bus = bus_with(&url, short()).await;
    bus.publish(&event("k", "a")).await.unwrap();
    let before = loop {
        let delivery = crashing.listener.hear().await;
        if delivery.attempt == 4 {
            break delivery;
        }
    };
    until("the third retry is stored", async || {
        let (_, _, _, deliveries) = pending(&url, "g").await.pop()?;
        (deliveries >= 3).then_some(())
    })
    .await;
    crashing.crash();
    let mut heir = Listener::acknowledging(&bus, subscription("g")).await;
    let after = heir.hear().await;
    assert_eq!(after.payload, before.payload);
    assert!(after.attempt >= before.attempt, "attempt {}", after.attempt);
    is_finished(&url, "g").await;
    until("the dead consumer is gone", async || {
        let consumers: Vec<Value> = ask(&url, &["XINFO", "CONSUMERS", STREAM, "g"]).await;
        (consumers.len() == 1).then_some(())
    })
    .await;
    heir.running.stop().await;
    let consumers: Vec<Value> = ask(&url, &["XINFO", "CONSUMERS", STREAM, "g"]).await;
    assert!(
        consumers.is_empty(),
        "a stopped subscriber stays: {consumers:?}"
    );
}

/// A handler whose calls wait until they may end.
#[derive(Debug)]
struct Slow {
    entered: AtomicUsize,
    may_end: Semaphore,
}

#[async_trait]
impl EventHandler for Slow {
    async fn handle(&self, _: &Delivery) -> Answer {
        self.entered.fetch_add(1, Ordering::SeqCst);
        self.may_end.acquire().await.unwrap().forget();
        Answer::Ack
    }
}

#[tokio::test]
async fn an_event_in_a_long_call_is_not_taken_over() {
    let url = RedisServer::shared().await.next_database_url();
    let bus = bus_with(&url, short()).await;
    let slow = Arc::new(Slow {
        entered: AtomicUsize::new(0),
        may_end: Semaphore::new(0),
    });
    let handler = Arc::<Slow>::clone(&slow);
    let running = bus.subscribe(subscription("g"), handler).await.unwrap();
    bus.publish(&event("k", "long")).await.unwrap();
    until("the call has begun", async || {
        (slow.entered.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    let mut other = Listener::acknowledging(&bus, subscription("g")).await;
    let (id, consumer, ..) = pending(&url, "g").await.pop().unwrap();
    let began: u64 = id.split_once('-').unwrap().0.parse().unwrap();
    until("several times the idle time has passed", async || {
        let (seconds, micros): (u64, u64) = ask(&url, &["TIME"]).await;
        let now = seconds * 1000 + micros / 1000;
        (now - began > 5 * u64::try_from(TAKE_OVER.as_millis()).unwrap()).then_some(())
    })
    .await;
    let (_, owner, _, deliveries) = pending(&url, "g").await.pop().unwrap();
    assert_eq!((owner, deliveries), (consumer, 1));
    assert_eq!(other.more(), []);
    slow.may_end.add_permits(1);
    is_finished(&url, "g").await;
    running.stop().await;
    other.running.stop().await;
    assert_eq!(slow.entered.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_group_beside_another_is_given_what_that_has_not_finished_and_no_more() {
    let url = RedisServer::shared().await.next_database_url();
    let bus = bus(&url).await;
    let mut old = Listener::start(&bus, subscription("old"), |delivery| {
        match &*delivery.payload {
            b"stuck" => Answer::Retry,
            _ => Answer::Ack,
        }
    })
    .await;
    for payload in ["a", "stuck", "b", "c"] {
        bus.publish(&event(payload, payload)).await.unwrap();
    }
    while old.hear().await.payload != "c" {}
    until("only one is unfinished", async || {
        (pending(&url, "old").await.len() == 1).then_some(())
    })
    .await;
    old.running.stop().await;
    bus.publish(&event("d", "d")).await.unwrap();
    let beside = Subscription {
        start: StartAt::Group(Group::new("old")),
        ..subscription("new")
    };
    let mut new = Listener::acknowledging(&bus, beside).await;
    let heard = [new.hear().await, new.hear().await];
    assert_eq!(
        heard.each_ref().map(|one| &*one.payload),
        [&b"stuck"[..], b"d"]
    );
    assert_eq!(heard[0].attempt, 1);
    is_finished(&url, "new").await;
    assert_eq!(
        pending(&url, "old").await.len(),
        1,
        "the other group changed"
    );
    assert_eq!(new.more(), []);
    new.running.stop().await;
}

#[tokio::test]
async fn only_what_every_group_has_finished_is_trimmed() {
    const EVENTS: usize = 2000;
    let url = RedisServer::shared().await.next_database_url();
    command(
        &url,
        &["XGROUP", "CREATE", STREAM, "sidecar", "0", "MKSTREAM"],
    )
    .await;
    let config = StreamConfig {
        trimming: Trimming::Finished { keep: 100 },
        ..short()
    };
    let bus = bus_with(&url, config).await;
    let mut listener = Listener::acknowledging(&bus, subscription("task-api")).await;
    for n in 0..EVENTS {
        bus.publish(&event("k", &n.to_string())).await.unwrap();
    }
    listener.hear_payloads(EVENTS).await;
    is_finished(&url, "task-api").await;
    // The sidecar finishes all but one.
    let printed = python(&url, &["read", STREAM, "sidecar", &EVENTS.to_string()]).await;
    assert_eq!(printed.len(), EVENTS);
    let ids: Vec<String> = pending(&url, "sidecar")
        .await
        .into_iter()
        .map(|row| row.0)
        .collect();
    let left = ids[EVENTS / 2].as_str();
    let done = ids.iter().map(String::as_str).filter(|id| *id != left);
    let acknowledge: Vec<&str> = ["XACK", STREAM, "sidecar"]
        .into_iter()
        .chain(done)
        .collect();
    command(&url, &acknowledge).await;
    let length = async || ask::<usize>(&url, &["XLEN", STREAM]).await;
    until("half of it is trimmed", async || {
        (length().await < EVENTS * 6 / 10).then_some(())
    })
    .await;
    let kept: Vec<Value> = ask(&url, &["XRANGE", STREAM, left, left]).await;
    assert_eq!(kept.len(), 1, "an unfinished event is gone");
    assert!(length().await >= EVENTS / 2);
    command(&url, &["XACK", STREAM, "sidecar", left]).await;
    until("the rest is trimmed", async || {
        (length().await < 300).then_some(())
    })
    .await;
    assert!(length().await >= 100);
    listener.running.stop().await;
}

#[tokio::test]
async fn a_single_subscriber_keeps_the_order_of_a_key_through_retries() {
    const EVENTS: usize = 300;
    const KEYS: usize = 7;
    let url = RedisServer::shared().await.next_database_url();
    let bus = bus(&url).await;
    let done = Arc::new(Mutex::new(Vec::new()));
    let handled = Arc::clone(&done);
    let mut listener = Listener::start(&bus, subscription("g"), move |delivery| {
        let number: usize = std::str::from_utf8(&delivery.payload)
            .unwrap()
            .parse()
            .unwrap();
        if number.is_multiple_of(11) && delivery.attempt < 3 {
            return Answer::Retry;
        }
        handled.lock().unwrap().push(number);
        Answer::Ack
    })
    .await;
    for n in 0..EVENTS {
        let key = format!("k-{}", n % KEYS);
        bus.publish(&event(&key, &n.to_string())).await.unwrap();
    }
    is_finished(&url, "g").await;
    while done.lock().unwrap().len() < EVENTS {
        listener.hear().await;
    }
    let done = done.lock().unwrap().clone();
    for key in 0..KEYS {
        let of_key: Vec<usize> = done.iter().copied().filter(|n| n % KEYS == key).collect();
        assert!(of_key.is_sorted(), "{of_key:?}");
    }
    listener.running.stop().await;
}

#[tokio::test]
async fn a_pending_event_that_somebody_removed_holds_up_nothing() {
    let url = RedisServer::shared().await.next_database_url();
    let bus = bus_with(&url, short()).await;
    for payload in ["removed", "kept"] {
        bus.publish(&event("k", payload)).await.unwrap();
    }
    python(&url, &["read", STREAM, "g", "2"]).await;
    let (id, ..) = pending(&url, "g").await.swap_remove(0);
    command(&url, &["XDEL", STREAM, &id]).await;
    let mut listener = Listener::acknowledging(&bus, subscription("g")).await;
    assert_eq!(listener.hear_payloads(1).await, ["kept"]);
    is_finished(&url, "g").await;
    listener.running.stop().await;
}
