//! What a relay does while it runs, on paused time.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::fakes::Lines;
use super::scene::{SECOND, Scene, numbers};

#[tokio::test(start_paused = true)]
async fn a_healthy_key_behind_any_number_of_failing_ones_is_reached() {
    let s = Scene::new();
    s.bus.refuse("dead");
    s.commit_keys("dead", 5000).await;
    s.commit("good", 1).await;
    let relay = s.relay().start();
    s.until_pending(5000, 4 * SECOND).await;
    // And one that comes later does not wait for a whole sweep.
    for n in 2..10 {
        s.commit("good", n).await;
        let took = s.until_pending(5000, SECOND).await;
        assert!(took <= Duration::from_millis(110), "{took:?}");
    }
    assert_eq!(s.bus.payloads("good"), numbers(1..10));
    s.bus.refuse_nothing();
    s.until_pending(0, 20 * SECOND).await;
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_failing_key_adds_no_pause_for_the_others() {
    let s = Scene::new();
    s.bus.refuse("dead");
    s.commit("dead", 0).await;
    let relay = s.relay().start();
    sleep(20 * SECOND).await;
    for n in 0..20 {
        s.commit("good", n).await;
        let took = s.until_pending(1, SECOND).await;
        assert!(took <= Duration::from_millis(10), "{took:?}");
    }
    // Its own pauses double: about 100, 200, 400, 800, 1600, 3200 ms and then 5 s.
    let attempts = s.bus.attempts.load(SeqCst) - 20;
    assert!((8..=11).contains(&attempts), "{attempts} attempts");
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn keys_whose_failures_take_long_leave_room_for_the_others() {
    let s = Scene::new();
    s.bus.refuse("dead");
    *s.bus.slow.lock().unwrap() = Some(("dead", SECOND));
    s.commit_keys("dead", 1000).await;
    let relay = s.relay().start();
    sleep(30 * SECOND).await;
    for n in 0..100 {
        s.commit("good", n).await;
        let took = s.until_pending(1000, SECOND).await;
        assert!(took <= Duration::from_millis(120), "{took:?}");
    }
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_hot_failing_key_with_many_events_fills_neither_the_hand_nor_the_way() {
    let s = Scene::new();
    s.bus.refuse("hot");
    for n in 0..10_000 {
        s.commit("hot", n).await;
    }
    s.commit_keys("good", 100).await;
    let relay = s.relay().start();
    s.until_pending(10_000, 10 * SECOND).await;
    assert!(s.store.most_live() <= 1024, "{}", s.store.most_live());
    s.bus.refuse_nothing();
    s.until_pending(0, 60 * SECOND).await;
    assert_eq!(s.bus.payloads("hot"), numbers(0..10_000));
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_key_delays_neither_the_settlement_of_others_nor_reading_on() {
    let s = Scene::new();
    *s.bus.slow.lock().unwrap() = Some(("slow", 10 * SECOND));
    s.commit("slow", 0).await;
    s.commit_keys("good", 1000).await;
    let relay = s.relay().start();
    let took = s.until_pending(1, SECOND).await;
    assert!(took <= Duration::from_millis(100), "{took:?}");
    s.commit_keys("later", 1000).await;
    s.until_pending(1, SECOND).await;
    s.until_pending(0, 10 * SECOND).await;
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_order_of_each_key_holds_while_publications_fail_and_pages_repeat() {
    let s = Scene::new();
    *s.bus.unreliable.lock().unwrap() = 80;
    *s.bus.slow.lock().unwrap() = Some(("k1", Duration::from_millis(30)));
    s.store.repeats.store(true, SeqCst);
    let relay = s.relay().start();
    for n in 0..60 {
        for key in 0..50 {
            s.commit(&format!("k{key}."), n).await;
        }
        sleep(Duration::from_millis(u64::try_from(n).unwrap())).await;
    }
    s.until_pending(0, 600 * SECOND).await;
    for key in 0..50 {
        assert_eq!(
            s.bus.payloads(&format!("k{key}.")),
            numbers(0..60),
            "key {key}"
        );
    }
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn events_whose_settlement_fails_are_settled_later_and_published_once() {
    let (lines, _guard) = Lines::listen();
    let s = Scene::new();
    s.store.settle_fails.store(true, SeqCst);
    s.commit_keys("k", 5000).await;
    let relay = s.relay().start();
    sleep(30 * SECOND).await;
    // The hand is full of what is not settled; nothing more is read.
    let accepted = s.bus.accepted().len();
    assert!((512..=1024).contains(&accepted), "{accepted} accepted");
    let settles = s.store.settles.load(SeqCst);
    assert!((8..=15).contains(&settles), "{settles} settlements");
    let told = lines.all();
    assert!(told.len() <= 2, "{told:?}");
    assert!(told.iter().all(|line| line.starts_with("WARN")), "{told:?}");
    s.store.settle_fails.store(false, SeqCst);
    s.until_pending(0, 10 * SECOND).await;
    assert_eq!(s.bus.accepted().len(), 5000);
    let all = lines.all();
    assert!(all.len() == told.len() + 1 && all[told.len()].starts_with("INFO"));
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_is_away_costs_few_reads_and_little_memory_however_full_the_outbox_is() {
    let s = Scene::new();
    s.bus.refuse("");
    s.commit_keys("k", 100_000).await;
    let relay = s.relay().start();
    sleep(60 * SECOND).await;
    let reads = s.store.reads.load(SeqCst);
    assert!((300..=605).contains(&reads), "{reads} reads in 60 s");
    let live = s.store.most_live();
    assert!(live <= 1024 + 256 + 64, "{live} events in memory");
    let attempts = s.bus.attempts.load(SeqCst);
    assert!(attempts <= 60 * 2_800, "{attempts} attempts in 60 s");
    s.bus.refuse_nothing();
    s.until_pending(0, 30 * SECOND).await;
    assert_eq!(s.bus.accepted().len(), 100_000);
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_kept_while_publications_are_slow() {
    let one = Scene::new();
    let two = one.replica();
    *one.bus.slow.lock().unwrap() = Some(("", 20 * SECOND));
    one.commit_keys("k", 64).await;
    let first = one.shared(1).start();
    sleep(SECOND).await;
    let second = two.shared(2).start();
    one.until_pending(0, 30 * SECOND).await;
    assert_eq!(one.bus.accepted().len(), 64);
    assert_eq!(two.bus.attempts.load(SeqCst), 0);
    first.stop().await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_loses_the_lease_begins_nothing_and_forgets_what_is_in_hand() {
    let one = Scene::new();
    let two = one.replica();
    one.bus.refuse("dead");
    *one.bus.slow.lock().unwrap() = Some(("slow", SECOND));
    one.commit_keys("dead", 10).await;
    for n in 0..300 {
        one.commit("slow", n).await;
    }
    let first = one.shared(1).start();
    sleep(SECOND / 2).await;
    let second = two.shared(2).start();
    one.store.lease_fails.store(true, SeqCst);
    sleep(3 * SECOND).await;
    let attempts = one.bus.attempts.load(SeqCst);
    one.commit_keys("good", 10).await;
    one.bus.refuse_nothing();
    two.until_pending(0, 20 * SECOND).await;
    assert_eq!(two.bus.payloads("dead").len(), 10);
    assert_eq!(two.bus.payloads("good").len(), 10);
    one.store.lease_fails.store(false, SeqCst);
    sleep(10 * SECOND).await;
    assert_eq!(one.bus.attempts.load(SeqCst), attempts);
    // Not one event of the slow key was published twice, for none was under way for long.
    let mut slow = one.bus.payloads("slow");
    slow.extend(two.bus.payloads("slow"));
    assert_eq!(slow, numbers(0..300));
    second.stop().await;
    // The first one takes over, from the beginning.
    one.commit("dead", 11).await;
    one.until_pending(0, SECOND).await;
    sleep(10 * SECOND).await;
    assert_eq!(one.bus.attempts.load(SeqCst), attempts + 1);
    first.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_page_that_was_asked_for_under_a_lease_that_is_lost_is_not_taken() {
    let s = Scene::new();
    *s.bus.slow.lock().unwrap() = Some(("k", SECOND));
    for n in 0..300 {
        s.commit("k", n).await;
    }
    *s.store.read_takes.lock().unwrap() = 5 * SECOND;
    let relay = s.shared(1).start();
    while s.store.reads.load(SeqCst) < 2 {
        sleep(Duration::from_millis(1)).await;
    }
    s.store.lease_fails.store(true, SeqCst);
    sleep(4 * SECOND).await;
    s.store.lease_fails.store(false, SeqCst);
    *s.store.read_takes.lock().unwrap() = Duration::ZERO;
    s.until_pending(0, 400 * SECOND).await;
    assert_eq!(s.bus.payloads("k"), numbers(0..300));
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_on_a_machine_that_was_suspended_begins_nothing_before_it_holds_the_lease_again() {
    let s = Scene::new();
    let relay = s.shared(1).start();
    s.commit("k", 0).await;
    s.until_pending(0, SECOND).await;
    s.store.lease_fails.store(true, SeqCst);
    s.clock.suspend(3 * SECOND);
    s.commit("k", 1).await;
    sleep(10 * SECOND).await;
    assert_eq!(s.bus.attempts.load(SeqCst), 1);
    s.store.lease_fails.store(false, SeqCst);
    s.until_pending(0, SECOND).await;
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_does_not_lead_looks_at_the_lease_at_its_times_only() {
    let one = Scene::new();
    let two = one.replica();
    let first = one.shared(1).start();
    sleep(SECOND).await;
    let second = two.shared(2).start();
    for n in 0..1000 {
        two.commit("k", n).await;
        sleep(Duration::from_millis(1)).await;
    }
    let looks = two.store.lease_reads.load(SeqCst);
    assert!((5..=12).contains(&looks), "{looks} looks in 1 s");
    one.until_pending(0, SECOND).await;
    assert_eq!(one.bus.accepted().len(), 1000);
    first.stop().await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_relay_gives_up_in_time_and_settles_what_was_accepted() {
    let s = Scene::new();
    *s.bus.slow.lock().unwrap() = Some(("stuck", 3600 * SECOND));
    s.commit("stuck", 0).await;
    let relay = s.relay().start();
    sleep(SECOND).await;
    s.store.settle_fails.store(true, SeqCst);
    s.commit_keys("good", 10).await;
    sleep(2 * SECOND).await;
    let began = Instant::now();
    let stopping = tokio::spawn(relay.stop());
    sleep(4 * SECOND).await;
    s.store.settle_fails.store(false, SeqCst);
    stopping.await.unwrap();
    assert!(began.elapsed() <= 6 * SECOND, "{:?}", began.elapsed());
    assert_eq!(s.pending(2).await, 1, "only the stuck one");
}

#[tokio::test(start_paused = true)]
async fn a_stopped_relay_tries_a_pausing_key_once_more_and_gives_the_lease_up() {
    let s = Scene::new();
    s.bus.refuse("dead");
    for n in 0..10 {
        s.commit("dead", n).await;
    }
    let relay = s.shared(1).start();
    sleep(60 * SECOND).await;
    s.bus.refuse_nothing();
    let began = Instant::now();
    relay.stop().await;
    assert!(began.elapsed() <= SECOND, "{:?}", began.elapsed());
    assert_eq!(s.bus.payloads("dead"), numbers(0..10));
    assert_eq!(s.replica().shared(2).pass().await.unwrap().failed, 0);
    s.commit("dead", 10).await;
    let next = s.replica();
    assert_eq!(next.shared(3).pass().await.unwrap().published, 0);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_lasts_has_few_lines_and_one_when_it_is_over() {
    let (lines, _guard) = Lines::listen();
    let s = Scene::new();
    s.bus.refuse("");
    s.commit_keys("k", 3000).await;
    let relay = s.relay().start();
    sleep(20 * SECOND).await;
    let first = lines.all();
    assert_eq!(first.len(), 1, "{first:?}");
    assert!(first[0].starts_with("WARN") && first[0].contains("key=\"k0\""));
    sleep(80 * SECOND).await;
    let later = lines.all();
    assert_eq!(later.len(), 4, "{later:?}");
    assert!(later[3].contains("the bus is away"), "{later:?}");
    let waiting = later[3].split("waiting=").nth(1).unwrap();
    let waiting: usize = waiting.split(' ').next().unwrap().parse().unwrap();
    assert!((2500..=3500).contains(&waiting), "{waiting}");
    s.bus.refuse_nothing();
    s.until_pending(0, 30 * SECOND).await;
    sleep(60 * SECOND).await;
    let all = lines.all();
    assert_eq!(all.len(), 5, "{all:?}");
    assert!(all[4].starts_with("INFO") && all[4].contains("takes all events again"));
    assert!(!all.iter().any(|line| line.contains("payload")));
    relay.stop().await;
}

#[tokio::test]
async fn one_pass_publishes_all_events_of_a_key_however_many() {
    let s = Scene::new();
    for n in 0..2000 {
        s.commit("hot", n).await;
    }
    s.commit_keys("k", 2000).await;
    let report = s.relay().pass().await.unwrap();
    assert_eq!((report.published, report.failed), (4000, 0));
    assert_eq!(s.bus.payloads("hot"), numbers(0..2000));
}
