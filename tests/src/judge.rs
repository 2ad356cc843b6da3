//! Compares what clients of a move were told with what foreign clients read on both sides and both buses.
//!
//! The old side is a Redis in the layout of the replaced service, the new one a Redis in Dapr's, by itself or behind a
//! sidecar; both have a stream of events.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends at the first surprise, and its name says what it shows"
)]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::history::{Seen, Writer};
use crate::process::{NotificationService, RedisServer};
use crate::wait::until;

/// The old side of a move and the new one.
pub type Sides<'a> = [&'a RedisServer; 2];

/// Keys that are looked at in one step.
const PAGE: &str = "1000";

/// The tasks of a side, by their ids.
type Tasks = BTreeMap<String, Value>;

/// Reads every key of a Redis that begins so by a command, without the beginning.
async fn read_all(redis: &RedisServer, beginning: &str, command: &[&str]) -> Tasks {
    let pattern = format!("{beginning}*");
    let (mut cursor, mut tasks) = ("0".to_owned(), Tasks::new());
    loop {
        let scan = ["SCAN", &cursor, "MATCH", &pattern, "COUNT", PAGE];
        let page = redis.command(&scan).await;
        let (next, keys): (String, Vec<String>) = redis::from_redis_value(page).unwrap();
        if !keys.is_empty() {
            let count = keys.len().to_string();
            let mut words: Vec<&str> = command.to_vec();
            if command[0] == "EVAL" {
                words.push(&count);
            }
            words.extend(keys.iter().map(String::as_str));
            let values = redis.command(&words).await;
            let values: Vec<Option<String>> = redis::from_redis_value(values).unwrap();
            for (key, text) in keys.iter().zip(values) {
                let value = text.and_then(|text| serde_json::from_str::<Value>(&text).ok());
                // What is left of a deletion has no title.
                let task = value.filter(|value| value["title"].is_string());
                let id = key[beginning.len()..].to_owned();
                tasks.extend(task.map(|task| (id, task)));
            }
        }
        cursor = next;
        if cursor == "0" {
            return tasks;
        }
    }
}

/// The tasks of the old side, which has strings.
async fn tasks_of_old(redis: &RedisServer) -> Tasks {
    read_all(redis, "task:", &["MGET"]).await
}

/// The tasks of the new side, which has Dapr's hashes.
async fn tasks_of_new(redis: &RedisServer) -> Tasks {
    const DATA: &str = "local found = {} \
        for place, key in ipairs(KEYS) do found[place] = redis.call('HGET', key, 'data') end \
        return found";
    read_all(redis, "task-api||task-", &["EVAL", DATA]).await
}

/// How many records the old side has marked, of which one side may lack something.
async fn marks(old: &RedisServer) -> usize {
    let mut marks = 0;
    for kind in ["dirty", "reverse"] {
        let pattern = format!("task-api:state:{kind}:*");
        let found = old.command(&["KEYS", &pattern]).await;
        let found: Vec<String> = redis::from_redis_value(found).unwrap();
        marks += found.len();
    }
    marks
}

/// Waits until the old side has no mark of a record that one side may lack.
///
/// # Panics
/// If the marks do not become fewer for a minute.
pub async fn no_mark_is_left(old: &RedisServer) {
    let mut left = marks(old).await;
    while left > 0 {
        left = until("fewer marks are left", async || {
            let found = marks(old).await;
            (found < left).then_some(found)
        })
        .await;
    }
}

/// Compares the tasks of both sides with each other and with what the writers were told; answers how many they know.
///
/// # Panics
/// If a side lacks one, has one too many or another one, or if it is not what its writer was told.
pub async fn tasks_are_as_told([old, new]: Sides<'_>, writers: &[Writer]) -> usize {
    let old = tasks_of_old(old).await;
    let new = tasks_of_new(new).await;
    let missing: Vec<&String> = old.keys().filter(|id| !new.contains_key(*id)).collect();
    let extra: Vec<&String> = new.keys().filter(|id| !old.contains_key(*id)).collect();
    let both = old
        .iter()
        .filter_map(|(id, task)| Some((id, task, new.get(id)?)));
    let different: Vec<_> = both.filter(|(_, old, new)| old != new).collect();
    assert!(
        missing.is_empty() && extra.is_empty() && different.is_empty(),
        "missing {missing:?}, extra {extra:?}, different {different:?}"
    );

    let doubts = writers.iter().filter_map(|writer| writer.doubts.as_ref());
    let mut allowed: BTreeMap<&str, BTreeSet<Option<u64>>> = BTreeMap::new();
    for (id, revisions) in doubts.flat_map(|doubts| &doubts.tasks) {
        allowed.insert(id, revisions.clone());
    }
    let kept = writers.iter().flat_map(|writer| &writer.tasks);
    allowed.extend(kept.map(|(id, revision)| (id.as_str(), [*revision].into())));
    for (id, revisions) in &allowed {
        let found = old.get(*id).and_then(|task| task["_meta"]["rev"].as_u64());
        assert!(
            revisions.contains(&found),
            "{id} is {found:?}, not {revisions:?}"
        );
    }
    let unknown: Vec<&String> = old
        .keys()
        .filter(|id| !allowed.contains_key(&***id))
        .collect();
    assert_eq!(unknown, Vec::<&String>::new(), "nobody made them");
    allowed.len()
}

/// An event without the term in which it was made, which the writers do not know.
fn without_term(seen: &Seen) -> Seen {
    let (_, revision) = seen.1.split_once('.').unwrap();
    (seen.0.clone(), revision.to_owned(), seen.2.clone())
}

/// The events of both buses, as long as they keep them.
#[derive(Debug, Default)]
pub struct Heard {
    last: [String; 2],
    events: BTreeSet<Seen>,
}

impl Heard {
    /// Hears what is new. A stream is trimmed, so that this has to be done now and then.
    ///
    /// # Panics
    /// If a side does not answer, or has something that is no event.
    pub async fn listen(&mut self, sides: Sides<'_>) {
        for (redis, last) in sides.into_iter().zip(&mut self.last) {
            let from = match last.as_str() {
                "" => "-".to_owned(),
                last => format!("({last}"),
            };
            let entries = redis.command(&["XRANGE", "task-events", &from, "+"]).await;
            let entries: Vec<(String, Vec<(String, String)>)> =
                redis::from_redis_value(entries).unwrap();
            for (id, fields) in entries {
                let data = fields.into_iter().find(|(name, _)| name == "data");
                let event: Value = serde_json::from_str(&data.unwrap().1).unwrap();
                let seen = ["subject", "taskrev", "type"];
                let seen = seen.map(|name| event[name].as_str().unwrap().to_owned());
                self.events.insert(without_term(&seen.into()));
                *last = id;
            }
        }
    }

    /// Compares the events and notifications with what the writers were told; answers how many events there are.
    ///
    /// # Panics
    /// If one is missing within a minute, tells of what never happened, or came to the receiver twice.
    pub async fn is_as_told(
        mut self,
        sides: Sides<'_>,
        receiver: &NotificationService,
        writers: &[Writer],
    ) -> usize {
        let known: BTreeSet<Seen> = writers
            .iter()
            .flat_map(|writer| writer.events.iter().map(without_term))
            .collect();
        let doubts = writers.iter().filter_map(|writer| writer.doubts.as_ref());
        let possible: BTreeSet<Seen> = doubts
            .flat_map(|doubts| doubts.events.iter().map(without_term))
            .collect();
        until("every event is published", async || {
            // First: what is in doubt may be published, too.
            let is_done = nothing_is_pending(sides).await;
            self.listen(sides).await;
            (is_done && self.events.is_superset(&known)).then_some(())
        })
        .await;
        let phantoms = self.events.difference(&known);
        let phantoms = phantoms.filter(|event| !possible.contains(*event));
        assert_eq!(phantoms.collect::<Vec<_>>(), Vec::<&Seen>::new());
        each_completion_is_notified_once(receiver, &self.events).await;
        self.events.len()
    }
}

async fn nothing_is_pending(sides: Sides<'_>) -> bool {
    for redis in sides {
        if redis.command(&["XLEN", "task-api:outbox"]).await != redis::Value::Int(0) {
            return false;
        }
    }
    true
}

async fn each_completion_is_notified_once(receiver: &NotificationService, seen: &BTreeSet<Seen>) {
    let completed = seen.iter().filter(|event| event.2 == "task.completed");
    let completed: BTreeSet<&str> = completed.map(|event| &*event.0).collect();
    let mut received = receiver.notified();
    while received.len() < completed.len() {
        let before = received.len();
        received = until("one more completion is notified", async || {
            let received = receiver.notified();
            (received.len() > before).then_some(received)
        })
        .await;
    }
    let once: BTreeSet<&str> = received.iter().map(String::as_str).collect();
    assert_eq!(once.len(), received.len(), "somebody was told twice");
    assert_eq!(once, completed);
}
