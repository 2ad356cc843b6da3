//! Who may work, and when somebody else may.

use std::time::Duration;

use super::*;
use crate::application::Lease;
use crate::ports::{Key, Kind, PutOptions};

const LENGTH: Duration = Duration::from_secs(3);

fn lease(f: &Fixture, seed: u64) -> Lease {
    let entropy = SeededEntropy::new(seed);
    Lease::new(f.store.clone(), "work", LENGTH, &entropy).unwrap()
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
