//! One commit, one step: what is refused leaves nothing, and what is done took one command.

use std::collections::BTreeMap;
use std::time::Duration;

use adapters_direct::redis::{Password, RedisLayout, RedisStateStore};
use bytes::Bytes;
use task_core::ports::{
    Commit, DeleteOptions, ErrorKind, Expect, Guard, PutOptions, StateStore, Write, WriteMode,
};
use task_tests::process::RedisServer;
use task_tests::process::redis::RedisOptions;

use super::{BOTH, ask, bury, config, event, everything, mode, put, put_write, store, task, value};

/// Everything that a commit can do, and then something else.
fn long_commit(last: Write) -> Commit {
    Commit::of(put_write("new", "x", WriteMode::Create))
        .write(put_write("there", "changed", WriteMode::Overwrite))
        .write(Write::Delete {
            key: task("gone"),
            options: bury(Duration::from_secs(60)),
        })
        .write(last)
        .event(event("phantom"))
}

async fn refuses(store: &RedisStateStore, address: &str, commit: Commit, kind: ErrorKind) {
    let before = everything(address).await;
    let error = store.commit(commit).await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert_eq!(everything(address).await, before, "{error}");
}

#[tokio::test]
async fn a_refused_commit_leaves_no_trace() {
    for layout in BOTH {
        let address = RedisServer::shared().await.next_database_url();
        let store = store(&address, layout).await;
        for id in ["there", "gone"] {
            put(&store, id, "old", WriteMode::Create).await.unwrap();
        }
        let stale = long_commit(put_write("there", "y", WriteMode::Create));
        refuses(&store, &address, stale, ErrorKind::Conflict).await;
        let fenced = long_commit(put_write("more", "y", WriteMode::Create)).guard(Guard {
            key: task("there"),
            expect: Expect::Absent,
        });
        refuses(&store, &address, fenced, ErrorKind::Fenced).await;

        let broken = match layout {
            RedisLayout::Legacy => "task:list",
            RedisLayout::Dapr => "task-api||task-list",
        };
        ask::<()>(&address, &["RPUSH", broken, "x"]).await;
        let corrupt = long_commit(put_write("list", "y", WriteMode::Overwrite));
        refuses(&store, &address, corrupt, ErrorKind::Corrupt).await;
        // The outbox, which is written first, is what fails.
        ask::<()>(&address, &["SET", "task-api:outbox", "x"]).await;
        let no_outbox = long_commit(put_write("more", "y", WriteMode::Create));
        refuses(&store, &address, no_outbox.clone(), ErrorKind::Corrupt).await;
        ask::<()>(&address, &["DEL", "task-api:outbox"]).await;
        store.commit(no_outbox).await.unwrap();
        assert_eq!(value(&store, "there").await.as_deref(), Some("changed"));
        assert_eq!(value(&store, "gone").await, None);
        let pending = store.pending(None, 10).await.unwrap();
        assert_eq!(pending[0].event, event("phantom"));
    }
}

#[tokio::test]
async fn a_commit_that_the_server_refuses_leaves_no_trace() {
    for layout in BOTH {
        let own = match layout {
            RedisLayout::Legacy => "~task:*",
            RedisLayout::Dapr => "~task-api||*",
        };
        let user = format!("narrow on >secret2 {own} +@all");
        let options = RedisOptions {
            password: Some("secret1".to_owned()),
            users: vec![user],
            ..RedisOptions::default()
        };
        let server = RedisServer::start_with(options).await;
        let address = server.url();
        let with = async |user: &str, password: &str| {
            let address = format!("redis://{user}@127.0.0.1:{}", server.port());
            let mut config = config(&address, layout);
            let password = task_core::ports::Secret::new(password);
            config.password = password.map(Password::Fixed);
            let opened = adapters_direct::redis::Redis::open(&config).await;
            opened.unwrap().state_store()
        };
        let everyone = with("default", "secret1").await;
        for id in ["there", "gone"] {
            put(&everyone, id, "old", WriteMode::Create).await.unwrap();
        }
        let narrow = with("narrow", "secret2").await;
        let commit = long_commit(put_write("more", "y", WriteMode::Create));
        refuses(&narrow, &address, commit.clone(), ErrorKind::Denied).await;

        ask::<()>(&address, &["CONFIG", "SET", "maxmemory", "1"]).await;
        refuses(&everyone, &address, commit, ErrorKind::Throttled).await;
        // What makes room is allowed.
        everyone
            .delete(&task("there"), DeleteOptions::default())
            .await
            .unwrap();
    }
}

/// How often each command came from outside since the last reset; those of scripts are counted apart.
async fn commands(address: &str) -> BTreeMap<String, u64> {
    let stats: String = ask(address, &["INFO", "commandstats"]).await;
    let mut counts = BTreeMap::new();
    for line in stats.lines() {
        let Some((name, rest)) = line
            .strip_prefix("cmdstat_")
            .and_then(|line| line.split_once(':'))
        else {
            continue;
        };
        let calls = rest
            .strip_prefix("calls=")
            .and_then(|rest| rest.split(',').next());
        counts.insert(name.to_owned(), calls.unwrap().parse().unwrap());
    }
    counts
}

#[tokio::test]
async fn each_operation_is_one_round_trip() {
    for layout in BOTH {
        let server = RedisServer::start().await;
        let address = server.url();
        let store = store(&address, layout).await;
        let etag = put(&store, "7", "one", WriteMode::Create).await.unwrap();
        ask::<()>(&address, &["CONFIG", "RESETSTAT"]).await;
        store.get(&task("7")).await.unwrap();
        let etag = put(&store, "7", "two", WriteMode::Match(etag))
            .await
            .unwrap();
        let commit = Commit::of(put_write("8", "x", WriteMode::Create)).event(event("one"));
        store.commit(commit).await.unwrap();
        let commit = Commit::of(put_write("7", "x", WriteMode::Match(etag)))
            .write(put_write("9", "x", WriteMode::Raise))
            .guard(Guard {
                key: task("0"),
                expect: Expect::Absent,
            })
            .event(event("two"));
        store.commit(commit).await.unwrap();
        store
            .delete(&task("7"), bury(Duration::from_secs(1)))
            .await
            .unwrap();
        store.check().await.unwrap();
        let pending = store.pending(None, 10).await.unwrap();
        assert_eq!(pending.len(), 2);
        let counts = commands(&address).await;
        let read = match layout {
            RedisLayout::Legacy => "get",
            RedisLayout::Dapr => "hmget",
        };
        let outside = |name: &str| counts.get(name).copied().unwrap_or_default();
        assert_eq!(outside("evalsha"), 4, "{counts:?}");
        assert_eq!(
            (outside("setrange"), outside("xrange"), outside("eval")),
            (1, 1, 0)
        );
        // One of ours, and one for each key that a script loads.
        let loaded = 5 + 1;
        assert_eq!(outside(read), 1 + loaded, "{counts:?}");
    }
}

#[tokio::test]
async fn a_server_that_forgot_the_scripts_gets_them_again() {
    for layout in BOTH {
        let server = RedisServer::start().await;
        let store = store(&server.url(), layout).await;
        for round in 0..3 {
            server.command(&["SCRIPT", "FLUSH"]).await;
            let commit = Commit::of(put_write("7", &round.to_string(), WriteMode::Overwrite));
            store.commit(commit.event(event("x"))).await.unwrap();
        }
        assert_eq!(store.pending(None, 10).await.unwrap().len(), 3);
    }
}

#[tokio::test]
async fn values_are_ordered_byte_by_byte_whatever_the_locale() {
    let address = RedisServer::shared().await.next_database_url();
    let store = store(&address, RedisLayout::Legacy).await;
    let long = |last: u8, length: usize| {
        let mut bytes = vec![b'a'; length];
        bytes.push(last);
        bytes
    };
    let mut values: Vec<Vec<u8>> = [
        "a", "B", "_", "ab", "aB", "a_", "\u{e4}", "z", "\u{f6}", "10", "9",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    values.extend([
        vec![0],
        vec![0, 0],
        vec![0xff],
        vec![0x7f],
        vec![0x80],
        vec![b'a', 0],
        vec![b'a', 0xff],
    ]);
    for length in [62, 63, 64, 65, 127, 128, 129, 1000] {
        values.extend([long(b'a', length), long(b'b', length), long(0xff, length)]);
    }
    for there in &values {
        store
            .put(
                &task("7"),
                Bytes::from(there.clone()),
                PutOptions::default(),
            )
            .await
            .unwrap();
        for most in &values {
            let guard = Guard {
                key: task("7"),
                expect: Expect::AtMost(Bytes::from(most.clone())),
            };
            let held = store.commit(Commit::default().guard(guard)).await.is_ok();
            assert_eq!(held, there <= most, "{there:?} at most {most:?}");
        }
    }
    // The same comparison decides what is raised.
    store
        .put(&task("8"), "\u{7f}".into(), mode(WriteMode::Raise))
        .await
        .unwrap();
    store
        .put(
            &task("8"),
            Bytes::from_static(&[0x80]),
            mode(WriteMode::Raise),
        )
        .await
        .unwrap();
    store
        .put(&task("8"), "Z".into(), mode(WriteMode::Raise))
        .await
        .unwrap();
    let raised = store.get(&task("8")).await.unwrap().unwrap();
    assert_eq!(raised.value.as_ref(), [0x80]);
}

#[tokio::test]
async fn a_malformed_place_or_cursor_is_invalid() {
    let address = RedisServer::shared().await.next_database_url();
    let store = store(&address, RedisLayout::Legacy).await;
    let place = task_core::ports::PendingId::new("first");
    let pending = store.pending(Some(place.clone()), 10).await.unwrap_err();
    assert_eq!(pending.kind(), ErrorKind::Invalid);
    let settled = store.settle(&[place]).await.unwrap_err();
    assert_eq!(settled.kind(), ErrorKind::Invalid);
    for cursor in ["", "7", "seen:7", "task:x"] {
        let page = store
            .scan(task("x").kind, Some(cursor.to_owned()), 10)
            .await;
        assert_eq!(page.unwrap_err().kind(), ErrorKind::Invalid, "{cursor}");
    }
}
