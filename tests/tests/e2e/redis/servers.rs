//! Which servers are taken, and how one gets in.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adapters_direct::ClientCertificate;
use adapters_direct::redis::{
    OpenError, Password, Redis, RedisConfig, RedisLayout, RedisStateStore,
};
use async_trait::async_trait;
use task_core::ports::{
    ErrorKind, PortError, Secret, SecretName, SecretStore, StateStore, WriteMode,
};
use task_tests::process::RedisServer;
use task_tests::process::redis::{Encryption, RedisOptions};
use task_tests::wait::until;

use super::{BOTH, config, put, task, value};

async fn refused(config: &RedisConfig) -> OpenError {
    Redis::open(config).await.expect_err("it must be refused")
}

fn cause(error: OpenError) -> PortError {
    let shown = error.to_string();
    let OpenError::Failed { source, .. } = error else {
        panic!("not refused by the server: {shown}");
    };
    source
}

#[tokio::test]
async fn a_replica_is_refused_with_the_reason() {
    let (master, replica) = (RedisServer::start().await, RedisServer::start().await);
    let port = master.port().to_string();
    replica.command(&["REPLICAOF", "127.0.0.1", &port]).await;
    let error = refused(&config(&replica.url(), RedisLayout::Legacy)).await;
    assert!(matches!(error, OpenError::Unfit { .. }), "{error}");
    assert!(error.to_string().contains("replica"), "{error}");
}

#[tokio::test]
async fn a_server_that_becomes_a_replica_is_unavailable_until_it_is_none() {
    let (master, server) = (RedisServer::start().await, RedisServer::start().await);
    let store = super::store(&server.url(), RedisLayout::Dapr).await;
    put(&store, "7", "x", WriteMode::Create).await.unwrap();
    let port = master.port().to_string();
    server.command(&["REPLICAOF", "127.0.0.1", &port]).await;
    let error = put(&store, "8", "x", WriteMode::Create).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(error.outcome(), task_core::ports::Outcome::NotApplied);
    server.command(&["REPLICAOF", "NO", "ONE"]).await;
    put(&store, "8", "x", WriteMode::Create).await.unwrap();
}

#[tokio::test]
async fn a_server_that_refuses_writes_fails_the_check_and_says_why() {
    let (master, server) = (RedisServer::start().await, RedisServer::start().await);
    let port = master.port().to_string();
    for layout in BOTH {
        let store = super::store(&server.url(), layout).await;
        // A task may have any name, also that of the probe.
        put(&store, "probe", "x", WriteMode::Overwrite)
            .await
            .unwrap();
        for (refuse, accept, code) in [
            (
                &["REPLICAOF", "127.0.0.1", &port][..],
                &["REPLICAOF", "NO", "ONE"][..],
                "READONLY",
            ),
            (
                &["CONFIG", "SET", "maxmemory", "1"],
                &["CONFIG", "SET", "maxmemory", "0"],
                "OOM",
            ),
            (
                &["CONFIG", "SET", "min-replicas-to-write", "1"],
                &["CONFIG", "SET", "min-replicas-to-write", "0"],
                "NOREPLICAS",
            ),
        ] {
            until("it takes writes", async || store.check().await.ok()).await;
            server.command(refuse).await;
            let error = store.check().await.expect_err(code);
            assert!(error.to_string().contains(code), "{error}");
            let refused = put(&store, "8", "x", WriteMode::Overwrite).await;
            refused.expect_err("what the check says is true of writes");
            server.command(accept).await;
        }
        until("it takes writes", async || store.check().await.ok()).await;
        put(&store, "probe", "x", WriteMode::Overwrite)
            .await
            .unwrap();
        store.check().await.unwrap();
        assert_eq!(value(&store, "probe").await.as_deref(), Some("x"));
        server.command(&["FLUSHALL"]).await;
        store.check().await.unwrap();
        let keys = server.command(&["DBSIZE"]).await;
        assert_eq!(redis::from_redis_value::<u64>(keys).unwrap(), 0);
    }
}

#[tokio::test]
async fn a_cluster_is_refused_with_the_reason() {
    let options = RedisOptions {
        lines: vec!["cluster-enabled yes".to_owned()],
        ..RedisOptions::default()
    };
    let server = RedisServer::start_with(options).await;
    let error = refused(&config(&server.url(), RedisLayout::Dapr)).await;
    assert!(matches!(error, OpenError::Unfit { .. }), "{error}");
    assert!(error.to_string().contains("Cluster"), "{error}");
}

#[tokio::test]
async fn a_wrong_or_missing_password_is_denied_and_the_right_one_is_not() {
    let options = RedisOptions {
        password: Some("secret1".to_owned()),
        users: vec!["service on >secret2 ~* +@all -@dangerous -config".to_owned()],
        ..RedisOptions::default()
    };
    let server = RedisServer::start_with(options).await;
    let place = format!("127.0.0.1:{}", server.port());
    for (address, password) in [
        (format!("redis://{place}"), None),
        (format!("redis://{place}"), Some("wrong")),
        (format!("redis://service@{place}/3"), Some("secret1")),
        (format!("redis://nobody@{place}"), Some("secret2")),
    ] {
        let mut config = config(&address, RedisLayout::Legacy);
        config.password = password.and_then(Secret::new).map(Password::Fixed);
        let error = cause(refused(&config).await);
        assert_eq!(
            error.kind(),
            ErrorKind::Denied,
            "{address} {password:?}: {error}"
        );
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
    // A user who may neither ask for INFO nor for CONFIG is served all the same.
    for layout in BOTH {
        let mut config = config(&format!("redis://service@{place}/3"), layout);
        config.password = Secret::new("secret2").map(Password::Fixed);
        let redis = Redis::open(&config).await.unwrap();
        let store = redis.state_store();
        assert_eq!(store.identity().await.unwrap(), None);
        put(&store, "7", "x", WriteMode::Create).await.unwrap();
        assert_eq!(value(&store, "7").await.as_deref(), Some("x"));
        assert_eq!(
            store
                .scan(task("7").kind, None, 9)
                .await
                .unwrap()
                .entries
                .len(),
            1
        );
        store.check().await.unwrap();
    }
}

/// A secret that changes, in a store that may fail.
#[derive(Debug)]
struct Changing(Mutex<Found>);

#[derive(Debug, Clone, Copy)]
enum Found {
    Is(&'static str),
    Fails(ErrorKind),
    NeverAnswers,
}

impl Changing {
    fn new(first: &'static str) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Found::Is(first))))
    }

    fn set(&self, found: Found) {
        *self.0.lock().unwrap() = found;
    }
}

#[async_trait]
impl SecretStore for Changing {
    async fn get(&self, _: &SecretName) -> Result<Secret, PortError> {
        let found = *self.0.lock().unwrap();
        match found {
            Found::Is(secret) => Ok(Secret::new(secret).unwrap()),
            Found::Fails(kind) => Err(PortError::new(kind, "test", "get")),
            Found::NeverAnswers => std::future::pending().await,
        }
    }
}

/// A server with a user whose password is `canary1`, and who asks this store for it.
async fn with_kept_password(secrets: &Arc<Changing>) -> (RedisServer, RedisConfig) {
    let options = RedisOptions {
        users: vec!["service on >canary1 ~* +@all".to_owned()],
        ..RedisOptions::default()
    };
    let server = RedisServer::start_with(options).await;
    let address = format!("redis://service@127.0.0.1:{}", server.port());
    let mut config = config(&address, RedisLayout::Legacy);
    config.password = Some(Password::Kept {
        store: Arc::clone(secrets) as _,
        name: SecretName::parse("redis/password").unwrap(),
    });
    (server, config)
}

/// What the store says each time when its connection was cut.
async fn cut_off(server: &RedisServer, store: &RedisStateStore) -> Result<(), PortError> {
    let connected = ["CLIENT", "KILL", "USER", "service"];
    server.command(&connected).await;
    let mut last = Ok(());
    for _ in 0..5 {
        last = store.check().await;
    }
    last
}

#[tokio::test]
async fn a_changed_password_is_an_outage_until_the_secret_has_changed_too() {
    let secrets = Changing::new("canary1");
    let (server, config) = with_kept_password(&secrets).await;
    let store = Redis::open(&config).await.unwrap().state_store();
    put(&store, "7", "before", WriteMode::Create).await.unwrap();
    let change = ["ACL", "SETUSER", "service", "resetpass", ">canary2"];
    server.command(&change).await;
    server.command(&["CLIENT", "KILL", "USER", "service"]).await;
    for _ in 0..5 {
        let error = until("it is refused", async || store.check().await.err()).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    secrets.set(Found::Is("canary2"));
    until("it is let in again", async || store.check().await.ok()).await;
    put(&store, "7", "after", WriteMode::Overwrite)
        .await
        .unwrap();
    // Who was never let in has a wrong password.
    secrets.set(Found::Is("wrong"));
    assert_eq!(cause(refused(&config).await).kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn a_store_of_secrets_that_is_away_takes_no_redis_with_it_that_it_has_opened_once() {
    let secrets = Changing::new("canary1");
    let (server, mut config) = with_kept_password(&secrets).await;
    config.connect_timeout = Duration::from_millis(300);
    let redis = Redis::open(&config).await.unwrap();
    let store = redis.state_store();
    for away in [
        Found::Fails(ErrorKind::Unavailable),
        Found::Fails(ErrorKind::Timeout),
        Found::NeverAnswers,
    ] {
        secrets.set(away);
        let still = cut_off(&server, &store).await;
        assert!(still.is_ok(), "{away:?}: {still:?}");
    }
    let shown = format!("{redis:?}");
    assert!(!shown.contains("canary"), "{shown}");
    // What the store does say counts, and so does what the server says of the one that is kept.
    secrets.set(Found::Fails(ErrorKind::NotFound));
    cut_off(&server, &store).await.expect_err("it has none");
    let change = ["ACL", "SETUSER", "service", "resetpass", ">canary2"];
    server.command(&change).await;
    secrets.set(Found::NeverAnswers);
    let error = cut_off(&server, &store).await.expect_err("not let in");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    secrets.set(Found::Is("canary2"));
    until("it is let in again", async || store.check().await.ok()).await;
    // Nothing is kept by who was never let in.
    secrets.set(Found::NeverAnswers);
    let error = cause(refused(&config).await);
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn a_user_who_could_end_a_script_in_its_middle_is_denied_at_once() {
    let options = RedisOptions {
        users: vec!["service on >secret2 ~* +@all -pexpire -xadd".to_owned()],
        ..RedisOptions::default()
    };
    let server = RedisServer::start_with(options).await;
    let address = format!("redis://service@127.0.0.1:{}", server.port());
    let mut config = config(&address, RedisLayout::Dapr);
    config.password = Secret::new("secret2").map(Password::Fixed);
    let error = cause(refused(&config).await);
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("pexpire, xadd"), "{error}");
}

#[tokio::test]
async fn the_identity_of_a_server_changes_with_its_restart() {
    let mut server = RedisServer::start().await;
    let redis = super::open(&server.url(), RedisLayout::Legacy).await;
    let store = redis.state_store();
    let first = store.identity().await.unwrap().unwrap();
    assert_eq!(store.identity().await.unwrap(), Some(first.clone()));
    server.restart().await;
    task_tests::wait::until("the store is back", async || store.check().await.ok()).await;
    assert_ne!(store.identity().await.unwrap(), Some(first));
}

fn encrypted(server: &RedisServer, ca_file: Option<PathBuf>) -> RedisConfig {
    let mut config = config(&server.tls_url(), RedisLayout::Dapr);
    config.ca_file = ca_file;
    config
}

#[tokio::test]
async fn tls_trusts_the_given_authority_and_nobody_else() {
    let server = |encryption| {
        RedisServer::start_with(RedisOptions {
            encryption,
            ..RedisOptions::default()
        })
    };
    let (open, mutual) = (
        server(Encryption::Server).await,
        server(Encryption::Mutual).await,
    );
    let authority = |server: &RedisServer| Some(server.certificates().authority());
    let trusted = encrypted(&open, authority(&open));
    let store = Redis::open(&trusted).await.unwrap().state_store();
    put(&store, "7", "x", WriteMode::Create).await.unwrap();
    assert_eq!(value(&store, "7").await.as_deref(), Some("x"));

    for stranger in [encrypted(&open, None), encrypted(&open, authority(&mutual))] {
        let error = cause(refused(&stranger).await);
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    }
    let without = encrypted(&mutual, authority(&mutual));
    // A server that hangs up may do so before one hears why.
    until("it is denied for want of a certificate", async || {
        let error = cause(refused(&without).await);
        (error.kind() == ErrorKind::Denied).then_some(())
    })
    .await;
    let mut with = without;
    with.client_certificate = Some(ClientCertificate {
        certificate: mutual.certificates().client_certificate(),
        key: mutual.certificates().client_key(),
    });
    let store = Redis::open(&with).await.unwrap().state_store();
    put(&store, "7", "x", WriteMode::Create).await.unwrap();

    let missing = encrypted(&open, Some("no-such.pem".into()));
    let error = refused(&missing).await;
    assert!(matches!(error, OpenError::Config(_)), "{error}");
    let problem = "ca_file cannot use no-such.pem";
    assert!(error.to_string().contains(problem), "{error}");
}

#[tokio::test]
async fn nobody_at_the_address_is_unavailable() {
    let mut server = RedisServer::start().await;
    server.kill();
    let error = cause(refused(&config(&server.url(), RedisLayout::Legacy)).await);
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error.to_string().contains(&server.port().to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn a_database_that_is_not_there_is_refused_with_the_reason() {
    let server = RedisServer::start().await;
    let place = format!("redis://127.0.0.1:{}/60000", server.port());
    let error = refused(&config(&place, RedisLayout::Dapr)).await;
    assert!(matches!(error, OpenError::Unfit { .. }), "{error}");
    assert!(
        error.to_string().contains("has no database 60000"),
        "{error}"
    );
}

#[tokio::test]
async fn who_speaks_tls_to_a_plain_port_or_the_other_way_round_is_told_so() {
    let plain = RedisServer::start().await;
    let encrypted_one = RedisServer::start_with(RedisOptions {
        encryption: Encryption::Server,
        ..RedisOptions::default()
    })
    .await;
    // A handshake is random bytes: a plain server may answer them, or wait for more.
    for _ in 0..4 {
        let address = format!("rediss://127.0.0.1:{}", plain.port());
        let mut tls = config(&address, RedisLayout::Dapr);
        tls.ca_file = Some(encrypted_one.certificates().authority());
        tls.connect_timeout = Duration::from_secs(1);
        let error = refused(&tls).await;
        assert!(matches!(error, OpenError::Unfit { .. }), "{error:?}");
        assert!(
            error.to_string().contains("it does not speak TLS"),
            "{error}"
        );
        let address = encrypted_one.tls_url().replace("rediss:", "redis:");
        let error = refused(&config(&address, RedisLayout::Dapr)).await;
        assert!(matches!(error, OpenError::Unfit { .. }), "{error:?}");
        assert!(error.to_string().contains("it speaks TLS"), "{error}");
    }
}
