//! Replicas of both kinds under load on the same keys, judged by what each of them was told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use task_core::application::{Outbox, Relay};
use task_core::background::Background;
use task_core::memory::SeededEntropy;
use task_core::ports::{
    BusCapability, CapabilitySet, Entropy, EventBus, EventHandler, Outcome, Subscription,
    SystemClock,
};

use super::*;

/// Keys that the writers fight for.
const SLOTS: u64 = 6;

/// Changes that each writer tries.
const STEPS: usize = 250;

/// What was published, and by whose relay.
type Published = Vec<(&'static str, String)>;

/// A bus that takes everything and writes it down.
#[derive(Debug)]
struct Paper {
    relay: &'static str,
    published: Arc<Mutex<Published>>,
}

#[async_trait]
impl EventBus for Paper {
    fn capabilities(&self) -> CapabilitySet<BusCapability> {
        CapabilitySet::of(&[])
    }

    async fn publish(&self, event: &Event) -> Result<(), PortError> {
        let text = String::from_utf8(event.payload.to_vec()).unwrap();
        self.published.lock().unwrap().push((self.relay, text));
        Ok(())
    }

    async fn subscribe(
        &self,
        _: Subscription,
        _: Arc<dyn EventHandler>,
    ) -> Result<Background, PortError> {
        unreachable!("nobody listens")
    }

    async fn check(&self) -> Result<(), PortError> {
        Ok(())
    }
}

/// A change of one task, of which the tag tells where it is found.
#[derive(Debug, Clone)]
struct Change {
    id: String,
    /// The tag of what it was based on; `None` is no task.
    parent: Option<String>,
    tag: String,
    deletes: bool,
}

/// What the writers were told.
#[derive(Debug, Default)]
struct Log {
    done: Mutex<Vec<Change>>,
    refused: Mutex<Vec<Change>>,
    unknown: Mutex<Vec<Change>>,
    /// Which task of each slot is the current one: an id is never used again.
    lives: [AtomicU64; SLOTS as usize],
}

/// A replica that writes.
struct Writer {
    name: &'static str,
    store: Arc<dyn StateStore>,
    outbox: Arc<Outbox>,
    random: SeededEntropy,
}

impl Writer {
    fn random(&self, below: u64) -> u64 {
        let mut random = [0; 8];
        self.random.fill(&mut random);
        u64::from_le_bytes(random) % below
    }

    async fn work(self, log: Arc<Log>) {
        for step in 0..STEPS {
            let slot = self.random(SLOTS);
            let life = log.lives[slot as usize].load(Ordering::SeqCst);
            let id = format!("{slot}-{life}");
            let stored = self.store.get(&task(&id)).await.unwrap();
            let parent = stored.as_ref().map(|stored| tag_of(&stored.value));
            let change = Change {
                deletes: parent.is_some() && self.random(8) == 0,
                tag: format!("{}-{step}", self.name),
                parent,
                id,
            };
            let answer = self.send(&change, stored.map(|stored| stored.etag)).await;
            match answer {
                Ok(()) => {
                    if change.deletes {
                        log.lives[slot as usize].fetch_add(1, Ordering::SeqCst);
                    }
                    log.done.lock().unwrap().push(change);
                }
                Err(error) if error.outcome() == Outcome::Unknown => {
                    log.unknown.lock().unwrap().push(change);
                }
                Err(error) => {
                    assert!(error.is_conflict(), "{error}");
                    self.is_real(&change).await;
                    log.refused.lock().unwrap().push(change);
                }
            }
        }
    }

    async fn send(&self, change: &Change, etag: Option<ETag>) -> Result<(), PortError> {
        let Change { id, tag, .. } = change;
        let key = task(id);
        let write = match etag {
            Some(etag) if change.deletes => Write::Delete {
                key,
                options: deletion(DeleteMode::Match(etag), Some(Duration::MAX)),
            },
            etag => Write::Put {
                key,
                value: json!({"id": id, "tag": tag}).to_string().into(),
                options: PutOptions {
                    mode: etag.map_or(WriteMode::Create, WriteMode::Match),
                    ttl: None,
                },
            },
        };
        let commit = match change.deletes && self.random(2) == 0 {
            true => Commit::of(write),
            false => Commit::of(write).event(event(tag)),
        };
        self.outbox.commit(commit).await.map(drop)
    }

    /// A refused change was based on something that is not there any more.
    async fn is_real(&self, change: &Change) {
        let stored = self.store.get(&task(&change.id)).await.unwrap();
        let now = stored.map(|stored| tag_of(&stored.value));
        // One that finds no task where there was none was refused by a tombstone.
        let is_buried = now.is_none() && change.parent.is_none();
        assert!(
            now != change.parent || is_buried,
            "{change:?} was refused for nothing"
        );
    }
}

fn tag_of(value: &[u8]) -> String {
    let value: Value = serde_json::from_slice(value).unwrap();
    assert!(value.get("_pending").is_none(), "{value}");
    value["tag"].as_str().unwrap().to_owned()
}

/// Compares what the writers were told with what is there and what was published.
fn judge(log: &Log, values: &BTreeMap<String, Option<String>>, published: &Published) {
    let done = log.done.lock().unwrap();
    let unknown = log.unknown.lock().unwrap();
    let maybe: BTreeSet<&str> = unknown.iter().map(|change| &*change.tag).collect();
    for (id, last) in values {
        let changes: Vec<&Change> = done.iter().filter(|change| change.id == *id).collect();
        let mut based = BTreeSet::new();
        for change in &changes {
            let parent = change.parent.as_deref();
            assert!(
                based.insert(parent),
                "{parent:?} of {id} was changed twice: lost"
            );
            let is_known = |parent| changes.iter().any(|change| change.tag == parent);
            assert!(
                parent.is_none_or(|parent| is_known(parent) || maybe.contains(parent)),
                "{change:?} is based on a change that was refused"
            );
        }
        let ends = changes.iter().filter(|change| {
            let tag = Some(&*change.tag);
            !based.contains(&tag) && !unknown.iter().any(|one| one.parent.as_deref() == tag)
        });
        for end in ends {
            let expected = (!end.deletes).then(|| end.tag.clone());
            assert_eq!(*last, expected, "{id} after {end:?}");
        }
    }
    let seen: BTreeSet<&str> = published.iter().map(|(_, tag)| &**tag).collect();
    for change in done.iter().filter(|change| !change.deletes) {
        assert!(
            seen.contains(&*change.tag),
            "the event of {change:?} is lost"
        );
    }
    for change in log.refused.lock().unwrap().iter() {
        assert!(
            !seen.contains(&*change.tag),
            "{change:?} was refused and has an event"
        );
    }
    // Of both relays comes what a deletion found in the record while the other one was about to settle it. Of
    // one of them an event may come again whenever its settling was not known everywhere yet.
    let mut relays: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (relay, tag) in published {
        relays.entry(tag).or_default().insert(relay);
    }
    relays.retain(|_, relays| relays.len() > 1);
    for tag in relays.keys() {
        let id = done.iter().chain(&*unknown).find(|one| one.tag == **tag);
        let id = &id.unwrap().id;
        let is_deleted = |one: &Change| one.id == *id && one.deletes;
        assert!(
            done.iter().chain(&*unknown).any(is_deleted),
            "{tag} of {id} came from both relays"
        );
    }
    assert!(relays.len() * 10 < seen.len(), "{relays:?}");
}

/// All replicas work, two of them publish, and everything is published in the end.
async fn work_and_publish(
    stores: &[(&'static str, Arc<dyn StateStore>)],
    log: &Arc<Log>,
    published: &Arc<Mutex<Published>>,
) {
    let (mut relays, mut writers) = (Vec::new(), Vec::new());
    for (seed, (name, store)) in stores.iter().enumerate() {
        let outbox = Arc::new(Outbox::new(Arc::clone(store)).unwrap());
        let random = SeededEntropy::new(seed as u64);
        // One of each kind, which publishes for both: a change of relays may publish twice.
        let lease = match *name {
            "direct-1" => Some("relay"),
            "dapr-1" => Some("relay-dapr"),
            _ => None,
        };
        if let Some(lease) = lease {
            let published = Arc::clone(published);
            let bus = Arc::new(Paper {
                relay: lease,
                published,
            });
            let clock = Arc::new(SystemClock);
            let (outbox, leases) = (Arc::clone(&outbox), Arc::clone(store));
            let relay = Relay::shared(outbox, bus, leases, lease, clock, &random).unwrap();
            relays.push(relay.start());
        }
        let writer = Writer {
            name,
            store: Arc::clone(store),
            outbox,
            random,
        };
        writers.push(tokio::spawn(writer.work(Arc::clone(log))));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    until("everything is published", async || {
        // A replica without a relay hears of it with its next write.
        for (_, store) in stores.iter().filter(|(name, _)| name.ends_with("-1")) {
            let left = pending(&**store).await;
            if !left.is_empty() {
                return None;
            }
        }
        Some(())
    })
    .await;
    for relay in relays {
        relay.stop().await;
    }
}

/// What each record holds, which is the same for every replica.
async fn compared(
    ids: &[String],
    stores: &[(&'static str, Arc<dyn StateStore>)],
) -> BTreeMap<String, Option<String>> {
    let mut values = BTreeMap::new();
    for id in ids {
        let mut found = Vec::new();
        for (_, store) in stores {
            let stored = store.get(&task(id)).await.unwrap();
            found.push(stored.map(|stored| tag_of(&stored.value)));
        }
        found.dedup();
        assert_eq!(found.len(), 1, "{id} is not the same for all: {found:?}");
        values.insert(id.clone(), found.remove(0));
    }
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_of_both_kinds_lose_no_change_and_no_event_and_refuse_nobody_without_a_reason() {
    let stack = Stack::start().await;
    let stores: [(&'static str, Arc<dyn StateStore>); 4] = [
        ("direct-1", Arc::new(stack.direct().await)),
        ("direct-2", Arc::new(stack.direct().await)),
        ("dapr-1", Arc::new(stack.dapr().await)),
        ("dapr-2", Arc::new(stack.dapr().await)),
    ];
    let log = Arc::new(Log::default());
    let published = Arc::new(Mutex::new(Published::new()));
    work_and_publish(&stores, &log, &published).await;

    let ids: Vec<String> = (0..SLOTS)
        .flat_map(|slot| {
            let lives = log.lives[slot as usize].load(Ordering::SeqCst);
            (0..=lives).map(move |life| format!("{slot}-{life}"))
        })
        .collect();
    let values = compared(&ids, &stores).await;
    let published = published.lock().unwrap().clone();
    judge(&log, &values, &published);

    let there: Vec<(&str, &str)> = values
        .iter()
        .filter_map(|(id, tag)| Some((&**id, tag.as_deref()?)))
        .collect();
    let names: Vec<&str> = there.iter().map(|(id, _)| *id).collect();
    for seen in stack.seen(&names).await {
        let tags = seen.iter().map(|task| task["tag"].as_str().unwrap());
        assert!(tags.eq(there.iter().map(|(_, tag)| *tag)), "{seen:?}");
    }
    let count = |list: &Mutex<Vec<Change>>| list.lock().unwrap().len();
    let (done, refused) = (count(&log.done), count(&log.refused));
    let deleted = values.values().filter(|value| value.is_none()).count();
    let told = format!(
        "{done} done, {refused} refused, {} unknown, {deleted} deleted",
        count(&log.unknown)
    );
    assert!(
        done > 200 && refused > 20 && deleted > 5,
        "too tame: {told}"
    );
    println!("{told}, {} published", published.len());
}
