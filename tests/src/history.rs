//! Clients that know what they were told, and what may therefore be true.
//!
//! Each writer owns its tasks and writes down every answer: acknowledged, refused, or none. A change
//! without an answer may or may not have happened; the task's tag tells which as soon as it can be read,
//! unless a server that sleeps may still make it: then the task is left [in doubt](Doubts).
#![expect(
    clippy::unwrap_used,
    reason = "a test ends at the first surprise, and its name says what it shows"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::process::{Connection, Response, TaskServer};
use crate::wait::until;
use async_trait::async_trait;
use futures_util::future::join_all;
use serde_json::{Value, json};
use task_core::domain::{IdempotencyKey, TaskId};
use task_core::ports::{Answer, Delivery, EventHandler};

/// An event as (task, revision, type).
pub type Seen = (String, String, String);

/// An answer with the expected status; 503 leaves open what happened, and anything else is a bug.
fn answered(answer: Response, expected: u16) -> std::io::Result<Response> {
    match answer.status {
        503 => Err(std::io::Error::other(answer.text())),
        status => {
            assert_eq!(status, expected, "{}", answer.text());
            Ok(answer)
        }
    }
}

/// What may have happened, and may yet.
#[derive(Debug, Default)]
pub struct Doubts {
    /// What each task in doubt may be, by its revision; `None` is no task.
    pub tasks: BTreeMap<String, BTreeSet<Option<u64>>>,
    /// The events that these changes have, if they were made.
    pub events: BTreeSet<Seen>,
}

/// What one writer knows.
#[derive(Debug)]
pub struct Writer {
    name: usize,
    creates: usize,
    /// Its current task: id, revision, status.
    current: Option<(String, u64, &'static str)>,
    /// Tasks that it left behind, with their last revision; `None` is deleted.
    pub tasks: BTreeMap<String, Option<u64>>,
    /// The events that its acknowledged changes have.
    pub events: BTreeSet<Seen>,
    /// The change that was cut off, if the last one was.
    cut_off: Option<Change>,
    /// When it begins no further change.
    pub rests_at: Option<Instant>,
    /// Tasks that it gave up at a change without an answer; absent if it looks what became of them.
    pub doubts: Option<Doubts>,
    /// Why the last request that failed did so.
    pub failed: Option<String>,
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

fn id_of(key: &str) -> String {
    let key = IdempotencyKey::parse(key).unwrap();
    TaskId::for_idempotency_key(&key).as_str().to_owned()
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
    /// A writer that has done nothing yet.
    #[must_use]
    pub fn new(name: usize) -> Self {
        Self {
            name,
            creates: 0,
            current: None,
            tasks: BTreeMap::new(),
            events: BTreeSet::new(),
            cut_off: None,
            rests_at: None,
            doubts: None,
            failed: None,
        }
    }

    /// A writer among servers that may sleep in the middle of a change: it gives up a task with an open one.
    #[must_use]
    pub fn doubting(name: usize) -> Self {
        Self {
            doubts: Some(Doubts::default()),
            ..Self::new(name)
        }
    }

    /// Works until it may rest, or the server is gone, or something that it needs.
    ///
    /// # Panics
    /// If an answer contradicts an earlier one.
    pub async fn work(&mut self, server: &TaskServer) {
        if let Err(error) = self.work_on(server).await {
            self.failed = Some(error.to_string());
        }
    }

    async fn work_on(&mut self, server: &TaskServer) -> std::io::Result<()> {
        let mut connection = Connection::open(server.address()).await?;
        if let Some(change) = self.cut_off.take() {
            self.resolve(&mut connection, change).await?;
        }
        while self.rests_at.is_none_or(|at| Instant::now() < at) {
            let change = self.next();
            let before = self.current.clone();
            if let Err(error) = self.send(&mut connection, &change).await {
                // A change in two requests says itself which one was cut off.
                let change = self.cut_off.take().unwrap_or(change);
                self.cut_off = self.doubt(change);
                return Err(error);
            }
            if let Some((id, ..)) = self.current.clone().or(before) {
                self.look(&mut connection, &id).await?;
            }
        }
        Ok(())
    }

    /// Reads a task of its own, which is as it was told.
    async fn look(&self, connection: &mut Connection, id: &str) -> std::io::Result<()> {
        let known = match &self.current {
            Some((current, revision, _)) if current == id => Some(*revision),
            _ => self.tasks.get(id).copied().flatten(),
        };
        let target = format!("/tasks/{id}");
        let answer = connection.send("GET", &target, &[], "").await?;
        let answer = answered(answer, if known.is_some() { 200 } else { 404 })?;
        let found = answer.header("etag").map(revision_of);
        assert_eq!(found, known, "{id} is not what its writer was told");
        Ok(())
    }

    /// Leaves the task of a change in doubt; a writer without doubts keeps the change.
    fn doubt(&mut self, change: Change) -> Option<Change> {
        let Some(doubts) = &mut self.doubts else {
            return Some(change);
        };
        let current = self.current.take();
        let (id, may_be, event) = match (change, current) {
            (Change::Create { key }, _) => {
                let created = Some((1, "task.created".to_owned()));
                (id_of(&key), [None, Some(1)], created)
            }
            (Change::Status { to }, Some((id, revision, _))) => {
                let changed = revision + 1;
                let event = Some((changed, format!("task.{to}")));
                (id, [Some(revision), Some(changed)], event)
            }
            (Change::Delete, Some((id, revision, _))) => (id, [Some(revision), None], None),
            (Change::Refused, Some((id, revision, _))) => (id, [Some(revision); 2], None),
            (_, None) => unreachable!("only a creation has no task"),
        };
        doubts.tasks.insert(id.clone(), may_be.into());
        let event = event.map(|(revision, kind)| (id, format!("0.{revision}"), kind));
        doubts.events.extend(event);
        None
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
                let answer = answered(answer, 201)?;
                let id = answer.json()["id"].as_str().unwrap().to_owned();
                self.saw(&id, 1, "task.created");
                self.current = Some((id, 1, "pending"));
            }
            Change::Status { to } => {
                let (id, revision, _) = current.unwrap();
                let target = format!("{}/status?status={to}", target.unwrap());
                let answer = connection.send("PUT", &target, &[], "").await?;
                let answer = answered(answer, 200)?;
                assert_eq!(revision_of(answer.header("etag").unwrap()), revision + 1);
                self.changed(&id, revision + 1, to);
            }
            Change::Refused => {
                let headers = [("if-match", "\"9.9\"")];
                let body = r#"{"title":"must not happen"}"#;
                let answer = connection
                    .send("PUT", &target.unwrap(), &headers, body)
                    .await?;
                answered(answer, 412)?;
                // Goes on with a change that is accepted.
                let (id, revision, _) = current.unwrap();
                let target = format!("/tasks/{id}/status?status=completed");
                let answer = connection.send("PUT", &target, &[], "").await;
                match answer.and_then(|answer| answered(answer, 200)) {
                    Ok(_) => self.changed(&id, revision + 1, "completed"),
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
                    answered(answer, 204)?;
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

    /// Resolves what is still unknown, as soon as the server answers, and leaves the current task as it is.
    ///
    /// # Panics
    /// If the server does not answer in time, or contradicts an earlier answer.
    pub async fn finish(&mut self, server: &TaskServer) {
        until("what was cut off is known", async || {
            let Some(change) = self.cut_off.take() else {
                return Some(());
            };
            let mut connection = server.connect().await;
            self.resolve(&mut connection, change).await.ok()
        })
        .await;
        if let Some((id, revision, _)) = self.current.take() {
            self.tasks.insert(id, Some(revision));
        }
    }

    /// Finds out whether the cut-off change happened.
    async fn resolve(
        &mut self,
        connection: &mut Connection,
        change: Change,
    ) -> std::io::Result<()> {
        let id = match &change {
            Change::Create { key } => id_of(key),
            Change::Status { .. } | Change::Delete | Change::Refused => {
                self.current.as_ref().unwrap().0.clone()
            }
        };
        let answer = connection
            .send("GET", &format!("/tasks/{id}"), &[], "")
            .await;
        let answer = match answer.and_then(|answer| match answer.status {
            404 => Ok(answer),
            _ => answered(answer, 200),
        }) {
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

/// Lets so many writers work until they are told to stop, and answers what they know.
pub async fn work_until(writers: usize, server: &TaskServer, is_over: &AtomicBool) -> Vec<Writer> {
    let mut writers: Vec<Writer> = (0..writers).map(Writer::new).collect();
    join_all(writers.iter_mut().map(async |writer| {
        while !is_over.load(Ordering::SeqCst) {
            writer.rests_at = Some(Instant::now() + Duration::from_millis(100));
            writer.work(server).await;
        }
        writer.finish(server).await;
    }))
    .await;
    writers
}

/// Writes down every event that comes.
#[derive(Debug, Default)]
pub struct Judge {
    /// What came.
    pub seen: Mutex<BTreeSet<Seen>>,
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
