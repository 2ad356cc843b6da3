//! A server that is killed, silent, or emptied.

use task_core::ports::{ErrorKind, Outcome};
use task_tests::process::redis::{AppendOnly, RedisOptions};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::*;
use crate::logs::Logs;

async fn server() -> RedisServer {
    let options = RedisOptions {
        append_only: AppendOnly::Always,
        ..RedisOptions::default()
    };
    RedisServer::start_with(options).await
}

/// Publishes until the bus accepts it.
async fn publish(bus: &Arc<dyn EventBus>, key: &str, payload: &str) {
    until("the event is accepted", async || {
        bus.publish(&event(key, payload)).await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_subscription_goes_on_after_the_server_was_killed_and_after_it_was_silent() {
    let mut server = server().await;
    let bus = bus(&server.url()).await;
    let mut listener = Listener::acknowledging(&bus, subscription("g")).await;
    publish(&bus, "k", "before").await;
    assert_eq!(listener.hear_payloads(1).await, ["before"]);
    server.kill();
    let refused = bus.publish(&event("k", "refused")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    bus.check().await.unwrap_err();
    server.restart().await;
    publish(&bus, "k", "after a kill").await;
    assert_eq!(listener.hear_payloads(1).await, ["after a kill"]);

    server.pause();
    let silent = bus.publish(&event("k", "unknown")).await.unwrap_err();
    assert_eq!(silent.kind(), ErrorKind::Timeout);
    assert_eq!(silent.outcome(), Outcome::Unknown);
    // Longer than a read may take: the reading connection is given up, too.
    let deadline = Instant::now() + Duration::from_secs(2);
    until("the read is given up", async || {
        (Instant::now() > deadline).then_some(())
    })
    .await;
    server.resume();
    // What was sent before the silence arrived.
    assert_eq!(listener.hear_payloads(1).await, ["unknown"]);
    publish(&bus, "k", "after a silence").await;
    assert_eq!(listener.hear_payloads(1).await, ["after a silence"]);
    is_finished(&server.url(), "g").await;
    listener.running.stop().await;
    bus.check().await.unwrap();
}

#[tokio::test]
async fn a_server_that_takes_no_writes_fails_the_check_and_says_why() {
    let server = server().await;
    let bus = bus(&server.url()).await;
    for (setting, refuses, accepts, code) in [
        ("maxmemory", "1", "0", "OOM"),
        ("min-replicas-to-write", "1", "0", "NOREPLICAS"),
    ] {
        bus.check().await.unwrap();
        server.command(&["CONFIG", "SET", setting, refuses]).await;
        let error = bus.check().await.expect_err(code);
        assert!(error.to_string().contains(code), "{error}");
        let refused = bus.publish(&event("k", "refused")).await;
        refused.expect_err("what the check says is true of events");
        server.command(&["CONFIG", "SET", setting, accepts]).await;
        bus.check().await.unwrap();
    }
    let keys = server.command(&["DBSIZE"]).await;
    assert_eq!(keys, redis::Value::Int(0), "a check leaves nothing");
}

#[tokio::test]
async fn a_publication_whose_connection_breaks_has_an_unknown_outcome() {
    let mut server = server().await;
    let bus = bus(&server.url()).await;
    bus.publish(&event("k", "first")).await.unwrap();
    server.pause();
    let publishing = Arc::clone(&bus);
    let publishing = tokio::spawn(async move { publishing.publish(&event("k", "lost")).await });
    tokio::task::yield_now().await;
    until("the command is sent", async || {
        // The first one has been answered, so whatever is unread in the socket is the second one.
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let port = format!(":{:04X}", server.port());
        let waits = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields[1].ends_with(&port) && !fields[4].ends_with(":00000000")
        };
        sockets.lines().skip(1).any(waits).then_some(())
    })
    .await;
    server.kill();
    let lost = publishing.await.unwrap().unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Unavailable, "{lost}");
    assert_eq!(lost.outcome(), Outcome::Unknown, "{lost}");
}

#[tokio::test]
async fn retries_and_their_count_survive_a_kill_of_the_server_and_of_the_subscriber() {
    let mut server = server().await;
    let url = server.url();
    let mut crashing = Process::start(&url, subscription("g"), |_| Answer::Retry);
    let bus = bus_with(&url, short()).await;
    publish(&bus, "k", "a").await;
    while crashing.listener.hear().await.attempt < 5 {}
    server.kill();
    crashing.crash();
    server.restart().await;
    let (_, _, _, deliveries) = pending(&url, "g").await.pop().unwrap();
    let mut heir = Listener::acknowledging(&bus, subscription("g")).await;
    let attempt = u64::from(heir.hear().await.attempt);
    assert_eq!(attempt, deliveries + 1);
    assert!(attempt >= 4, "attempt {attempt}");
    is_finished(&url, "g").await;
    heir.running.stop().await;
}

#[tokio::test]
async fn a_subscription_survives_the_loss_of_its_stream_and_of_its_group() {
    let server = server().await;
    let url = server.url();
    let bus = bus(&url).await;
    let mut listener = Listener::acknowledging(&bus, subscription("g")).await;
    publish(&bus, "k", "a").await;
    assert_eq!(listener.hear_payloads(1).await, ["a"]);
    command(&url, &["FLUSHALL"]).await;
    for payload in ["b", "c"] {
        publish(&bus, "k", payload).await;
    }
    assert_eq!(listener.hear_payloads(2).await, ["b", "c"]);
    command(&url, &["XGROUP", "DESTROY", STREAM, "g"]).await;
    for payload in ["d", "e"] {
        publish(&bus, "k", payload).await;
    }
    assert_eq!(listener.hear_payloads(2).await, ["d", "e"]);
    is_finished(&url, "g").await;
    assert_eq!(listener.more(), []);
    listener.running.stop().await;
}

#[tokio::test]
async fn a_dead_letter_is_buried_once_however_often_it_is_tried() {
    let server = server().await;
    let url = server.url();
    let bus = bus(&url).await;
    let gate = Arc::new(Semaphore::new(0));
    let open = Arc::clone(&gate);
    #[derive(Debug)]
    struct Dropping(Arc<Semaphore>);
    #[async_trait]
    impl EventHandler for Dropping {
        async fn handle(&self, _: &Delivery) -> Answer {
            self.0.acquire().await.unwrap().forget();
            Answer::dropped("bad")
        }
    }
    let handler = Arc::new(Dropping(gate));
    let running = bus.subscribe(subscription("g"), handler).await.unwrap();
    // The first one teaches the server the script.
    open.add_permits(1);
    publish(&bus, "k", "first").await;
    until("the first is buried", async || {
        let dead: u64 = ask(&url, &["XLEN", "task-events.dead"]).await;
        (dead == 1).then_some(())
    })
    .await;
    publish(&bus, "k", "bad").await;
    until("the event is in hand", async || {
        (!pending(&url, "g").await.is_empty()).then_some(())
    })
    .await;
    server.pause();
    open.add_permits(1);
    let deadline = Instant::now() + Duration::from_secs(4);
    until("it was tried more than once", async || {
        (Instant::now() > deadline).then_some(())
    })
    .await;
    server.resume();
    is_finished(&url, "g").await;
    running.stop().await;
    let dead: Vec<(String, Vec<String>)> =
        ask(&url, &["XRANGE", "task-events.dead", "-", "+"]).await;
    assert_eq!(dead.len(), 2, "{dead:?}");
    let mut fields = dead[1].1.clone();
    let offset = fields.iter().position(|name| name == "x-original-offset");
    let id = fields.remove(offset.unwrap() + 1);
    assert!(id.contains('-') && id != dead[1].0, "{id}");
    let expected = [
        ["data", "bad"],
        ["key", "k"],
        ["x-dead-letter-reason", "dropped: bad"],
        ["x-original-topic", STREAM],
    ];
    let rest = ["x-original-offset", "x-deliveries", "1"];
    assert_eq!(fields, [expected.as_flattened(), &rest].concat());
}

#[tokio::test]
async fn the_pause_before_a_retry_is_kept_over_a_restart_of_the_subscriber() {
    const PAUSE: Duration = Duration::from_secs(2);
    let server = server().await;
    let url = server.url();
    let patient = || {
        let mut patient = subscription("g");
        patient.redelivery.first_pause = PAUSE;
        patient.redelivery.longest_pause = PAUSE;
        patient
    };
    let first = bus(&url).await;
    let mut failing = Listener::start(&first, patient(), |_| Answer::Retry).await;
    publish(&first, "k", "bad").await;
    assert_eq!(failing.hear().await.attempt, 1);
    let failed = Instant::now();
    failing.running.stop().await;
    drop(first);
    let second = bus(&url).await;
    let mut heir = Listener::acknowledging(&second, patient()).await;
    // The event behind it in its key waits, another one does not.
    publish(&second, "k", "behind").await;
    publish(&second, "other", "other").await;
    assert_eq!(heir.hear_payloads(1).await, ["other"]);
    let again = heir.hear().await;
    assert_eq!((&*again.payload, again.attempt), (&b"bad"[..], 2));
    let waited = failed.elapsed();
    assert!(waited + Duration::from_millis(50) >= PAUSE, "{waited:?}");
    assert_eq!(heir.hear_payloads(1).await, ["behind"]);
    heir.running.stop().await;
}

#[tokio::test]
async fn an_outage_is_one_line_when_it_begins_and_one_when_it_is_over() {
    let logs = Logs::collect();
    let mut server = server().await;
    let url = server.url();
    let bus = bus(&url).await;
    let mut listener = Listener::acknowledging(&bus, subscription("streams-outage")).await;
    publish(&bus, "k", "before").await;
    assert_eq!(listener.hear_payloads(1).await, ["before"]);
    server.kill();
    // It reads, looks and is refused all the time; every attempt is a failure.
    let deadline = Instant::now() + Duration::from_secs(4);
    until("it was refused more than once", async || {
        bus.publish(&event("k", "lost")).await.unwrap_err();
        (Instant::now() > deadline).then_some(())
    })
    .await;
    server.restart().await;
    let begun = || logs.with(&["WARN", "streams-outage"]).len();
    until("the end is told", async || {
        let over = logs.with(&["streams-outage", "subscription goes on"]);
        (!over.is_empty()).then_some(())
    })
    .await;
    publish(&bus, "k", "after").await;
    while listener.hear_payloads(1).await != ["after"] {}
    listener.running.stop().await;
    assert_eq!(begun(), 1, "{:#?}", logs.with(&["streams-outage"]));
    assert_eq!(logs.with(&["streams-outage"]).len(), 2);
}

#[tokio::test]
async fn a_subscription_stops_though_the_server_is_gone() {
    let mut server = server().await;
    let bus = bus(&server.url()).await;
    let mut listener = Listener::start(&bus, subscription("g"), |_| Answer::Retry).await;
    publish(&bus, "k", "a").await;
    listener.hear().await;
    server.kill();
    let stopped = timeout(Duration::from_secs(10), listener.running.stop()).await;
    stopped.expect("it does not stop");
}
