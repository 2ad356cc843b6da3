//! What two topics brought, event by event, for a while.
//!
//! Plain state without I/O.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::migration::Side;
use crate::migration::difference::means_the_same;
use crate::ports::Delivery;

/// Most events that are remembered; beyond that the oldest ones are judged early.
const MOST_EVENTS: usize = 20_000;

/// Most differences that are kept for people.
const MOST_EXAMPLES: usize = 20;

/// How an event differs between a topic and its copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ShadowFinding {
    /// It never came to the copy.
    Missing,
    /// It came to the copy alone.
    Extra,
    /// Its payload or its key is another one.
    Different,
    /// It came to the copy in another order than the events of its key did to the topic.
    Order,
}

/// A difference, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShadowExample {
    /// What is different.
    pub finding: ShadowFinding,
    /// The event's id.
    pub id: Box<str>,
    /// The event's key, which is the task's id.
    pub key: Box<str>,
}

/// What the comparison of a topic with its copy has found so far.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ShadowReport {
    /// Events that were judged.
    pub compared: u64,
    /// Those that came to both, with the same key and payload.
    pub equal: u64,
    /// Those that never came to the copy; also those of which none was published, because there were too many.
    pub missing: u64,
    /// Those that came to the copy alone.
    pub extra: u64,
    /// Those whose payload or key differs.
    pub different: u64,
    /// Those that came in another order; a defect only where both buses promise one.
    pub order: u64,
    /// Those that came again, which is allowed.
    pub repeated: u64,
    /// Payloads that are no events.
    pub unreadable: u64,
    /// Those that wait to be judged.
    pub waiting: u64,
    /// The latest differences, the last one last.
    pub examples: VecDeque<ShadowExample>,
}

/// Id of an event: its source and its id there.
pub(super) type EventId = (Box<str>, Box<str>);

/// The first arrival of an event on one side.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Arrival {
    place: u64,
    key: Box<str>,
    payload: bytes::Bytes,
}

#[derive(Debug)]
struct Seen {
    since: Instant,
    old: Option<Arrival>,
    new: Option<Arrival>,
}

/// The events of the last while on both sides.
#[derive(Debug)]
pub(super) struct Window {
    patience: Duration,
    places: u64,
    events: HashMap<EventId, Seen>,
    /// By first arrival; what is not in `events` any more is judged.
    queue: VecDeque<(Instant, EventId)>,
    /// Judged events that may come again.
    done: Recent<EventId>,
    /// Where the last judged event of a key was, on the old and the new side.
    places_of: HashMap<Box<str>, (u64, u64)>,
    keys: VecDeque<Box<str>>,
    report: ShadowReport,
}

impl Window {
    /// A window in which an event has so long to come to both sides.
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            places: 0,
            events: HashMap::new(),
            queue: VecDeque::new(),
            done: Recent::default(),
            places_of: HashMap::new(),
            keys: VecDeque::new(),
            report: ShadowReport::default(),
        }
    }

    /// An event has come.
    pub(super) fn arrived(&mut self, side: Side, id: &EventId, delivery: &Delivery, now: Instant) {
        if self.done.has(id) {
            self.report.repeated += 1;
            return;
        }
        self.places += 1;
        let arrival = Arrival {
            place: self.places,
            key: delivery.key.clone(),
            payload: delivery.payload.clone(),
        };
        let seen = self.events.entry(id.clone()).or_insert_with(|| {
            self.queue.push_back((now, id.clone()));
            Seen {
                since: now,
                old: None,
                new: None,
            }
        });
        let own = match side {
            Side::Old => &mut seen.old,
            Side::New => &mut seen.new,
        };
        match own {
            Some(_) => self.report.repeated += 1,
            None => *own = Some(arrival),
        }
        if seen.old.is_some() && seen.new.is_some() {
            self.judge(id);
        }
        while self.events.len() > MOST_EVENTS {
            self.judge_oldest();
        }
    }

    pub(super) fn unreadable(&mut self) {
        self.report.unreadable += 1;
    }

    /// Judges what has waited long enough.
    pub(super) fn look(&mut self, now: Instant) {
        while self
            .queue
            .front()
            .is_some_and(|(since, _)| *since + self.patience <= now)
        {
            self.judge_oldest();
        }
    }

    /// Forgets what waits: it may be of a time when nothing was copied.
    pub(super) fn forget(&mut self) {
        self.events.clear();
        self.queue.clear();
        self.places_of.clear();
        self.keys.clear();
    }

    pub(super) fn report(&self) -> ShadowReport {
        ShadowReport {
            waiting: self.events.len() as u64,
            ..self.report.clone()
        }
    }

    fn judge_oldest(&mut self) {
        if let Some((since, id)) = self.queue.pop_front()
            && self.events.get(&id).is_some_and(|seen| seen.since == since)
        {
            self.judge(&id);
        }
    }

    fn judge(&mut self, id: &EventId) {
        let Some(seen) = self.events.remove(id) else {
            return;
        };
        self.done.add(id.clone());
        self.report.compared += 1;
        let (key, finding) = match (seen.old, seen.new) {
            (Some(old), Some(new)) => {
                let is_same = old.key == new.key && means_the_same(&old.payload, &new.payload);
                let finding = match is_same {
                    false => Some(ShadowFinding::Different),
                    true if self.is_out_of_order(&old, &new) => Some(ShadowFinding::Order),
                    true => None,
                };
                self.remember(&old, &new);
                (old.key, finding)
            }
            (Some(old), None) => (old.key, Some(ShadowFinding::Missing)),
            (None, Some(new)) => (new.key, Some(ShadowFinding::Extra)),
            (None, None) => return,
        };
        let report = &mut self.report;
        match finding {
            None => report.equal += 1,
            Some(ShadowFinding::Missing) => report.missing += 1,
            Some(ShadowFinding::Extra) => report.extra += 1,
            Some(ShadowFinding::Different) => report.different += 1,
            Some(ShadowFinding::Order) => report.order += 1,
        }
        if let Some(finding) = finding {
            if report.examples.len() >= MOST_EXAMPLES {
                report.examples.pop_front();
            }
            let id = id.1.clone();
            report
                .examples
                .push_back(ShadowExample { finding, id, key });
        }
    }

    /// Whether the last judged event of the key was before it on one side and behind it on the other.
    ///
    /// That one is enough: what is judged later has come later on one side, so if an earlier one is out of order
    /// with it, every one in between is out of order with either.
    fn is_out_of_order(&self, old: &Arrival, new: &Arrival) -> bool {
        let last = self.places_of.get(&old.key);
        let is_crossed =
            last.is_some_and(|(on_old, on_new)| (*on_old < old.place) != (*on_new < new.place));
        is_crossed && !old.key.is_empty()
    }

    fn remember(&mut self, old: &Arrival, new: &Arrival) {
        if !self.places_of.contains_key(&old.key) {
            self.keys.push_back(old.key.clone());
            if self.keys.len() > MOST_EVENTS
                && let Some(oldest) = self.keys.pop_front()
            {
                self.places_of.remove(&oldest);
            }
        }
        let places = (old.place, new.place);
        self.places_of.insert(old.key.clone(), places);
    }
}

/// A set that forgets its oldest half.
#[derive(Debug)]
struct Recent<T> {
    young: HashSet<T>,
    old: HashSet<T>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self {
            young: HashSet::new(),
            old: HashSet::new(),
        }
    }
}

impl<T: Hash + Eq> Recent<T> {
    fn has(&self, one: &T) -> bool {
        self.young.contains(one) || self.old.contains(one)
    }

    fn add(&mut self, one: T) {
        if self.young.len() >= MOST_EVENTS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(one);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Topic;

    const PATIENCE: Duration = Duration::from_secs(30);

    struct Scene {
        window: Window,
        now: Instant,
    }

    impl Scene {
        fn new() -> Self {
            Self {
                window: Window::new(PATIENCE),
                now: Instant::now(),
            }
        }

        fn hears(&mut self, side: Side, key: &str, id: &str, payload: &'static str) {
            let delivery = Delivery {
                topic: Topic::new("t"),
                key: key.into(),
                payload: payload.into(),
                attempt: 1,
            };
            let id = ("s".into(), id.into());
            self.window.arrived(side, &id, &delivery, self.now);
        }

        fn waits(&mut self, time: Duration) -> ShadowReport {
            self.now += time;
            self.window.look(self.now);
            self.window.report()
        }
    }

    fn found(report: &ShadowReport) -> Vec<(ShadowFinding, &str)> {
        let examples = report.examples.iter();
        examples.map(|one| (one.finding, &*one.id)).collect()
    }

    #[test]
    fn what_comes_to_both_is_equal_whichever_is_first() {
        let mut scene = Scene::new();
        for (first, second) in [(Side::Old, Side::New), (Side::New, Side::Old)] {
            let id = first.as_str();
            scene.hears(first, "k", id, r#"{"a":1,"b":2}"#);
            scene.hears(second, "k", id, r#"{"b":2, "a":1}"#);
            scene.hears(second, "k", id, "again");
        }
        let report = scene.waits(PATIENCE);
        assert_eq!((report.compared, report.equal, report.repeated), (2, 2, 2));
        assert_eq!(found(&report), []);
    }

    #[test]
    fn what_comes_to_one_alone_is_missing_or_extra_when_its_time_is_over() {
        let mut scene = Scene::new();
        scene.hears(Side::Old, "k", "lost", "{}");
        scene.hears(Side::New, "k", "born", "{}");
        let early = scene.waits(PATIENCE - Duration::from_millis(1));
        assert_eq!((early.compared, early.waiting), (0, 2));
        let report = scene.waits(Duration::from_millis(1));
        let expected = [
            (ShadowFinding::Missing, "lost"),
            (ShadowFinding::Extra, "born"),
        ];
        assert_eq!(found(&report), expected);
        scene.hears(Side::New, "k", "lost", "{}");
        assert_eq!(
            scene.waits(PATIENCE).repeated,
            1,
            "too late is no extra one"
        );
    }

    #[test]
    fn another_payload_and_another_key_are_different() {
        let mut scene = Scene::new();
        scene.hears(Side::Old, "k", "payload", r#"{"a":1}"#);
        scene.hears(Side::New, "k", "payload", r#"{"a":2}"#);
        scene.hears(Side::Old, "k", "key", "{}");
        scene.hears(Side::New, "l", "key", "{}");
        let report = scene.waits(Duration::ZERO);
        let expected = [
            (ShadowFinding::Different, "payload"),
            (ShadowFinding::Different, "key"),
        ];
        assert_eq!(found(&report), expected);
        let json = serde_json::to_value(&report).expect("text and numbers");
        assert_eq!(json["different"], 2);
        assert_eq!(json["examples"][0]["finding"], "different");
    }

    #[test]
    fn events_of_one_key_that_change_places_are_told_and_others_are_not() {
        let mut scene = Scene::new();
        for id in ["1", "2", "3"] {
            scene.hears(Side::Old, "k", id, "{}");
            scene.hears(Side::Old, id, &format!("of {id}"), "{}");
        }
        for id in ["3", "1", "2"] {
            scene.hears(Side::New, id, &format!("of {id}"), "{}");
        }
        assert_eq!(found(&scene.waits(Duration::ZERO)), [], "of different keys");
        for id in ["1", "3", "2"] {
            scene.hears(Side::New, "k", id, "{}");
        }
        let report = scene.waits(Duration::ZERO);
        assert_eq!(found(&report), [(ShadowFinding::Order, "2")]);
    }

    #[test]
    fn an_order_that_changes_between_events_far_apart_is_told() {
        let mut scene = Scene::new();
        for id in ["1", "2", "3"] {
            scene.hears(Side::New, "k", id, "{}");
        }
        // Each neighbour agrees with the next one that is judged, the first and the last do not.
        for id in ["1", "3", "2"] {
            scene.hears(Side::Old, "k", id, "{}");
        }
        assert_eq!(scene.waits(Duration::ZERO).order, 1);
    }

    #[test]
    fn the_window_is_bounded_and_judges_the_oldest_early() {
        let mut scene = Scene::new();
        for n in 0..MOST_EVENTS + 5 {
            scene.hears(Side::Old, "k", &n.to_string(), "{}");
        }
        let report = scene.waits(Duration::ZERO);
        assert_eq!((report.missing, report.waiting), (5, MOST_EVENTS as u64));
        assert_eq!(report.examples.len(), 5);
        scene.window.forget();
        let report = scene.waits(PATIENCE);
        assert_eq!(
            (report.missing, report.waiting),
            (5, 0),
            "nothing is told of what was forgotten"
        );
    }
}
