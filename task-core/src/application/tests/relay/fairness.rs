//! What a relay does for some keys while others fail, recover or have much to do, on paused time.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::fakes::Lines;
use super::scene::{SECOND, Scene, numbers};

#[tokio::test(start_paused = true)]
async fn after_an_outage_all_events_are_published_soon_and_in_order() {
    let s = Scene::new();
    s.bus.refuse("");
    for n in 0..200 {
        for key in 0..500 {
            s.commit(&format!("k{key}."), n).await;
        }
    }
    let relay = s.relay().start();
    sleep(20 * SECOND).await;
    s.bus.refuse_nothing();
    s.until_pending(0, 12 * SECOND).await;
    for key in 0..500 {
        assert_eq!(s.bus.payloads(&format!("k{key}.")), numbers(0..200));
    }
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_with_very_many_events_is_read_about_once() {
    for pause in [Duration::ZERO, Duration::from_millis(1)] {
        let s = Scene::new();
        *s.bus.slow.lock().unwrap() = Some(("hot", pause));
        for n in 0..20_000 {
            s.commit("hot", n).await;
        }
        let relay = s.relay().start();
        s.until_pending(0, 60 * SECOND).await;
        let reads = s.store.reads.load(SeqCst);
        assert!(reads <= 600, "{reads} reads with {pause:?}");
        assert_eq!(s.bus.payloads("hot"), numbers(0..20_000));
        relay.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_key_with_very_many_events_does_not_hide_a_key_that_recovers_behind_them() {
    let s = Scene::new();
    s.bus.refuse("ill");
    *s.bus.slow.lock().unwrap() = Some(("hot", Duration::from_millis(4)));
    for n in 0..20_000 {
        s.commit("hot", n).await;
    }
    for n in 0..300 {
        s.commit("ill", n).await;
    }
    let relay = s.relay().start();
    sleep(2 * SECOND).await;
    s.bus.refuse_nothing();
    let recovered = async {
        while s.bus.payloads("ill").len() < 300 {
            sleep(SECOND / 10).await;
        }
    };
    timeout(30 * SECOND, recovered).await.expect("in time");
    s.until_pending(0, 300 * SECOND).await;
    assert_eq!(s.bus.payloads("ill"), numbers(0..300));
    assert_eq!(s.bus.payloads("hot"), numbers(0..20_000));
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_key_that_fails_for_long_is_not_told_of_as_a_bus_that_is_away() {
    let (lines, _guard) = Lines::listen();
    let s = Scene::new();
    s.bus.refuse("dead");
    s.commit("dead", 0).await;
    let relay = s.relay().start();
    sleep(600 * SECOND).await;
    let told = lines.all();
    assert!(told.len() >= 10, "{told:?}");
    let is_of_key = |line: &String| line.contains("key=\"dead\"");
    assert!(told.iter().all(is_of_key), "{told:?}");
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_loses_the_lease_does_not_say_that_the_bus_works_again() {
    let (lines, _guard) = Lines::listen();
    let s = Scene::new();
    s.bus.refuse("dead");
    s.commit_keys("dead", 10).await;
    let relay = s.shared(1).start();
    sleep(SECOND / 2).await;
    s.store.lease_fails.store(true, SeqCst);
    // They fail after 1.5 and 3.1 s. Between that another key works, and the lease runs out after 2 s.
    sleep(Duration::from_millis(1200)).await;
    s.commit("good", 0).await;
    sleep(10 * SECOND).await;
    let told = lines.all();
    assert!(
        told.iter().any(|line| line.contains("the lease")),
        "{told:?}"
    );
    assert!(told.iter().all(|line| line.starts_with("WARN")), "{told:?}");
    s.bus.refuse_nothing();
    s.store.lease_fails.store(false, SeqCst);
    s.until_pending(0, 5 * SECOND).await;
    relay.stop().await;
}

/// Order must hold where the tail is read while the sweep holds a key back.
#[tokio::test(start_paused = true)]
async fn what_comes_while_a_long_key_drains_stays_behind_what_was_there() {
    let s = Scene::new();
    *s.bus.slow.lock().unwrap() = Some(("slow", Duration::from_millis(2)));
    for n in 0..900 {
        s.commit("slow", n).await;
    }
    let relay = s.relay().start();
    for n in 900..1500 {
        sleep(Duration::from_millis(1)).await;
        s.commit("slow", n).await;
    }
    s.until_pending(0, 60 * SECOND).await;
    assert_eq!(s.bus.payloads("slow"), numbers(0..1500));
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_another_replica_commits_does_not_wait_for_a_sweep_past_failing_keys() {
    let one = Scene::new();
    let two = one.replica();
    one.bus.refuse("dead");
    one.commit_keys("dead", 5000).await;
    let relay = one.shared(1).start();
    sleep(10 * SECOND).await;
    for n in 0..5 {
        two.commit("good", n).await;
        two.until_pending(5000, SECOND / 2).await;
    }
    assert_eq!(one.bus.payloads("good"), numbers(0..5));
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_committed_while_reading_fails_is_read_as_soon_as_it_works() {
    let s = Scene::new();
    s.commit("k", 0).await;
    let relay = s.relay().start();
    s.until_pending(0, SECOND).await;
    // Soon after a sweep, so that the next one is most of a second away.
    sleep(Duration::from_millis(1050)).await;
    s.store.read_fails.store(true, SeqCst);
    s.commit("k", 1).await;
    sleep(Duration::from_millis(50)).await;
    s.store.read_fails.store(false, SeqCst);
    s.until_pending(0, Duration::from_millis(200)).await;
    relay.stop().await;
}

/// What was let go of is behind other keys when its key works again, and what is new is at the tail.
#[tokio::test(start_paused = true)]
async fn what_comes_when_a_key_recovers_stays_behind_what_was_let_go_of() {
    let s = Scene::new();
    s.bus.refuse("d");
    for n in 0..900 {
        s.commit("dead", n).await;
    }
    for n in 0..10 {
        s.commit("doomed", n).await;
    }
    let relay = s.relay().start();
    while !s.bus.refused.lock().unwrap().contains("doomed") {
        sleep(Duration::from_millis(1)).await;
    }
    s.bus.refuse("dead");
    // Nothing new is read of it before it works again.
    while s.bus.payloads("doomed").is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
    for n in 10..500 {
        s.commit("doomed", n).await;
        sleep(Duration::from_millis(1)).await;
    }
    s.until_pending(900, 20 * SECOND).await;
    assert_eq!(s.bus.payloads("doomed"), numbers(0..500));
    relay.stop().await;
}
