//! What lies between the adapter and the server: distance, connections cut inside a frame, an address that leads elsewhere.

use std::time::Duration;

use adapters_direct::redis::{Redis, RedisConfig, RedisLayout};
use task_core::ports::{ErrorKind, StateStore, WriteMode};
use task_tests::process::{Proxy, RedisServer, Way};
use task_tests::wait::until;

use super::outages::{Load, durable_server, nothing_is_lost};
use super::{BOTH, put, value};

fn through(proxy: &Proxy, layout: RedisLayout) -> RedisConfig {
    let mut config = RedisConfig::new(&format!("redis://127.0.0.1:{}", proxy.port()), layout);
    config.connect_timeout = Duration::from_secs(2);
    config.response_timeout = Duration::from_secs(2);
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_inside_a_frame_lose_nothing() {
    for layout in BOTH {
        let server = durable_server().await;
        let proxy = Proxy::to(server.port()).await;
        let redis = Redis::open(&through(&proxy, layout)).await.unwrap();
        let store = redis.state_store();
        let load = Load::begin(&store);
        for way in [Way::There, Way::Back] {
            let before = proxy.cuts();
            proxy.cut_every(way, 23);
            until("connections are cut", async || {
                (proxy.cuts() >= before + 20).then_some(())
            })
            .await;
            proxy.cut_every(way, 0);
            load.advances(100).await;
        }
        let told = load.end().await;
        let direct = super::store(&server.url(), layout).await;
        nothing_is_lost(&direct, &told).await;
    }
}

#[tokio::test]
async fn a_server_far_away_has_its_time_for_each_step_to_a_connection() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.port()).await;
    proxy.delay(Duration::from_millis(350));
    // Longer than one exchange, shorter than all of them.
    let mut config = through(&proxy, RedisLayout::Legacy);
    config.connect_timeout = Duration::from_millis(1_300);
    let store = Redis::open(&config).await.unwrap().state_store();
    put(&store, "7", "x", WriteMode::Create).await.unwrap();
    proxy.delay(Duration::from_millis(1_400));
    assert!(Redis::open(&config).await.is_err(), "each step has a limit");
}

#[tokio::test]
async fn a_failover_behind_the_address_is_followed() {
    for layout in BOTH {
        let (old, new) = (RedisServer::start().await, RedisServer::start().await);
        let proxy = Proxy::to(old.port()).await;
        let redis = Redis::open(&through(&proxy, layout)).await.unwrap();
        let store = redis.state_store();
        put(&store, "7", "before", WriteMode::Create).await.unwrap();
        // The connection that stands leads to what is a replica now.
        proxy.lead_to(new.port());
        let port = new.port().to_string();
        old.command(&["REPLICAOF", "127.0.0.1", &port]).await;
        let refused = put(&store, "7", "lost", WriteMode::Overwrite).await;
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        until("the new master is written", async || {
            put(&store, "7", "after", WriteMode::Overwrite).await.ok()
        })
        .await;
        assert_eq!(value(&store, "7").await.as_deref(), Some("after"));
        let direct = super::store(&new.url(), layout).await;
        assert_eq!(value(&direct, "7").await.as_deref(), Some("after"));
        // A replica is not taken, wherever the address leads.
        proxy.lead_to(old.port());
        new.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
            .await;
        let error = until("the replica is refused", async || store.check().await.err()).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
}
