//! Keys converted between the layouts, alone and under the hands of writers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adapters_direct::redis::{Converted, RedisLayout, RedisStateStore};
use task_core::ports::{ErrorKind, Key, Kind, PutOptions, StateStore, WriteMode};
use task_tests::process::RedisServer;
use task_tests::wait::until;

use super::{BOTH, ask, bury, everything, open, put, read, task, value};

fn other(layout: RedisLayout) -> RedisLayout {
    match layout {
        RedisLayout::Legacy => RedisLayout::Dapr,
        RedisLayout::Dapr => RedisLayout::Legacy,
    }
}

fn name_of(layout: RedisLayout, id: &str) -> String {
    match layout {
        RedisLayout::Legacy => format!("task:{id}"),
        RedisLayout::Dapr => format!("task-api||task-{id}"),
    }
}

#[tokio::test]
async fn a_key_changes_its_form_with_its_limit_and_back() {
    for from in BOTH {
        let address = RedisServer::shared().await.next_database_url();
        let (redis, to) = (open(&address, from).await, other(from));
        let (store, converter) = (redis.state_store(), redis.converter());
        let seen = Key::new(Kind::SEEN, "group/7");
        let limited = PutOptions {
            mode: WriteMode::Overwrite,
            ttl: Some(Duration::from_secs(1_000)),
        };
        store
            .put(&task("limited"), "l".into(), limited)
            .await
            .unwrap();
        store
            .put(&seen, "s".into(), PutOptions::default())
            .await
            .unwrap();
        put(
            &store,
            "lasting",
            "{\"n\":12345678901234567890123,\"a\":[]}",
            WriteMode::Create,
        )
        .await
        .unwrap();
        let keys = [task("limited"), task("lasting"), seen];
        let before = everything(&address).await;
        for (turn, to) in [(1, to), (2, from)] {
            for key in &keys {
                let done = converter.convert(key, to).await.unwrap();
                assert_eq!(done, Converted::Done, "{key}, turn {turn}");
                let again = converter.convert(key, to).await.unwrap();
                assert_eq!(again, Converted::AlreadyThere, "{key}, turn {turn}");
            }
            assert_eq!(everything(&address).await.len(), keys.len());
            let store = open(&address, to).await.state_store();
            let found = store.get_many(&keys).await.unwrap();
            let values: Vec<_> = found
                .into_iter()
                .map(|found| found.unwrap().value)
                .collect();
            assert_eq!(
                values,
                ["l", "{\"n\":12345678901234567890123,\"a\":[]}", "s"]
            );
            let left: i64 = ask(&address, &["PTTL", &name_of(to, "limited")]).await;
            assert!((900_000..=1_000_000).contains(&left), "{left} ms");
            assert_eq!(
                ask::<i64>(&address, &["PTTL", &name_of(to, "lasting")]).await,
                -1
            );
        }
        if from == RedisLayout::Legacy {
            assert_eq!(everything(&address).await, before);
        }
        let missing = converter.convert(&task("missing"), to).await.unwrap();
        assert_eq!(missing, Converted::Missing);
    }
}

#[tokio::test]
async fn a_tombstone_is_converted_and_still_refuses() {
    for from in BOTH {
        let address = RedisServer::shared().await.next_database_url();
        let (redis, to) = (open(&address, from).await, other(from));
        let store = redis.state_store();
        store
            .delete(&task("short"), bury(Duration::from_secs(1_000)))
            .await
            .unwrap();
        store
            .delete(&task("ever"), bury(Duration::MAX))
            .await
            .unwrap();
        let before = everything(&address).await;
        for to in [to, from] {
            for id in ["short", "ever"] {
                let done = redis.converter().convert(&task(id), to).await.unwrap();
                assert_eq!(done, Converted::Done, "{id}");
                let store = open(&address, to).await.state_store();
                assert_eq!(value(&store, id).await, None);
                let create = put(&store, id, "x", WriteMode::Create).await;
                assert!(create.unwrap_err().is_conflict(), "{id}");
            }
        }
        let after = everything(&address).await;
        let limits = |found: &std::collections::BTreeMap<String, (String, redis::Value, bool)>| {
            let limits = found
                .iter()
                .map(|(name, (_, _, expires))| (name.clone(), *expires));
            limits.collect::<Vec<_>>()
        };
        assert_eq!(limits(&after), limits(&before));
    }
}

#[tokio::test]
async fn two_forms_that_differ_are_a_conflict_and_stay() {
    for to in BOTH {
        let address = RedisServer::shared().await.next_database_url();
        let redis = open(&address, to).await;
        let there = redis.state_store();
        let old = open(&address, other(to)).await.state_store();
        for id in ["differs", "same", "buried", "unburied"] {
            put(&there, id, "same", WriteMode::Create).await.unwrap();
            put(&old, id, "same", WriteMode::Create).await.unwrap();
        }
        put(&old, "differs", "other", WriteMode::Overwrite)
            .await
            .unwrap();
        there
            .delete(&task("buried"), bury(Duration::MAX))
            .await
            .unwrap();
        old.delete(&task("unburied"), bury(Duration::MAX))
            .await
            .unwrap();
        let converter = redis.converter();
        let before = everything(&address).await;
        for id in ["differs", "buried", "unburied"] {
            let both = converter.convert(&task(id), to).await.unwrap();
            assert_eq!(both, Converted::Conflict, "{id}");
        }
        assert_eq!(everything(&address).await, before);
        let same = converter.convert(&task("same"), to).await.unwrap();
        assert_eq!(same, Converted::Done);
        assert_eq!(value(&there, "same").await.as_deref(), Some("same"));
        assert_eq!(value(&old, "same").await, None);

        ask::<()>(&address, &["RPUSH", &name_of(other(to), "list"), "x"]).await;
        let corrupt = converter.convert(&task("list"), to).await.unwrap_err();
        assert_eq!(corrupt.kind(), ErrorKind::Corrupt);
    }
}

/// Counts a number up in one layout whenever it has that form; answers how often that was acknowledged.
async fn count(store: RedisStateStore, stop: Arc<AtomicBool>) -> u64 {
    let mut steps = 0;
    while !stop.load(Ordering::Relaxed) {
        let Some(seen) = read(&store, "n").await else {
            tokio::task::yield_now().await;
            continue;
        };
        let next = std::str::from_utf8(&seen.value)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            + 1;
        match put(&store, "n", &next.to_string(), WriteMode::Match(seen.etag)).await {
            Ok(_) => steps += 1,
            Err(error) => assert!(error.is_conflict(), "{error}"),
        }
    }
    steps
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_both_forms_lose_no_step_while_a_key_is_converted() {
    const TURNS: usize = 200;
    let address = RedisServer::shared().await.next_database_url();
    let redis = open(&address, RedisLayout::Legacy).await;
    put(&redis.state_store(), "n", "0", WriteMode::Create)
        .await
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for layout in [BOTH, BOTH].concat() {
        let store = open(&address, layout).await.state_store();
        writers.push(tokio::spawn(count(store, Arc::clone(&stop))));
    }
    let converter = redis.converter();
    for turn in 0..TURNS {
        let done = converter
            .convert(&task("n"), BOTH[(turn + 1) % 2])
            .await
            .unwrap();
        assert_eq!(done, Converted::Done, "turn {turn}");
        let form = name_of(BOTH[(turn + 1) % 2], "n");
        let before = everything(&address).await;
        assert_eq!(before.keys().collect::<Vec<_>>(), [&form]);
        // Lets writers of this form have a turn.
        until("a step in this form", async || {
            (everything(&address).await != before).then_some(())
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut steps = 0;
    for writer in writers {
        steps += writer.await.unwrap();
    }
    let last = open(&address, BOTH[TURNS % 2]).await.state_store();
    assert_eq!(value(&last, "n").await, Some(steps.to_string()));
}

#[tokio::test]
async fn a_value_that_the_other_layout_reserves_is_a_conflict_and_stays() {
    let address = RedisServer::shared().await.next_database_url();
    let converter = open(&address, RedisLayout::Legacy).await.converter();
    let reserved = [
        r#"{"a":1,"_pending":[{"op":"r-1.7","topic":"t","key":"k","data":"{}"}]}"#,
        "\0",
        "\0carried\u{1}cut short",
    ];
    let fine = [
        r#"{"title":"a","nested":{"_pending":[]}}"#,
        r#"{"title":"a","_pending":[]}"#,
        r#"{"title":"a","_pending":[{"id":"theirs"}]}"#,
        r#"{"title":"\"_pending\""}"#,
        "\0\0",
    ];
    let layout = RedisLayout::Dapr;
    let store = open(&address, layout).await.state_store();
    for value in reserved {
        // As the other layout has it, and as a string where a hash belongs.
        for name in [RedisLayout::Legacy, layout].map(|layout| name_of(layout, "7")) {
            ask::<()>(&address, &["SET", &name, value]).await;
            let before = everything(&address).await;
            let refused = converter.convert(&task("7"), layout).await.unwrap();
            assert_eq!(refused, Converted::Conflict, "{value:?} at {name}");
            assert_eq!(everything(&address).await, before, "{value:?} at {name}");
            ask::<()>(&address, &["DEL", &name]).await;
        }
    }
    for kept in fine {
        ask::<()>(&address, &["SET", "task:7", kept]).await;
        let done = converter.convert(&task("7"), layout).await.unwrap();
        assert_eq!(done, Converted::Done, "{kept:?}");
        assert_eq!(value(&store, "7").await.as_deref(), Some(kept));
        ask::<()>(&address, &["DEL", &name_of(layout, "7")]).await;
    }
}
