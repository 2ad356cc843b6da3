//! What the conformance suite cannot reach from outside: broken transactions and their neighbours.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use task_core::memory::ManualClock;
use task_core::ports::{
    Answer, Delivery, Event, EventBus, EventHandler, Group, Key, Kind, PutOptions, Redelivery,
    StartAt, StateStore, Subscription, Topic,
};
use tokio::sync::{Notify, Semaphore};

use super::database::Database;
use super::writer::Urgency;
use super::{Embedded, EmbeddedConfig, records};

/// A directory that is removed when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("embedded-unit-{}-{unique}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn open(&self) -> Embedded {
        let config = EmbeddedConfig::new(&self.0);
        Embedded::open(&config, Arc::new(ManualClock::default())).unwrap()
    }

    /// A connection of a foreign program.
    fn foreign(&self) -> Connection {
        Connection::open(self.0.join("tasks.db")).unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn put(database: &Database, id: &'static str) -> bool {
    let now = database.clock().now();
    let put = database.write("put", Urgency::Background, move |session| {
        let key = Key::new(Kind::TASK, id);
        records::put(session, &key, b"x", &PutOptions::default(), now)
    });
    put.await.is_ok()
}

async fn exists(embedded: &Embedded, id: &str) -> bool {
    let found = embedded.state_store().get(&Key::new(Kind::TASK, id)).await;
    found.unwrap().is_some()
}

#[tokio::test]
async fn what_shares_a_broken_transaction_is_answered_as_it_ended() {
    let directory = Directory::new();
    let embedded = directory.open();
    let database = &embedded.database;
    let broken = database.write("break", Urgency::Background, |session| {
        session.execute("INSERT INTO nowhere VALUES (1)", [])?;
        Ok(())
    });
    // Queued in this order, and gathered into one transaction because nobody is in a hurry.
    let (before, broken, after) = tokio::join!(put(database, "a"), broken, put(database, "b"));
    assert!(broken.is_err());
    assert_eq!(before, exists(&embedded, "a").await);
    assert_eq!(after, exists(&embedded, "b").await);
    assert!(
        after,
        "what stands behind the broken write gets a transaction of its own"
    );
}

#[tokio::test]
async fn versions_go_on_upwards_after_a_broken_transaction() {
    let directory = Directory::new();
    let embedded = directory.open();
    let store = embedded.state_store();
    let key = Key::new(Kind::TASK, "a");
    let mut last = 0;
    for _ in 0..5 {
        let broken = embedded
            .database
            .write("break", Urgency::Request, |session| {
                session.next()?;
                session.execute("INSERT INTO nowhere VALUES (1)", [])?;
                Ok(())
            });
        assert!(broken.await.is_err());
        let etag = store.put(&key, "x".into(), PutOptions::default()).await;
        let version: i64 = etag.unwrap().unwrap().as_str().parse().unwrap();
        assert!(version > last, "{version} after {last}");
        last = version;
    }
}

#[tokio::test]
async fn a_write_that_panics_harms_nobody_else() {
    let directory = Directory::new();
    let embedded = directory.open();
    let panics = embedded
        .database
        .write("panic", Urgency::Request, |_| -> Result<(), _> {
            panic!("on purpose")
        });
    assert!(panics.await.is_err());
    assert!(put(&embedded.database, "a").await && exists(&embedded, "a").await);
}

/// Answers each event as it is told, and writes down what it heard.
///
/// The payload `slow` waits for its permission.
#[derive(Debug)]
struct Handler {
    answer: Answer,
    heard: Mutex<Vec<(String, u32)>>,
    called: Notify,
    slow: Semaphore,
}

impl Handler {
    fn answering(answer: Answer) -> Arc<Self> {
        Arc::new(Self {
            answer,
            heard: Mutex::default(),
            called: Notify::new(),
            slow: Semaphore::new(0),
        })
    }

    fn heard(&self) -> Vec<(String, u32)> {
        self.heard.lock().unwrap().clone()
    }

    async fn hears(&self, calls: usize) {
        let waiting = async {
            while self.heard().len() < calls {
                self.called.notified().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        assert!(waited.is_ok(), "heard {:?}", self.heard());
    }
}

#[async_trait]
impl EventHandler for Handler {
    async fn handle(&self, delivery: &Delivery) -> Answer {
        let heard = (delivery.key.to_string(), delivery.attempt);
        self.heard.lock().unwrap().push(heard);
        self.called.notify_one();
        if delivery.payload == "slow" {
            self.slow.acquire().await.unwrap().forget();
        }
        self.answer.clone()
    }
}

fn subscription(pause: Duration) -> Subscription {
    Subscription {
        redelivery: Redelivery {
            max_deliveries: 10,
            first_pause: pause,
            longest_pause: pause,
        },
        ..Subscription::new(Topic::new("t"), Group::new("g"))
    }
}

fn event(key: &str) -> Event {
    Event {
        topic: Topic::new("t"),
        key: key.into(),
        payload: "x".into(),
    }
}

#[tokio::test]
async fn a_pause_goes_on_after_a_restart_and_what_was_finished_stays_finished() {
    let directory = Directory::new();
    let hour = subscription(Duration::from_secs(3600));
    {
        let bus = directory.open().event_bus();
        let refuses = Handler::answering(Answer::Retry);
        let running = bus.subscribe(hour.clone(), refuses.clone()).await.unwrap();
        bus.publish(&event("later")).await.unwrap();
        refuses.hears(1).await;
        running.stop().await;
    }
    let bus = directory.open().event_bus();
    let accepts = Handler::answering(Answer::Ack);
    let running = bus.subscribe(hour, accepts.clone()).await.unwrap();
    bus.publish(&event("marker")).await.unwrap();
    accepts.hears(1).await;
    assert_eq!(accepts.heard(), [("marker".to_owned(), 1)]);
    running.stop().await;
}

#[tokio::test]
async fn a_retry_that_was_accepted_does_not_come_back_after_a_restart() {
    let directory = Directory::new();
    let soon = subscription(Duration::from_millis(1));
    for (answer, key, calls) in [(Answer::Retry, "a", 2), (Answer::Ack, "b", 2)] {
        let bus = directory.open().event_bus();
        let handler = Handler::answering(answer);
        let running = bus.subscribe(soon.clone(), handler.clone()).await.unwrap();
        bus.publish(&event(key)).await.unwrap();
        handler.hears(calls).await;
        running.stop().await;
    }
    let bus = directory.open().event_bus();
    let last = Handler::answering(Answer::Ack);
    let running = bus.subscribe(soon, last.clone()).await.unwrap();
    bus.publish(&event("marker")).await.unwrap();
    last.hears(1).await;
    assert_eq!(last.heard(), [("marker".to_owned(), 1)]);
    running.stop().await;
}

#[tokio::test]
async fn an_answer_is_kept_while_it_cannot_be_stored() {
    let directory = Directory::new();
    let embedded = directory.open();
    let bus = embedded.event_bus();
    let handler = Handler::answering(Answer::Ack);
    let wanted = subscription(Duration::from_millis(1));
    let running = bus.subscribe(wanted, handler.clone()).await.unwrap();
    let sabotage = directory.foreign();
    let trigger =
        "CREATE TRIGGER stuck BEFORE UPDATE ON positions BEGIN SELECT RAISE(FAIL, 'stuck'); END";
    sabotage.execute_batch(trigger).unwrap();
    bus.publish(&event("a")).await.unwrap();
    handler.hears(1).await;
    // Long enough for the progress to be refused and for the pause after it.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    sabotage.execute_batch("DROP TRIGGER stuck").unwrap();
    bus.publish(&event("b")).await.unwrap();
    handler.hears(2).await;
    running.stop().await;
    let expected = [("a".to_owned(), 1), ("b".to_owned(), 1)];
    assert_eq!(handler.heard(), expected);
}

#[tokio::test]
async fn an_event_whose_publisher_gave_up_waiting_is_still_heard() {
    let directory = Directory::new();
    let bus = directory.open().event_bus();
    let handler = Handler::answering(Answer::Ack);
    let wanted = subscription(Duration::from_millis(1));
    let running = bus.subscribe(wanted, handler.clone()).await.unwrap();
    let event = event("a");
    // The writer waits for the lock, so that the publisher cannot be answered before it gives up.
    let lock = directory.foreign();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let gave_up = tokio::time::timeout(Duration::ZERO, bus.publish(&event)).await;
    assert!(gave_up.is_err());
    lock.execute_batch("COMMIT").unwrap();
    handler.hears(1).await;
    running.stop().await;
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_the_file_and_its_journal() {
    use std::os::unix::fs::PermissionsExt;

    let directory = Directory::new();
    std::fs::create_dir(&directory.0).unwrap();
    let embedded = directory.open();
    assert!(put(&embedded.database, "t-1").await);
    for name in ["tasks.db", "tasks.db-wal"] {
        let metadata = std::fs::metadata(directory.0.join(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o077, 0, "{name}");
    }
}

fn slow(key: &str) -> Event {
    Event {
        payload: "slow".into(),
        ..event(key)
    }
}

fn attempts(heard: &[(&str, u32)]) -> Vec<(String, u32)> {
    let heard = heard.iter();
    heard.map(|(key, n)| ((*key).to_owned(), *n)).collect()
}

/// A value that a foreign program reads from the file.
fn count(directory: &Directory, sql: &str) -> i64 {
    let row = directory.foreign().query_row(sql, [], |row| row.get(0));
    row.unwrap()
}

async fn becomes(directory: &Directory, sql: &str, wanted: i64) {
    let waiting = async {
        while count(directory, sql) != wanted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    assert!(waited.is_ok(), "{sql} is {}", count(directory, sql));
}

#[tokio::test]
async fn the_position_passes_a_call_that_takes_long_and_keeps_its_count() {
    let directory = Directory::new();
    let bus = directory.open().event_bus();
    let handler = Handler::answering(Answer::Ack);
    let wanted = subscription(Duration::from_millis(1));
    let running = bus.subscribe(wanted, handler.clone()).await.unwrap();
    let last = "SELECT place = (SELECT max(place) FROM events) FROM positions";
    bus.publish(&slow("a")).await.unwrap();
    bus.publish(&event("a")).await.unwrap();
    for _ in 0..3 {
        bus.publish(&event("b")).await.unwrap();
    }
    handler.hears(4).await;
    becomes(&directory, last, 1).await;
    let retries = "SELECT count(*) + sum(deliveries) FROM retries";
    assert_eq!(count(&directory, retries), 2);
    handler.slow.add_permits(1);
    handler.hears(5).await;
    becomes(&directory, "SELECT count(*) FROM retries", 0).await;
    running.stop().await;
    let expected = attempts(&[("a", 1), ("b", 1), ("b", 1), ("b", 1), ("a", 1)]);
    assert_eq!(handler.heard(), expected);
}

#[tokio::test]
async fn a_stop_leaves_what_did_not_begin_and_nothing_that_was_answered() {
    let directory = Directory::new();
    let wanted = subscription(Duration::from_millis(1));
    {
        let bus = directory.open().event_bus();
        let handler = Handler::answering(Answer::Ack);
        let running = bus
            .subscribe(wanted.clone(), handler.clone())
            .await
            .unwrap();
        for event in [slow("a"), event("a"), event("b")] {
            bus.publish(&event).await.unwrap();
        }
        handler.hears(2).await;
        let stop = tokio::spawn(running.stop());
        // The stop is raised before the call ends, so that the one behind it does not begin.
        tokio::task::yield_now().await;
        handler.slow.add_permits(1);
        stop.await.unwrap();
        assert_eq!(handler.heard(), attempts(&[("a", 1), ("b", 1)]));
    }
    let bus = directory.open().event_bus();
    let handler = Handler::answering(Answer::Ack);
    let running = bus.subscribe(wanted, handler.clone()).await.unwrap();
    handler.hears(1).await;
    bus.publish(&event("marker")).await.unwrap();
    handler.hears(2).await;
    running.stop().await;
    assert_eq!(handler.heard(), attempts(&[("a", 1), ("marker", 1)]));
}

#[tokio::test]
async fn an_event_is_finished_and_its_dead_letter_written_or_neither() {
    for stuck in ["INSERT ON events", "UPDATE ON positions"] {
        let directory = Directory::new();
        let wanted = subscription(Duration::from_millis(1));
        {
            let bus = directory.open().event_bus();
            let drops = Handler::answering(Answer::dropped("bad"));
            let running = bus.subscribe(wanted.clone(), drops.clone()).await.unwrap();
            bus.publish(&slow("a")).await.unwrap();
            drops.hears(1).await;
            let trigger =
                format!("CREATE TRIGGER stuck BEFORE {stuck} BEGIN SELECT RAISE(FAIL, 'x'); END");
            directory.foreign().execute_batch(&trigger).unwrap();
            drops.slow.add_permits(1);
            running.stop().await;
        }
        let dead = "SELECT count(*) FROM events WHERE topic = 't.dead'";
        assert_eq!(count(&directory, dead), 0, "{stuck}");
        let sabotage = directory.foreign();
        sabotage.execute_batch("DROP TRIGGER stuck").unwrap();
        let bus = directory.open().event_bus();
        let drops = Handler::answering(Answer::dropped("bad"));
        drops.slow.add_permits(1);
        let running = bus.subscribe(wanted, drops.clone()).await.unwrap();
        drops.hears(1).await;
        running.stop().await;
        assert_eq!(count(&directory, dead), 1, "{stuck}");
    }
}

#[tokio::test]
async fn a_new_group_takes_over_what_the_other_one_has_still_to_retry() {
    let directory = Directory::new();
    let bus = directory.open().event_bus();
    let hour = subscription(Duration::from_secs(3600));
    let refuses = Handler::answering(Answer::Retry);
    let running = bus.subscribe(hour.clone(), refuses.clone()).await.unwrap();
    bus.publish(&event("failing")).await.unwrap();
    refuses.hears(1).await;
    running.stop().await;
    let heir = Subscription {
        group: Group::new("heir"),
        start: StartAt::Group(hour.group.clone()),
        ..hour
    };
    let accepts = Handler::answering(Answer::Ack);
    let running = bus.subscribe(heir, accepts.clone()).await.unwrap();
    accepts.hears(1).await;
    running.stop().await;
    assert_eq!(accepts.heard(), attempts(&[("failing", 1)]));
}

#[tokio::test]
async fn a_stop_does_not_wait_for_the_backlog() {
    const BACKLOG: usize = 600;
    let directory = Directory::new();
    let bus = Arc::new(directory.open().event_bus());
    let mut publishing = tokio::task::JoinSet::new();
    for _ in 0..BACKLOG {
        let bus = bus.clone();
        publishing.spawn(async move { bus.publish(&event("")).await.unwrap() });
    }
    publishing.join_all().await;
    let wanted = Subscription {
        start: StartAt::Beginning,
        ..subscription(Duration::from_millis(1))
    };
    let handler = Handler::answering(Answer::Ack);
    let running = bus.subscribe(wanted, handler.clone()).await.unwrap();
    handler.hears(1).await;
    running.stop().await;
    let heard = handler.heard().len();
    assert!(heard < BACKLOG, "heard {heard}");
}
