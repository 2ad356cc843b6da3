//! Who may work, and when somebody else may.

use std::time::Duration;

use super::*;
use crate::application::Lease;
use crate::domain::Timestamp;
use crate::ports::{Clock, DeleteOptions, Key, Kind, PutOptions};

const LENGTH: Duration = Duration::from_secs(3);

fn lease(f: &Fixture, seed: u64) -> Lease {
    let entropy = SeededEntropy::new(seed);
    Lease::new(f.store.clone(), "work", LENGTH, f.clock.clone(), &entropy).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_first_holds_it_and_the_second_waits() {
    let f = fixture();
    let (mut one, mut two) = (lease(&f, 1), lease(&f, 2));
    for _ in 0..20 {
        assert!(one.hold().await.unwrap());
        assert!(!two.hold().await.unwrap());
        tokio::time::advance(LENGTH / 2).await;
    }
    assert!(one.is_held() && !two.is_held());
}

#[tokio::test(start_paused = true)]
async fn a_silent_holder_knows_that_its_time_is_over_before_it_is_replaced() {
    let f = fixture();
    let (mut one, mut two) = (lease(&f, 1), lease(&f, 2));
    assert!(one.hold().await.unwrap());
    assert!(!two.hold().await.unwrap());
    tokio::time::advance(LENGTH).await;
    assert!(!one.is_held());
    assert!(!two.hold().await.unwrap(), "one length is too early");
    tokio::time::advance(LENGTH).await;
    assert!(two.hold().await.unwrap());
    assert!(!one.hold().await.unwrap(), "it was replaced");
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_free_at_once() {
    let f = fixture();
    let (mut one, mut two) = (lease(&f, 1), lease(&f, 2));
    assert!(one.hold().await.unwrap());
    one.release().await.unwrap();
    assert!(two.hold().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn one_that_was_replaced_releases_nothing() {
    let f = fixture();
    let (mut one, mut two) = (lease(&f, 1), lease(&f, 2));
    assert!(one.hold().await.unwrap());
    assert!(!two.hold().await.unwrap());
    tokio::time::advance(2 * LENGTH).await;
    assert!(two.hold().await.unwrap());
    one.release().await.unwrap();
    assert!(!lease(&f, 3).hold().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_is_waited_for_like_another_holder() {
    let f = fixture();
    let key = Key::new(Kind::LEASE, "work");
    let put = f.store.put(&key, "garbage".into(), PutOptions::default());
    put.await.unwrap();
    let mut one = lease(&f, 1);
    assert!(!one.hold().await.unwrap());
    tokio::time::advance(2 * LENGTH).await;
    assert!(one.hold().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_suspended_machine_counts() {
    let f = fixture();
    let mut one = lease(&f, 1);
    assert!(one.hold().await.unwrap());
    f.clock.suspend(LENGTH);
    assert!(!one.is_held());
    assert_eq!((one.until(), one.token()), (None, None));
}

/// Each machine has its own clock, which is wrong in its own way.
#[tokio::test(start_paused = true)]
async fn wall_clocks_that_lie_do_no_harm_and_one_that_runs_fast_waits_less_only_by_that() {
    let f = fixture();
    let other = Arc::new(ManualClock::default());
    let entropy = SeededEntropy::new(2);
    let mut one = lease(&f, 1);
    let mut two = Lease::new(f.store.clone(), "work", LENGTH, other.clone(), &entropy).unwrap();
    assert!(one.hold().await.unwrap());
    for hours in [1000, -1000] {
        other.set(Timestamp::from_unix_micros(hours * 3_600_000_000));
        f.clock
            .set(Timestamp::from_unix_micros(-hours * 3_600_000_000));
        assert!(one.hold().await.unwrap() && one.is_held());
        assert!(!two.hold().await.unwrap());
    }
    // The machine of the second one sleeps: it cannot know what the first one did meanwhile.
    tokio::time::advance(LENGTH / 2).await;
    assert!(one.hold().await.unwrap());
    other.suspend(10 * LENGTH);
    assert!(!two.hold().await.unwrap(), "it was renewed");
    tokio::time::advance(LENGTH).await;
    assert!(!two.hold().await.unwrap(), "one length is too early");
}

#[tokio::test(start_paused = true)]
async fn its_time_counts_from_before_the_beat_was_sent() {
    let f = fixture();
    let mut one = lease(&f, 1);
    let before = f.clock.uptime();
    assert!(one.hold().await.unwrap());
    assert_eq!(one.until(), Some(before + LENGTH));
}

#[tokio::test(start_paused = true)]
async fn each_holder_has_a_greater_token_than_those_before_it() {
    let f = fixture();
    let mut last = 0;
    let mut seed = 0;
    let mut next = || {
        seed += 1;
        lease(&f, seed)
    };
    // Released, lost to another one, not renewed in time, deleted by hand.
    for how in 0..4 {
        let mut one = next();
        assert!(!matches!(how, 0) || one.hold().await.unwrap());
        while !one.hold().await.unwrap() {
            tokio::time::advance(LENGTH / 2).await;
        }
        let token = one.token().unwrap();
        assert!(token > last, "{token} after {last}");
        tokio::time::advance(LENGTH / 2).await;
        assert!(one.hold().await.unwrap());
        assert_eq!(one.token(), Some(token), "it was renewed");
        last = token;
        match how {
            0 => one.release().await.unwrap(),
            1 => drop(one),
            2 => {
                tokio::time::advance(2 * LENGTH).await;
                assert!(one.hold().await.unwrap());
                last = one.token().unwrap();
                assert!(last > token, "{last} after {token}");
            }
            _ => {
                let key = Key::new(Kind::LEASE, "work");
                let any = DeleteOptions::default();
                f.store.delete(&key, any).await.unwrap();
                f.clock.advance(Duration::from_secs(1));
                assert!(next().hold().await.unwrap());
                tokio::time::advance(2 * LENGTH).await;
            }
        }
    }
    assert!(!next().hold().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_record_of_the_version_before_is_understood() {
    let f = fixture();
    let key = Key::new(Kind::LEASE, "work");
    let old = r#"{"owner":"somebody","beat":7}"#;
    let put = f.store.put(&key, old.into(), PutOptions::default());
    put.await.unwrap();
    let mut one = lease(&f, 1);
    assert!(!one.hold().await.unwrap());
    tokio::time::advance(2 * LENGTH).await;
    assert!(one.hold().await.unwrap());
}
