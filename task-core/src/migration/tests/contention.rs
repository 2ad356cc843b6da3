//! Many writers of one record while the new side decides: each is heard, and nobody is sent away.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::future::join_all;

use super::scene::{CALM, Replica, Scene, task};
use crate::migration::{ParallelStateStore, Stage};
use crate::ports::{ErrorKind, PortError, PutOptions, StateStore, WriteMode};

/// How often each writer counts the record up.
const STEPS: u64 = 20;

/// Counts up, and tries again where another one was faster.
async fn count_up(store: Arc<ParallelStateStore>) -> Result<(), PortError> {
    let key = task(1);
    for _ in 0..STEPS {
        loop {
            let found = store.get(&key).await?.expect("it is never deleted");
            let text = std::str::from_utf8(&found.value).expect("a number");
            let next = text.parse::<u64>().expect("a number") + 1;
            let options = PutOptions {
                mode: WriteMode::Match(found.etag),
                ttl: None,
            };
            match store
                .put(&key, Bytes::from(next.to_string()), options)
                .await
            {
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

async fn all_count(seed: u64, replicas: u64, writers: u64) {
    let scene = Scene::new(seed);
    let first = scene.begun().await;
    scene.put(&scene.old, &task(1), "0").await;
    first.go(Stage::DualWrite).await;
    let _ = first.store.sync(&task(1)).await.expect("memory");
    first.go(Stage::RampDown).await;
    let mut all: Vec<Replica> = vec![first];
    for _ in 1..replicas {
        let replica = scene.replica([CALM, CALM]);
        replica.member.adopted_after(0).await;
        all.push(replica);
    }
    for replica in &all {
        // Their calls take a while, and none fails.
        replica.old.is_healthy.store(false, Ordering::Relaxed);
        replica.new.is_healthy.store(false, Ordering::Relaxed);
    }
    let counting = all.iter().flat_map(|replica| {
        (0..writers).map(|_| tokio::spawn(count_up(Arc::clone(&replica.store))))
    });
    for counted in join_all(counting).await {
        let counted = counted.expect("no panic");
        assert!(counted.is_ok(), "seed {seed}: {counted:?}");
    }
    for side in [&scene.old, &scene.new] {
        let found = side.get(&task(1)).await.expect("memory").expect("there");
        let total = replicas * writers * STEPS;
        assert_eq!(found.value, total.to_string(), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn writers_of_one_record_in_one_replica_are_not_sent_away() {
    for seed in 700..704 {
        all_count(seed, 1, 8).await;
    }
}

#[tokio::test(start_paused = true)]
async fn writers_of_one_record_in_several_replicas_are_not_sent_away() {
    for seed in 710..714 {
        all_count(seed, 3, 4).await;
    }
}
