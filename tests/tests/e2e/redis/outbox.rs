//! Whose an outbox is, and what is written when the server has no memory left.

use std::sync::Arc;
use std::time::Duration;

use adapters_direct::redis::{KeyPrefix, Redis, RedisLayout};
use task_core::application::Lease;
use task_core::memory::SeededEntropy;
use task_core::ports::{
    Commit, ETag, ErrorKind, Event, Key, Kind, PendingId, StateStore, SystemClock, WriteMode,
};
use task_tests::process::RedisServer;

use super::{BOTH, config, event, mode, open, put, put_write};

async fn prefixed(address: &str, layout: RedisLayout, prefix: &str) -> Redis {
    let mut config = config(address, layout);
    config.key_prefix = KeyPrefix::parse(prefix);
    Redis::open(&config).await.unwrap()
}

async fn commit(store: &impl StateStore, id: &str, name: &str) {
    let commit = Commit::of(put_write(id, "x", WriteMode::Overwrite)).event(event(name));
    store.commit(commit).await.unwrap();
}

async fn pending(store: &impl StateStore) -> (Vec<PendingId>, Vec<Event>) {
    let pending = store.pending(None, 10).await.unwrap();
    pending.into_iter().map(|one| (one.id, one.event)).unzip()
}

async fn holds(redis: &Redis, seed: u64) -> bool {
    let leases = Arc::new(redis.lease_store());
    let (clock, entropy) = (Arc::new(SystemClock), SeededEntropy::new(seed));
    let lease = Lease::new(leases, "relay", Duration::from_secs(60), clock, &entropy);
    lease.unwrap().hold().await.unwrap()
}

#[tokio::test]
async fn services_with_prefixes_of_their_own_have_outboxes_of_their_own_with_one_lease_each() {
    let address = RedisServer::shared().await.next_database_url();
    for (seed, prefix) in (0..).zip(["task-api", "shop-a", "none"]) {
        let legacy = prefixed(&address, RedisLayout::Legacy, prefix).await;
        let dapr = prefixed(&address, RedisLayout::Dapr, prefix).await;
        let both = [legacy.state_store(), dapr.state_store()];
        for store in &both {
            commit(store, "7", prefix).await;
        }
        for store in &both {
            let (_, events) = pending(store).await;
            assert_eq!(events, [event(prefix), event(prefix)]);
        }
        assert!(holds(&legacy, seed).await);
        assert!(!holds(&dapr, 100 + seed).await);
    }
}

#[tokio::test]
async fn a_full_server_takes_leases_and_settlements_and_nothing_else() {
    let server = RedisServer::start().await;
    for layout in BOTH {
        let redis = open(&server.url(), layout).await;
        let (store, leases) = (redis.state_store(), redis.lease_store());
        commit(&store, "6", "waits").await;
        let lease = Key::new(Kind::LEASE, format!("{layout:?}"));
        let write = async |wanted| {
            let written = leases.put(&lease, "held".into(), mode(wanted)).await;
            written.map(|etag| etag.expect("a version"))
        };
        server.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
        let held = write(WriteMode::Create).await.unwrap();
        write(WriteMode::Match(held)).await.unwrap();
        let stale = WriteMode::Match(ETag::new("another"));
        let error = write(stale).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        let refused = put(&store, "7", "x", WriteMode::Overwrite).await;
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Throttled, "{error}");

        let (places, _) = pending(&store).await;
        assert_eq!(places.len(), 1);
        store.settle(&places).await.unwrap();
        assert_eq!(pending(&store).await.1, []);
        server.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    }
}
