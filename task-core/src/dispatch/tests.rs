//! The dispatcher alone, with the time standing still unless it has nothing to do.

use std::collections::HashSet;
use std::sync::Mutex;

use async_trait::async_trait;
use futures_util::future::{BoxFuture, pending};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::*;
use crate::memory::lock;
use crate::ports::{Group, Topic};

const SECOND: Duration = Duration::from_secs(1);

/// A handler that is a function, and which writes down what it was called with.
struct Script {
    body: Box<dyn Fn(Delivery) -> BoxFuture<'static, Answer> + Send + Sync>,
    calls: Mutex<Vec<(String, u32)>>,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

#[async_trait]
impl EventHandler for Script {
    async fn handle(&self, delivery: &Delivery) -> Answer {
        let name = String::from_utf8_lossy(&delivery.payload).into_owned();
        lock(&self.calls).push((name, delivery.attempt));
        (self.body)(delivery.clone()).await
    }
}

impl Script {
    fn new<F>(body: impl Fn(Delivery) -> F + Send + Sync + 'static) -> Arc<Self>
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        Arc::new(Self {
            body: Box::new(move |delivery| body(delivery).boxed()),
            calls: Mutex::default(),
        })
    }

    fn answering(answer: impl Fn(&Delivery) -> Answer + Send + Sync + 'static) -> Arc<Self> {
        Self::new(move |delivery| std::future::ready(answer(&delivery)))
    }

    /// Answers at once, but for the payload `slow`, which never ends.
    fn with_a_slow_one() -> Arc<Self> {
        Self::new(|delivery| async move {
            if delivery.payload == "slow" {
                pending::<()>().await;
            }
            Answer::Ack
        })
    }

    fn names(&self) -> Vec<String> {
        let calls = lock(&self.calls);
        calls.iter().map(|(name, _)| name.clone()).collect()
    }

    fn attempts(&self) -> Vec<u32> {
        lock(&self.calls).iter().map(|call| call.1).collect()
    }
}

/// Three deliveries, pauses of 1 s, 2 s and at most 3 s, four calls at once; a place is a name.
fn dispatcher(script: &Arc<Script>) -> Dispatcher<&'static str> {
    let subscription = Subscription {
        redelivery: Redelivery {
            max_deliveries: 3,
            first_pause: SECOND,
            longest_pause: 3 * SECOND,
        },
        concurrency: 4,
        ..Subscription::new(Topic::new("t"), Group::new("g"))
    };
    Dispatcher::new(Arc::<Script>::clone(script), &subscription)
}

fn delivery(key: &str, name: &'static str) -> Delivery {
    Delivery {
        topic: Topic::new("t"),
        key: key.into(),
        payload: name.into(),
        attempt: 1,
    }
}

fn offer(dispatcher: &mut Dispatcher<&'static str>, events: &[(&str, &'static str)]) {
    for (key, name) in events {
        dispatcher.offer(name, delivery(key, name));
    }
}

fn done(place: &'static str) -> Option<Handled<&'static str>> {
    Some(Handled::Done { place })
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_holds_back_its_key_and_no_other() {
    let script = Script::with_a_slow_one();
    let mut dispatcher = dispatcher(&script);
    offer(&mut dispatcher, &[("a", "slow"), ("a", "behind")]);
    for _ in 0..1000 {
        offer(&mut dispatcher, &[("b", "quick")]);
        assert_eq!(dispatcher.next().await, done("quick"));
    }
    assert_eq!((dispatcher.in_hand(), dispatcher.at_work()), (2, 1));
    assert!(timeout(60 * SECOND, dispatcher.next()).await.is_err());
    assert!(!script.names().contains(&"behind".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn calls_overlap_up_to_the_limit_and_never_within_a_key() {
    let running: Arc<Mutex<Vec<Box<str>>>> = Arc::default();
    let most: Arc<Mutex<usize>> = Arc::default();
    let (now, peak) = (Arc::clone(&running), Arc::clone(&most));
    let script = Script::new(move |delivery| {
        let (running, most) = (Arc::clone(&now), Arc::clone(&peak));
        async move {
            {
                let mut running = lock(&running);
                running.push(delivery.key.clone());
                let keys: HashSet<_> = running.iter().filter(|key| !key.is_empty()).collect();
                let keyless = running.iter().filter(|key| key.is_empty()).count();
                assert_eq!(keys.len() + keyless, running.len(), "two of one key");
                let mut most = lock(&most);
                *most = running.len().max(*most);
            }
            tokio::time::sleep(SECOND).await;
            let mut running = lock(&running);
            let ended = running.iter().position(|key| *key == delivery.key);
            running.swap_remove(ended.expect("it runs"));
            Answer::Ack
        }
    });
    let mut dispatcher = dispatcher(&script);
    for name in ["1", "2", "3", "4"] {
        offer(&mut dispatcher, &[("a", name), ("b", name), ("", name)]);
    }
    while let Some(handled) = dispatcher.next().await {
        assert!(matches!(handled, Handled::Done { .. }), "{handled:?}");
    }
    assert_eq!((script.names().len(), *lock(&most)), (12, 4));
}

#[tokio::test(start_paused = true)]
async fn events_of_a_key_are_called_in_the_order_of_their_offers() {
    let script = Script::new(|delivery| async move {
        // Some end at once, others take a while.
        if delivery.payload.len() % 2 == 0 {
            tokio::time::sleep(SECOND).await;
        }
        Answer::Ack
    });
    let mut dispatcher = dispatcher(&script);
    let names = ["1", "22", "3", "4", "55", "66", "7"];
    for name in names {
        offer(&mut dispatcher, &[("a", name)]);
    }
    while dispatcher.next().await.is_some() {}
    assert_eq!(script.names(), names);
}

#[tokio::test(start_paused = true)]
async fn a_retry_holds_back_its_key_with_growing_pauses_until_it_is_a_dead_letter() {
    let script = Script::answering(|delivery| match &*delivery.payload {
        b"bad" => Answer::Retry,
        _ => Answer::Ack,
    });
    let mut dispatcher = dispatcher(&script);
    offer(
        &mut dispatcher,
        &[("a", "bad"), ("a", "good"), ("b", "other")],
    );
    let begin = Instant::now();
    let again = |deliveries, due| {
        Some(Handled::Again {
            place: "bad",
            deliveries,
            due: begin + due,
        })
    };
    assert_eq!(dispatcher.next().await, again(1, SECOND));
    assert_eq!(dispatcher.next().await, done("other"));
    assert_eq!(dispatcher.next().await, again(2, 3 * SECOND));
    assert_eq!(begin.elapsed().as_secs(), 1);
    let buried = Handled::Dead {
        place: "bad",
        delivery: Delivery {
            attempt: 3,
            ..delivery("a", "bad")
        },
        reason: DeadReason::Exhausted,
    };
    assert_eq!(dispatcher.next().await, Some(buried));
    assert_eq!(begin.elapsed().as_secs(), 3);
    assert_eq!(dispatcher.next().await, done("good"));
    assert_eq!(dispatcher.next().await, None);
    assert_eq!(script.attempts(), [1, 1, 2, 3, 1]);
    assert_eq!(dispatcher.in_hand(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_drop_is_a_dead_letter_at_once() {
    let script = Script::answering(|_| Answer::dropped("its id is empty"));
    let mut dispatcher = dispatcher(&script);
    offer(&mut dispatcher, &[("a", "bad")]);
    let handled = dispatcher.next().await;
    let buried = Handled::Dead {
        place: "bad",
        delivery: delivery("a", "bad"),
        reason: DeadReason::Dropped(DropReason::new("its id is empty")),
    };
    assert_eq!(handled, Some(buried));
    assert_eq!(dispatcher.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_postponed_event_holds_back_its_key_and_its_count_stays() {
    let begin = Instant::now();
    // The shortest pause is 1 s and the longest 3 s.
    let script = Script::answering(move |_| match begin.elapsed().as_secs() {
        0 => Answer::Postpone(Duration::ZERO),
        1 => Answer::Postpone(2 * SECOND),
        3..60 => Answer::Postpone(Duration::MAX),
        _ => Answer::Ack,
    });
    let mut dispatcher = dispatcher(&script);
    offer(&mut dispatcher, &[("a", "first"), ("a", "second")]);
    let mut dues = Vec::new();
    let ended = loop {
        match dispatcher.next().await {
            Some(Handled::Again {
                due, deliveries: 0, ..
            }) => {
                dues.push((due - begin).as_secs());
            }
            ended => break ended,
        }
    };
    assert_eq!(ended, done("first"));
    assert_eq!(dues[..4], [1, 3, 6, 9]);
    assert_eq!(dispatcher.next().await, done("second"));
    assert!(script.attempts().iter().all(|attempt| *attempt == 1));
}

#[tokio::test(start_paused = true)]
async fn a_panic_counts_as_a_retry_whenever_it_comes() {
    let script = Script::new(|delivery| async move {
        if delivery.payload == "late" {
            tokio::time::sleep(SECOND / 2).await;
        }
        // Unlike `panic!`, this prints nothing.
        std::panic::resume_unwind(Box::new("the handler of this test panics"))
    });
    let mut dispatcher = dispatcher(&script);
    offer(&mut dispatcher, &[("a", "early"), ("b", "late")]);
    for name in ["early", "late"] {
        let handled = dispatcher.next().await;
        let again =
            matches!(handled, Some(Handled::Again { place, deliveries: 1, .. }) if place == name);
        assert!(again, "{handled:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_is_not_due_yet_holds_back_its_key() {
    let script = Script::answering(|_| Answer::Ack);
    let mut dispatcher = dispatcher(&script);
    let begin = Instant::now();
    let stored = Delivery {
        attempt: 2,
        ..delivery("a", "stored")
    };
    dispatcher.offer_at(begin + SECOND, "stored", stored);
    offer(&mut dispatcher, &[("a", "new"), ("b", "other")]);
    for name in ["other", "stored", "new"] {
        assert_eq!(dispatcher.next().await, done(name));
    }
    assert_eq!(begin.elapsed(), SECOND);
    assert_eq!(script.attempts(), [1, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_not_lost_when_waiting_for_it_is_given_up() {
    let script = Script::new(|_| async {
        tokio::time::sleep(SECOND).await;
        Answer::Ack
    });
    let mut dispatcher = dispatcher(&script);
    offer(&mut dispatcher, &[("a", "x"), ("b", "y"), ("a", "z")]);
    let mut handled = Vec::new();
    while dispatcher.in_hand() > 0 {
        if let Ok(one) = timeout(SECOND / 10, dispatcher.next()).await {
            handled.extend(one);
        }
    }
    assert_eq!(handled.len(), 3);
    assert_eq!(script.names(), ["x", "y", "z"]);
}

#[tokio::test(start_paused = true)]
async fn after_a_stop_running_calls_are_answered_and_no_other_begins() {
    let open = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&open);
    let script = Script::new(move |_| {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.expect("open").forget();
            Answer::Retry
        }
    });
    let mut dispatcher = dispatcher(&script);
    offer(&mut dispatcher, &[("a", "a 1"), ("a", "a 2"), ("b", "b 1")]);
    assert_eq!(dispatcher.try_next(), None);
    dispatcher.stop();
    offer(&mut dispatcher, &[("c", "c 1")]);
    open.add_permits(9);
    for _ in 0..2 {
        let handled = dispatcher.next().await;
        assert!(
            matches!(handled, Some(Handled::Again { .. })),
            "{handled:?}"
        );
    }
    assert_eq!(dispatcher.next().await, None);
    assert_eq!(script.names(), ["a 1", "b 1"]);
}

#[tokio::test(start_paused = true)]
async fn what_belongs_to_somebody_else_is_forgotten_and_the_rest_goes_on() {
    let script = Script::answering(|delivery| match delivery.attempt {
        1 if delivery.payload.starts_with(b"bad") => Answer::Retry,
        _ => Answer::Ack,
    });
    let mut dispatcher = dispatcher(&script);
    offer(&mut dispatcher, &[("a", "bad 1"), ("b", "bad 2")]);
    for _ in 0..2 {
        let handled = dispatcher.next().await;
        assert!(
            matches!(handled, Some(Handled::Again { .. })),
            "{handled:?}"
        );
    }
    let events = [
        ("a", "2"),
        ("a", "gone"),
        ("a", "3"),
        ("c", "gone"),
        ("c", "4"),
    ];
    offer(&mut dispatcher, &events);
    // The retried head of `a`, one behind it, and the ready head of `c`.
    dispatcher.forget(|place| ["bad 1", "gone"].contains(place));
    assert_eq!(dispatcher.in_hand(), 4);
    let mut names = Vec::new();
    while let Some(Handled::Done { place }) = dispatcher.next().await {
        names.push(place);
    }
    assert_eq!(names, ["4", "2", "3", "bad 2"]);
    assert_eq!(dispatcher.in_hand(), 0);
}
