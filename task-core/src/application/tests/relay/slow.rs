//! What a relay does while some keys fail slowly, on paused time.

use std::collections::HashMap;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::fakes::Bus;
use super::scene::{SECOND, Scene};

/// New keys, one each millisecond, some of them for partitions without a leader.
struct Load {
    s: Scene,
    leaderless: u64,
    committed: HashMap<String, Instant>,
    next: usize,
}

impl Load {
    fn new(leaderless: u64) -> Self {
        let s = Scene::new();
        *s.bus.slow.lock().unwrap() = Some(("", Duration::from_millis(2)));
        Self {
            s,
            leaderless,
            committed: HashMap::new(),
            next: 0,
        }
    }

    /// Commits for so many seconds; every tenth key has a second event half a second later.
    async fn run(&mut self, seconds: usize) {
        for n in self.next..self.next + seconds * 1000 {
            self.committed.insert(n.to_string(), Instant::now());
            self.s.commit(&n.to_string(), n).await;
            if n % 10 == 0 && n >= 500 {
                self.s.commit(&(n - 500).to_string(), n).await;
            }
            sleep(Duration::from_millis(1)).await;
        }
        self.next += seconds * 1000;
    }

    /// The longest time that a first event of a healthy partition has taken, those that wait included.
    fn longest(&self) -> Duration {
        let mut waiting = self.committed.clone();
        waiting.retain(|key, _| !Bus::is_for(self.leaderless, key));
        let mut longest = Duration::ZERO;
        for (key, _, at) in self.s.bus.accepted() {
            if let Some(committed) = waiting.remove(&key) {
                longest = longest.max(at - committed);
            }
        }
        let of_those = waiting.values().map(Instant::elapsed);
        of_those.fold(longest, Duration::max)
    }
}

#[tokio::test(start_paused = true)]
async fn new_keys_that_fail_slowly_delay_no_others_whatever_their_share() {
    for leaderless in [1, 6, 11] {
        let mut load = Load::new(leaderless);
        let relay = load.s.relay().start();
        load.run(2).await;
        load.s.bus.leaderless.store(leaderless, SeqCst);
        load.run(20).await;
        let longest = load.longest();
        assert!(longest <= SECOND, "{longest:?} with {leaderless} of 12");
        let most = load.s.bus.most.load(SeqCst);
        assert!(most <= 1024 + 128, "{most} publications at once");
        load.s.bus.leaderless.store(0, SeqCst);
        load.s.until_pending(0, 60 * SECOND).await;
        let mut last: HashMap<String, usize> = HashMap::new();
        for (key, payload, _) in load.s.bus.accepted() {
            let payload = payload.parse().unwrap();
            let before = last.insert(key, payload);
            assert!(before.is_none_or(|before| before < payload), "in order");
        }
        assert_eq!(last.len(), load.next);
        relay.stop().await;
    }
}

/// The keys of the second half fail, are forgotten, and stand behind more of those that fail for ever than
/// a sweep takes up.
#[tokio::test(start_paused = true)]
async fn every_forgotten_key_has_its_turn_however_many_fail_slowly_before_it() {
    let s = Scene::new();
    s.bus.refuse("dead");
    *s.bus.slow.lock().unwrap() = Some(("dead", SECOND));
    s.commit_keys("dead.for.ever", 3000).await;
    s.commit_keys("dead.till.later", 10).await;
    let relay = s.relay().start();
    sleep(120 * SECOND).await;
    assert!(s.bus.attempts.load(SeqCst) >= 3010, "all were tried");
    s.bus.refuse("dead.for");
    s.until_pending(3000, 600 * SECOND).await;
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_is_slow_with_everything_is_given_no_more_at_once_and_no_event_twice() {
    let s = Scene::new();
    *s.bus.slow.lock().unwrap() = Some(("", Duration::from_millis(500)));
    s.commit_keys("k", 10_000).await;
    let relay = s.relay().start();
    s.until_pending(0, 100 * SECOND).await;
    let most = s.bus.most.load(SeqCst);
    assert!(most <= 64 * 8, "{most} publications at once");
    assert_eq!(s.bus.attempts.load(SeqCst), 10_000);
    relay.stop().await;
}
