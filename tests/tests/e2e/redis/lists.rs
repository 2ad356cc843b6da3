//! Kinds whose names are on a list are found without a look at anything else.

use std::time::Duration;

use adapters_direct::redis::{Converted, RedisLayout};
use bytes::Bytes;
use task_core::ports::{
    Commit, DeleteMode, DeleteOptions, ErrorKind, Key, Kind, PutOptions, StateStore, Write,
};
use task_tests::process::RedisServer;

use super::{BOTH, ask, everything, open, store};

const LISTED: Kind = Kind::listed("listed");

fn listed(id: &str) -> Key {
    Key::new(LISTED, id)
}

fn list_of(layout: RedisLayout) -> &'static str {
    match layout {
        RedisLayout::Legacy => "task-api:list:legacy:listed",
        RedisLayout::Dapr => "task-api:list:dapr:listed",
    }
}

fn put_listed(id: &str, value: &str) -> Write {
    Write::Put {
        key: listed(id),
        value: value.to_owned().into(),
        options: PutOptions::default(),
    }
}

async fn scanned(store: &impl StateStore) -> Vec<String> {
    let page = store.scan(LISTED, None, 100).await.unwrap();
    assert_eq!(page.next, None);
    let ids = page.entries.into_iter().map(|(key, _)| key.id.into());
    ids.collect()
}

/// Names that stand on the list, however few keys have a value.
async fn names_on(address: &str, layout: RedisLayout) -> u64 {
    ask(address, &["ZCARD", list_of(layout)]).await
}

/// How often a server has run a command.
async fn calls(server: &RedisServer, command: &str) -> u64 {
    let told = server.command(&["INFO", "commandstats"]).await;
    let told: String = redis::from_redis_value(told).unwrap();
    let beginning = format!("cmdstat_{command}:calls=");
    let calls = told
        .lines()
        .find_map(|line| line.strip_prefix(&*beginning)?.split(',').next());
    calls.map_or(0, |calls| calls.parse().unwrap())
}

#[tokio::test]
async fn a_listed_kind_is_found_among_many_keys_without_a_look_at_them() {
    let server = RedisServer::start().await;
    let fill = "for n = 1, 100000 do redis.call('SET', 'task:' .. n, '{}') end";
    server.command(&["EVAL", fill, "0"]).await;
    for layout in BOTH {
        let store = store(&server.url(), layout).await;
        let writes = (0..64).map(|n| put_listed(&n.to_string(), "x"));
        let commit = writes.fold(Commit::default(), Commit::write);
        store.commit(commit).await.unwrap();
        let before = calls(&server, "zrange").await;
        let mut from = None;
        let mut found = 0;
        for pages in 1.. {
            let page = store.scan(LISTED, from, 20).await.unwrap();
            found += page.entries.len();
            from = page.next;
            if from.is_none() {
                assert_eq!((pages, found), (4, 64));
                break;
            }
        }
        assert_eq!(calls(&server, "scan").await, 0);
        assert_eq!(calls(&server, "zrange").await - before, 4);
    }
}

#[tokio::test]
async fn what_has_ended_leaves_the_list_when_it_is_looked_at() {
    for layout in BOTH {
        let address = RedisServer::shared().await.next_database_url();
        let store = store(&address, layout).await;
        for id in ["a", "b", "c"] {
            store.commit(Commit::of(put_listed(id, "x"))).await.unwrap();
        }
        // As if its time were over, of which nobody is told.
        let name = match layout {
            RedisLayout::Legacy => "task-api:state:listed:b",
            RedisLayout::Dapr => "task-api||listed-b",
        };
        ask::<()>(&address, &["DEL", name]).await;
        assert_eq!(names_on(&address, layout).await, 3);
        assert_eq!(scanned(&store).await, ["a", "c"]);
        assert_eq!(names_on(&address, layout).await, 2);
        store
            .commit(Commit::of(put_listed("b", "y")))
            .await
            .unwrap();
        assert_eq!(scanned(&store).await, ["a", "b", "c"]);
    }
}

#[tokio::test]
async fn a_deletion_takes_a_name_off_its_list_and_leaves_others() {
    for layout in BOTH {
        let address = RedisServer::shared().await.next_database_url();
        let store = store(&address, layout).await;
        for id in ["any", "buried", "spared"] {
            store.commit(Commit::of(put_listed(id, "x"))).await.unwrap();
        }
        for (id, mode, tombstone) in [
            ("any", DeleteMode::Any, None),
            ("buried", DeleteMode::Any, Some(Duration::from_secs(60))),
            ("spared", DeleteMode::AtMost(Bytes::from_static(b"w")), None),
        ] {
            let options = DeleteOptions { mode, tombstone };
            store.delete(&listed(id), options).await.unwrap();
        }
        assert_eq!(names_on(&address, layout).await, 1);
        assert_eq!(scanned(&store).await, ["spared"]);
    }
}

#[tokio::test]
async fn a_list_that_is_something_else_refuses_a_write_as_a_whole() {
    for layout in BOTH {
        let address = RedisServer::shared().await.next_database_url();
        let store = store(&address, layout).await;
        ask::<()>(&address, &["SET", list_of(layout), "x"]).await;
        let before = everything(&address).await;
        let commit = Commit::of(super::put_write("7", "x", super::WriteMode::Create));
        let refused = store.commit(commit.write(put_listed("a", "x"))).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(everything(&address).await, before);
    }
}

#[tokio::test]
async fn a_converted_key_changes_its_list() {
    let address = RedisServer::shared().await.next_database_url();
    let redis = open(&address, RedisLayout::Legacy).await;
    let dapr = store(&address, RedisLayout::Dapr).await;
    let legacy = redis.state_store();
    legacy
        .commit(Commit::of(put_listed("a", "x")))
        .await
        .unwrap();
    for (to, [on_legacy, on_dapr]) in [
        (RedisLayout::Dapr, [&[][..], &["a"][..]]),
        (RedisLayout::Legacy, [&["a"], &[]]),
    ] {
        let done = redis.converter().convert(&listed("a"), to).await.unwrap();
        assert_eq!(done, Converted::Done);
        assert_eq!(scanned(&legacy).await, on_legacy);
        assert_eq!(scanned(&dapr).await, on_dapr);
        for (layout, expected) in [
            (RedisLayout::Legacy, on_legacy),
            (RedisLayout::Dapr, on_dapr),
        ] {
            let names = u64::try_from(expected.len()).unwrap();
            assert_eq!(names_on(&address, layout).await, names, "{layout:?}");
        }
    }
}
