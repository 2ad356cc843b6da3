//! The Redis state store against real servers and foreign clients.

mod commits;
mod conversion;
mod dapr;
mod lists;
mod network;
mod outages;
mod outbox;
mod replaced_service;
mod servers;

use std::collections::BTreeMap;
use std::time::Duration;

use adapters_direct::redis::{Redis, RedisConfig, RedisLayout, RedisStateStore};
use redis::{FromRedisValue, Value};
use task_core::ports::{
    DeleteMode, DeleteOptions, ETag, Event, Key, Kind, PortError, PutOptions, StateStore, Stored,
    Topic, Write, WriteMode,
};
use task_tests::process::redis::command;

const BOTH: [RedisLayout; 2] = [RedisLayout::Legacy, RedisLayout::Dapr];

/// Strings as the replaced service kept them, and hashes as Dapr did.
const STRINGS: &str = include_str!("../../fixtures/legacy-redis-strings.jsonl");
const HASHES: &str = include_str!("../../fixtures/dapr-redis-hashes.jsonl");

fn config(address: &str, layout: RedisLayout) -> RedisConfig {
    let mut config = RedisConfig::new(address, layout);
    // These tests share a busy machine; those of time limits set their own.
    config.connect_timeout = Duration::from_secs(10);
    config.response_timeout = Duration::from_secs(20);
    config
}

async fn open(address: &str, layout: RedisLayout) -> Redis {
    Redis::open(&config(address, layout)).await.unwrap()
}

async fn store(address: &str, layout: RedisLayout) -> RedisStateStore {
    open(address, layout).await.state_store()
}

fn task(id: &str) -> Key {
    Key::new(Kind::TASK, id)
}

fn event(name: &str) -> Event {
    Event {
        topic: Topic::new("task-events"),
        key: "t-1".into(),
        payload: name.to_owned().into(),
    }
}

fn mode(mode: WriteMode) -> PutOptions {
    PutOptions { mode, ttl: None }
}

fn put_write(id: &str, value: &str, write_mode: WriteMode) -> Write {
    Write::Put {
        key: task(id),
        value: value.to_owned().into(),
        options: mode(write_mode),
    }
}

fn bury(time: Duration) -> DeleteOptions {
    DeleteOptions {
        mode: DeleteMode::Any,
        tombstone: Some(time),
    }
}

async fn put(
    store: &RedisStateStore,
    id: &str,
    value: &str,
    write_mode: WriteMode,
) -> Result<ETag, PortError> {
    let value = value.to_owned().into();
    let etag = store.put(&task(id), value, mode(write_mode)).await?;
    Ok(etag.expect("Redis tells the version that it wrote"))
}

async fn read(store: &RedisStateStore, id: &str) -> Option<Stored> {
    store.get(&task(id)).await.unwrap()
}

async fn value(store: &RedisStateStore, id: &str) -> Option<String> {
    let stored = read(store, id).await?;
    Some(String::from_utf8(stored.value.to_vec()).unwrap())
}

/// One command in the database of an address, with its answer as a type.
async fn ask<T: FromRedisValue>(address: &str, words: &[&str]) -> T {
    redis::from_redis_value(command(address, words).await).unwrap()
}

/// Everything in a database: each key with its type, content and whether it expires.
async fn everything(address: &str) -> BTreeMap<String, (String, Value, bool)> {
    let mut found = BTreeMap::new();
    for name in ask::<Vec<String>>(address, &["KEYS", "*"]).await {
        let kind: String = ask(address, &["TYPE", &name]).await;
        let content = match kind.as_str() {
            "string" => command(address, &["GET", &name]).await,
            "hash" => command(address, &["HGETALL", &name]).await,
            "set" => command(address, &["SMEMBERS", &name]).await,
            "zset" => command(address, &["ZRANGE", &name, "0", "-1"]).await,
            "stream" => command(address, &["XRANGE", &name, "-", "+"]).await,
            _ => command(address, &["LRANGE", &name, "0", "-1"]).await,
        };
        let expires = ask::<i64>(address, &["PTTL", &name]).await >= 0;
        found.insert(name, (kind, content, expires));
    }
    found
}
