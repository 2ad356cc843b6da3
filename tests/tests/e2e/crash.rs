//! `kill -9` under load: the clients' own log is the judge.
//!
//! Each writer owns its tasks and writes down what it was told: acknowledged, refused, or cut off.
//! A cut-off change may or may not have happened; the task's tag after the restart tells which. In the
//! end every task and every event must be exactly what the logs allow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adapters_direct::embedded::{Embedded, EmbeddedConfig};
use async_trait::async_trait;
use futures_util::future::join_all;
use serde_json::{Value, json};
use task_core::domain::{IdempotencyKey, TaskId};
use task_core::memory::SeededEntropy;
use task_core::ports::{
    Answer, Delivery, Entropy, EventBus, EventHandler, Group, Key, Kind, StartAt, StateStore,
    Subscription, SystemClock, Topic,
};
use task_tests::process::{Connection, TaskServer, TaskServerOptions, TestDirectory};
use task_tests::wait::until;

const WRITERS: usize = 64;
const KILLS: usize = 200;

/// An event as (task, revision, type).
type Seen = (String, String, String);

/// What one writer knows.
#[derive(Debug)]
struct Writer {
    name: usize,
    creates: usize,
    /// Its current task: id, revision, status.
    current: Option<(String, u64, &'static str)>,
    /// Tasks that it left behind, with their last revision; `None` is deleted.
    tasks: BTreeMap<String, Option<u64>>,
    events: BTreeSet<Seen>,
    /// The change that was cut off, if the last one was.
    cut_off: Option<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Create {
        key: String,
    },
    Status {
        to: &'static str,
    },
    Delete,
    /// Refused on purpose: it carries a tag that the task never had.
    Refused,
}

fn revision_of(tag: &str) -> u64 {
    tag.trim_matches('"')
        .split_once('.')
        .unwrap()
        .1
        .parse()
        .unwrap()
}

impl Writer {
    fn new(name: usize) -> Self {
        Self {
            name,
            creates: 0,
            current: None,
            tasks: BTreeMap::new(),
            events: BTreeSet::new(),
            cut_off: None,
        }
    }

    /// Works until the server is gone.
    async fn work(&mut self, server: &TaskServer) {
        let Ok(mut connection) = Connection::open(server.address()).await else {
            return;
        };
        if let Some(change) = self.cut_off.take()
            && self.resolve(&mut connection, change).await.is_err()
        {
            return;
        }
        loop {
            let change = self.next();
            match self.send(&mut connection, &change).await {
                Ok(()) => {}
                Err(_) => {
                    // A change in two requests says itself which one was cut off.
                    self.cut_off.get_or_insert(change);
                    return;
                }
            }
        }
    }

    fn next(&mut self) -> Change {
        match self
            .current
            .as_ref()
            .map(|(_, revision, status)| (*revision, *status))
        {
            None => {
                self.creates += 1;
                Change::Create {
                    key: format!("{}-{}", self.name, self.creates),
                }
            }
            Some((1, _)) => Change::Status { to: "in_progress" },
            Some((2, "in_progress")) if self.creates.is_multiple_of(3) => Change::Refused,
            Some((_, "in_progress")) => Change::Status { to: "completed" },
            Some(_) => Change::Delete,
        }
    }

    async fn send(&mut self, connection: &mut Connection, change: &Change) -> std::io::Result<()> {
        let current = self.current.clone();
        let target = current.as_ref().map(|(id, ..)| format!("/tasks/{id}"));
        match change {
            Change::Create { key } => {
                let headers = [("idempotency-key", key.as_str())];
                let body = json!({ "title": key }).to_string();
                let answer = connection.send("POST", "/tasks", &headers, &body).await?;
                assert_eq!(answer.status, 201, "{}", answer.text());
                let id = answer.json()["id"].as_str().unwrap().to_owned();
                self.saw(&id, 1, "task.created");
                self.current = Some((id, 1, "pending"));
            }
            Change::Status { to } => {
                let (id, revision, _) = current.unwrap();
                let target = format!("{}/status?status={to}", target.unwrap());
                let answer = connection.send("PUT", &target, &[], "").await?;
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert_eq!(revision_of(answer.header("etag").unwrap()), revision + 1);
                self.changed(&id, revision + 1, to);
            }
            Change::Refused => {
                let headers = [("if-match", "\"9.9\"")];
                let body = r#"{"title":"must not happen"}"#;
                let answer = connection
                    .send("PUT", &target.unwrap(), &headers, body)
                    .await?;
                assert_eq!(answer.status, 412, "{}", answer.text());
                // Goes on with a change that is accepted.
                let (id, revision, _) = current.unwrap();
                let target = format!("/tasks/{id}/status?status=completed");
                let answer = connection.send("PUT", &target, &[], "").await;
                match answer {
                    Ok(answer) => {
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        self.changed(&id, revision + 1, "completed");
                    }
                    Err(error) => {
                        self.cut_off = Some(Change::Status { to: "completed" });
                        return Err(error);
                    }
                }
            }
            Change::Delete => {
                let (id, revision, _) = current.unwrap();
                // Every other task is kept, so that the end has something to compare.
                if self.creates.is_multiple_of(2) {
                    self.tasks.insert(id, Some(revision));
                } else {
                    let answer = connection.send("DELETE", &target.unwrap(), &[], "").await?;
                    assert_eq!(answer.status, 204, "{}", answer.text());
                    self.tasks.insert(id, None);
                }
                self.current = None;
            }
        }
        Ok(())
    }

    fn saw(&mut self, id: &str, revision: u64, event_type: &str) {
        let revision = format!("0.{revision}");
        self.events
            .insert((id.to_owned(), revision, event_type.to_owned()));
    }

    fn changed(&mut self, id: &str, revision: u64, to: &'static str) {
        self.saw(id, revision, &format!("task.{to}"));
        self.current = Some((id.to_owned(), revision, to));
    }

    /// Finds out whether the cut-off change happened.
    async fn resolve(
        &mut self,
        connection: &mut Connection,
        change: Change,
    ) -> std::io::Result<()> {
        let id = match &change {
            Change::Create { key } => {
                let key = IdempotencyKey::parse(key).unwrap();
                TaskId::for_idempotency_key(&key).as_str().to_owned()
            }
            Change::Status { .. } | Change::Delete | Change::Refused => {
                self.current.as_ref().unwrap().0.clone()
            }
        };
        let answer = connection
            .send("GET", &format!("/tasks/{id}"), &[], "")
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.cut_off = Some(change);
                return Err(error);
            }
        };
        let found = (answer.status == 200).then(|| revision_of(answer.header("etag").unwrap()));
        match (change, found) {
            (Change::Create { .. }, Some(revision)) => {
                assert_eq!(revision, 1);
                self.saw(&id, 1, "task.created");
                self.current = Some((id, 1, "pending"));
            }
            (Change::Create { .. }, None) => {}
            (Change::Delete, None) => {
                self.tasks.insert(id, None);
                self.current = None;
            }
            (Change::Status { to }, Some(revision)) => {
                let (_, before, _) = self.current.clone().unwrap();
                assert!(
                    revision == before || revision == before + 1,
                    "{id} went back or ahead"
                );
                if revision == before + 1 {
                    self.changed(&id, revision, to);
                }
            }
            (Change::Delete | Change::Refused, Some(revision)) => {
                assert_eq!(
                    revision,
                    self.current.as_ref().unwrap().1,
                    "{id} went back or ahead"
                );
            }
            (change, None) => panic!("{id} is lost after {change:?}"),
        }
        Ok(())
    }
}

/// Writes down every event that comes.
#[derive(Debug, Default)]
struct Judge {
    seen: Mutex<BTreeSet<Seen>>,
}

#[async_trait]
impl EventHandler for Judge {
    async fn handle(&self, delivery: &Delivery) -> Answer {
        let event: Value = serde_json::from_slice(&delivery.payload).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let seen = (
            text(&event["subject"]),
            text(&event["taskrev"]),
            text(&event["type"]),
        );
        self.seen.lock().unwrap().insert(seen);
        Answer::Ack
    }
}

fn judge_subscription() -> Subscription {
    Subscription {
        start: StartAt::Beginning,
        ..Subscription::new(Topic::new("task-events"), Group::new("judge"))
    }
}

fn open(data: &TestDirectory) -> Embedded {
    Embedded::open(&EmbeddedConfig::new(data.path()), Arc::new(SystemClock)).unwrap()
}

/// Registers the judge's group before the first event, so that nothing is removed unseen.
async fn register_judge(data: &TestDirectory) {
    let bus = open(data).event_bus();
    let handler = Arc::new(Judge::default());
    bus.subscribe(judge_subscription(), handler)
        .await
        .unwrap()
        .stop()
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_server_is_killed_200_times() {
    let data = TestDirectory::new("kill");
    register_judge(&data).await;
    let seed = u64::from(std::process::id());
    let entropy = SeededEntropy::new(seed);
    let options = TaskServerOptions::default().arg("--log").arg("error");
    let mut writers: Vec<Writer> = (0..WRITERS).map(Writer::new).collect();
    for _ in 0..KILLS {
        let server = TaskServer::start_with(data.path(), &options).await;
        let mut random = [0; 1];
        entropy.fill(&mut random);
        let life = Duration::from_millis(5 + u64::from(random[0]));
        let work = join_all(writers.iter_mut().map(|writer| writer.work(&server)));
        let kill = async {
            // The moment of death is what varies: it is no wait for anything.
            tokio::time::sleep(life).await;
            let id = server.id().to_string();
            std::process::Command::new("kill")
                .args(["-9", &id])
                .status()
                .unwrap();
        };
        tokio::join!(work, kill);
    }
    finish(&data, &options, &mut writers).await;
    compare(&data, &writers, seed).await;
}

/// Resolves what the last kill cut off, and lets the relay finish.
async fn finish(data: &TestDirectory, options: &TaskServerOptions, writers: &mut [Writer]) {
    let server = TaskServer::start_with(data.path(), options).await;
    for writer in writers {
        let mut connection = server.connect().await;
        if let Some(change) = writer.cut_off.take() {
            writer.resolve(&mut connection, change).await.unwrap();
        }
        if let Some((id, revision, _)) = writer.current.take() {
            writer.tasks.insert(id, Some(revision));
        }
    }
    assert!(server.stop().success());
}

async fn compare(data: &TestDirectory, writers: &[Writer], seed: u64) {
    let embedded = open(data);
    let store = embedded.state_store();
    let left = store.pending(None, 1).await.unwrap();
    assert!(left.is_empty(), "events stay pending after a graceful stop");
    let mut tasks = 0;
    for (id, expected) in writers.iter().flat_map(|writer| &writer.tasks) {
        let stored = store.get(&Key::new(Kind::TASK, id.as_str())).await.unwrap();
        let found = stored.map(|stored| {
            let record: Value = serde_json::from_slice(&stored.value).unwrap();
            record["_meta"]["rev"].as_u64().unwrap()
        });
        assert_eq!(found, *expected, "task {id}, seed {seed}");
        tasks += 1;
    }
    let expected: BTreeSet<Seen> = writers.iter().flat_map(|w| w.events.clone()).collect();
    let judge = Arc::new(Judge::default());
    let bus = embedded.event_bus();
    let subscribed = bus
        .subscribe(judge_subscription(), Arc::<Judge>::clone(&judge))
        .await
        .unwrap();
    until("the judge has heard everything", async || {
        (judge.seen.lock().unwrap().len() >= expected.len()).then_some(())
    })
    .await;
    subscribed.stop().await;
    let seen = judge.seen.lock().unwrap().clone();
    let missing: Vec<_> = expected.difference(&seen).collect();
    let phantom: Vec<_> = seen.difference(&expected).collect();
    assert!(missing.is_empty(), "missing {missing:?}, seed {seed}");
    assert!(phantom.is_empty(), "phantom {phantom:?}, seed {seed}");
    println!(
        "{KILLS} kills, {tasks} tasks and {} events compared, seed {seed}",
        seen.len()
    );
}
